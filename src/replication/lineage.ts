/**
 * The pointer to the active lineage (`state.json`), swapped with compare-and-swap, and the start of a lineage.
 * A new lineage is claimed first and becomes active with its first snapshot: until then readers restore the parent.
 */
import { IntegrityError } from "../errors.ts";
import {
  type LineageDocument,
  parseState,
  renderLineage,
  renderState,
  type StateDocument,
} from "../format/documents.ts";
import { lineagePrefix, parseKey, renderKey, seqHex } from "../format/keys.ts";
import type { ObjectInfo, ObjectStore } from "../storage/object_store.ts";
import { version } from "../version.ts";
import { type DocumentPlace, readVersion, swapDocument } from "./document_swap.ts";
import { stateMissing } from "./engine_failure.ts";
import { lastSeqOf } from "./inventory.ts";

const stateSizeMax = 64 * 1024;

const emptyState: StateDocument = {
  lineageId: null,
  claim: null,
  currentSeq: null,
  dbChecksum: null,
  lastSnapshot: null,
};

/** What `state.json` says and the etag to swap it by; `etag` is `null` when it is absent. */
export interface ActiveState {
  readonly state: StateDocument;
  readonly etag: string | null;
}

function statePlace(root: string): DocumentPlace<StateDocument> {
  const key = renderKey(root, { kind: "state" });
  return { key, sizeMax: stateSizeMax, parse: parseState, render: renderState, absent: emptyState };
}

/** Reads `state.json`; absent is an empty state. */
export async function readState(store: ObjectStore, root: string, signal?: AbortSignal): Promise<ActiveState> {
  const { document, etag } = await readVersion(store, statePlace(root), signal);
  return { state: document, etag };
}

/** The lineage that may write: the one that claims the prefix, else the active one; `null` where there is none. */
export function ownerOf(state: StateDocument): string | null {
  return state.claim ?? state.lineageId;
}

/** Throws `IntegrityError` (`fenced`) when another lineage is active or claimed, `StorageError` when none is. */
export function assertOwner(state: StateDocument, root: string, lineage: string): void {
  const owner = ownerOf(state);
  if (owner === lineage) return;
  if (owner === null) throw stateMissing(root);
  throw new IntegrityError(
    "fenced",
    `another writer took over ${root}: lineage ${owner} is active, ours is ${lineage}`,
    {
      hint: "only one walrust may write to a prefix: stop one of them, or give each its own prefix",
      data: { root, lineage, other: owner },
    },
  );
}

/** Objects of a lineage with a seq of at least `from`: deltas, snapshots and levels, in the store's key order. */
export async function listLineage(
  store: ObjectStore,
  root: string,
  lineage: string | null,
  from: bigint,
  signal?: AbortSignal,
): Promise<{ info: ObjectInfo; pool: "delta" | "snapshot" | "level"; min: bigint; max: bigint }[]> {
  const found = [];
  const prefix = lineagePrefix(root, lineage);
  for (const pool of ["0000/", "0001/", "levels/"]) {
    // Of years of deltas only the newest are of interest. Merged ones are few, and a range may begin earlier.
    const bounded = from > 0n && pool !== "levels/";
    const startAfter = bounded ? `${prefix}${pool}${seqHex(from - 1n)}.hadbp` : undefined;
    for await (const info of store.list(`${prefix}${pool}`, { signal, startAfter })) {
      const key = parseKey(root, info.key);
      if (key === null) continue;
      if (key.kind === "level" && key.max >= from) found.push({ info, pool: key.kind, min: key.min, max: key.max });
      if ((key.kind === "delta" || key.kind === "snapshot") && key.seq >= from) {
        found.push({ info, pool: key.kind, min: key.seq, max: key.seq });
      }
    }
  }
  return found;
}

/** A lineage that has just been claimed. */
export interface ClaimedLineage {
  readonly lineage: string;
  /** Seq before its first object. */
  readonly parentSeq: bigint;
}

/**
 * Claims a new lineage: head of the parent, `lineage.json`, then the claim in `state.json`.
 * The parent is the active lineage, or the bare layout where objects lie there.
 */
export async function claimLineage(
  store: ObjectStore,
  root: string,
  options: { lineage: string; createdMs: number; pageSize: number; signal?: AbortSignal },
): Promise<ClaimedLineage> {
  const { lineage, signal } = options;
  const { state } = await readState(store, root, signal);
  const objects = await listLineage(store, root, state.lineageId, 0n, signal);
  const head = lastSeqOf(objects);
  const parent = objects.length === 0 ? null : state.lineageId ?? "bare";
  const document: LineageDocument = {
    parent,
    parentSeq: parent === null ? null : head,
    createdMs: options.createdMs,
    pageSize: options.pageSize,
    writer: `walrust/${version}`,
  };
  await store.put(renderKey(root, { kind: "lineage", lineage }), renderLineage(document), { ifAbsent: true, signal });
  await swapDocument(store, statePlace(root), (current) => ({ ...current, claim: lineage }), signal);
  return { lineage, parentSeq: parent === null ? 0n : head };
}

/** Points `state.json` at our newest complete snapshot, and at our lineage if it was only claimed before. */
export async function pointAtSnapshot(
  store: ObjectStore,
  root: string,
  snapshot: { lineage: string; seq: bigint; rawHash: bigint; createdMs: number },
  signal?: AbortSignal,
): Promise<void> {
  const { lineage } = snapshot;
  await swapDocument(store, statePlace(root), (state) => {
    assertOwner(state, root, lineage);
    return {
      lineageId: lineage,
      claim: null,
      currentSeq: snapshot.seq,
      dbChecksum: snapshot.rawHash,
      lastSnapshot: new Date(snapshot.createdMs).toISOString(),
    };
  }, signal);
}
