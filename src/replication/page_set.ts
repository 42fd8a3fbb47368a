/** A set of page numbers: one bit each, and nothing for a block of pages of which none is in it. */
import { IntegrityError } from "../errors.ts";

/** Pages of a block. */
const blockPages = 65_536;
const wordsInBlock = blockPages / 32;

/** 64 MB: full blocks stand for 2 TiB of pages of 4 KiB; only hostile numbers are spread so far that they need more. */
const blocksMax = 8192;

/** See the top of this file. Page numbers are those of SQLite, from 1. */
export class PageSet {
  readonly #blocks = new Map<number, Uint32Array>();

  /** True when the page is in it. */
  has(pgno: number): boolean {
    const block = this.#blocks.get(Math.floor(pgno / blockPages));
    return block !== undefined && (block[(pgno % blockPages) >>> 5] & (1 << (pgno & 31))) !== 0;
  }

  /** Takes a page in. Throws `IntegrityError` for numbers spread over more blocks than any database needs. */
  add(pgno: number): void {
    const index = Math.floor(pgno / blockPages);
    let block = this.#blocks.get(index);
    if (block === undefined) {
      if (this.#blocks.size >= blocksMax) {
        throw new IntegrityError("too_many_pages", `page ${pgno} lies too far from the others`);
      }
      this.#blocks.set(index, block = new Uint32Array(wordsInBlock));
    }
    block[(pgno % blockPages) >>> 5] |= 1 << (pgno & 31);
  }

  /** Leaves a page out. */
  delete(pgno: number): void {
    const block = this.#blocks.get(Math.floor(pgno / blockPages));
    if (block !== undefined) block[(pgno % blockPages) >>> 5] &= ~(1 << (pgno & 31));
  }

  /** Leaves out all pages beyond `pageCount`. */
  cut(pageCount: number): void {
    const last = Math.floor(pageCount / blockPages);
    for (const [index, block] of this.#blocks) {
      if (index > last) this.#blocks.delete(index);
      if (index !== last) continue;
      const bit = pageCount % blockPages;
      block[bit >>> 5] &= bit % 32 === 31 ? -1 : (1 << ((bit & 31) + 1)) - 1;
      block.fill(0, (bit >>> 5) + 1);
    }
  }

  /** Leaves out all pages. */
  clear(): void {
    this.#blocks.clear();
  }

  /** How many of the pages are at most `last`. */
  countUpTo(last: number): number {
    let count = 0;
    for (const [index, block] of this.#blocks) {
      const end = Math.min(blockPages, last + 1 - index * blockPages);
      for (let at = 0; at < end; at += 32) {
        const bits = block[at >>> 5];
        count += bitCount(end - at >= 32 ? bits : bits & ((1 << (end - at)) - 1));
      }
    }
    return count;
  }

  /** The pages, ascending; it may lose pages meanwhile. */
  *pages(): Generator<number, void> {
    for (const index of [...this.#blocks.keys()].sort((a, b) => a - b)) {
      const block = this.#blocks.get(index);
      if (block === undefined) continue;
      for (let word = 0; word < wordsInBlock; word++) {
        if (block[word] === 0) continue;
        for (let bit = 0; bit < 32; bit++) {
          if ((block[word] & (1 << bit)) !== 0) yield index * blockPages + word * 32 + bit;
        }
      }
    }
  }

  /** Runs of neighbouring pages, ascending, none longer than `pagesMax`. */
  *runs(pagesMax: number): Generator<{ first: number; count: number }, void> {
    let first = 0;
    let count = 0;
    for (const pgno of this.pages()) {
      if (count > 0 && (pgno !== first + count || count === pagesMax)) {
        yield { first, count };
        count = 0;
      }
      if (count === 0) first = pgno;
      count++;
    }
    if (count > 0) yield { first, count };
  }
}

/** Bits set in a 32-bit number. */
function bitCount(bits: number): number {
  let rest = bits - ((bits >>> 1) & 0x5555_5555);
  rest = (rest & 0x3333_3333) + ((rest >>> 2) & 0x3333_3333);
  return Math.imul((rest + (rest >>> 4)) & 0x0f0f_0f0f, 0x0101_0101) >>> 24;
}
