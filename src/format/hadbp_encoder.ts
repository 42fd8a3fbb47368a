/** Writes changesets as a stream; the format is in hadbp_header.ts. */

import type { NewSha256, Sha256 } from "../runtime/types.ts";
import { viewOf } from "./bytes.ts";
import {
  type ChangesetEnd,
  type ChangesetHeader,
  changesetSize,
  checksumOfDigest,
  encodeHeader,
  endOf,
  type Entry,
  entryHeaderSize,
  type EntryOrder,
  entryProblem,
  trailerSize,
} from "./hadbp_header.ts";

/** A chunk being filled, of which everything between header and trailer is hashed in one go. */
class ChunkFill {
  readonly bytes: Uint8Array;
  filled = 0;
  #hashed = 0;
  readonly #hash: Sha256;

  constructor(size: number, hash: Sha256) {
    this.bytes = new Uint8Array(size);
    this.#hash = hash;
  }

  get room(): number {
    return this.bytes.length - this.filled;
  }

  /** Copies as much of `source` from `at` as there is room for; returns how much. */
  add(source: Uint8Array, at: number): number {
    const count = Math.min(this.room, source.length - at);
    this.bytes.set(count === source.length ? source : source.subarray(at, at + count), this.filled);
    this.filled += count;
    return count;
  }

  /** Copies all of `source`, for which there is room. */
  addWhole(source: Uint8Array): void {
    this.bytes.set(source, this.filled);
    this.filled += source.length;
  }

  /** Hashes what was added since the last call. */
  hash(): void {
    if (this.filled > this.#hashed) this.#hash.update(this.bytes.subarray(this.#hashed, this.filled));
    this.#hashed = this.filled;
  }

  /** Leaves what was added since the last call out of the hash. */
  skipHash(): void {
    this.#hashed = this.filled;
  }

  clear(): void {
    this.filled = 0;
    this.#hashed = 0;
  }
}

/** Copies `source` into the chunk and yields the chunk whenever it is full and more is to come. */
function* pour(fill: ChunkFill, source: Uint8Array, covered: boolean): Generator<Uint8Array, void> {
  for (let at = 0; at < source.length;) {
    if (fill.room === 0) {
      if (covered) fill.hash();
      yield fill.bytes;
      fill.clear();
    }
    at += fill.add(source, at);
    if (!covered) fill.skipHash();
  }
}

const noChunks: readonly Uint8Array[] = [];

/**
 * Encodes a changeset whose entries come one by one into chunks of exactly `chunkSize` bytes (the last one may be
 * shorter). Take every chunk that a call gives before the next call: it is valid until then. Memory is one chunk.
 */
export class ChangesetEncoder {
  readonly #header: ChangesetHeader;
  readonly #fill: ChunkFill;
  readonly #hash: Sha256;
  readonly #entryHeader: Uint8Array = new Uint8Array(entryHeaderSize);
  readonly #entryView: DataView = viewOf(this.#entryHeader);
  readonly #before: EntryOrder = { index: 0, pgno: 0 };
  #headerBytes: Uint8Array | null;

  /** Begins an object; throws `RangeError` for a header that cannot be written. */
  constructor(header: ChangesetHeader, options: { sha256: NewSha256; chunkSize: number }) {
    if (!Number.isInteger(options.chunkSize) || options.chunkSize < 1) {
      throw new RangeError(`chunkSize must be a positive integer, not ${options.chunkSize}`);
    }
    this.#header = header;
    this.#headerBytes = encodeHeader(header);
    this.#hash = options.sha256();
    this.#hash.update(this.#headerBytes.slice(20, 28));
    this.#fill = new ChunkFill(Math.min(options.chunkSize, changesetSize(header)), this.#hash);
  }

  /** Takes the next entry; throws `RangeError` when it does not fit the header or the profile. */
  push(entry: Entry): Iterable<Uint8Array> {
    const { pgno, data } = entry;
    const before = this.#before;
    const problem = before.index === this.#header.pageCount
      ? ["", `${this.#header.pageCount} entries`, "more"]
      : entryProblem(this.#header, before, pgno, data.length);
    if (problem !== null || pgno > 0xffff_ffff || !Number.isInteger(pgno)) {
      throw new RangeError(
        `entry ${before.index}: expected ${problem?.[1] ?? "a page number"}, found ${problem?.[2] ?? pgno}`,
      );
    }
    before.index += 1;
    before.pgno = pgno;
    this.#entryView.setUint32(0, pgno);
    this.#entryView.setUint32(4, data.length);
    if (this.#headerBytes !== null || this.#fill.room < entryHeaderSize + data.length) return this.#pour(data);
    this.#fill.addWhole(this.#entryHeader);
    this.#fill.addWhole(data);
    return noChunks;
  }

  *#pour(data: Uint8Array): Generator<Uint8Array, void> {
    yield* this.#begin();
    yield* pour(this.#fill, this.#entryHeader, true);
    yield* pour(this.#fill, data, true);
  }

  *#begin(): Generator<Uint8Array, void> {
    const bytes = this.#headerBytes;
    this.#headerBytes = null;
    if (bytes !== null) yield* pour(this.#fill, bytes, false);
  }

  /** Ends the object with its last chunks; returns checksum and size. Throws `RangeError` when entries are missing. */
  *finish(): Generator<Uint8Array, ChangesetEnd> {
    if (this.#before.index !== this.#header.pageCount) {
      throw new RangeError(`expected ${this.#header.pageCount} entries, found ${this.#before.index}`);
    }
    const fill = this.#fill;
    fill.hash();
    const digest = this.#hash.digest();
    yield* pour(fill, digest.subarray(0, trailerSize), false);
    yield fill.bytes.subarray(0, fill.filled);
    return endOf(this.#header, checksumOfDigest(digest), this.#before.pgno);
  }
}

/** {@linkcode ChangesetEncoder} over entries that are there already, each valid until the next one is asked for. */
export function* encodeChangeset(
  header: ChangesetHeader,
  entries: Iterable<Entry>,
  options: { sha256: NewSha256; chunkSize: number },
): Generator<Uint8Array, ChangesetEnd> {
  const encoder = new ChangesetEncoder(header, options);
  for (const entry of entries) {
    const chunks = encoder.push(entry);
    if (chunks !== noChunks) yield* chunks;
  }
  return yield* encoder.finish();
}
