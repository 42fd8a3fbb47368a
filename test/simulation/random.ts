/** Seeded randomness: the same seed gives the same history on every runtime. */
import type { Random } from "../../src/runtime/types.ts";

/** sfc32 (Chris Doty-Humphrey): small, fast, passes PractRand; never for secrets. */
export class SeededRandom implements Random {
  #a: number;
  #b: number;
  #c: number;
  #counter = 1;

  constructor(seed: number) {
    this.#a = seed >>> 0;
    // A seed beyond 32 bits still counts whole.
    this.#b = Math.floor(seed / 2 ** 32) >>> 0;
    this.#c = 0x9e3779b9;
    for (let round = 0; round < 15; round++) this.next();
  }

  /** 32 random bits. */
  next(): number {
    const sum = (this.#a + this.#b + this.#counter) | 0;
    this.#counter = (this.#counter + 1) | 0;
    this.#a = this.#b ^ (this.#b >>> 9);
    this.#b = (this.#c + (this.#c << 3)) | 0;
    this.#c = ((this.#c << 21) | (this.#c >>> 11)) + sum | 0;
    return sum >>> 0;
  }

  /** Uniform in [0, 1). */
  number(): number {
    return this.next() / 2 ** 32;
  }

  /** Uniform whole number in [0, limit). */
  integer(limit: number): number {
    return Math.floor(this.number() * limit);
  }

  /** Uniform whole number in [low, high]. */
  between(low: number, high: number): number {
    return low + this.integer(high - low + 1);
  }

  /** True with the given probability. */
  chance(probability: number): boolean {
    return this.number() < probability;
  }

  /** One of the items. */
  pick<T>(items: readonly T[]): T {
    return items[this.integer(items.length)];
  }

  /** `length` random bytes. */
  bytes(length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let at = 0; at < length; at += 4) {
      const word = this.next();
      for (let byte = 0; byte < 4 && at + byte < length; byte++) bytes[at + byte] = word >>> (8 * byte);
    }
    return bytes;
  }

  /** An independent source, so that more draws in one part do not shift the draws of another. */
  fork(): SeededRandom {
    return new SeededRandom(this.next() * 2 ** 20 + (this.next() >>> 12));
  }
}
