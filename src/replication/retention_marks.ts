/**
 * Two phases: what is to go is first marked in `retention.json`, with the moment, and deleted only when a grace has passed
 * since, so that a restore or a replica that found it in a listing still finds its bytes. Marks also tell every reader
 * which holes are no damage. A mark whose objects are to stay after all is taken back.
 */
import {
  parseRetention,
  renderRetention,
  type RetentionDocument,
  type RetentionRange,
  type RetentionSnapshot,
} from "../format/documents.ts";
import { renderKey } from "../format/keys.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { swapDocument } from "./document_swap.ts";
import { isBridgeObject, type PoolObject } from "./inventory.ts";
import type { SeqRange } from "./plan.ts";
import type { SegmentRetention } from "./retention_plan.ts";
import { covers, touches, unite, without } from "./seq_ranges.ts";

/** The document has about 100 bytes a range; of ranges that touch one remains, so there are hundreds at most. */
const documentSizeMax = 4 * 1024 * 1024;

/** A mark further in the future than this was made by a clock that was wrong, milliseconds. */
const clockSkewMax = 3_600_000;

/** A merged object that was read back and proven: what it was made of may go. */
export interface MergedRange extends SeqRange {
  /** Its level. */
  readonly level: number;
}

/** When it is, and for how long what was marked is left alone; milliseconds. */
export interface MarkClock {
  readonly nowMs: number;
  readonly graceMs: number;
}

/** Marks in `retention.json` of one lineage what a plan removes and what was merged; nothing is written for no change. */
export async function markRetention(
  store: ObjectStore,
  root: string,
  plan: SegmentRetention,
  merged: readonly MergedRange[],
  options: MarkClock & { signal?: AbortSignal },
): Promise<RetentionDocument> {
  const key = renderKey(root, { kind: "retention", lineage: plan.segment.lineage });
  let marked: RetentionDocument = { ranges: [] };
  const place = { key, sizeMax: documentSizeMax, parse: parseRetention, render: renderRetention, absent: marked };
  await swapDocument(store, place, (document) => {
    marked = withMarks(document, plan, merged, options);
    return isSame(document, marked) ? null : marked;
  }, options.signal);
  return marked;
}

function isSame(a: RetentionDocument, b: RetentionDocument): boolean {
  const [one, other] = [a, b].map((document) => new TextDecoder().decode(renderRetention(document)));
  return one === other;
}

/** The document with the marks of a plan. */
export function withMarks(
  document: RetentionDocument,
  plan: SegmentRetention,
  merged: readonly MergedRange[],
  clock: MarkClock,
): RetentionDocument {
  const { nowMs } = clock;
  const ranges = document.ranges.map((range) => ({ ...range, markedMs: believed(range.markedMs, nowMs) }));
  const stays = unite(plan.keep);
  const retention: RetentionRange[] = [];
  for (const range of ranges.filter(({ reason }) => reason === "retention")) {
    for (const left of without([range], stays)) retention.push({ ...range, ...left });
  }
  for (const fresh of without(unite(plan.ranges), unite(retention))) {
    retention.push({ ...fresh, reason: "retention", markedMs: nowMs });
  }
  const gone = unite(retention);
  const merges = ranges.filter(({ reason }) => reason === "merge");
  for (const { min, max, level } of merged) {
    const known = unite(merges.filter((range) => range.level === level));
    for (const fresh of without([{ min, max }], known)) {
      merges.push({ ...fresh, reason: "merge", level, markedMs: nowMs });
    }
  }
  // What retention gave up needs no second reason.
  const stillMerged = merges.flatMap((range) => without([range], gone).map((left) => ({ ...range, ...left })));
  const all = [...joined(retention, clock), ...joined(stillMerged, clock)];
  all.sort((a, b) => a.min < b.min ? -1 : a.min > b.min ? 1 : (a.level ?? 0) - (b.level ?? 0));
  return withSnapshots({ ranges: all }, document.snapshots ?? [], plan, nowMs);
}

/** Snapshots that are gone, or stay after all, are not named any more. */
function withSnapshots(
  document: RetentionDocument,
  known: readonly RetentionSnapshot[],
  plan: SegmentRetention,
  nowMs: number,
): RetentionDocument {
  const marked = new Map(known.map(({ seq, markedMs }) => [seq, markedMs]));
  const seqs = plan.remove.filter(({ kind }) => kind === "snapshot").map(({ max }) => max).reverse();
  const snapshots = seqs.map((seq) => ({ seq, markedMs: believed(marked.get(seq), nowMs) }));
  return snapshots.length === 0 ? document : { ...document, snapshots };
}

/** The moment of a mark; now, where there is none or it lies in the future, for then nothing says that the grace began. */
function believed(markedMs: number | undefined, nowMs: number): number {
  return markedMs === undefined || markedMs > nowMs + clockSkewMax ? nowMs : markedMs;
}

/** Ranges that touch become one, unless one of them still waits: so the document stays small. */
function joined(ranges: readonly RetentionRange[], clock: MarkClock): RetentionRange[] {
  const result: RetentionRange[] = [];
  const levels = new Set(ranges.map(({ level }) => level));
  for (const level of levels) {
    const same = ranges.filter((range) => range.level === level);
    same.sort((a, b) => a.min < b.min ? -1 : a.min > b.min ? 1 : 0);
    let last: RetentionRange | undefined;
    for (const range of same) {
      const isOne = last !== undefined && range.min <= last.max + 1n &&
        (range.markedMs === last.markedMs || (isDue(range.markedMs, clock) && isDue(last.markedMs, clock)));
      if (last !== undefined && isOne) {
        if (range.max > last.max) last.max = range.max;
        last.markedMs = Math.max(last.markedMs!, range.markedMs!);
      } else {
        last = { ...range };
        result.push(last);
      }
    }
  }
  return result;
}

function isDue(markedMs: number | undefined, { nowMs, graceMs }: MarkClock): boolean {
  return markedMs !== undefined && markedMs <= nowMs - graceMs;
}

/** What of a plan may be deleted now, in the plan's order. */
export function dueRemovals(document: RetentionDocument, plan: SegmentRetention, clock: MarkClock): PoolObject[] {
  const aged = document.ranges.filter(({ reason, markedMs }) => reason === "retention" && isDue(markedMs, clock));
  const marks = unite(aged);
  // An object may reach over what stays, such as a merged one over the bridge of a kept snapshot.
  const settled = unite([...aged, ...plan.keep]);
  const agedSnapshots = (document.snapshots ?? []).filter((each) => isDue(each.markedMs, clock));
  const snapshots = new Set(agedSnapshots.map(({ seq }) => seq));
  return plan.remove.filter((object) =>
    object.kind === "snapshot" ? snapshots.has(object.max) : touches(marks, object) && covers(settled, object)
  );
}

/**
 * Objects that a merged one stands for and that may be deleted now, the highest seq first. The bridge of a snapshot
 * that is there stays: it says what the snapshot's bytes hash to.
 */
export function dueSources(document: RetentionDocument, plan: SegmentRetention, clock: MarkClock): PoolObject[] {
  const snapshots = new Set(plan.keep.filter(({ kind }) => kind === "snapshot").map(({ max }) => max));
  const found = new Set<PoolObject>();
  const levels = new Set(plan.keep.filter(({ kind }) => kind === "level").map(({ level }) => level));
  for (const level of levels) {
    const marks = document.ranges.filter((range) => range.level === level && isDue(range.markedMs, clock));
    const aged = unite(marks.filter(({ reason }) => reason === "merge"));
    const objects = plan.keep.filter((object) => object.level === level).map(({ min, max }) => ({ min, max }));
    for (const object of plan.keep) {
      if (object.kind === "snapshot" || object.level >= level || !covers(aged, object)) continue;
      if (isBridgeObject(object) && snapshots.has(object.max)) continue;
      if (isInside(objects, object)) found.add(object);
    }
  }
  return [...found].sort((a, b) => a.max > b.max ? -1 : a.max < b.max ? 1 : 0);
}

/** True when one of the ranges, ascending, holds all of `inner`. */
function isInside(ranges: readonly SeqRange[], inner: SeqRange): boolean {
  // The objects of a level do not overlap in what we write; in what others write a range that begins later is missed.
  let low = 0;
  let high = ranges.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (ranges[middle].min <= inner.min) low = middle + 1;
    else high = middle;
  }
  return low > 0 && ranges[low - 1].max >= inner.max;
}
