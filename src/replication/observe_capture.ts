/**
 * Capture from files alone: nothing is ever written, locked or checkpointed, so it also works on a read-only mount.
 *
 * Nobody keeps the log for us. What is read counts only if the same bytes are there afterwards; after a restart the old
 * frames that are still on disk are salvaged; otherwise points in time are lost and said to be, and a difference brings
 * the head up to date. There is no gauge either: a commit that SQLite did not accept in the end may be published, until
 * the overwritten guard, or the comparison after a restart, takes it back.
 */
import { DatabaseError } from "../errors.ts";
import { equalBytes } from "../format/bytes.ts";
import { beginWalScan, type WalHeader } from "../format/wal.ts";
import type { Clock, Files, FileStat, OpenFile } from "../runtime/types.ts";
import type {
  Capture,
  Doubt,
  FreezeOptions,
  FrozenAt,
  HeldImage,
  HoldOptions,
  Look,
  SnapshotPoint,
} from "./capture.ts";
import { openDatabaseFile } from "./database_file.ts";
import { CopiedImage, openCopy, readFrame, readThere } from "./image.ts";
import { type FilesSeen, readHeader, sameStat, statDatabase } from "./live_database.ts";
import { ObservedLog, whileThere } from "./observed_log.ts";
import { hashImage } from "./snapshot.ts";
import type { Stream } from "./stream.ts";
import {
  type Batch,
  batchOf,
  goesOn,
  guardHolds,
  holdsFrameBefore,
  type LogEnd,
  missingGrowth,
  pagesFrom,
  passes,
  positionAfter,
  sameLog,
  type Scan,
  type WalPlace,
  type WalPosition,
} from "./wal_log.ts";

const runSize = 1024 * 1024;
/** Bytes that a copy leaves free. */
const spareMin = 64 * 1024 * 1024;
/** File times may be coarse: what was written less than this ago may be written again without another time. */
const settledMs = 2000;

const unseen: Look = { kind: "doubt", reason: "written unseen", gap: "possible" };

/** How a copy is made. */
interface CopyOptions extends Partial<HoldOptions> {
  /** All pages, whatever is known of the log. */
  readonly isWhole?: boolean;
}

interface Copy extends HeldImage {
  readonly takenMs: number;
  /** Pages of the last transaction in it. */
  readonly lastPages: ReadonlySet<number>;
}

/** See the top of this file. */
export class ObserveCapture implements Capture {
  readonly path: string;
  readonly pageSize: number;
  readonly sqliteVersion: number;
  readonly identity: FileStat;
  readonly pinned = null;
  readonly #file: OpenFile;
  readonly #runtime: { readonly files: Files; readonly clock: Clock };
  readonly #directory: string;
  #log: ObservedLog | null = null;
  /** The database file when the log was empty and all of it known; `isSettled`: any later write shows. */
  #clean: { stat: FileStat; isSettled: boolean } | null = null;
  /** A log that was read to its end after `restarted` had taken its place. */
  #drained: { end: WalPosition; restarted: WalHeader } | null = null;
  /** Pages of the last transaction taken, the only one that SQLite may not have accepted. */
  #lastPages: ReadonlySet<number> | null = null;

  /**
   * Opens for reading. `directory`: where copies may be put. Throws `DatabaseError` for what is missing, not SQLite or
   * not in WAL mode.
   */
  constructor(
    path: string,
    directory: string,
    runtime: { readonly files: Files; readonly clock: Clock },
    isShared: boolean,
  ) {
    const { files } = runtime;
    statDatabase(path, files);
    this.path = path;
    this.#directory = directory;
    this.#runtime = runtime;
    this.#file = openDatabaseFile(path, files, { mode: "read", isShared });
    try {
      const { pageSize, sqliteVersion } = readHeader(path, this.#file);
      this.pageSize = pageSize;
      this.sqliteVersion = sqliteVersion;
      this.identity = this.#file.stat();
      this.#openLog();
    } catch (error) {
      this.#file.close();
      throw error;
    }
  }

  inPlace({ database }: FilesSeen): "same" | "database" {
    const { inode, device } = this.identity;
    return database?.inode === inode && database.device === device ? "same" : "database";
  }

  end(at: WalPosition | null): LogEnd {
    const log = this.#log;
    const header = log?.readHeader() ?? null;
    if (log === null || header === null) return { at, log: null, frames: 0 };
    const from = at !== null && sameLog(at.header, header) ? at.state : beginWalScan(header);
    const { commit } = log.scan(header, from);
    return { at, log: header, frames: commit === null ? from.frames : commit.frame + 1 };
  }

  look(position: WalPosition | null, sizeMax: number): Look {
    if (this.#log === null) this.#openLog();
    const log = this.#log;
    const header = log?.readHeader() ?? null;
    const found = log === null || header === null
      ? this.#lookWithoutLog(position)
      : this.#lookAtLog(log, header, position, sizeMax);
    // The file that we hold is read to its end before the one that its name leads to now.
    if (found.kind !== "none" || this.#isLogInPlace()) return found;
    this.#openLog();
    return { kind: "doubt", reason: "the WAL was replaced by another file", gap: "possible" };
  }

  #lookWithoutLog(position: WalPosition | null): Look {
    const database = this.#database();
    if (position === null && database === "same") return { kind: "none" };
    // The header of a new log that is just being written, or nothing that SQLite would read.
    if ((this.#log?.file.stat().size ?? 0) > 0) return { kind: "wait" };
    if (position !== null) return { kind: "doubt", reason: "the WAL was emptied", gap: "possible" };
    // As long as its time may hide another write it is waited with; then it is compared once more.
    const isFresh = database === "unsure" && !this.#isSettled(this.#clean!.stat);
    return isFresh ? { kind: "none" } : unseen;
  }

  #lookAtLog(log: ObservedLog, header: WalHeader, position: WalPosition | null, sizeMax: number): Look {
    if (header.pageSize !== this.pageSize) return { kind: "doubt", reason: "the WAL has another page size" };
    let from = beginWalScan(header);
    if (position === null) {
      // Only a checkpoint lets a log restart, and it would have written to the database.
      if (this.#database() !== "same") return unseen;
    } else if (sameLog(position.header, header)) {
      if (!guardHolds(log.file, position)) return { kind: "doubt", reason: "published frames were overwritten" };
      from = { ...position.state };
    } else {
      return this.#lookAtOldLog(log, header, position, sizeMax);
    }
    const { pages, commit } = log.scan(header, from, { sizeMax });
    if (!log.holds(header)) return { kind: "wait" };
    return commit === null ? { kind: "none" } : { kind: "batch", batch: batchOf(header, from, pages, commit) };
  }

  /** The log was restarted: what it held behind `position` is still there as far as the new one has not come. */
  #lookAtOldLog(log: ObservedLog, restarted: WalHeader, position: WalPosition, sizeMax: number): Look {
    const drained = this.#drained;
    if (drained !== null && sameLog(drained.restarted, restarted) && drained.end === position) {
      return this.#followRestart(restarted);
    }
    if (restarted.salt1 !== (position.header.salt1 + 1) >>> 0) {
      return { kind: "doubt", reason: "the WAL was restarted more than once", gap: "likely" };
    }
    const { frames } = position.state;
    const over = log.scan(restarted, beginWalScan(restarted), { limit: frames + 1 }).frames;
    const old = log.scan(position.header, position.state, { sizeMax });
    if (!log.holds(restarted)) return { kind: "wait" };
    if (over <= frames && old.commit !== null) {
      const batch = batchOf(position.header, position.state, old.pages, old.commit);
      if (!old.cut) this.#drained = { end: batch.end, restarted };
      return { kind: "batch", batch };
    }
    // Where the new log has come to our place, or the file was cut, nobody knows what was behind it.
    if (over < frames && holdsFrameBefore(log.file, position)) {
      // Had SQLite not accepted our last transaction, the commits after it would begin in its place.
      const isWhole = over <= (position.guard?.frame ?? frames) && guardHolds(log.file, position);
      return isWhole
        ? this.#followRestart(restarted)
        : { kind: "doubt", reason: "the WAL was restarted", gap: "possible" };
    }
    return { kind: "doubt", reason: "the WAL was restarted and overwritten before it was read", gap: "likely" };
  }

  #followRestart(header: WalHeader): Look {
    const since = { header, state: beginWalScan(header) };
    const known = this.#lastPages === null ? {} : { since, pages: this.#lastPages };
    return { kind: "doubt", reason: "the WAL was restarted", ...known };
  }

  lookBack(_: WalPosition | null, seen: FileStat | null): Doubt | null {
    // It was let go of only after it had been quiet for long enough.
    this.#clean = seen === null ? null : { stat: seen, isSettled: true };
    return null;
  }

  goesOn(position: WalPosition | null): boolean {
    return this.#log !== null && goesOn(this.#log.file, position);
  }

  seal(stream: Stream, batch: Batch): boolean {
    const log = this.#log!;
    const { header, state, guard } = batch.end;
    const holds = (): boolean => log.leadsTo(state, header, batch.begin);
    const source = { wal: log.file, pageSize: this.pageSize };
    const seal = (): boolean => stream.sealBatch(source, batch, "memory", holds);
    if (!whileThere(seal, false)) return false;
    this.#lastPages = new Set(batch.pgnos.filter((_, i) => batch.sources[i] >= guard!.frame));
    return true;
  }

  async hold(options: HoldOptions): Promise<HeldImage | null> {
    return await this.#copy(options);
  }

  /** What is not sealed yet waits for nothing: it is sealed with the copy. */
  beginSnapshot(position: WalPosition | null): SnapshotPoint {
    return { at: position, log: null, frames: 0, release: () => {} };
  }

  async freeze(_: SnapshotPoint, { position, index, sha256 }: FreezeOptions): Promise<FrozenAt | null> {
    const copy = await this.#copy({ since: position ?? undefined, isWhole: true });
    if (copy === null) return null;
    try {
      const rawHash = await hashImage(copy.image, { sha256, clock: this.#runtime.clock, index });
      return { ...copy, rawHash, holdsPin: false };
    } catch (error) {
      copy.release();
      throw error;
    }
  }

  close(): void {
    this.#log?.close();
    this.#file.close();
  }

  /**
   * Copies the pages that may differ. In this order: pages of the database, then the log. What a checkpoint wrote into
   * the file meanwhile is in the log too, as long as that is not restarted: then, and when the log went away, `null`.
   */
  async #copy(options: CopyOptions): Promise<Copy | null> {
    if (!this.#isLogInPlace()) this.#openLog();
    const log = this.#log;
    const header = log?.readHeader() ?? null;
    const { files } = this.#runtime;
    const before = files.stat(this.path);
    if (before === null || this.inPlace({ database: before, wal: null }) !== "same") return null;
    const { since } = options;
    const passed = since !== undefined && log !== null && header !== null && this.#passes(log, header, since);
    const only = passed && options.isWhole !== true ? options.pages ?? new Set<number>() : null;
    files.makeDirectory(this.#directory);
    if (only === null) this.#assertRoom(before.size);
    const copy = openCopy(`${this.#directory}/observe.copy`, files);
    let image: Omit<Copy, "release"> | "incomplete" | null = null;
    try {
      await this.#copyFile(copy, only);
      image = whileThere(() => this.#overlay(copy, { before, header, passed, only, ...options }), null);
      const isFileAlone = image !== null && image !== "incomplete" && image.end === null;
      // What was written a moment ago may be written again without another time.
      if (isFileAlone && !this.#isSettled(before) && !await this.#isAsCopied(copy, only, header)) image = null;
    } finally {
      if (image === null || image === "incomplete") copy.close();
    }
    // It grew by pages that only the file has.
    if (image === "incomplete") return await this.#copy({ ...options, isWhole: true });
    if (image === null) return null;
    this.#lastPages = image.lastPages;
    if (image.end === null) this.#clean = { stat: before, isSettled: this.#isSettled(before) };
    return { ...image, release: () => copy.close() };
  }

  /** A copy that would fill the disk is not begun: others write there too. */
  #assertRoom(size: number): void {
    const free = this.#runtime.files.freeBytes(this.#directory);
    if (free >= size + spareMin) return;
    throw new DatabaseError(
      "no_room",
      `observing ${this.path} needs room for a copy of its ${size} bytes, ${free} are free`,
      {
        hint: `make room on the disk of ${this.#directory}, or give a --state-dir on a larger one`,
        data: { path: this.path, directory: this.#directory, size, free },
      },
    );
  }

  /** A checkpoint may cut the file meanwhile: what it cut off, or what came again after it, the log says. */
  async #copyFile(copy: OpenFile, only: ReadonlySet<number> | null): Promise<void> {
    for await (const { bytes, start } of this.#readFile(only)) copy.write(bytes, start);
  }

  /**
   * True when the file was, in the moment of this call, what the copy is, and a whole database: every page is still
   * what it was when it was copied, and no checkpoint was under way, as the log had nothing for one.
   */
  async #isAsCopied(copy: OpenFile, only: ReadonlySet<number> | null, header: WalHeader | null): Promise<boolean> {
    const log = this.#log;
    if (!this.#isLogInPlace() || (log !== null && !log.holds(header))) return false;
    if (header !== null && log!.scan(header, beginWalScan(header)).commit !== null) return false;
    const copied = new Uint8Array(only === null ? runSize : this.pageSize);
    for await (const { bytes, start } of this.#readFile(only)) {
      const part = copied.subarray(0, bytes.length);
      if (readThere(copy, part, start) !== part.length || !equalBytes(part, bytes)) return false;
    }
    return only !== null || this.#file.stat().size === copy.stat().size;
  }

  /** The file from its first page to its last, or some pages of it; `bytes` are valid until the next ones. */
  async *#readFile(only: ReadonlySet<number> | null): AsyncGenerator<{ bytes: Uint8Array; start: number }> {
    if (only !== null) {
      const { pageSize } = this;
      const bytes = new Uint8Array(pageSize);
      for (const pgno of only) {
        const start = (pgno - 1) * pageSize;
        if (readThere(this.#file, bytes, start) === pageSize) yield { bytes, start };
      }
      return;
    }
    const buffer = new Uint8Array(runSize);
    for (let start = 0;;) {
      const length = readThere(this.#file, buffer, start);
      if (length === 0) return;
      yield { bytes: buffer.subarray(0, length), start };
      start += length;
      await this.#runtime.clock.sleep(0);
    }
  }

  /** Puts the newest committed frames over the copied pages; nothing else runs meanwhile. */
  #overlay(
    copy: OpenFile,
    options: CopyOptions & {
      before: FileStat;
      header: WalHeader | null;
      passed: boolean;
      only: ReadonlySet<number> | null;
    },
  ): Omit<Copy, "release"> | "incomplete" | null {
    const { before, header, passed, only, since, pages } = options;
    const log = this.#log;
    const begin = header === null ? null : beginWalScan(header);
    const found = log === null || header === null || begin === null ? null : log.scan(header, begin);
    const commit = found?.commit ?? null;
    const committed: Scan["pages"] = found?.pages ?? new Map();
    const behind = new Set([...(pages ?? []), ...(passed ? pagesFrom(committed, since!.state.frames) : [])]);
    const pageCount = commit?.pageCount ?? before.size / this.pageSize;
    if (only !== null) {
      const pgnos = [...behind].sort((a, b) => a - b);
      if (missingGrowth({ pgnos, pageCount }, options.indexedCount ?? 0, this.pageSize) !== null) return "incomplete";
    }
    const page = new Uint8Array(this.pageSize);
    for (const [pgno, frame] of committed) {
      if (pgno > pageCount || (only !== null && !behind.has(pgno))) continue;
      readFrame({ wal: log!.file, pageSize: this.pageSize }, frame, page);
      copy.write(page, (pgno - 1) * this.pageSize);
    }
    if (!Number.isInteger(pageCount) || pageCount < 1) return null;
    copy.truncate(pageCount * this.pageSize);
    const takenMs = this.#runtime.clock.now();
    const end = commit === null ? null : positionAfter(header!, commit);
    if (!this.#isLogInPlace() || (log !== null && !log.holds(header))) return null;
    if (end !== null && !log!.leadsTo(end.state, header!, begin!)) return null;
    // What SQLite had not accepted may have been overwritten meanwhile, and all of it may differ then.
    if (passed && !this.#passes(log!, header!, since!)) return null;
    // Without a commit in the log the file alone is the database: then nobody may have written to it.
    if (end === null && !sameStat(before, this.#runtime.files.stat(this.path))) return null;
    if ((only === null || behind.has(1)) && readHeader(this.path, copy).pageSize !== this.pageSize) return null;
    const inLog = new Set(committed.keys());
    const lastPages = pagesFrom(committed, commit?.firstFrame ?? 0);
    const image = new CopiedImage(copy, this.pageSize, pageCount);
    return { image, end, changed: passed ? behind : null, inLog, takenMs, lastPages };
  }

  #passes(log: ObservedLog, header: WalHeader, since: WalPlace): boolean {
    return whileThere(() => passes(log.file, header, since, log.countFrames()), false);
  }

  #openLog(): void {
    this.#log?.close();
    this.#log = ObservedLog.open(this.path, this.pageSize, this.#runtime.files);
  }

  #isLogInPlace(): boolean {
    return ObservedLog.isInPlace(this.#log, this.path, this.#runtime.files);
  }

  /** Whether the database file is as it was when the log was empty. */
  #database(): "same" | "unsure" | "changed" {
    const clean = this.#clean;
    if (clean === null || !sameStat(clean.stat, this.#runtime.files.stat(this.path))) return "changed";
    return clean.isSettled ? "same" : "unsure";
  }

  #isSettled({ mtimeNs }: FileStat): boolean {
    return this.#runtime.clock.now() - Number(mtimeNs / 1_000_000n) >= settledMs;
  }
}
