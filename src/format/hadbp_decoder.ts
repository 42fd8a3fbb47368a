/** Reads changesets as a stream; the format is in hadbp_header.ts. */

import type { NewSha256, Sha256 } from "../runtime/types.ts";
import { formatError, viewOf } from "./bytes.ts";
import {
  type ChangesetEnd,
  type ChangesetHeader,
  changesetSize,
  checksumHex,
  checksumOfDigest,
  decodeHeader,
  endOf,
  type Entry,
  entryHeaderSize,
  type EntryOrder,
  entryProblem,
  hasMarker,
  headerSize,
  pageCountOffset,
  trailerSize,
} from "./hadbp_header.ts";

const noBytes: Uint8Array = new Uint8Array(0);

/** What the caller knows of the object to come. */
export interface ChangesetExpectation {
  /** Sequence number that the key says. */
  seq?: bigint;
  /** Page size of the chain. */
  pageSize?: number;
  /** Chain value before the object; leave it out for a lineage's first snapshot. */
  prevChecksum?: bigint;
  /** `delta` stands for everything with a marker: deltas, bridges, merged deltas. */
  kind?: "snapshot" | "delta";
}

/** Options of {@linkcode ChangesetDecoder} and {@linkcode decodeChangeset}. */
export interface DecodeOptions {
  /** Key of the object, for errors. */
  object: string;
  /** Begins the hash of the object. */
  sha256: NewSha256;
  /** Bytes of the object, when known: checked against the header before anything else is read. */
  size?: number;
  /** Checked as soon as the header is there. */
  expect?: ChangesetExpectation;
}

/**
 * Decodes a changeset that arrives in chunks of any size. Memory is one page besides the caller's chunk. Nothing
 * that came out is proven before `finish` returns. Throws `FormatError` at the first byte that is not as it must be;
 * afterwards the decoder is spent.
 */
export class ChangesetDecoder {
  readonly #options: DecodeOptions;
  readonly #hash: Sha256;
  readonly #small: Uint8Array = new Uint8Array(headerSize(2));
  #header: ChangesetHeader | null = null;
  #page: Uint8Array = noBytes;
  #smallFilled = 0;
  #pageFilled = 0;
  /** Bytes of the object used up. */
  #position = 0;
  #size = 0;
  /** Data bytes the current entry still has, whose number is `#before.pgno`; -1 between entries. */
  #dataLength = -1;
  readonly #before: EntryOrder = { index: 0, pgno: 0 };
  #trailer: bigint | null = null;
  #busy = false;

  /** Begins an object. */
  constructor(options: DecodeOptions) {
    this.#options = options;
    this.#hash = options.sha256();
  }

  /** The header, once it has arrived and was found sound. */
  get header(): ChangesetHeader | null {
    return this.#header;
  }

  /**
   * Takes the next bytes of the object and gives the entries that they complete. Iterate to the end before the next
   * call; an entry's data is valid until the next step.
   */
  push(chunk: Uint8Array): Iterable<Entry> {
    this.#begin();
    return this.#entries(chunk);
  }

  /** Ends the object: throws `FormatError` when it is short or its checksum is wrong. */
  finish(): ChangesetEnd {
    this.#begin();
    const header = this.#header;
    if (header === null || this.#trailer === null) {
      throw this.#refuse("short", this.#position, header === null ? "a header" : `${this.#size} bytes`, "the end");
    }
    const checksum = checksumOfDigest(this.#hash.digest());
    if (checksum !== this.#trailer) {
      throw this.#refuse(
        "checksum_mismatch",
        this.#size - trailerSize,
        `checksum ${checksumHex(checksum)}`,
        checksumHex(this.#trailer),
      );
    }
    return endOf(header, checksum, this.#before.pgno);
  }

  /** Set until the chunk is used up, and for good after an error. */
  #begin(): void {
    if (this.#busy) throw new TypeError("the chunk before was not iterated to its end, or was refused");
    this.#busy = true;
  }

  #refuse(code: string, offset: number, expected: string, found: string): Error {
    return formatError(code, this.#options.object, offset, expected, found);
  }

  *#entries(chunk: Uint8Array): Generator<Entry, void> {
    let at = this.#header === null ? this.#takeHeader(chunk) : 0;
    const header = this.#header;
    if (header !== null) {
      const bodyEnd = Math.min(chunk.length, this.#size - trailerSize - this.#position);
      if (bodyEnd > at) this.#hash.update(chunk.subarray(at, bodyEnd));
      while (at < chunk.length && this.#trailer === null) {
        if (this.#dataLength >= 0) {
          const data = this.#takeData(chunk, at);
          at += this.#taken;
          if (data === null) break;
          this.#dataLength = -1;
          yield { pgno: this.#before.pgno, data };
        } else {
          // Entry headers and the trailer both have eight bytes.
          const field = this.#takeSmall(chunk, at, entryHeaderSize);
          at += this.#taken;
          if (field === null) break;
          if (this.#before.index === header.pageCount) this.#trailer = field.getBigUint64(0);
          else if (this.#takeEntry(header, field, this.#position + at - entryHeaderSize)) {
            yield { pgno: this.#before.pgno, data: noBytes };
          }
        }
      }
      if (at < chunk.length) throw this.#refuse("trailing", this.#size, "the end", "more bytes");
    }
    this.#position += chunk.length;
    this.#busy = false;
  }

  /** Bytes that the last take used up. */
  #taken = 0;

  /** The next `length` bytes, in place when the chunk holds them, else gathered; null when they are not all there. */
  #takeSmall(chunk: Uint8Array, at: number, length: number): DataView | null {
    if (this.#smallFilled === 0 && chunk.length - at >= length) {
      this.#taken = length;
      return new DataView(chunk.buffer, chunk.byteOffset + at, length);
    }
    this.#taken = Math.min(length - this.#smallFilled, chunk.length - at);
    this.#small.set(chunk.subarray(at, at + this.#taken), this.#smallFilled);
    this.#smallFilled += this.#taken;
    if (this.#smallFilled < length) return null;
    this.#smallFilled = 0;
    return viewOf(this.#small);
  }

  #takeData(chunk: Uint8Array, at: number): Uint8Array | null {
    const length = this.#dataLength;
    if (this.#pageFilled === 0 && chunk.length - at >= length) {
      this.#taken = length;
      return chunk.subarray(at, at + length);
    }
    this.#taken = Math.min(length - this.#pageFilled, chunk.length - at);
    this.#page.set(chunk.subarray(at, at + this.#taken), this.#pageFilled);
    this.#pageFilled += this.#taken;
    if (this.#pageFilled < length) return null;
    this.#pageFilled = 0;
    return this.#page;
  }

  /** Checks the head of an entry; true when it is the marker, which has no data to wait for. */
  #takeEntry(header: ChangesetHeader, field: DataView, offset: number): boolean {
    const pgno = field.getUint32(0);
    const length = field.getUint32(4);
    const problem = entryProblem(header, this.#before, pgno, length);
    if (problem !== null) throw this.#refuse(problem[0], offset, problem[1], problem[2]);
    this.#before.index += 1;
    this.#before.pgno = pgno;
    if (length === 0) return true;
    this.#dataLength = length;
    return false;
  }

  /** Gathers the header from however many chunks; returns how much of this one it used. */
  #takeHeader(chunk: Uint8Array): number {
    let at = 0;
    // Version 1 is known to be whole at 40 bytes; byte 5 says whether eight more are to come.
    for (const wanted of [headerSize(1), headerSize(2)]) {
      const count = Math.min(Math.max(0, wanted - this.#smallFilled), chunk.length - at);
      this.#small.set(chunk.subarray(at, at + count), this.#smallFilled);
      this.#smallFilled += count;
      at += count;
      if (this.#smallFilled < wanted) return at;
      if (wanted === headerSize(1) && this.#small[5] === 2) continue;
      break;
    }
    const { object, size, expect = {} } = this.#options;
    const header = decodeHeader(this.#small.subarray(0, this.#smallFilled), object);
    this.#smallFilled = 0;
    this.#size = changesetSize(header);
    if (size !== undefined) this.#checkSize(header, size);
    this.#checkExpectation(header, expect);
    this.#page = new Uint8Array(header.pageSize);
    this.#hash.update(this.#small.slice(20, 28));
    this.#header = header;
    return at;
  }

  #checkSize(header: ChangesetHeader, size: number): void {
    const most = Math.floor((size - headerSize(header.version) - trailerSize) / entryHeaderSize);
    if (header.pageCount > most) {
      throw this.#refuse("page_count", pageCountOffset, `at most ${most} entries`, String(header.pageCount));
    }
    if (size < this.#size) throw this.#refuse("short", size, `${this.#size} bytes`, "the end");
    if (size > this.#size) throw this.#refuse("trailing", this.#size, "the end", "more bytes");
  }

  #checkExpectation(header: ChangesetHeader, expect: ChangesetExpectation): void {
    if (expect.seq !== undefined && header.seq !== expect.seq) {
      throw this.#refuse("seq_mismatch", 12, `seq ${expect.seq}`, String(header.seq));
    }
    if (expect.pageSize !== undefined && header.pageSize !== expect.pageSize) {
      throw this.#refuse("page_size_mismatch", 8, `page size ${expect.pageSize}`, String(header.pageSize));
    }
    if (expect.prevChecksum !== undefined && header.prevChecksum !== expect.prevChecksum) {
      throw this.#refuse("chain_mismatch", 20, checksumHex(expect.prevChecksum), checksumHex(header.prevChecksum));
    }
    const kind = hasMarker(header) ? "delta" : "snapshot";
    if (expect.kind !== undefined && expect.kind !== kind) {
      throw this.#refuse("kind_mismatch", 6, `a ${expect.kind}`, `a ${kind}`);
    }
  }
}

/** Decodes a whole changeset; its entries are parts of `bytes`. Throws `FormatError`. */
export function decodeChangeset(
  bytes: Uint8Array,
  options: DecodeOptions,
): { header: ChangesetHeader; entries: Entry[] } & ChangesetEnd {
  const decoder = new ChangesetDecoder({ ...options, size: options.size ?? bytes.length });
  const entries = [...decoder.push(bytes)];
  const end = decoder.finish();
  return { header: decoder.header!, entries, ...end };
}
