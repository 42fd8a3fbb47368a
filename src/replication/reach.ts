/** Which points of a lineage a restore can reach, and which it should reach and cannot. Pure: decides from a listing. */
import type { Segment } from "./history.ts";
import { bySeq, lastSeqOf, type PoolObject } from "./inventory.ts";
import type { SeqRange } from "./plan.ts";
import { unite, without } from "./seq_ranges.ts";

/** What {@linkcode reachOf} returns. */
export interface Reach {
  /** One object of each point that can be reached, ascending. */
  readonly points: readonly PoolObject[];
  /** Seqs of points that were published and cannot be reached, ascending; what retention or merging removed is none. */
  readonly lost: readonly SeqRange[];
}

/** Looks at a segment without the objects in `excluded`, which are damaged. */
export function reachOf(segment: Segment, excluded: ReadonlySet<PoolObject> = new Set()): Reach {
  const sound = (objects: readonly PoolObject[]): PoolObject[] => objects.filter((object) => !excluded.has(object));
  const snapshots = sound(segment.snapshots);
  const steps = [...sound(segment.deltas), ...sound(segment.levels)].sort(bySeq);
  const points = new Map(snapshots.map((object) => [object.max, object]));
  // Another program's snapshot leaves a hole in the chain, which the image's hash carries over.
  const holes = new Set(segment.own ? [] : segment.snapshots.map(({ max }) => max));
  const reached: PoolObject[] = [];
  for (const step of steps) {
    const before = step.min - 1n;
    const isReached = points.has(before) || (holes.has(before) && points.has(before - 1n));
    if (!isReached) continue;
    reached.push(step);
    if (!points.has(step.max)) points.set(step.max, step);
  }
  const ascending = [...points.values()].sort((a, b) => a.max < b.max ? -1 : 1);
  return { points: ascending, lost: lostOf(segment, ascending, reached) };
}

function lostOf(segment: Segment, points: readonly PoolObject[], reached: readonly PoolObject[]): SeqRange[] {
  const excused = unite([
    // What was merged is excused by the merged object alone: if that is lost, so are its points.
    ...(segment.retention?.ranges ?? []).filter(({ reason }) => reason === "retention"),
    ...reached.filter(({ kind }) => kind === "level").map(({ min, max }) => ({ min, max: max - 1n }))
      .filter(({ min, max }) => min <= max),
  ]);
  const lost: SeqRange[] = [];
  let next = firstSeq(segment);
  for (const end of [...points.map(({ max }) => max), lastSeq(segment) + 1n]) {
    if (end > next) lost.push(...without([{ min: next, max: end - 1n }], excused));
    if (end >= next) next = end + 1n;
  }
  return lost;
}

/** Our lineages begin at a known seq; of others only what comes after their first snapshot ever was a point. */
function firstSeq(segment: Segment): bigint {
  if (segment.own) return segment.from > 0n ? segment.from : 1n;
  return segment.snapshots[0]?.max ?? lastSeq(segment) + 1n;
}

function lastSeq(segment: Segment): bigint {
  if (segment.through !== null) return segment.through;
  const { deltas, snapshots, levels } = segment;
  return lastSeqOf([...deltas.slice(-1), ...snapshots.slice(-1), ...levels]);
}
