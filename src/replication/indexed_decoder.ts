/** Decodes an object of an earlier process, from the bucket or the spool, into what the page index will say of it. */
import { ChangesetDecoder, type ChangesetEnd, type ChangesetHeader, type DecodeOptions } from "../format/hadbp.ts";
import { indexEntrySize, type PageHashes, type PageIndex } from "./page_index.ts";

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
      if (this.#pgnos.length === 0) this.#hashes = new Uint8Array(this.#decoder.header!.pageCount * indexEntrySize);
      this.#index.hashPage(data, this.#hashes, this.#pgnos.length * indexEntrySize);
      this.#pgnos.push(pgno);
    }
  }

  /** Nothing that came out before is proven until this returns. */
  finish(): { header: ChangesetHeader; end: ChangesetEnd; hashes: PageHashes } {
    const end = this.#decoder.finish();
    const hashes = this.#hashes.subarray(0, this.#pgnos.length * indexEntrySize);
    return { header: this.#decoder.header!, end, hashes: { pgnos: this.#pgnos, hashes } };
  }
}
