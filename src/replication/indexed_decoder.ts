/** Decodes an object of an earlier process, from the bucket or the spool, into what the page index will say of it. */
import { ChangesetDecoder, type ChangesetEnd, type ChangesetHeader, type DecodeOptions } from "../format/hadbp.ts";
import { indexEntrySize, type PageHashes, type PageIndex } from "./page_index.ts";

/** Room for the hashes of the first pages; what a header claims is not believed before its pages have come. */
const firstRoom = 64 * indexEntrySize;

/** Push every chunk, then finish; throws `FormatError` as `ChangesetDecoder` does. */
export class IndexedDecoder {
  readonly #decoder: ChangesetDecoder;
  readonly #index: PageIndex;
  readonly #pgnos: number[] = [];
  #hashes: Uint8Array = new Uint8Array(0);

  constructor(index: PageIndex, options: DecodeOptions) {
    this.#index = index;
    this.#decoder = new ChangesetDecoder(options);
  }

  push(chunk: Uint8Array): void {
    for (const { pgno, data } of this.#decoder.push(chunk)) {
      if (data.length === 0) continue;
      const at = this.#pgnos.length * indexEntrySize;
      if (at === this.#hashes.length) this.#grow();
      this.#index.hashPage(data, this.#hashes, at);
      this.#pgnos.push(pgno);
    }
  }

  #grow(): void {
    const larger = new Uint8Array(Math.max(firstRoom, 2 * this.#hashes.length));
    larger.set(this.#hashes);
    this.#hashes = larger;
  }

  /** Nothing that came out before is proven until this returns. */
  finish(): { header: ChangesetHeader; end: ChangesetEnd; hashes: PageHashes } {
    const end = this.#decoder.finish();
    const hashes = this.#hashes.subarray(0, this.#pgnos.length * indexEntrySize);
    return { header: this.#decoder.header!, end, hashes: { pgnos: this.#pgnos, hashes } };
  }
}
