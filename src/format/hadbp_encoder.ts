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

  /** Copies all of `source` when there is room, and says whether there was. */
  addWhole(source: Uint8Array): boolean {
    if (source.length > this.room) return false;
    this.bytes.set(source, this.filled);
    this.filled += source.length;
    return true;
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

/**
 * Encodes a changeset as chunks of exactly `chunkSize` bytes (the last one may be shorter); a chunk is valid until the
 * next one is asked for, and entries are taken one at a time, each valid until the next. Memory is one chunk.
 * Returns checksum and size; throws `RangeError` when entries do not fit the header or the profile.
 */
export function* encodeChangeset(
  header: ChangesetHeader,
  entries: Iterable<Entry>,
  options: { sha256: NewSha256; chunkSize: number },
): Generator<Uint8Array, ChangesetEnd> {
  if (!Number.isInteger(options.chunkSize) || options.chunkSize < 1) {
    throw new RangeError(`chunkSize must be a positive integer, not ${options.chunkSize}`);
  }
  const headerBytes = encodeHeader(header);
  const size = changesetSize(header);
  const hash = options.sha256();
  hash.update(headerBytes.slice(20, 28));
  const fill = new ChunkFill(Math.min(options.chunkSize, size), hash);
  yield* pour(fill, headerBytes, false);
  const entryHeader = new Uint8Array(entryHeaderSize);
  const entryView = viewOf(entryHeader);
  const before: EntryOrder = { index: 0, pgno: 0 };
  for (const { pgno, data } of entries) {
    const problem = before.index === header.pageCount
      ? ["", `${header.pageCount} entries`, "more"]
      : entryProblem(header, before, pgno, data.length);
    if (problem !== null || pgno > 0xffff_ffff || !Number.isInteger(pgno)) {
      throw new RangeError(
        `entry ${before.index}: expected ${problem?.[1] ?? "a page number"}, found ${problem?.[2] ?? pgno}`,
      );
    }
    before.index += 1;
    before.pgno = pgno;
    entryView.setUint32(0, pgno);
    entryView.setUint32(4, data.length);
    if (!fill.addWhole(entryHeader)) yield* pour(fill, entryHeader, true);
    if (!fill.addWhole(data)) yield* pour(fill, data, true);
  }
  if (before.index !== header.pageCount) {
    throw new RangeError(`expected ${header.pageCount} entries, found ${before.index}`);
  }
  fill.hash();
  const digest = hash.digest();
  yield* pour(fill, digest.subarray(0, trailerSize), false);
  yield fill.bytes.subarray(0, fill.filled);
  return endOf(header, checksumOfDigest(digest), before.pgno);
}
