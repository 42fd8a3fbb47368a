/** A set of page numbers: bits in blocks that exist only where a page is, so a hostile page number costs one block. */

const blockPages = 32_768;
const wordsInBlock = blockPages / 32;

/** See the file's head. Page numbers are those of SQLite, from 1. */
export class PageSet {
  readonly #blocks = new Map<number, Uint32Array>();

  /** True when the page is in it. */
  has(pgno: number): boolean {
    const block = this.#blocks.get(Math.floor(pgno / blockPages));
    return block !== undefined && (block[(pgno % blockPages) >>> 5] & (1 << (pgno & 31))) !== 0;
  }

  /** Takes a page in. */
  add(pgno: number): void {
    const index = Math.floor(pgno / blockPages);
    let block = this.#blocks.get(index);
    if (block === undefined) this.#blocks.set(index, block = new Uint32Array(wordsInBlock));
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
