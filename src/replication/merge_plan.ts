/**
 * Which deltas become one object: runs of 60 into level 1, runs of 24 of those into level 2. Pure: decides from a listing.
 *
 * A run may end at a bridge, never go on behind it, or the snapshot there would have no successor. Where it ends there,
 * or cannot grow any more, a shorter one is merged too. What follows the newest snapshot is left alone: the Rust library
 * reads it delta by delta.
 */
import { isBridgeObject, type PoolObject } from "./inventory.ts";
import type { SeqRange } from "./plan.ts";
import type { SegmentRetention } from "./retention_plan.ts";
import { covers, touches, unite } from "./seq_ranges.ts";

/** Objects that become one. */
export interface MergeRun extends SeqRange {
  /** Level of the merged object. */
  readonly level: number;
  /** Ascending, each beginning where the one before ends. */
  readonly sources: readonly PoolObject[];
}

/** Options of {@linkcode planMerges}. */
export interface MergePlanOptions {
  /** Only what does not go beyond this seq, that of the newest snapshot, is merged. */
  readonly through: bigint;
  /** Only deltas stored before this time, Unix milliseconds by the store's clock. */
  readonly beforeMs: number;
  /** Sources of a merged object, by its level; {@linkcode mergeFans} unless said otherwise. */
  readonly fans?: readonly number[];
}

/** Sources of a merged object, by its level. */
export const mergeFans: readonly number[] = [60, 24];

/** The runs of a lineage that may be merged now, of what retention keeps. */
export function planMerges(plan: SegmentRetention, options: MergePlanOptions): MergeRun[] {
  const { segment, keep } = plan;
  const chain = keep.filter(({ kind }) => kind !== "snapshot").sort((a, b) =>
    a.min < b.min ? -1 : a.min > b.min ? 1 : 0
  );
  const ends = new Set([...segment.snapshots, ...chain.filter(isBridgeObject)].map(({ max }) => max));
  return (options.fans ?? mergeFans).flatMap((fan, index) => {
    const level = index + 1;
    const pool = chain.filter((object) => object.level === level - 1);
    const merged = unite(chain.filter((object) => object.level >= level));
    const open = pool.filter((object) => !touches(merged, object));
    const isOld = (object: PoolObject): boolean =>
      object.max <= options.through && (level > 1 || object.lastModifiedMs < options.beforeMs);
    const again = segment.own ? unproven(plan, level, pool) : [];
    // Behind the last delta before the newest snapshot nothing can come; behind the last merged object more may.
    const isEnd = (object: PoolObject): boolean => ends.has(object.max) || (level === 1 && object === open.at(-1));
    return [...again, ...runsOf(open, fan, isEnd, isOld).map((sources) => runOf(level, sources))];
  });
}

function runOf(level: number, sources: readonly PoolObject[]): MergeRun {
  return { level, min: sources[0].min, max: sources.at(-1)!.max, sources };
}

/** Merged objects whose writer ended before it had read them back: merging again proves them, or finds them wrong. */
function unproven({ segment, keep }: SegmentRetention, level: number, pool: readonly PoolObject[]): MergeRun[] {
  const marks = segment.retention?.ranges.filter((range) => range.reason === "merge" && range.level === level) ?? [];
  const proven = unite(marks);
  const runs: MergeRun[] = [];
  for (const object of keep) {
    if (object.level !== level || covers(proven, object)) continue;
    const sources = pool.filter(({ min, max }) => min >= object.min && max <= object.max);
    const isWhole = sources.length > 1 && sources[0].min === object.min && sources.at(-1)!.max === object.max &&
      sources.every((source, at) => at === 0 || source.min === sources[at - 1].max + 1n);
    if (isWhole) runs.push(runOf(level, sources));
  }
  return runs;
}

/** Cuts a pool into runs of `fan`; shorter ones only where no later object can make them longer. */
function runsOf(
  pool: readonly PoolObject[],
  fan: number,
  isEnd: (object: PoolObject) => boolean,
  isOld: (object: PoolObject) => boolean,
): PoolObject[][] {
  const runs: PoolObject[][] = [];
  let run: PoolObject[] = [];
  const close = (): void => {
    if (run.length > 1) runs.push(run);
    run = [];
  };
  for (const object of pool) {
    const isNext = run.length > 0 && object.min === run.at(-1)!.max + 1n;
    if (run.length > 0 && !isNext) close();
    // What is too young now will be old enough one day: the run waits for it.
    if (!isOld(object)) {
      run = [];
      continue;
    }
    run.push(object);
    if (run.length === fan || isEnd(object)) close();
  }
  return runs;
}
