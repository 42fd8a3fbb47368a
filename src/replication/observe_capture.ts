/**
 * Capture from files alone: nothing is ever written, locked or checkpointed, so it also works on a read-only mount.
 *
 * Nobody keeps the log for us. What is read counts only if the same bytes are there afterwards; after a restart the old
 * frames that are still on disk are salvaged; otherwise points in time are lost and said to be, and a difference brings
 * the head up to date. There is no gauge either: a commit that SQLite did not accept in the end may be published, until
 * the overwritten guard, or the comparison after a restart, takes it back.
 */
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
import { type FilesSeen, readHeader, sameStat, statDatabase } from "./live_database.ts";
import { type CleanFile, type CopyOptions, isSettled, ObservedCopier, type ObservedCopy } from "./observed_copy.ts";
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
  sameLog,
  type WalPosition,
} from "./wal_log.ts";

const unseen: Look = { kind: "doubt", reason: "written unseen", gap: "possible" };

/** See the top of this file. */
export class ObserveCapture implements Capture {
  readonly path: string;
  readonly pageSize: number;
  readonly sqliteVersion: number;
  readonly identity: FileStat;
  readonly pinned = null;
  readonly #file: OpenFile;
  readonly #runtime: { readonly files: Files; readonly clock: Clock };
  readonly #copier: ObservedCopier;
  #log: ObservedLog | null = null;
  /** The database file when the log was empty and all of it known. */
  #clean: CleanFile | null = null;
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
    this.#runtime = runtime;
    this.#file = openDatabaseFile(path, files, { mode: "read", isShared });
    try {
      const { pageSize, sqliteVersion } = readHeader(path, this.#file);
      this.pageSize = pageSize;
      this.sqliteVersion = sqliteVersion;
      this.identity = this.#file.stat();
      this.#copier = new ObservedCopier({
        path,
        file: this.#file,
        pageSize,
        identity: this.identity,
        directory,
        runtime,
      });
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
    const isFresh = database === "unsure" && !isSettled(this.#clean!.stat, this.#runtime.clock.now());
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

  async #copy(options: CopyOptions): Promise<ObservedCopy | null> {
    if (!this.#isLogInPlace()) this.#openLog();
    const copy = await this.#copier.copy(this.#log, options);
    if (copy === null) return null;
    this.#lastPages = copy.lastPages;
    if (copy.clean !== null) this.#clean = copy.clean;
    return copy;
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
}
