/**
 * `--adopt`: a lineage whose journal or index is lost goes on. The index is built again from what the bucket holds, every
 * object verified on the way as in a restore; the difference that follows publishes only what the database has changed.
 */
import { RestoreError } from "../errors.ts";
import type { Runtime } from "../runtime/types.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { readHistory, segmentPoints } from "./history.ts";
import { removeJournal } from "./journal.ts";
import { ownerOf, readState } from "./lineage.ts";
import { PageIndex } from "./page_index.ts";
import { planRestore } from "./plan.ts";
import type { Head } from "./resume.ts";
import type { Spool } from "./spool.ts";
import { type ChangesetSink, ChangesetWalk, type VerifiedChangeset } from "./walk.ts";

const parallel = 4;

/** A lineage that goes on without its journal. */
export interface Adopted {
  readonly lineage: string;
  readonly index: PageIndex;
  /** Head in the bucket. */
  readonly published: Head;
  /** Newest complete snapshot. */
  readonly snapshot: { readonly seq: bigint; readonly createdMs: number };
  /** Bytes read from the bucket. */
  readonly bytes: number;
}

/** What {@linkcode adoptLineage} needs. */
export interface AdoptOptions {
  readonly store: ObjectStore;
  readonly root: string;
  /** State directory. */
  readonly directory: string;
  readonly runtime: Pick<Runtime, "files" | "random" | "sha256">;
  readonly spool: Spool;
  /** Page size of the database, bytes. */
  readonly pageSize: number;
}

/**
 * Builds the index of the active lineage; `null` where the bucket has none. Throws `RestoreError` where it cannot be
 * continued, `IntegrityError` where an object on the way is damaged.
 */
export async function adoptLineage(options: AdoptOptions): Promise<Adopted | null> {
  const { store, root, directory, runtime, spool, pageSize } = options;
  const { state } = await readState(store, root);
  const owner = ownerOf(state);
  if (owner === null) return null;
  if (state.claim !== null) throw refusal(root, `lineage ${state.claim} has just begun and has no snapshot yet`);
  const history = await readHistory(store, root);
  const segment = history.segments.find(({ lineage }) => lineage === owner);
  if (segment === undefined || !segment.own) throw refusal(root, `lineage ${owner} was written by another program`);
  const head = segmentPoints(segment).at(-1);
  if (head === undefined) throw refusal(root, `lineage ${owner} has no snapshot`);
  // From here on the old journal would vouch for an index that is being built.
  removeJournal(runtime.files, directory);
  spool.clear();
  const index = PageIndex.create(runtime.files, `${directory}/pages.idx`, { lineage: owner, pageSize, ...runtime });
  try {
    const plan = planRestore(segment, head.max);
    const sink = new IndexSink(index, root);
    const walk = new ChangesetWalk({ store, root, plan, sha256: runtime.sha256, parallel }, sink);
    const { chain, createdMs, pageCount } = await walk.run();
    const snapshot = { seq: plan.snapshot.max, createdMs: sink.snapshotMs };
    return {
      lineage: owner,
      index,
      published: { seq: plan.seq, chain, createdMs, pageCount },
      snapshot,
      bytes: plan.bytes,
    };
  } catch (error) {
    index.close();
    throw error;
  }
}

/** Keeps of each page what the index keeps. */
class IndexSink implements ChangesetSink {
  readonly #index: PageIndex;
  readonly #root: string;
  snapshotMs = 0;

  constructor(index: PageIndex, root: string) {
    this.#index = index;
    this.#root = root;
  }

  pages(first: number, bytes: Uint8Array, pageSize: number): void {
    if (pageSize !== this.#index.pageSize) throw refusal(this.#root, "it has another page size than the database");
    this.#index.writePages(first, bytes);
  }

  end({ object, header, pageCount }: VerifiedChangeset): void {
    if (object.kind === "snapshot") this.snapshotMs = header.createdMs;
    this.#index.truncate(pageCount);
  }

  imageDigest(): Uint8Array {
    throw new Error("assertion failed: lineages of ours have no holes");
  }
}

function refusal(root: string, reason: string): RestoreError {
  return new RestoreError("cannot_adopt", `${root} cannot be adopted: ${reason}`, {
    hint: "without --adopt a new lineage begins with a snapshot, and the history before it stays restorable",
    data: { root, reason },
  });
}
