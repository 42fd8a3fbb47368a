/**
 * Which point of a lineage a time stands for: the newest one whose created_ms is not later.
 *
 * No checksum covers created_ms, so in our own lineages, where it never decreases, no time is believed alone: all that
 * were read must be in order, those next to the answer are read too, and an object whose time cannot be right, or
 * whose header cannot be read, is left out as a witness. An answer that then depends on such an object is refused.
 * What no order can show is a wrong time between those of its neighbours: it moves the border of two adjacent points.
 */
import { IntegrityError } from "../errors.ts";
import { renderKey } from "../format/keys.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { readHeader, type Segment, tryReadHeader } from "./history.ts";
import { objectKey, type PoolObject, type ReadOptions } from "./inventory.ts";
import { timeText } from "./plan.ts";

/** Options of {@linkcode searchTime}. */
export interface TimeSearchOptions extends ReadOptions {
  readonly store: ObjectStore;
  /** `${prefix}${name}/` */
  readonly root: string;
  readonly segment: Segment;
  /** Those of `segmentPoints`. */
  readonly points: readonly PoolObject[];
  /** Unix milliseconds, not later than `nowMs`. */
  readonly ms: number;
  /** This machine's clock. */
  readonly nowMs: number;
  /** Last point of the parent, offered where the time may lie before this lineage. */
  readonly olderSeq: bigint | null;
}

/** The newest point that is not later than the time asked for. */
export interface FoundPoint {
  /** Position in the points. */
  readonly index: number;
  /** Its time, Unix milliseconds. */
  readonly createdMs: number;
}

/** What {@linkcode searchTime} returns. */
export interface TimeSearchResult {
  /** Null when every point is later. */
  readonly found: FoundPoint | null;
  /** Objects left out and why, in words. */
  readonly notes: string[];
}

/** Something that says when a point was made; `object` is null for lineage.json, made just before the first point. */
interface Witness {
  /** Position in the points; −1 for lineage.json. */
  readonly index: number;
  readonly object: PoolObject | null;
}

/** Beyond this many points a foreign lineage is searched by bisection, as if its times were ordered. */
const linearPointsMax = 2000;

/** Headers read at once in a linear search. */
const headersInFlight = 16;

/** Witnesses read on each side of the answer: one wrong time is then outvoted by two that contradict it. */
const neighbours = 3;

/** More objects left out than this are a damaged bucket rather than a damaged object. */
const leftOutMax = 8;

/** Points named in a refusal; of more, the first and the last. */
const choicesMax = 4;

/** How far the clocks of writer and reader may differ, milliseconds. */
const clockSkewMax = 3_600_000;

/**
 * Searches with about log2 of the points many requests, one after another, of 48 bytes each. Throws `IntegrityError`
 * naming the objects that leave the answer open, with the points on both sides.
 */
export async function searchTime(options: TimeSearchOptions): Promise<TimeSearchResult> {
  if (options.segment.own) return await new WitnessSearch(options).run();
  const linear = options.points.length <= linearPointsMax;
  return { found: await (linear ? searchLinearly(options) : bisect(options)), notes: [] };
}

/**
 * Rust stamps a merge with the time of merging, so an object counts from the minimum of its own time and those of all
 * later ones: the newest point with an effective time ≤ ms is the newest one whose own time is ≤ ms.
 */
async function searchLinearly(options: TimeSearchOptions): Promise<FoundPoint | null> {
  const { points, ms } = options;
  for (let end = points.length; end > 0; end -= headersInFlight) {
    const start = Math.max(0, end - headersInFlight);
    const times = await Promise.all(points.slice(start, end).map((point) => createdMsOf(options, point)));
    for (let index = end - 1; index >= start; index--) {
      if (times[index - start] <= ms) return { index, createdMs: times[index - start] };
    }
  }
  return null;
}

async function bisect(options: TimeSearchOptions): Promise<FoundPoint | null> {
  let found: FoundPoint | null = null;
  for (let low = 0, high = options.points.length; low < high;) {
    const index = (low + high) >>> 1;
    const createdMs = await createdMsOf(options, options.points[index]);
    if (createdMs <= options.ms) {
      found = { index, createdMs };
      low = index + 1;
    } else high = index;
  }
  return found;
}

async function createdMsOf({ store, root, signal }: TimeSearchOptions, object: PoolObject): Promise<number> {
  return (await readHeader(store, root, object, { signal })).createdMs;
}

/** One search in a lineage of ours; use an instance once. */
class WitnessSearch {
  readonly #options: TimeSearchOptions;
  /** Ascending by point, without those left out. */
  readonly #witnesses: Witness[];
  readonly #times = new Map<Witness, number>();
  readonly #leftOut: { witness: Witness; reason: string }[] = [];

  constructor(options: TimeSearchOptions) {
    this.#options = options;
    this.#witnesses = options.points.map((object, index) => ({ index, object }));
    const { document } = options.segment;
    if (document === null) return;
    const begun: Witness = { index: -1, object: null };
    this.#witnesses.unshift(begun);
    this.#times.set(begun, document.createdMs);
  }

  async run(): Promise<TimeSearchResult> {
    for (;;) {
      const before = this.#leftOut.length;
      const last = await this.#lastNotLater();
      if (last !== null) this.#leaveOutliers();
      if (this.#leftOut.length > leftOutMax) throw this.#givenUp();
      if (last !== null && this.#leftOut.length === before) return this.#answer(last);
    }
  }

  /** Position of the last witness that is not later, −1 when there is none; null when one was left out on the way. */
  async #lastNotLater(): Promise<number | null> {
    const all = this.#witnesses;
    // Both ends, lineage.json and the first point among them, bear witness against all between.
    if (!await this.#read([...all.slice(0, 2), ...all.slice(-1)])) return null;
    let low = -1;
    let high = all.length;
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (!await this.#read([all[middle]])) return null;
      if (this.#times.get(all[middle])! <= this.#options.ms) low = middle;
      else high = middle;
    }
    return await this.#read(all.slice(Math.max(0, low + 1 - neighbours), high + neighbours)) ? low : null;
  }

  /** Learns the times of some witnesses; false when one had to be left out because it cannot be read. */
  async #read(witnesses: Witness[]): Promise<boolean> {
    const unknown = [...new Set(witnesses)].filter((witness) => !this.#times.has(witness));
    const { store, root, signal } = this.#options;
    const read = ({ object }: Witness): ReturnType<typeof tryReadHeader> =>
      tryReadHeader(store, root, object!, { signal });
    const headers = await Promise.all(unknown.map(read));
    headers.forEach((header, at) => {
      if (typeof header === "string") this.#leaveOut(unknown[at], `its header cannot be read (${header})`);
      else this.#times.set(unknown[at], header.createdMs);
    });
    return headers.every((header) => typeof header !== "string");
  }

  #leaveOutliers(): void {
    const known = this.#witnesses.filter((witness) => this.#times.has(witness));
    const times = known.map((witness) => this.#times.get(witness)!);
    const suspects = outliers(times).map((at) => known[at]);
    const doubt = suspects.length > 1 ? "or another of these is wrong" : "contradicts those around it";
    for (const witness of suspects) {
      this.#leaveOut(witness, `its time, ${timeText(this.#times.get(witness)!)}, ${doubt}`);
    }
  }

  #leaveOut(witness: Witness, reason: string): void {
    const { index, object } = witness;
    const { snapshots } = this.#options.segment;
    // A bridge and its snapshot carry the same time: the one stands in for the other.
    const twin = object?.kind === "delta" ? snapshots.find(({ max }) => max === object.max) : undefined;
    this.#witnesses.splice(this.#witnesses.indexOf(witness), 1, ...(twin ? [{ index, object: twin }] : []));
    this.#leftOut.push({ witness, reason });
  }

  /** The point of the witness at `last`, when nothing that was left out can be nearer to the time. */
  #answer(last: number): TimeSearchResult {
    const { points, nowMs } = this.#options;
    const [before, after] = [this.#witnesses[last], this.#witnesses[last + 1]] as (Witness | undefined)[];
    const index = before?.index ?? -1;
    const end = after?.index ?? points.length;
    if (this.#leftOut.some(({ witness }) => witness.index > index && witness.index < end)) {
      throw this.#refusal(index, end - 1);
    }
    if (after !== undefined && this.#times.get(after)! > nowMs + clockSkewMax) {
      this.#leaveOut(after, `its time, ${timeText(this.#times.get(after)!)}, lies in the future of this machine`);
      throw this.#refusal(index, end);
    }
    const found = before === undefined || index < 0 ? null : { index, createdMs: this.#times.get(before)! };
    return { found, notes: this.#reasons().map((reason) => `${reason}; the time was found without it`) };
  }

  /** Offers the nearest points whose times are known and still believed. */
  #givenUp(): IntegrityError {
    const { points, ms } = this.#options;
    const known = this.#witnesses.filter((witness) => this.#times.has(witness));
    const before = known.findLast((witness) => this.#times.get(witness)! <= ms)?.index ?? -1;
    const after = known.find(({ index }) => index > before)?.index ?? points.length - 1;
    return this.#refusal(before, after);
  }

  #reasons(): string[] {
    return this.#leftOut.map(({ witness, reason }) => `${this.#keyOf(witness)}: ${reason}`);
  }

  #keyOf({ object }: Witness): string {
    const { root, segment } = this.#options;
    return object === null ? renderKey(root, { kind: "lineage", lineage: segment.lineage! }) : objectKey(root, object);
  }

  /** The answer is one of the points `first` (−1: none, or one of the parent) to `last`, and damage hides which. */
  #refusal(first: number, last: number): IntegrityError {
    const { points, ms, olderSeq } = this.#options;
    const seqs = points.slice(Math.max(0, first), last + 1).map(({ max }) => max);
    if (first < 0 && olderSeq !== null) seqs.unshift(olderSeq);
    const choices = seqs.length > choicesMax ? [seqs[0], seqs.at(-1)!] : seqs;
    return new IntegrityError(
      "time_uncertain",
      `which point ${timeText(ms)} stands for cannot be proven: ${this.#reasons().join("; ")}`,
      {
        hint: `Choose by seq: ${choices.map((seq) => `--seq ${seq}`).join(" or ")}.`,
        data: {
          objects: this.#leftOut.map(({ witness }) => this.#keyOf(witness)),
          choices: choices.map(String),
        },
      },
    );
  }
}

/**
 * Positions to leave out so that the rest never decreases: all that are missing from one of the longest such rests,
 * so of two that contradict each other both, unless the others tell which one is wrong.
 */
function outliers(times: readonly number[]): number[] {
  const upTo = times.map(() => 1);
  const from = times.map(() => 1);
  for (let at = 0; at < times.length; at++) {
    for (let i = 0; i < at; i++) if (times[i] <= times[at]) upTo[at] = Math.max(upTo[at], upTo[i] + 1);
  }
  for (let at = times.length - 1; at >= 0; at--) {
    for (let i = at + 1; i < times.length; i++) if (times[i] >= times[at]) from[at] = Math.max(from[at], from[i] + 1);
  }
  const longest = Math.max(0, ...upTo);
  const inLongest = (at: number): boolean => upTo[at] + from[at] - 1 === longest;
  const sameRank = (at: number): number => upTo.filter((rank, i) => rank === upTo[at] && inLongest(i)).length;
  return [...times.keys()].filter((at) => !inLongest(at) || sameRank(at) > 1);
}
