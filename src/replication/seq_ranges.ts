/** Sets of seqs as ranges: ascending, disjoint, with a gap between any two. */
import type { SeqRange } from "./plan.ts";

/** The set that any ranges make up. */
export function unite(ranges: Iterable<SeqRange>): SeqRange[] {
  const sorted = [...ranges].sort((a, b) => a.min < b.min ? -1 : a.min > b.min ? 1 : 0);
  const united: { min: bigint; max: bigint }[] = [];
  for (const { min, max } of sorted) {
    const last = united.at(-1);
    if (last === undefined || min > last.max + 1n) united.push({ min, max });
    else if (max > last.max) last.max = max;
  }
  return united;
}

/** What of one set is not in the other. */
export function without(set: readonly SeqRange[], other: readonly SeqRange[]): SeqRange[] {
  const rest: SeqRange[] = [];
  let at = 0;
  for (const { min, max } of set) {
    let from = min;
    while (at < other.length && other[at].max < from) at++;
    for (let i = at; i < other.length && other[i].min <= max; i++) {
      if (other[i].min > from) rest.push({ min: from, max: other[i].min - 1n });
      from = other[i].max + 1n;
    }
    if (from <= max) rest.push({ min: from, max });
  }
  return rest;
}

/** True when the set holds every seq of `range`. */
export function covers(set: readonly SeqRange[], range: SeqRange): boolean {
  const found = lastAtOrBefore(set, range.min);
  return found !== null && found.max >= range.max;
}

/** True when the set holds at least one seq of `range`. */
export function touches(set: readonly SeqRange[], range: SeqRange): boolean {
  const found = lastAtOrBefore(set, range.max);
  return found !== null && found.max >= range.min;
}

/** The last range of a set that begins at or before `seq`. */
function lastAtOrBefore(set: readonly SeqRange[], seq: bigint): SeqRange | null {
  let low = 0;
  let high = set.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (set[middle].min <= seq) low = middle + 1;
    else high = middle;
  }
  return low === 0 ? null : set[low - 1];
}
