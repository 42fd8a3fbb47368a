/**
 * The history of one database: the active lineage and its parents, each cut where the next one forked off.
 * Seqs are unambiguous along it, because a lineage begins at parent_seq + 1.
 */
import { IntegrityError, RestoreError } from "../errors.ts";
import { parseState, type StateDocument } from "../format/documents.ts";
import { type ChangesetHeader, decodeHeader } from "../format/hadbp.ts";
import { renderKey } from "../format/keys.ts";
import { getBytes, type ObjectStore } from "../storage/object_store.ts";
import {
  detectLayout,
  type Layout,
  layoutNames,
  type LineageObjects,
  listLineages,
  objectKey,
  type PoolObject,
  readDocument,
  readLineage,
  type ReadOptions,
} from "./inventory.ts";
import { assertOwnHeader } from "./object_reader.ts";

/** A lineage as far as it belongs to the history. */
export interface Segment extends LineageObjects {
  /** True when this program wrote it: every seq of `0000/` must be there, created_ms never decreases. */
  readonly own: boolean;
  /** First seq that belongs to it. */
  readonly from: bigint;
  /** Last seq that belongs to it; null in the newest. */
  readonly through: bigint | null;
}

/** What {@linkcode readHistory} returns. */
export interface History {
  /** `${prefix}${name}/` */
  readonly root: string;
  /** Null when nothing is there. */
  readonly layout: Layout | null;
  /** `state.json`; null when there is none that can be read. */
  readonly state: StateDocument | null;
  /** Newest first; empty when nothing is there. */
  readonly segments: Segment[];
  /** Lineages below the root that are no part of this history. */
  readonly otherLineages: string[];
  /** What the user should know, in words. */
  readonly warnings: string[];
}

/** A chain of parents longer than this is refused: nobody restarts a lineage so often, a hostile bucket may. */
const segmentsMax = 1000;

/** Reads what is stored of the database at `root`; throws `RestoreError` for a layout that is not walrust's. */
export async function readHistory(
  store: ObjectStore,
  root: string,
  options: ReadOptions = {},
): Promise<History> {
  const warnings: string[] = [];
  const state = await readState(store, root, warnings, options);
  const lineages = await listLineages(store, root, options);
  const cache = new Map<string | null, LineageObjects>();
  const lineageOf = async (lineage: string | null): Promise<LineageObjects> => {
    let objects = cache.get(lineage);
    if (objects === undefined) {
      objects = await readLineage(store, root, lineage, options);
      warnings.push(...objects.warnings);
      cache.set(lineage, objects);
    }
    return objects;
  };

  const head = await headLineage(state, lineages, lineageOf, warnings);
  const segments: Segment[] = [];
  const visited = new Set<string | null>();
  let next: string | null | undefined = head;
  let through: bigint | null = null;
  while (next !== undefined) {
    if (visited.has(next) || segments.length >= segmentsMax) {
      warnings.push(
        `the chain of parent lineages is circular or too long at ${next ?? "bare"}; older history is left out`,
      );
      break;
    }
    visited.add(next);
    const segment: Segment = cutSegment(await lineageOf(next), through);
    if (!isEmpty(segment) || segment.document !== null) segments.push(segment);
    const parent: string | null | undefined = segment.document?.parent;
    if (parent === null || parent === undefined) break;
    through = segment.from - 1n;
    next = parent === "bare" ? null : parent;
  }
  let layout: Layout | null = segments.length > 0 ? "walrust" : null;
  if (layout === null) {
    layout = await detectLayout(store, root, options);
    if (layout !== null && layout !== "walrust") throw foreignLayout(root, layout);
  }
  const otherLineages = lineages.filter((lineage) => !visited.has(lineage));
  return { root, layout, state, segments, otherLineages, warnings };
}

function foreignLayout(root: string, layout: Layout): RestoreError {
  return new RestoreError(
    "foreign_layout",
    `${root} was written by ${layoutNames[layout]}, which this version cannot read`,
    {
      hint: "Restore it with the program that wrote it.",
      data: { root, layout },
    },
  );
}

/** state.json is only a pointer: without it, or with a broken one, the history is found by the lineages themselves. */
async function readState(
  store: ObjectStore,
  root: string,
  warnings: string[],
  options: ReadOptions,
): Promise<StateDocument | null> {
  const key = renderKey(root, { kind: "state" });
  const bytes = await readDocument(store, key, options);
  if (bytes === null) return null;
  try {
    return parseState(bytes, key);
  } catch (error) {
    if (!(error instanceof IntegrityError)) throw error;
    warnings.push(`${key} is not readable and was ignored: ${error.message}`);
    return null;
  }
}

/** The lineage the history ends in; null is the layout without lineages. */
async function headLineage(
  state: StateDocument | null,
  lineages: string[],
  lineageOf: (lineage: string | null) => Promise<LineageObjects>,
  warnings: string[],
): Promise<string | null> {
  if (state !== null) {
    if (state.claim !== null && lineages.includes(state.claim)) {
      const claimed = await lineageOf(state.claim);
      if (claimed.document !== null && claimed.document.parent === (state.lineageId ?? "bare")) return state.claim;
      if (claimed.document !== null && claimed.document.parent === null && state.lineageId === null) return state.claim;
      warnings.push(
        `lineage ${state.claim} is claimed in state.json but does not say that it continues the active one`,
      );
    }
    const active = await lineageOf(state.lineageId);
    if (!isEmpty(active) || active.document !== null) return state.lineageId;
    if (state.lineageId !== null || lineages.length > 0) {
      warnings.push(
        `state.json names ${state.lineageId ?? "no lineage"}, where nothing is stored; the newest lineage is used`,
      );
    }
  }
  let best: { lineage: string; createdMs: number; documented: boolean } | null = null;
  for (const lineage of lineages) {
    const objects = await lineageOf(lineage);
    if (isEmpty(objects) && objects.document === null) continue;
    const documented = objects.document !== null;
    const createdMs = objects.document?.createdMs ?? newestModified(objects);
    const better = best === null || (documented !== best.documented ? documented : createdMs > best.createdMs);
    if (better) best = { lineage, createdMs, documented };
  }
  if (best !== null && state === null) {
    warnings.push(`there is no readable state.json; the newest lineage, ${best.lineage}, is used`);
  }
  return best === null ? null : best.lineage;
}

function isEmpty(objects: LineageObjects): boolean {
  return objects.deltas.length + objects.snapshots.length + objects.levels.length === 0;
}

function newestModified(objects: LineageObjects): number {
  const newest = [objects.deltas.at(-1), objects.snapshots.at(-1), objects.levels.at(-1)];
  return Math.max(0, ...newest.map((object) => object?.lastModifiedMs ?? 0));
}

/** Only seqs from parent_seq + 1 to `through` count: a fenced writer may have published beyond the fork. */
function cutSegment(objects: LineageObjects, through: bigint | null): Segment {
  const parentSeq = objects.document?.parentSeq ?? null;
  const from = parentSeq === null ? 0n : parentSeq + 1n;
  const belongs = (object: PoolObject): boolean =>
    object.min <= object.max && object.min >= from && (through === null || object.max <= through);
  return {
    ...objects,
    own: objects.document !== null,
    from,
    through,
    deltas: objects.deltas.filter(belongs),
    snapshots: objects.snapshots.filter(belongs),
    levels: objects.levels.filter(belongs),
  };
}

/** Reads the header of one object (a ranged read of 48 bytes) and checks its seq against the key. */
export async function readHeader(
  store: ObjectStore,
  root: string,
  object: PoolObject,
  options: ReadOptions = {},
): Promise<ChangesetHeader> {
  const key = objectKey(root, object);
  const { bytes } = await getBytes(store, key, 48, { ...options, range: { start: 0, end: 48 } });
  const header = decodeHeader(bytes, key);
  assertOwnHeader(object, key, header);
  return header;
}

/** {@linkcode readHeader}, or in words what is wrong with the object. */
export async function tryReadHeader(...call: Parameters<typeof readHeader>): Promise<ChangesetHeader | string> {
  try {
    return await readHeader(...call);
  } catch (error) {
    if (error instanceof IntegrityError) return error.message;
    throw error;
  }
}

/**
 * The restorable points of a segment, one object each, ascending by seq: from its first snapshot on, every seq at
 * which an object ends. A point's object is the cheapest to ask for its time: delta, else snapshot, else level.
 */
export function segmentPoints(segment: Segment): PoolObject[] {
  const first = segment.snapshots[0];
  if (first === undefined) return [];
  const rank = { delta: 0, snapshot: 1, level: 2 };
  const all = [...segment.deltas, ...segment.snapshots, ...segment.levels].filter((object) => object.max >= first.max);
  all.sort((a, b) => a.max < b.max ? -1 : a.max > b.max ? 1 : rank[a.kind] - rank[b.kind]);
  return all.filter((object, index) => index === 0 || all[index - 1].max !== object.max);
}
