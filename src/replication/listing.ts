/** What `walrust list` shows of one database: lineages, snapshots, and the points between first and last. */
import { IntegrityError } from "../errors.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { readHeader, readHistory, type Segment, segmentPoints } from "./history.ts";
import type { DatabaseEntry, Layout, PoolObject, ReadOptions } from "./inventory.ts";
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

/** Summarises one database; a layout of another program is named and not looked into. */
export async function listHistory(
  store: ObjectStore,
  entry: DatabaseEntry,
  options: ReadOptions = {},
): Promise<HistorySummary> {
  const { name, root, layout } = entry;
  if (layout !== "walrust") return { name, root, layout, lineages: [], otherLineages: [], warnings: [] };
  const history = await readHistory(store, root, options);
  const active = history.segments.find((segment) => segment.snapshots.length > 0);
  const warnings = [...history.warnings];
  const lineages: LineageSummary[] = [];
  for (const segment of history.segments) {
    lineages.push(await summarise(store, root, segment, segment === active, warnings, options));
  }
  return { name, root, layout, lineages, otherLineages: history.otherLineages, warnings };
}

async function summarise(
  store: ObjectStore,
  root: string,
  segment: Segment,
  active: boolean,
  warnings: string[],
  options: ReadOptions,
): Promise<LineageSummary> {
  const time = async (object: PoolObject): Promise<number | null> => {
    try {
      return (await readHeader(store, root, object, options)).createdMs;
    } catch (error) {
      if (!(error instanceof IntegrityError)) throw error;
      warnings.push(error.message);
      return null;
    }
  };
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
    first: await point(points[0]),
    last: await point(points.at(-1)),
    deltas: segment.deltas.length,
    levels: segment.levels.length,
    bytes: segment.bytes,
    ignoredKeys: segment.ignoredKeys,
  };
}
