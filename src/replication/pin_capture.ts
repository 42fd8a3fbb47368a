/**
 * Capture from a pinned database.
 *
 * What counts as committed is what SQLite itself says (the gauge), never what the file looks like: an application
 * killed between its commit frame and the wal-index leaves a valid frame that SQLite will overwrite.
 */
import { DatabaseError } from "../errors.ts";
import { beginWalScan, type WalHeader, type WalScanState } from "../format/wal.ts";
import { parseSqliteHeader } from "../format/sqlite_header.ts";
import type { Clock, Files, FileStat } from "../runtime/types.ts";
import type {
  Capture,
  Doubt,
  FreezeOptions,
  FrozenAt,
  HeldImage,
  HoldOptions,
  ImageAt,
  Look,
  SnapshotPoint,
} from "./capture.ts";
import { freezeImage } from "./frozen_image.ts";
import { Image, readWhole } from "./image.ts";
import { type FilesSeen, type LiveDatabase, sameStat } from "./live_database.ts";
import type { Stream } from "./stream.ts";
import {
  type Batch,
  batchOf,
  goesOn,
  guardHolds,
  type LogEnd,
  pagesFrom,
  passes,
  positionAfter,
  readWalHeader,
  sameLog,
  samePosition,
  type Scan,
  scanLog,
  type ScanOptions,
  type WalPlace,
  type WalPosition,
} from "./wal_log.ts";

/** The image of a pinned database at a commit. */
export interface PinnedImage extends ImageAt {
  readonly image: Image;
}

/** Scans exactly the frames that SQLite committed; `null` when they are not what the file holds. */
function scanCommitted(
  live: LiveDatabase,
  header: WalHeader,
  from: Readonly<WalScanState>,
  limit: number,
  options: ScanOptions = {},
): Scan | null {
  const found = scanLog(live.wal, header, from, limit, options);
  if (found.cut || limit === from.frames) return found;
  // SQLite only ever counts whole transactions.
  return found.commit?.frame === limit - 1 ? found : null;
}

/**
 * Committed frames behind `position`. All of the log before `position` must be published when it is restarted: the pin
 * sees to that.
 */
export function lookAtWal(live: LiveDatabase, position: WalPosition | null, sizeMax: number): Look {
  const before = live.gauge();
  if (before.log < 0) return { kind: "doubt", reason: "the database left WAL mode" };
  const header = readWalHeader(live.wal);
  if (header === null) return before.log === 0 ? { kind: "none" } : { kind: "wait" };
  if (header.pageSize !== live.pageSize) return { kind: "doubt", reason: "the WAL has another page size" };
  let from: Readonly<WalScanState> = beginWalScan(header);
  if (position !== null && sameLog(position.header, header)) {
    if (!guardHolds(live.wal, position)) return { kind: "doubt", reason: "published frames were overwritten" };
    from = position.state;
  } else if (position !== null && header.salt1 !== (position.header.salt1 + 1) >>> 0) {
    return { kind: "doubt", reason: "the WAL was restarted more than once" };
  }
  // A writer that restarts the log counts it as empty a moment before it writes the new header.
  if (before.log < from.frames) return { kind: "wait" };
  if (before.log === from.frames) return { kind: "none" };
  const found = scanCommitted(live, header, from, before.log, { sizeMax });
  const after = live.gauge();
  const again = readWalHeader(live.wal);
  if (again === null || !sameLog(header, again) || after.log < before.log) return { kind: "wait" };
  if (found === null || found.commit === null) {
    return { kind: "doubt", reason: "the WAL does not hold what SQLite committed" };
  }
  return { kind: "batch", batch: batchOf(header, from, found.pages, found.commit) };
}

/**
 * The image of a pinned database at its last commit, or at the commit that ends at frame `limit`.
 * Returns `null` when the log was restarted under the scan: take the image again.
 */
export function takeImage(live: LiveDatabase, options: { limit?: number; since?: WalPlace } = {}): PinnedImage | null {
  const before = live.gauge();
  const header = readWalHeader(live.wal);
  const limit = Math.min(options.limit ?? before.log, before.log);
  if (header === null || limit <= 0) {
    if (before.log > 0 && header === null) return null;
    return { image: new Image(live, filePageCount(live), new Map()), end: null, changed: null };
  }
  if (header.pageSize !== live.pageSize) {
    throw new DatabaseError("page_size", `${live.wal.path} has another page size than ${live.path}`);
  }
  const { since } = options;
  const passed = since !== undefined && passes(live.wal, header, since, limit);
  const found = scanCommitted(live, header, beginWalScan(header), limit);
  const after = live.gauge();
  const again = readWalHeader(live.wal);
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
    changed: passed ? pagesFrom(found.pages, since.state.frames) : null,
  };
}

function filePageCount(live: LiveDatabase): number {
  const bytes = new Uint8Array(100);
  readWhole(live.file, bytes, 0);
  const header = parseSqliteHeader(bytes);
  const size = live.file.stat().size / live.pageSize;
  if (typeof header === "string" || !Number.isInteger(size) || size < 1) {
    throw new DatabaseError("size", `${live.path} is not a whole number of pages`, { data: { path: live.path } });
  }
  return size;
}

/** Where the log ends now, seen from `at`, which may still be in the log before it. */
export function logEnd(live: LiveDatabase, at: WalPosition | null): LogEnd {
  for (;;) {
    const log = readWalHeader(live.wal);
    const { log: frames } = live.gauge();
    const again = readWalHeader(live.wal);
    // Frames must not be counted in another log than the one that they are in.
    if (log === null ? again === null : again !== null && sameLog(log, again)) return { at, log, frames };
  }
}

/** See the top of this file. */
export class PinCapture implements Capture {
  readonly pinned: LiveDatabase;
  readonly #runtime: { readonly files: Files; readonly clock: Clock };

  constructor(live: LiveDatabase, runtime: { readonly files: Files; readonly clock: Clock }) {
    this.pinned = live;
    this.#runtime = runtime;
  }

  get path(): string {
    return this.pinned.path;
  }

  get pageSize(): number {
    return this.pinned.pageSize;
  }

  get sqliteVersion(): number {
    return this.pinned.sqliteVersion;
  }

  get identity(): FileStat {
    return this.pinned.identity;
  }

  inPlace(seen: FilesSeen): "same" | "database" | "wal" {
    return this.pinned.inPlace(seen);
  }

  end(at: WalPosition | null): LogEnd {
    return logEnd(this.pinned, at);
  }

  look(position: WalPosition | null, sizeMax: number): Look {
    return lookAtWal(this.pinned, position, sizeMax);
  }

  lookBack(position: WalPosition | null, seen: FileStat | null): Doubt | null {
    const reason = "written while it was not held open";
    // In this order: a log that was restarted in between shows another header or fewer frames.
    const { log } = this.pinned.gauge();
    const header = readWalHeader(this.pinned.wal);
    const sameWal = position === null
      ? header === null && sameStat(seen, this.#runtime.files.stat(this.path))
      : header !== null && sameLog(position.header, header);
    if (!sameWal) return { reason };
    // Where all of the log was in the file already, the pin allows one restart, and these frames with it.
    return position !== null && log !== position.state.frames ? { reason, since: position } : null;
  }

  goesOn(position: WalPosition | null): boolean {
    return goesOn(this.pinned.wal, position);
  }

  seal(stream: Stream, batch: Batch): boolean {
    return stream.sealBatch(this.pinned, batch, "wal");
  }

  hold({ since }: Pick<HoldOptions, "since">): Promise<HeldImage | null> {
    const taken = takeImage(this.pinned, { since });
    // The pin holds it, as long as the database is open.
    return Promise.resolve(taken === null ? null : { ...taken, release: () => {} });
  }

  beginSnapshot(position: WalPosition | null): SnapshotPoint {
    const pin = this.pinned.addPin();
    return { ...this.end(position), release: () => this.pinned.releasePin(pin) };
  }

  async freeze(point: SnapshotPoint, options: FreezeOptions): Promise<FrozenAt | null> {
    const { position } = options;
    const taken = releasing(
      point,
      () => takeImage(this.pinned, position === undefined ? {} : { limit: position?.state.frames ?? 0 }),
    );
    if (taken === null || (position !== undefined && !samePosition(taken.end, position))) {
      // The log was restarted meanwhile.
      point.release();
      return null;
    }
    const { image, end, changed } = taken;
    const takenMs = this.#runtime.clock.now();
    const frozen = await freezeImage(image, { ...options, ...this.#runtime, release: point.release });
    return { ...frozen, end, changed, takenMs };
  }

  close(): void {
    this.pinned.close();
  }
}

function releasing<T>(point: SnapshotPoint, work: () => T): T {
  try {
    return work();
  } catch (error) {
    point.release();
    throw error;
  }
}
