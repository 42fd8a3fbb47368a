/**
 * What retention keeps and what goes. Pure: decides from a listing and the times of the snapshots, reads nothing.
 *
 * 1. Every point from the base of the fine window on stays, at full grain: the base is the newest snapshot that is not
 *    inside the window, and at least the one before the newest, so that a head whose newest snapshot rots is not lost.
 * 2. Before it only snapshots stay: the newest, one more at least, and those that a tier keeps, each with its bridge,
 *    which says what the snapshot's bytes hash to.
 * 3. A snapshot behind the base goes too when no tier keeps it, unless points can only be reached from it.
 */
import { type History, type Segment, segmentPoints } from "./history.ts";
import { bySeq, type PoolObject } from "./inventory.ts";
import type { Point, SeqRange } from "./plan.ts";
import { keptBy, type RetentionTiers, type TierName, tierNames } from "./retention_tiers.ts";
import { touches, unite, without } from "./seq_ranges.ts";

/**
 * Why a snapshot stays: a tier, the newest, the one more that always stays, the base of what comes after it, or that its
 * header cannot be read: whether it is worth anything is for `verify` to say.
 */
export type KeepReason = TierName | "newest" | "second" | "base" | "unreadable";

/** A snapshot and what becomes of it. */
export interface PlannedSnapshot {
  /** The object. */
  readonly object: PoolObject;
  /** By its header, Unix milliseconds; null when that cannot be read. */
  readonly createdMs: number | null;
  /** Why it stays; empty when it goes. */
  readonly keptBy: readonly KeepReason[];
}

/** Points that are given up, between two that stay. */
export interface LostPoints extends SeqRange {
  /** Lineage they belong to; null is the layout without lineages. */
  readonly lineage: string | null;
  /** How many. */
  readonly points: number;
  /** The nearest point before them that stays. */
  readonly before: Point | null;
  /** The nearest one after them. */
  readonly after: Point | null;
}

/** What becomes of one lineage. */
export interface SegmentRetention {
  /** The lineage. */
  readonly segment: Segment;
  /** Objects that stay. */
  readonly keep: readonly PoolObject[];
  /** Objects that go, the highest seq first: whatever was deleted so far, no point is left without those before it. */
  readonly remove: readonly PoolObject[];
  /** Seqs that are then gone on purpose. */
  readonly ranges: readonly SeqRange[];
}

/** What {@linkcode planRetention} returns. */
export interface RetentionPlan {
  /** Newest first. */
  readonly snapshots: readonly PlannedSnapshot[];
  /** From this point on nothing is given up; null when there is no snapshot that can be read. */
  readonly fineFrom: Point | null;
  /** Begin of the fine window, Unix milliseconds. */
  readonly windowStartMs: number;
  /** Newest first, as in the history. */
  readonly segments: readonly SegmentRetention[];
  /** Ascending. */
  readonly lost: readonly LostPoints[];
}

/** Options of {@linkcode planRetention}. */
export interface RetentionOptions {
  /** How many snapshots of each kind. */
  readonly tiers: RetentionTiers;
  /** How far back every point stays, milliseconds. */
  readonly fineWindowMs: number;
  /** This machine's clock. */
  readonly nowMs: number;
}

/** How far back every point stays unless said otherwise, milliseconds. */
export const fineWindowDefaultMs = 86_400_000;

/** How far the clocks of writer and reader may differ, milliseconds. */
const clockSkewMax = 3_600_000;

interface Candidate {
  readonly segment: Segment;
  readonly object: PoolObject;
  readonly createdMs: number | null;
  /** The time that counts; null when none can be believed. */
  readonly timeMs: number | null;
  /** False when `timeMs` is the store's, because the header's lies in the future. */
  readonly isOwnTime: boolean;
  readonly reasons: KeepReason[];
}

/** Plans for one database; `times` has created_ms of every snapshot, or null where its header cannot be read. */
export function planRetention(
  history: Pick<History, "segments">,
  times: ReadonlyMap<PoolObject, number | null>,
  options: RetentionOptions,
): RetentionPlan {
  const candidates = [...history.segments].reverse()
    .flatMap((segment) => segment.snapshots.map((object) => ({ segment, object })))
    .map((snapshot) => candidateOf(snapshot, times.get(snapshot.object) ?? null, options.nowMs));
  const readable = candidates.filter(({ createdMs }) => createdMs !== null);
  const windowStartMs = windowStart(readable, options);
  keepByTier(readable, options.tiers);
  const base = baseOf(readable, windowStartMs);
  const fineFrom = base === null ? null : lowered(base, candidates);
  if (fineFrom?.reasons.length === 0) fineFrom.reasons.push("base");
  const segments = history.segments.map((segment) => planSegment(segment, candidates, fineFrom?.object.max ?? -1n));
  const snapshots = candidates.map(({ object, createdMs, reasons }) => ({ object, createdMs, keptBy: reasons }));
  return {
    snapshots: snapshots.reverse(),
    fineFrom: fineFrom === null ? null : { seq: fineFrom.object.max, createdMs: fineFrom.createdMs },
    windowStartMs,
    segments,
    lost: [...segments].reverse().flatMap((plan) => lostPoints(plan, times)),
  };
}

/** A time in the future is no time: then the store's own counts, else none. */
function candidateOf(
  snapshot: Pick<Candidate, "segment" | "object">,
  createdMs: number | null,
  nowMs: number,
): Candidate {
  const { lastModifiedMs } = snapshot.object;
  const isPast = (ms: number): boolean => ms <= nowMs + clockSkewMax;
  const isOwnTime = createdMs !== null && isPast(createdMs);
  const isStored = lastModifiedMs > 0 && isPast(lastModifiedMs);
  const timeMs = isOwnTime ? createdMs : isStored ? lastModifiedMs : null;
  return { ...snapshot, createdMs, timeMs, isOwnTime, reasons: createdMs === null ? ["unreadable"] : [] };
}

/** Counted from the newest snapshot where the clock runs ahead of it: a wrong clock of ours must not age the history. */
function windowStart(readable: readonly Candidate[], { nowMs, fineWindowMs }: RetentionOptions): number {
  const newest = readable.reduce<number | null>(
    (max, { timeMs }) => timeMs !== null && (max === null || timeMs > max) ? timeMs : max,
    null,
  );
  return Math.min(nowMs, newest ?? nowMs) - fineWindowMs;
}

/** Those whose own time lies in the future are counted apart, so that they push no other out. */
function keepByTier(readable: readonly Candidate[], tiers: RetentionTiers): void {
  readable.at(-1)?.reasons.push("newest");
  for (const isOwnTime of [true, false]) {
    const counted = readable.filter((each) => each.isOwnTime === isOwnTime && each.timeMs !== null);
    const countedTimes = counted.map(({ timeMs }) => timeMs!);
    for (const tier of tierNames) {
      for (const index of keptBy(tier, tiers[tier], countedTimes)) counted[index].reasons.push(tier);
    }
  }
  // Nothing tells how old they are, so nothing tells that they may go.
  for (const each of readable) if (each.timeMs === null) each.reasons.push("base");
  const second = readable.at(-2);
  if (second !== undefined && second.reasons.length === 0) second.reasons.push("second");
}

/** The newest snapshot before the fine window, and before the newest one. */
function baseOf(readable: readonly Candidate[], windowStartMs: number): Candidate | null {
  const inside = readable.findIndex(({ timeMs }) => timeMs === null || timeMs > windowStartMs);
  const before = inside === -1 ? readable.length - 1 : inside - 1;
  return readable[Math.max(0, Math.min(before, readable.length - 2))] ?? null;
}

/** A merged range that reaches across the base needs a snapshot before it. */
function lowered(base: Candidate, candidates: readonly Candidate[]): Candidate {
  const from = base.object.max;
  for (const level of base.segment.levels) {
    if (level.min > from || level.max <= from) continue;
    const isBefore = ({ object, segment }: Candidate): boolean => segment === base.segment && object.max < level.min;
    const before = candidates.findLast(isBefore);
    if (before !== undefined) return lowered(before, candidates);
  }
  return base;
}

function planSegment(segment: Segment, candidates: readonly Candidate[], fineFrom: bigint): SegmentRetention {
  const snapshots = candidates.filter((each) => each.segment === segment);
  keepWhatIsNeeded(segment, snapshots, fineFrom);
  const kept = new Set(snapshots.filter(({ reasons }) => reasons.length > 0).map(({ object }) => object.max));
  const stays = (object: PoolObject): boolean =>
    object.kind === "snapshot"
      ? kept.has(object.max)
      : object.max > fineFrom || (object.min === object.max && kept.has(object.max));
  const all = [...segment.deltas, ...segment.snapshots, ...segment.levels];
  const keep = all.filter(stays);
  const remove = all.filter((object) => !stays(object)).sort((a, b) => bySeq(b, a));
  remove.sort((a, b) => a.max > b.max ? -1 : a.max < b.max ? 1 : 0);
  return { segment, keep, remove, ranges: removedRanges(segment, keep, remove) };
}

/** A snapshot that no path of the kept ones leads through is the base of what follows it. */
function keepWhatIsNeeded(segment: Segment, snapshots: readonly Candidate[], fineFrom: bigint): void {
  const byMin = new Map<bigint, bigint[]>();
  for (const { min, max } of [...segment.deltas, ...segment.levels]) {
    if (max <= fineFrom) continue;
    const same = byMin.get(min);
    if (same === undefined) byMin.set(min, [max]);
    else same.push(max);
  }
  const candidates = new Map(snapshots.map((each) => [each.object.max, each]));
  const reached = new Set<bigint>();
  const positions = [...byMin.keys()].map((min) => min - 1n).concat([...candidates.keys()]);
  for (const seq of [...new Set(positions)].sort((a, b) => a < b ? -1 : a > b ? 1 : 0)) {
    const snapshot = candidates.get(seq);
    if (snapshot !== undefined && seq >= fineFrom && snapshot.reasons.length === 0 && !reached.has(seq)) {
      snapshot.reasons.push("base");
    }
    if (snapshot !== undefined && snapshot.createdMs !== null && snapshot.reasons.length > 0) reached.add(seq);
    if (reached.has(seq)) { for (const max of byMin.get(seq + 1n) ?? []) reached.add(max); }
  }
}

/** Between what stays everything is gone on purpose, wherever at least one object goes. */
function removedRanges(segment: Segment, keep: readonly PoolObject[], remove: readonly PoolObject[]): SeqRange[] {
  if (remove.length === 0) return [];
  const gone = unite(remove);
  const stays = unite(keep);
  const first = gone[0].min;
  const last = gone.at(-1)!.max;
  const before = stays.findLast(({ max }) => max < first);
  const after = stays.find(({ min }) => min > last);
  const whole = {
    min: before === undefined ? first : before.max + 1n,
    max: after === undefined ? segment.through ?? last : after.min - 1n,
  };
  return without([whole], stays).filter((range) => touches(gone, range));
}

function lostPoints(plan: SegmentRetention, times: ReadonlyMap<PoolObject, number | null>): LostPoints[] {
  const points = segmentPoints(plan.segment);
  const ends = new Set(plan.keep.map(({ max }) => max));
  const known = new Map(plan.segment.snapshots.map((object) => [object.max, times.get(object) ?? null]));
  const point = (object: PoolObject | undefined): Point | null =>
    object === undefined ? null : { seq: object.max, createdMs: known.get(object.max) ?? null };
  const lost: LostPoints[] = [];
  for (let at = 0; at < points.length; at++) {
    if (ends.has(points[at].max)) continue;
    const first = at;
    while (at + 1 < points.length && !ends.has(points[at + 1].max)) at++;
    lost.push({
      lineage: plan.segment.lineage,
      min: points[first].max,
      max: points[at].max,
      points: at - first + 1,
      before: point(points[first - 1]),
      after: point(points[at + 1]),
    });
  }
  return lost;
}
