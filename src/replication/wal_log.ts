/** Committed frames of a WAL file: where they are, which pages they bring, and whether a log is still the same one. */
import { DatabaseError } from "../errors.ts";
import { lockBytePage } from "../format/sqlite_header.ts";
import {
  beginWalScan,
  parseWalHeader,
  scanWalFrames,
  walFrameHeaderSize,
  walFrameOffset,
  type WalHeader,
  walHeaderSize,
  type WalScanState,
} from "../format/wal.ts";
import type { OpenFile } from "../runtime/types.ts";
import { readThere, readWhole } from "./image.ts";

const chunkSize = 1024 * 1024;

/** A place in a WAL, behind a commit. */
export interface WalPosition {
  readonly header: WalHeader;
  /** Frames before this place and the running checksum of the last one. */
  readonly state: Readonly<WalScanState>;
  /** Header of the first frame of the last transaction before this place: another content means a rewritten log. */
  readonly guard: { readonly frame: number; readonly bytes: Uint8Array } | null;
}

/** What of a {@linkcode WalPosition} says whether a log still passes there. */
export interface WalPlace {
  readonly header: Pick<WalHeader, "salt1" | "salt2">;
  readonly state: Readonly<WalScanState>;
}

/** An end of the log: how many frames were committed in which log when our position was `at`. */
export interface LogEnd {
  readonly at: WalPosition | null;
  /** `null` when the WAL was empty. The log may have been restarted since `at`. */
  readonly log: WalHeader | null;
  readonly frames: number;
}

/** Committed pages between two places. */
export interface Batch {
  /** Pages with new content, ascending, none beyond `pageCount`. */
  readonly pgnos: Uint32Array;
  /** The 0-based frame with the newest content of each of them. */
  readonly sources: Uint32Array;
  /** Database size after the batch, pages. */
  readonly pageCount: number;
  /** Frames passed over. */
  readonly frames: number;
  readonly begin: Readonly<WalScanState>;
  readonly end: WalPosition;
}

/**
 * Reads the WAL header; `null` when there is none: to SQLite too the log is empty then, whatever the file holds. Throws
 * `DatabaseError` for a log of another version.
 */
export function readWalHeader(wal: OpenFile): WalHeader | null {
  const bytes = new Uint8Array(walHeaderSize);
  const header = parseWalHeader(bytes.subarray(0, readThere(wal, bytes, 0)));
  if (typeof header !== "string") return header;
  if (header !== "version") return null;
  throw new DatabaseError("bad_wal", `${wal.path} is not a WAL that walrust can read (${header})`, {
    hint: "check that no other program writes this file",
    data: { path: wal.path, reason: header },
  });
}

/** True when both are headers of the same log: a restart changes the salts. */
export function sameLog(a: WalHeader, b: WalHeader): boolean {
  return a.salt1 === b.salt1 && a.salt2 === b.salt2 && a.checksum1 === b.checksum1 && a.checksum2 === b.checksum2;
}

/** True when both are the same place of the same log; `null` is an empty WAL. */
export function samePosition(a: WalPosition | null, b: WalPosition | null): boolean {
  if (a === null || b === null) return a === b;
  return sameLog(a.header, b.header) && a.state.frames === b.state.frames;
}

/** True when `position` has passed `end`. */
export function reached(position: WalPosition | null, end: LogEnd): boolean {
  if (end.frames <= 0) return true;
  if (position === null) return false;
  // A header that could not be read is that of the log we were in.
  const log = end.log ?? end.at?.header ?? position.header;
  if (sameLog(position.header, log)) return position.state.frames >= end.frames;
  // In the log before that one still, or in one after it already.
  return end.at === null || !sameLog(position.header, end.at.header);
}

/** True when the log goes on behind `position`: uncommitted, given up, or committed in a moment. */
export function goesOn(wal: OpenFile, position: WalPosition | null): boolean {
  const header = readWalHeader(wal);
  if (header === null) return false;
  const frames = position !== null && sameLog(position.header, header) ? position.state.frames : 0;
  const bytes = new Uint8Array(walFrameHeaderSize);
  const length = readThere(wal, bytes, walFrameOffset(header.pageSize, frames));
  const view = new DataView(bytes.buffer);
  return length === bytes.length && view.getUint32(8) === header.salt1 && view.getUint32(12) === header.salt2;
}

/** True while the log still holds the transaction before `position`. */
export function guardHolds(wal: OpenFile, position: WalPosition): boolean {
  if (position.guard === null) return true;
  const bytes = new Uint8Array(walFrameHeaderSize);
  readThere(wal, bytes, walFrameOffset(position.header.pageSize, position.guard.frame));
  return position.guard.bytes.every((byte, i) => bytes[i] === byte);
}

/** True while the last frame before `position` is in the file, be it of a log that is gone. */
export function holdsFrameBefore(wal: OpenFile, { header, state }: WalPosition): boolean {
  const bytes = new Uint8Array(walFrameHeaderSize);
  const length = readThere(wal, bytes, walFrameOffset(header.pageSize, state.frames - 1));
  const view = new DataView(bytes.buffer);
  return length === bytes.length && view.getUint32(8) === header.salt1 && view.getUint32(12) === header.salt2 &&
    view.getUint32(16) === state.checksum1 && view.getUint32(20) === state.checksum2;
}

interface Commit {
  readonly frame: number;
  readonly pageCount: number;
  readonly checksum1: number;
  readonly checksum2: number;
  readonly firstFrame: number;
  readonly guard: Uint8Array;
}

/** What a scan found. */
export interface Scan {
  /** The newest frame of each page in committed frames. */
  readonly pages: Map<number, number>;
  /** The last commit; `null` when none was found. */
  readonly commit: Commit | null;
  /** Valid frames before the place where the scan stopped, committed or not. */
  readonly frames: number;
  /** True when the scan stopped at the size limit. */
  readonly cut: boolean;
}

/** How far to scan. */
export interface ScanOptions {
  /** Stop at the first commit that reaches this many bytes of pages. */
  readonly sizeMax?: number;
}

/**
 * Scans frames from `from` up to but not including `limit`, in chunks; stops at the first that is invalid.
 * All frames below `limit` must be in the file.
 */
export function scanLog(
  wal: OpenFile,
  header: WalHeader,
  from: Readonly<WalScanState>,
  limit: number,
  options: ScanOptions = {},
): Scan {
  const frameSize = walFrameHeaderSize + header.pageSize;
  const pagesMax = (options.sizeMax ?? Infinity) / header.pageSize;
  const state = { ...from };
  let pages = new Map<number, number>();
  let pending = new Map<number, number>();
  let commit: Commit | null = null;
  let cut = false;
  // Most looks find a handful of frames: a large buffer for each of them would cost more than the scan.
  const atOnce = Math.min(Math.floor(chunkSize / frameSize), limit - from.frames);
  const buffer = new Uint8Array(Math.max(1, atOnce) * frameSize);
  let firstFrame = from.frames;
  let guard: Uint8Array | null = null;
  while (state.frames < limit && !cut) {
    const base = state.frames;
    const count = Math.min(buffer.length / frameSize, limit - base);
    const bytes = buffer.subarray(0, count * frameSize);
    readWhole(wal, bytes, walFrameOffset(header.pageSize, base));
    scanWalFrames(header, state, bytes, (frame, pgno, pageCount) => {
      if (cut) return;
      const at = (frame - base) * frameSize;
      guard ??= bytes.slice(at, at + walFrameHeaderSize);
      pending.set(pgno, frame);
      if (pageCount === 0) return;
      const view = new DataView(bytes.buffer, bytes.byteOffset + at, walFrameHeaderSize);
      const [checksum1, checksum2] = [view.getUint32(16), view.getUint32(20)];
      commit = { frame, pageCount, checksum1, checksum2, firstFrame, guard };
      firstFrame = frame + 1;
      guard = null;
      if (pages.size === 0) [pages, pending] = [pending, pages];
      else {
        for (const [number, newest] of pending) pages.set(number, newest);
        pending.clear();
      }
      cut = pages.size >= pagesMax;
    });
    if (state.frames < base + count) break;
  }
  return { pages, commit, frames: state.frames, cut };
}

/** The place behind a commit. */
export function positionAfter(header: WalHeader, commit: Commit): WalPosition {
  return {
    header,
    state: { frames: commit.frame + 1, checksum1: commit.checksum1, checksum2: commit.checksum2 },
    guard: { frame: commit.firstFrame, bytes: commit.guard },
  };
}

/** What a scan from `begin` to its last commit brings. */
export function batchOf(header: WalHeader, begin: Readonly<WalScanState>, pages: Scan["pages"], commit: Commit): Batch {
  const sorted = Uint32Array.from(pages.keys()).sort();
  const beyond = sorted.findIndex((pgno) => pgno > commit.pageCount);
  const pgnos = beyond < 0 ? sorted : sorted.subarray(0, beyond);
  return {
    pgnos,
    sources: pgnos.map((pgno) => pages.get(pgno)!),
    pageCount: commit.pageCount,
    frames: commit.frame + 1 - begin.frames,
    begin,
    end: positionAfter(header, commit),
  };
}

/** Pages that were committed in frame `first` or behind it. */
export function pagesFrom(pages: Scan["pages"], first: number): Set<number> {
  return new Set([...pages].filter(([, newest]) => newest >= first).map(([pgno]) => pgno));
}

/** True when the log passes exactly at `place`: then pages that changed since are those in the frames behind it. */
export function passes(wal: OpenFile, header: WalHeader, place: WalPlace, limit: number): boolean {
  const { salt1, salt2 } = place.header;
  const { frames, checksum1, checksum2 } = place.state;
  if (salt1 !== header.salt1 || salt2 !== header.salt2 || frames > limit) return false;
  if (frames === 0) return true;
  const { commit } = scanLog(wal, header, beginWalScan(header), frames);
  return commit?.frame === frames - 1 && commit.checksum1 === checksum1 && commit.checksum2 === checksum2;
}

/** The first page of `from + 1 … pageCount` that is not among `pgnos` (ascending), the lock-byte page excepted. */
export function missingGrowth(
  { pgnos, pageCount }: { pgnos: ArrayLike<number>; pageCount: number },
  from: number,
  pageSize: number,
): number | null {
  const lockPage = lockBytePage(pageSize);
  let at = 0;
  while (at < pgnos.length && pgnos[at] <= from) at++;
  for (let pgno = from + 1; pgno <= pageCount; pgno++) {
    if (pgnos[at] === pgno) at++;
    else if (pgno !== lockPage) return pgno;
  }
  return null;
}
