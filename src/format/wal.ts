/**
 * The write-ahead log of SQLite (sqlite.org/fileformat2.html §4, `wal.c`); integers big-endian.
 *
 * | Header offset | Size | Field |
 * | --- | --- | --- |
 * | 0 | 4 | magic 0x377f0682 (checksum words little-endian) or 0x377f0683 (big-endian) |
 * | 4 | 4 | version 3007000 |
 * | 8 | 4 | page size; 65536 is stored as such |
 * | 12 | 4 | checkpoint sequence |
 * | 16, 20 | 4 + 4 | salt-1, salt-2 |
 * | 24, 28 | 4 + 4 | checksum over bytes 0..23 |
 *
 * | Frame offset | Size | Field |
 * | --- | --- | --- |
 * | 0 | 4 | page number |
 * | 4 | 4 | database size in pages after this commit; 0 when the frame commits nothing |
 * | 8, 12 | 4 + 4 | the header's salts |
 * | 16, 20 | 4 + 4 | checksum, continued from the frame before, over bytes 0..7 and the page |
 * | 24 | page size | page |
 *
 * 1. The log ends at the first frame with other salts, page number 0, or a wrong checksum, in this order of asking.
 * 2. Frames after the last commit frame do not count; the caller knows which one that was.
 * 3. Stale frames with old salts may follow the live ones: the file keeps its size when the log restarts.
 * 4. The checksum does not cover the salts of a frame; rule 1 does.
 */

import { isPageSize, viewOf } from "./bytes.ts";

/** Bytes of the header of the log. */
export const walHeaderSize = 32;
/** Bytes of the header of a frame. */
export const walFrameHeaderSize = 24;

const magicLittle = 0x377f0682;
const magicBig = 0x377f0683;
const walVersion = 3007000;

/** What the header of the log says; salts and checksums are unsigned 32-bit. */
export interface WalHeader {
  /** Order of the words that the checksums add up; everything else is big-endian. */
  byteOrder: "little" | "big";
  /** Bytes of a page. */
  pageSize: number;
  /** Counts the restarts of the log. */
  checkpointSequence: number;
  /** First salt, one more after each restart. */
  salt1: number;
  /** Second salt, random after each restart. */
  salt2: number;
  /** First sum over the header, with which the frames go on. */
  checksum1: number;
  /** Second sum over the header. */
  checksum2: number;
}

/**
 * Why bytes are not a header. `empty`, `short` and `checksum`: nothing there yet, or it is being written; ask again.
 * `magic`, `version` and `page-size`: not a log we know.
 */
export type WalHeaderProblem = "empty" | "short" | "magic" | "version" | "page-size" | "checksum";

/** Reads the header of the log, or says why these bytes are none. */
export function parseWalHeader(bytes: Uint8Array): WalHeader | WalHeaderProblem {
  if (bytes.length === 0) return "empty";
  if (bytes.length < walHeaderSize) return "short";
  const view = viewOf(bytes);
  const magic = view.getUint32(0);
  if (magic !== magicLittle && magic !== magicBig) return "magic";
  const pageSize = view.getUint32(8);
  if (!isPageSize(pageSize)) return "page-size";
  const byteOrder = magic === magicLittle ? "little" : "big";
  const [checksum1, checksum2] = walChecksum(byteOrder, bytes.subarray(0, 24), 0, 0);
  if (checksum1 !== view.getUint32(24) || checksum2 !== view.getUint32(28)) return "checksum";
  // Asked last, as SQLite does: a torn header must not be taken for a log of another version.
  if (view.getUint32(4) !== walVersion) return "version";
  return {
    byteOrder,
    pageSize,
    checkpointSequence: view.getUint32(12),
    salt1: view.getUint32(16),
    salt2: view.getUint32(20),
    checksum1,
    checksum2,
  };
}

/** How far a scan has come; hand it to the next call with the bytes that follow. */
export interface WalScanState {
  /** Frames found valid so far. */
  frames: number;
  /** First running sum after those frames, unsigned. */
  checksum1: number;
  /** Second running sum. */
  checksum2: number;
}

/** Why a scan stopped: `end` when the bytes were used up, `short` when part of a frame is left over. */
export type WalScanEnd = "salt" | "checksum" | "page-zero" | "short" | "end";

/** The state before the first frame. */
export function beginWalScan(header: WalHeader): WalScanState {
  return { frames: 0, checksum1: header.checksum1, checksum2: header.checksum2 };
}

/**
 * Visits every valid frame in `bytes`, which begin at the frame numbered `state.frames`, and moves `state` behind it;
 * stops at the first frame that is invalid or partial. `visit` gets the 0-based frame number, the page number and the
 * database size in pages when the frame commits, else 0.
 */
export function scanWalFrames(
  header: WalHeader,
  state: WalScanState,
  bytes: Uint8Array,
  visit: (frame: number, pgno: number, commit: number) => void,
): WalScanEnd {
  const view = viewOf(bytes);
  const sums = new Sums(header.byteOrder, bytes, view);
  const frameSize = walFrameHeaderSize + header.pageSize;
  let offset = 0;
  for (; offset + frameSize <= bytes.length; offset += frameSize) {
    if (view.getUint32(offset + 8) !== header.salt1 || view.getUint32(offset + 12) !== header.salt2) return "salt";
    const pgno = view.getUint32(offset);
    if (pgno === 0) return "page-zero";
    sums.begin(state.checksum1, state.checksum2);
    sums.add(offset, offset + 8);
    sums.add(offset + walFrameHeaderSize, offset + frameSize);
    const checksum1 = sums.first >>> 0;
    const checksum2 = sums.second >>> 0;
    if (checksum1 !== view.getUint32(offset + 16) || checksum2 !== view.getUint32(offset + 20)) return "checksum";
    state.checksum1 = checksum1;
    state.checksum2 = checksum2;
    visit(state.frames++, pgno, view.getUint32(offset + 4));
  }
  return offset === bytes.length ? "end" : "short";
}

/** The checksum of the log over `bytes` (a multiple of 8), continued from the two given sums; unsigned. */
export function walChecksum(
  order: "little" | "big",
  bytes: Uint8Array,
  checksum1: number,
  checksum2: number,
): [number, number] {
  if (bytes.length % 8 !== 0) throw new RangeError(`a WAL checksum takes multiples of 8 bytes, not ${bytes.length}`);
  const sums = new Sums(order, bytes, viewOf(bytes));
  sums.begin(checksum1, checksum2);
  sums.add(0, bytes.length);
  return [sums.first >>> 0, sums.second >>> 0];
}

/** Byte offset of the header of a frame, 0-based, in the file. */
export function walFrameOffset(pageSize: number, frame: number): number {
  return walHeaderSize + frame * (walFrameHeaderSize + pageSize);
}

const hostOrder = new Uint8Array(new Uint32Array([1]).buffer)[0] === 1 ? "little" : "big";

/** The two running sums over one array; words are read four bytes at a time where alignment allows. */
class Sums {
  first = 0;
  second = 0;
  readonly #little: boolean;
  readonly #swap: boolean;
  readonly #view: DataView;
  readonly #words: Int32Array | null;

  constructor(order: "little" | "big", bytes: Uint8Array, view: DataView) {
    this.#little = order === "little";
    this.#swap = order !== hostOrder;
    this.#view = view;
    this.#words = bytes.byteOffset % 4 === 0
      ? new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >>> 2)
      : null;
  }

  begin(first: number, second: number): void {
    this.first = first | 0;
    this.second = second | 0;
  }

  /** Both ends are multiples of 8; sums wrap at 32 bits, and signed words keep the loop in integer registers. */
  add(from: number, to: number): void {
    if (this.#words === null) this.#addUnaligned(this.#view, from, to);
    else if (this.#swap) this.#addSwapped(this.#words, from >>> 2, to >>> 2);
    else this.#addPlain(this.#words, from >>> 2, to >>> 2);
  }

  #addPlain(words: Int32Array, from: number, to: number): void {
    let first = this.first;
    let second = this.second;
    for (let index = from; index < to; index += 2) {
      first = (((first + words[index]) | 0) + second) | 0;
      second = (((second + words[index + 1]) | 0) + first) | 0;
    }
    this.first = first;
    this.second = second;
  }

  #addSwapped(words: Int32Array, from: number, to: number): void {
    let first = this.first;
    let second = this.second;
    for (let index = from; index < to; index += 2) {
      const a = words[index];
      const b = words[index + 1];
      const even = (a << 24) | ((a & 0xff00) << 8) | ((a >>> 8) & 0xff00) | (a >>> 24);
      const odd = (b << 24) | ((b & 0xff00) << 8) | ((b >>> 8) & 0xff00) | (b >>> 24);
      first = (((first + even) | 0) + second) | 0;
      second = (((second + odd) | 0) + first) | 0;
    }
    this.first = first;
    this.second = second;
  }

  #addUnaligned(view: DataView, from: number, to: number): void {
    let first = this.first;
    let second = this.second;
    for (let offset = from; offset < to; offset += 8) {
      first = (((first + view.getInt32(offset, this.#little)) | 0) + second) | 0;
      second = (((second + view.getInt32(offset + 4, this.#little)) | 0) + first) | 0;
    }
    this.first = first;
    this.second = second;
  }
}
