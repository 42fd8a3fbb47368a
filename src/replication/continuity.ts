/**
 * Whether the objects of a lineage continue one another: every previous chain value against what ends in front of it,
 * and against each other what ends at the same seq (a bridge and its snapshot, a merged range and its last source).
 */
import { type ChangesetHeader, checksumHex } from "../format/hadbp.ts";
import type { Segment } from "./history.ts";
import { objectKey, type PoolObject } from "./inventory.ts";
import { contradiction } from "./object_reader.ts";
import { timeText } from "./plan.ts";

/** What is known of the database after an object. */
export interface ChainEnd {
  readonly chain: bigint;
  /** Size of the database, pages; null where only the header was read. */
  readonly pageCount: number | null;
}

/** Who is told what is wrong with an object. */
export interface ContinuityListener {
  /** It is not what belongs there. */
  refuse(object: PoolObject, code: string, message: string): void;
  /** It can be used, but not all that it says. */
  doubt(object: PoolObject, code: string, message: string): void;
}

interface End extends ChainEnd {
  readonly by: PoolObject;
  /** True when the chain value is under the object's own checksum. */
  readonly isProven: boolean;
}

const rank = { delta: 0, snapshot: 1, level: 2 };

/** The order in which {@linkcode Continuity.add} wants objects: by their last seq, deltas first. */
export function byEnd(a: PoolObject, b: PoolObject): number {
  if (a.max !== b.max) return a.max < b.max ? -1 : 1;
  return rank[a.kind] - rank[b.kind] || a.level - b.level;
}

/** Compares the objects of one lineage; keeps what ends at its borders only, so that memory does not grow with it. */
export class Continuity {
  readonly #root: string;
  readonly #segment: Segment;
  readonly #listener: ContinuityListener;
  /** Seqs at which several objects end, or a merged range begins behind. */
  readonly #borders: ReadonlySet<bigint>;
  readonly #ends = new Map<bigint, End[]>();
  #last: bigint | null = null;
  #pageSize = 0;
  #createdMs = 0;

  constructor(root: string, segment: Segment, listener: ContinuityListener) {
    this.#root = root;
    this.#segment = segment;
    this.#listener = listener;
    const { snapshots, levels } = segment;
    this.#borders = new Set([...snapshots.map(({ max }) => max), ...levels.flatMap(({ min, max }) => [min - 1n, max])]);
  }

  /** Size of the database before an object, pages; null where it is not known. */
  pageCountBefore({ min }: PoolObject): number | null {
    return this.#ends.get(min - 1n)?.[0]?.pageCount ?? null;
  }

  /** Takes the next object; `end` is null where its header does not say it. */
  add(object: PoolObject, header: ChangesetHeader, end: ChainEnd | null): void {
    const key = objectKey(this.#root, object);
    if (this.#pageSize === 0) this.#pageSize = header.pageSize;
    if (header.pageSize !== this.#pageSize) {
      const { code, message } = contradiction("page_size_mismatch", key, "page size", this.#pageSize, header.pageSize);
      return this.#listener.refuse(object, code, message);
    }
    if (this.#segment.own) this.#checkTime(object, key, header.createdMs);
    if (object.kind !== "snapshot" && !this.#continues(object, key, header.prevChecksum)) return;
    if (end === null) return;
    const isProven = object.kind === "delta" && header.version === 1;
    const found = { ...end, by: object, isProven };
    const same = this.#ends.get(object.max);
    if (same !== undefined) same.push(found);
    else this.#ends.set(object.max, [found]);
    const before = this.#last;
    if (before !== null && before !== object.max && !this.#borders.has(before)) this.#ends.delete(before);
    this.#last = object.max;
  }

  /** Decides what no later object has decided. */
  finish(): void {
    for (const ends of this.#ends.values()) {
      const trusted = ends.find(({ isProven }) => isProven) ?? ends[0];
      if (trusted !== undefined) this.#refuseOthers(ends, trusted.chain);
    }
  }

  #checkTime(object: PoolObject, key: string, createdMs: number): void {
    const before = this.#createdMs;
    this.#createdMs = Math.max(before, createdMs);
    if (createdMs >= before) return;
    const message = `${key}: its time, ${timeText(createdMs)}, is before that of an object in front of it, ` +
      timeText(before);
    this.#listener.doubt(object, "time_order", message);
  }

  #continues(object: PoolObject, key: string, prev: bigint): boolean {
    const ends = this.#ends.get(object.min - 1n);
    if (ends === undefined || ends.length === 0) return true;
    if (ends.some(({ chain }) => chain === prev)) {
      this.#refuseOthers(ends, prev);
      return true;
    }
    // What is under a checksum of its own is believed; a snapshot, a bridge and a merged range only declare their end.
    if (ends.some(({ isProven }) => isProven)) {
      const [expected, actual] = [ends[0].chain, prev].map(checksumHex);
      const { code, message } = contradiction("chain_mismatch", key, "previous chain value", expected, actual);
      this.#listener.refuse(object, code, message);
      return false;
    }
    this.#refuseOthers(ends, prev);
    return true;
  }

  /** Names those that end in another chain value, and forgets them. None may be left. */
  #refuseOthers(ends: End[], chain: bigint): void {
    for (const end of ends.filter((other) => other.chain !== chain)) {
      const key = objectKey(this.#root, end.by);
      const [expected, actual] = [chain, end.chain].map(checksumHex);
      const { code, message } = contradiction("chain_mismatch", key, "chain value after it", expected, actual);
      this.#listener.refuse(end.by, code, message);
    }
    const left = ends.filter((other) => other.chain === chain);
    ends.splice(0, ends.length, ...left);
  }
}
