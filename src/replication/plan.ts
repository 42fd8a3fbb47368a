/**
 * Which objects lead to a point: the newest usable snapshot and a path of deltas, bridges and merged ranges that
 * covers every seq after it. Pure: decides from a listing, reads nothing.
 */
import { IntegrityError, RestoreError } from "../errors.ts";
import type { Segment } from "./history.ts";
import { segmentPoints } from "./history.ts";
import type { PoolObject } from "./inventory.ts";
import { covers, unite } from "./seq_ranges.ts";

/**
 * One step of a path. A hole is the seq of a snapshot in a lineage that another program wrote (it writes no bridges):
 * it may be crossed only when the SHA-256 of the image there is the chain value the next object continues.
 */
export type PlanStep = PoolObject | { readonly kind: "hole"; readonly max: bigint; readonly size: 0 };

/** What to fetch, in order. */
export interface RestorePlan {
  /** Lineage the point belongs to. */
  readonly segment: Segment;
  /** Where it starts. */
  readonly snapshot: PoolObject;
  /** What follows, in order. */
  readonly steps: readonly PlanStep[];
  /** Seq reached. */
  readonly seq: bigint;
  /** Of all objects. */
  readonly bytes: number;
}

/** Seqs `min` to `max`. */
export interface SeqRange {
  /** First. */
  readonly min: bigint;
  /** Last. */
  readonly max: bigint;
}

/**
 * Plans the restore of `seq` without the objects in `excluded` (found corrupt before).
 * Throws `RestoreError` when the point is not available, `IntegrityError` when objects that must be there are missing.
 */
export function planRestore(segment: Segment, seq: bigint, excluded: ReadonlySet<PoolObject> = new Set()): RestorePlan {
  const index = indexPool(segment, excluded);
  let firstStop: bigint | null = null;
  let bases = 0;
  for (let at = segment.snapshots.length - 1; at >= 0; at--) {
    const snapshot = segment.snapshots[at];
    if (snapshot.max > seq || excluded.has(snapshot)) continue;
    bases++;
    const path = findPath(index, snapshot.max, seq);
    if (Array.isArray(path)) {
      const bytes = path.reduce((sum, step) => sum + step.size, snapshot.size);
      return { segment, snapshot, steps: path, seq, bytes };
    }
    // The newest snapshot's path gets furthest; its end is the hole that stands in the way.
    firstStop ??= path.stop;
  }
  throw refusal(segment, seq, bases, firstStop, excluded);
}

/**
 * The steps that lead from an image of `from` to `seq`, or the first seq that none leads over. Without `crossHoles` a
 * snapshot that another program took is where the path ends.
 */
export function planAdvance(
  segment: Segment,
  from: bigint,
  seq: bigint,
  options: { excluded: ReadonlySet<PoolObject>; crossHoles: boolean },
): readonly PlanStep[] | { readonly stop: bigint } {
  const index = indexPool(segment, options.excluded);
  return findPath(options.crossHoles ? index : { ...index, holes: new Set() }, from, seq);
}

interface PoolIndex {
  /** Objects of one or more seqs by their first seq, longest last. */
  readonly byMin: ReadonlyMap<bigint, PoolObject[]>;
  /** Seqs where a missing delta is lawful. */
  readonly holes: ReadonlySet<bigint>;
}

function indexPool(segment: Segment, excluded: ReadonlySet<PoolObject>): PoolIndex {
  const byMin = new Map<bigint, PoolObject[]>();
  for (const object of [...segment.deltas, ...segment.levels]) {
    if (excluded.has(object)) continue;
    const same = byMin.get(object.min);
    if (same === undefined) byMin.set(object.min, [object]);
    else same.push(object);
  }
  for (const same of byMin.values()) same.sort((a, b) => a.max < b.max ? -1 : a.max > b.max ? 1 : 0);
  const holes = new Set(segment.own ? [] : segment.snapshots.map((snapshot) => snapshot.max));
  return { byMin, holes };
}

/** Longest steps first, with a way back out of dead ends that overlapping ranges make; `stop` is the furthest one. */
function findPath(index: PoolIndex, base: bigint, seq: bigint): PlanStep[] | { stop: bigint } {
  const path: PlanStep[] = [];
  const choices: PlanStep[][] = [];
  const dead = new Set<bigint>();
  let next = base + 1n;
  let stop = next;
  while (next <= seq) {
    if (next > stop) stop = next;
    // Each position is opened once at most per visit; a position that led nowhere is never tried again.
    const open: PlanStep[] = dead.has(next) ? [] : stepsAt(index, next, seq);
    choices.push(open);
    while (choices.length > 0 && choices.at(-1)!.length === 0) {
      choices.pop();
      dead.add(next);
      const back = path.pop();
      if (back === undefined) return { stop };
      next = back.kind === "hole" ? back.max : back.min;
    }
    if (choices.length === 0) return { stop };
    const step = choices.at(-1)!.pop()!;
    path.push(step);
    next = step.max + 1n;
  }
  return path;
}

/** The steps possible at a seq, the best last. */
function stepsAt(index: PoolIndex, next: bigint, seq: bigint): PlanStep[] {
  const objects: PlanStep[] = (index.byMin.get(next) ?? []).filter((object) => object.max <= seq);
  // A hole needs a successor that proves it, so it never ends a path.
  if (index.holes.has(next) && next < seq) objects.unshift({ kind: "hole", max: next, size: 0 });
  return objects;
}

function refusal(
  segment: Segment,
  seq: bigint,
  bases: number,
  stop: bigint | null,
  excluded: ReadonlySet<PoolObject>,
): Error {
  if (bases === 0) {
    const corrupt = segment.snapshots.filter((snapshot) => snapshot.max <= seq && excluded.has(snapshot)).length;
    if (corrupt > 0) {
      return new IntegrityError("no_sound_snapshot", `no sound snapshot is left to start seq ${seq} from`, {
        data: { seq: String(seq), corrupt },
      });
    }
    return new RestoreError("no_snapshot", `there is no snapshot at or before seq ${seq}`, {
      data: { seq: String(seq) },
    });
  }
  const points = segmentPoints(segment);
  const before = points.findLast((point) => point.max < seq);
  const after = points.find((point) => point.max > seq);
  const merged = segment.levels.find((level) => level.min <= seq && seq < level.max && !excluded.has(level));
  const removed = retained(segment, { min: seq, max: seq });
  const stopped = stop ?? seq;
  if (!pointExists(points, seq) && (merged !== undefined || removed)) {
    const why = merged ? `inside the merged range ${seqRangeText(merged)}` : "in a range that retention removed";
    const nearest = [before, after].filter((point) => point !== undefined).map((point) => `seq ${point.max}`);
    return new RestoreError(
      "inside_merged_range",
      `seq ${seq} lies ${why}; the nearest points are ${nearest.join(" and ")}`,
      {
        hint: `Restore with --seq ${nearest[0]?.slice(4) ?? ""}.`,
        data: { seq: String(seq), before: before && String(before.max), after: after && String(after.max) },
      },
    );
  }
  const missing = missingRange(segment, stopped, seq, excluded);
  return new IntegrityError(
    "missing_changesets",
    `${seqRangeText(missing)} is missing or damaged, so seq ${seq} cannot be reached`,
    {
      hint: `An earlier point may be restored: --seq ${missing.min - 1n}.`,
      data: { seq: String(seq), missing: seqRangeText(missing) },
    },
  );
}

function pointExists(points: PoolObject[], seq: bigint): boolean {
  return points.some((point) => point.max === seq);
}

/** The run of seqs from `from` (at most to `to`) that no delta or merged range covers. */
export function missingRange(
  segment: Segment,
  from: bigint,
  to: bigint,
  excluded: ReadonlySet<PoolObject> = new Set(),
): SeqRange {
  let max = to;
  for (const object of [...segment.deltas, ...segment.levels]) {
    if (!excluded.has(object) && object.min > from && object.min - 1n < max) max = object.min - 1n;
  }
  return { min: from, max };
}

/** True when retention.json says that the whole range was removed or merged on purpose. */
export function retained(segment: Segment, range: SeqRange): boolean {
  return covers(unite(segment.retention?.ranges ?? []), range);
}

/** `seq 7` or `seqs 7 to 9`. */
export function seqRangeText(range: SeqRange): string {
  return range.min === range.max ? `seq ${range.min}` : `seqs ${range.min} to ${range.max}`;
}

/** A point by seq and, where it is known, time. */
export interface Point {
  /** Its seq. */
  readonly seq: bigint;
  /** Unix milliseconds; null when its object cannot be read. */
  readonly createdMs: number | null;
}

/** The range that exists, in words. */
export function rangeText(first: Point, last: Point): string {
  const text = ({ seq, createdMs }: Point): string =>
    createdMs === null ? `seq ${seq}` : `seq ${seq} of ${timeText(createdMs)}`;
  return `the points go from ${text(first)} to ${text(last)}`;
}

/** A time as people write it: RFC 3339 in UTC; a number where the calendar ends. */
export function timeText(ms: number): string {
  return Math.abs(ms) <= 8.64e15 ? new Date(ms).toISOString() : `${ms} ms`;
}
