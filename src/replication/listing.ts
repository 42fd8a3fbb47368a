/** What `walrust list` shows of one database: lineages, snapshots, and the points between first and last. */
import { type ChangesetHeader, checksumHex } from "../format/hadbp.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { type History, readHistory, type Segment, segmentPoints, tryReadHeader } from "./history.ts";
import { type DatabaseEntry, detectLayout, type Layout, type PoolObject, type ReadOptions } from "./inventory.ts";
import type { Point } from "./plan.ts";

/** A stored snapshot. */
export interface SnapshotSummary {
  /** Its seq. */
  readonly seq: bigint;
  /** Unix milliseconds; null when its header cannot be read. */
  readonly createdMs: number | null;
  /** Bytes. */
  readonly size: number;
}

/** One lineage of the history. */
export interface LineageSummary {
  /** Null is the layout without lineages. */
  readonly lineage: string | null;
  /** True for the lineage that the latest point belongs to. */
  readonly active: boolean;
  /** Lineage it goes on from; `bare` is the layout without lineages. */
  readonly parent: string | null;
  /** Last seq that counts in the parent. */
  readonly parentSeq: bigint | null;
  /** Ascending; the newest ones of very many. */
  readonly snapshots: SnapshotSummary[];
  /** All of them. */
  readonly snapshotCount: number;
  /**
   * Of the newest snapshot: the start of the database's SHA-256 as its bridge, the delta after it or state.json says it,
   * 16 hex digits; null where none does. Only a restore proves it.
   */
  readonly checksum: string | null;
  /** First restorable point; null without a snapshot. */
  readonly first: Point | null;
  /** Last restorable point; null without a snapshot. */
  readonly last: Point | null;
  /** Objects of `0000/`, bridges included. */
  readonly deltas: number;
  /** Merged objects. */
  readonly levels: number;
  /** Of deltas, snapshots and merged objects. */
  readonly bytes: number;
  /** Keys that mean nothing to us. */
  readonly ignoredKeys: number;
}

/** What {@linkcode listHistory} returns. */
export interface HistorySummary {
  /** Name as stored. */
  readonly name: string;
  /** `${prefix}${name}/` */
  readonly root: string;
  /** Null when it is nobody's we know. */
  readonly layout: Layout | null;
  /** Others that wrote below the same root. */
  readonly otherLayouts: Layout[];
  /** Newest first; empty for layouts of other programs. */
  readonly lineages: LineageSummary[];
  /** Lineages that are no part of the history. */
  readonly otherLineages: string[];
  /** What the user should know, in words. */
  readonly warnings: string[];
}

/** Snapshots whose time is asked for, one small request each. */
const snapshotTimesMax = 200;

/** Headers read at once. */
const headersInFlight = 8;

/** Folders looked into, on each level, for databases that lie deeper than was thought. */
const foldersMax = 10;

/** What {@linkcode findNearby} returns. */
export interface Nearby {
  /** Whose database lies directly below the prefix; null when nobody's. */
  readonly itself: Layout | null;
  /** Names of folders below the prefix that hold databases, not themselves being one. */
  readonly folders: string[];
}

/** Where no database lies below `prefix`: is the prefix one level too low, or too high? Looks at a few folders only. */
export async function findNearby(store: ObjectStore, prefix: string, options: ReadOptions = {}): Promise<Nearby> {
  const itself = await detectLayout(store, prefix, options);
  const folders: string[] = [];
  if (itself !== null) return { itself, folders };
  for (const folder of (await store.listDirectories(prefix, options)).slice(0, foldersMax)) {
    for (const root of (await store.listDirectories(folder, options)).slice(0, foldersMax)) {
      if (await detectLayout(store, root, options) === null) continue;
      folders.push(folder.slice(prefix.length, -1));
      break;
    }
  }
  return { itself, folders };
}

/** Summarises one database; a layout of another program is named and not looked into. */
export async function listHistory(
  store: ObjectStore,
  entry: DatabaseEntry,
  options: ReadOptions = {},
): Promise<HistorySummary> {
  const { name, root, layout, otherLayouts } = entry;
  const shared = { name, root, layout, otherLayouts };
  if (layout !== "walrust") return { ...shared, lineages: [], otherLineages: [], warnings: [] };
  const history = await readHistory(store, root, options);
  const active = history.segments.find((segment) => segment.snapshots.length > 0);
  const warnings = [...history.warnings];
  const lineages: LineageSummary[] = [];
  for (const segment of history.segments) {
    lineages.push(await summarise(store, history, segment, segment === active, warnings, options));
  }
  return { ...shared, lineages, otherLineages: history.otherLineages, warnings };
}

async function summarise(
  store: ObjectStore,
  history: History,
  segment: Segment,
  active: boolean,
  warnings: string[],
  options: ReadOptions,
): Promise<LineageSummary> {
  const { root } = history;
  const headerOf = async (object: PoolObject): Promise<ChangesetHeader | null> => {
    const header = await tryReadHeader(store, root, object, options);
    if (typeof header !== "string") return header;
    warnings.push(header);
    return null;
  };
  const time = async (object: PoolObject): Promise<number | null> => (await headerOf(object))?.createdMs ?? null;
  const checksum = await newestChecksum(history, segment, headerOf);
  const shown = segment.snapshots.slice(-snapshotTimesMax);
  const snapshots: SnapshotSummary[] = [];
  for (let at = 0; at < shown.length; at += headersInFlight) {
    const group = shown.slice(at, at + headersInFlight);
    const times = await Promise.all(group.map(time));
    group.forEach((object, index) => snapshots.push({ seq: object.max, createdMs: times[index], size: object.size }));
  }
  const points = segmentPoints(segment);
  const point = async (object: PoolObject | undefined): Promise<Point | null> =>
    object === undefined ? null : { seq: object.max, createdMs: await time(object) };
  return {
    lineage: segment.lineage,
    active,
    parent: segment.document?.parent ?? null,
    parentSeq: segment.document?.parentSeq ?? null,
    snapshots,
    snapshotCount: segment.snapshots.length,
    checksum: checksum === null ? null : checksumHex(checksum),
    first: await point(points[0]),
    last: await point(points.at(-1)),
    deltas: segment.deltas.length,
    levels: segment.levels.length,
    bytes: segment.bytes,
    ignoredKeys: segment.ignoredKeys,
  };
}

/** The chain value after the newest snapshot, from what says it in a few bytes. */
async function newestChecksum(
  { state }: History,
  { lineage, snapshots, deltas }: Segment,
  headerOf: (object: PoolObject) => Promise<ChangesetHeader | null>,
): Promise<bigint | null> {
  const newest = snapshots.at(-1)?.max;
  if (newest === undefined) return null;
  const bridge = deltas.find(({ max }) => max === newest);
  const next = deltas.find(({ min }) => min === newest + 1n);
  const declared = bridge && (await headerOf(bridge))?.declaredEnd;
  const continued = declared ?? (next && (await headerOf(next))?.prevChecksum);
  if (continued !== undefined && continued !== null) return continued;
  return state?.lineageId === lineage && state.currentSeq === newest ? state.dbChecksum : null;
}
