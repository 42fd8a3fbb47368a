/**
 * Reads committed frames out of the WAL of a pinned database.
 *
 * What counts as committed is what SQLite itself says (the gauge), never what the file looks like: an application
 * killed between its commit frame and the wal-index leaves a valid frame that SQLite will overwrite.
 */
import { DatabaseError } from "../errors.ts";
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
import { lockBytePage, parseSqliteHeader } from "../format/sqlite_header.ts";
import { Image, readWhole } from "./image.ts";
import type { LiveDatabase } from "./live_database.ts";

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

/** An end of the log: how many frames SQLite counted when our position was `at`. */
export interface LogEnd {
  readonly at: WalPosition | null;
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
  readonly end: WalPosition;
}

/** What a look at the WAL found. `wait`: SQLite is in the middle of something; `doubt`: only a difference helps. */
export type Look =
  | { readonly kind: "none" }
  | { readonly kind: "wait" }
  | { readonly kind: "doubt"; readonly reason: string }
  | { readonly kind: "batch"; readonly batch: Batch };

/** An image and the place in the WAL it stands for. */
export interface ImageAt {
  readonly image: Image;
  /** `null` when the WAL is empty. */
  readonly end: WalPosition | null;
  /** Pages in frames behind `since`, when the scan passed exactly there; else `null`: any page may differ. */
  readonly changed: ReadonlySet<number> | null;
}

/** Reads the WAL header; `null` when there is no whole one. Throws when the file is not a WAL. */
export function readWalHeader(live: LiveDatabase): WalHeader | null {
  const bytes = new Uint8Array(walHeaderSize);
  const header = parseWalHeader(bytes.subarray(0, live.wal.read(bytes, 0)));
  if (typeof header !== "string") return header;
  if (header === "empty" || header === "short" || header === "checksum") return null;
  throw new DatabaseError("bad_wal", `${live.wal.path} is not a WAL that walrust can read (${header})`, {
    hint: "check that no other program writes this file",
    data: { path: live.wal.path, reason: header },
  });
}

/** True when both are headers of the same log: a restart changes the salts. */
export function sameLog(a: WalHeader, b: WalHeader): boolean {
  return a.salt1 === b.salt1 && a.salt2 === b.salt2 && a.checksum1 === b.checksum1 && a.checksum2 === b.checksum2;
}

/** True when `position` has passed `end`. */
export function reached(position: WalPosition | null, end: LogEnd): boolean {
  if (position === null) return end.frames === 0;
  const restarted = end.at !== null && !sameLog(position.header, end.at.header);
  return restarted || position.state.frames >= end.frames;
}

interface Commit {
  frame: number;
  pageCount: number;
  checksum1: number;
  checksum2: number;
  firstFrame: number;
  guard: Uint8Array;
}

interface Scan {
  pages: Map<number, number>;
  commit: Commit | null;
  /** True when the scan stopped early at the size limit. */
  cut: boolean;
}

/**
 * Scans frames from `state` up to but not including `limit`, in chunks; calls `passed` after every commit frame.
 * Returns `null` when the frames are not what SQLite says it committed.
 */
function scan(
  live: LiveDatabase,
  header: WalHeader,
  from: Readonly<WalScanState>,
  limit: number,
  options: { sizeMax?: number; onFrame?: (frame: number, pgno: number) => void } = {},
): Scan | null {
  const frameSize = walFrameHeaderSize + header.pageSize;
  const pagesMax = (options.sizeMax ?? Infinity) / header.pageSize;
  const state = { ...from };
  const result: Scan = { pages: new Map(), commit: null, cut: false };
  // Most looks find a handful of frames: a large buffer for each of them would cost more than the scan.
  const atOnce = Math.min(Math.floor(chunkSize / frameSize), limit - from.frames);
  const buffer = new Uint8Array(Math.max(1, atOnce) * frameSize);
  let firstFrame = from.frames;
  let guard: Uint8Array | null = null;
  while (state.frames < limit && !result.cut) {
    const base = state.frames;
    const count = Math.min(buffer.length / frameSize, limit - base);
    const bytes = buffer.subarray(0, count * frameSize);
    readWhole(live, "wal", bytes, walFrameOffset(header.pageSize, base));
    scanWalFrames(header, state, bytes, (frame, pgno, commit) => {
      if (result.cut) return;
      const at = (frame - base) * frameSize;
      guard ??= bytes.slice(at, at + walFrameHeaderSize);
      result.pages.set(pgno, frame);
      options.onFrame?.(frame, pgno);
      if (commit === 0) return;
      const view = new DataView(bytes.buffer, bytes.byteOffset + at, walFrameHeaderSize);
      result.commit = {
        frame,
        pageCount: commit,
        checksum1: view.getUint32(16),
        checksum2: view.getUint32(20),
        firstFrame,
        guard,
      };
      firstFrame = frame + 1;
      guard = null;
      result.cut = result.pages.size >= pagesMax;
    });
    if (!result.cut && state.frames !== base + count) return null;
  }
  // SQLite only ever counts whole transactions.
  return result.cut || limit === from.frames || result.commit?.frame === limit - 1 ? result : null;
}

function positionAfter(header: WalHeader, commit: Commit): WalPosition {
  return {
    header,
    state: { frames: commit.frame + 1, checksum1: commit.checksum1, checksum2: commit.checksum2 },
    guard: { frame: commit.firstFrame, bytes: commit.guard },
  };
}

/**
 * Committed frames behind `position` (`null`: the WAL was empty there), cut at the first commit that reaches
 * `sizeMax` bytes of distinct pages. All of the log before `position` must be published when it is restarted:
 * the pin sees to that.
 */
export function lookAtWal(live: LiveDatabase, position: WalPosition | null, sizeMax: number): Look {
  const before = live.gauge();
  if (before.log < 0) return { kind: "doubt", reason: "the database left WAL mode" };
  const header = readWalHeader(live);
  if (header === null) return before.log === 0 ? { kind: "none" } : { kind: "wait" };
  if (header.pageSize !== live.pageSize) return { kind: "doubt", reason: "the WAL has another page size" };
  let from: Readonly<WalScanState> = beginWalScan(header);
  if (position !== null && sameLog(position.header, header)) {
    if (!guardHolds(live, position)) return { kind: "doubt", reason: "published frames were overwritten" };
    from = position.state;
  } else if (position !== null && header.salt1 !== (position.header.salt1 + 1) >>> 0) {
    return { kind: "doubt", reason: "the WAL was restarted more than once" };
  }
  // A writer that restarts the log counts it as empty a moment before it writes the new header.
  if (before.log < from.frames) return { kind: "wait" };
  if (before.log === from.frames) return { kind: "none" };
  const found = scan(live, header, from, before.log, { sizeMax });
  const after = live.gauge();
  const again = readWalHeader(live);
  if (again === null || !sameLog(header, again) || after.log < before.log) return { kind: "wait" };
  if (found === null || found.commit === null) {
    return { kind: "doubt", reason: "the WAL does not hold what SQLite committed" };
  }
  const { commit, pages } = found;
  const sorted = Uint32Array.from(pages.keys()).sort();
  const beyond = sorted.findIndex((pgno) => pgno > commit.pageCount);
  const pgnos = beyond < 0 ? sorted : sorted.subarray(0, beyond);
  return {
    kind: "batch",
    batch: {
      pgnos,
      sources: pgnos.map((pgno) => pages.get(pgno)!),
      pageCount: commit.pageCount,
      frames: commit.frame + 1 - from.frames,
      end: positionAfter(header, commit),
    },
  };
}

function guardHolds(live: LiveDatabase, position: WalPosition): boolean {
  if (position.guard === null) return true;
  const bytes = new Uint8Array(walFrameHeaderSize);
  live.wal.read(bytes, walFrameOffset(position.header.pageSize, position.guard.frame));
  return position.guard.bytes.every((byte, i) => bytes[i] === byte);
}

/** The first page of `from + 1 … to` that no frame of the batch brings, the lock-byte page excepted; else `null`. */
export function missingGrowth(batch: Batch, from: number, pageSize: number): number | null {
  const { pgnos } = batch;
  const lockPage = lockBytePage(pageSize);
  let at = pgnos.findIndex((pgno) => pgno > from);
  for (let pgno = from + 1; pgno <= batch.pageCount; pgno++) {
    if (pgnos[at] === pgno) at++;
    else if (pgno !== lockPage) return pgno;
  }
  return null;
}

/**
 * The image of a pinned database at its last commit, or at the commit that ends at frame `limit`.
 * Returns `null` when the log was restarted under the scan: take the image again.
 */
export function takeImage(
  live: LiveDatabase,
  options: { limit?: number; since?: WalPlace } = {},
): ImageAt | null {
  const before = live.gauge();
  const header = readWalHeader(live);
  const limit = Math.min(options.limit ?? before.log, before.log);
  if (header === null || limit <= 0) {
    if (before.log > 0 && header === null) return null;
    return { image: new Image(live, filePageCount(live), new Map()), end: null, changed: null };
  }
  if (header.pageSize !== live.pageSize) {
    throw new DatabaseError("page_size", `${live.wal.path} has another page size than ${live.path}`);
  }
  const { since } = options;
  const sameSince = since !== undefined && since.header.salt1 === header.salt1 && since.header.salt2 === header.salt2;
  const changed = sameSince ? new Set<number>() : null;
  const prefix = sameSince && since.state.frames <= limit
    ? scan(live, header, beginWalScan(header), since.state.frames)
    : null;
  const exact = sameSince && (since.state.frames === 0 || (prefix?.commit?.frame === since.state.frames - 1 &&
    prefix.commit.checksum1 === since.state.checksum1 && prefix.commit.checksum2 === since.state.checksum2));
  const found = scan(live, header, beginWalScan(header), limit, {
    onFrame: (frame, pgno) => exact && frame >= since!.state.frames && changed?.add(pgno),
  });
  const after = live.gauge();
  const again = readWalHeader(live);
  if (again === null || !sameLog(header, again) || after.log < limit) return null;
  if (found === null || found.commit === null) {
    // A limit from the log before this one need not be a commit of this one.
    if (options.limit !== undefined) return null;
    throw new DatabaseError("wal_damaged", `${live.wal.path} does not hold the ${limit} frames SQLite committed`, {
      hint: "check the disk; SQLite itself may not be able to read this database",
      data: { path: live.wal.path, frames: limit },
    });
  }
  // Everything is in the file and our pin keeps later commits out of it: frames are not needed and may be reused.
  // With frames behind `limit` this would not follow: a checkpoint that may not copy a page's newest frame skips the
  // page, older frames included. Then the log cannot be restarted either, so its frames stay.
  const backfilled = after.log === limit && after.checkpointed >= limit;
  return {
    image: new Image(live, found.commit.pageCount, backfilled ? new Map() : found.pages),
    end: positionAfter(header, found.commit),
    changed: exact ? changed : null,
  };
}

function filePageCount(live: LiveDatabase): number {
  const bytes = new Uint8Array(100);
  readWhole(live, "file", bytes, 0);
  const header = parseSqliteHeader(bytes);
  const size = live.file.stat().size / live.pageSize;
  if (typeof header === "string" || !Number.isInteger(size) || size < 1) {
    throw new DatabaseError("size", `${live.path} is not a whole number of pages`, { data: { path: live.path } });
  }
  return size;
}
