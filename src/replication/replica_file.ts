/**
 * A replica: a normal SQLite database with a rollback journal, which any program may read while it is updated.
 *
 * Between updates a read transaction is held, so that writers get SQLITE_BUSY. An update happens under SQLite's own
 * exclusive lock and behind a hot journal (rollback_journal.ts): wherever we are killed, the next reader, whoever it
 * is, takes the file back to the state before. Order of one update, each step durable before the next:
 *
 * 1. the old images, as a journal under a name that SQLite does not look for; readers go on
 * 2. the state document with the points before and after (replica_state.ts)
 * 3. the exclusive lock; the file must be as we left it
 * 4. the journal gets its name; from here on a crash is rolled back
 * 5. pages and size
 * 6. the journal is removed: the update has happened
 */
import { DatabaseError } from "../errors.ts";
import { bytesOfHex, equalBytes } from "../format/bytes.ts";
import { lockBytePage } from "../format/sqlite_header.ts";
import type { OpenFile, SqliteConnection } from "../runtime/types.ts";
import { io } from "./apply.ts";
import { openDatabaseFile } from "./database_file.ts";
import { readWhole } from "./image.ts";
import { directoryOf } from "./paths.ts";
import {
  changed,
  differenceOf,
  pagesOf,
  pointOfFile,
  type PreparedUpdate,
  type Replica,
  type ReplicaOptions,
  type ReplicaRuntime,
  runSize,
  stageOn,
  targetOf,
  withOwnHeader,
  writeUpdate,
} from "./replica.ts";
import { ReplicaJournal } from "./replica_journal.ts";
import { type ReplicaPoint, type ReplicaState, writeReplicaState } from "./replica_state.ts";
import type { StagedPages } from "./staged_pages.ts";

/** How long readers may hold up an update before it is tried again later, milliseconds. New ones wait meanwhile. */
const lockTimeoutMs = 1000;

/** An open replica. Call {@linkcode ReplicaFile.close} when done. */
export class ReplicaFile implements Replica {
  readonly #runtime: ReplicaRuntime;
  readonly #path: string;
  readonly #source: string;
  readonly #file: OpenFile;
  readonly #connection: SqliteConnection;
  #point: ReplicaPoint;
  #documented: ReplicaPoint;
  #isPinned = true;
  readonly #run: Uint8Array = new Uint8Array(runSize);

  /**
   * Opens the replica that `state` describes. What a crash left half done is rolled back by SQLite. Throws
   * `DatabaseError`: `replica_changed` when somebody else wrote to it, `sqlite_busy` when readers have it right now.
   */
  constructor(options: ReplicaOptions, state: ReplicaState) {
    const { runtime, localPath, isShared } = options;
    this.#runtime = runtime;
    this.#path = localPath;
    this.#source = state.source;
    // Opened before the first connection and closed after the last: closing it drops SQLite's locks.
    this.#file = io(() => openDatabaseFile(localPath, runtime.files, { mode: "update", isShared }), localPath);
    let connection: SqliteConnection | null = null;
    try {
      connection = runtime.sqlite!.open(localPath, { readOnly: false, busyTimeoutMs: lockTimeoutMs });
      this.#connection = connection;
      connection.beginRead();
      this.#point = pointOfFile(this.#file, localPath, state, runtime);
      this.#documented = state.after;
    } catch (error) {
      connection?.close();
      this.#file.close();
      throw error;
    }
  }

  get point(): ReplicaPoint {
    return this.#point;
  }

  readAsSource(first: number, into: Uint8Array): void {
    this.#read(first, into);
    if (first === 1) into.set(bytesOfHex(this.#point.sourceHeader));
  }

  stage(): StagedPages {
    return stageOn(this, this.#runtime, this.#path);
  }

  prepare(staged: StagedPages, lineage: string | null): PreparedUpdate {
    const { to, firstPage } = targetOf(staged, this.#point, this, lineage);
    const journal = this.#prepareJournal(staged, firstPage);
    if (journal === null) return { to, pages: 0, journal, staged, firstPage };
    return {
      to: withOwnHeader(to, firstPage, this.#runtime.sha256),
      pages: pagesOf(staged),
      journal,
      staged,
      firstPage,
    };
  }

  commit(update: PreparedUpdate): number | null {
    const { clock, files } = this.#runtime;
    const { to, journal } = update;
    if (this.#documented !== to) {
      writeReplicaState(files, this.#path, { source: this.#source, before: this.#point, after: to });
      this.#documented = to;
    }
    if (journal === null) {
      this.#point = to;
      return 0;
    }
    const beganMs = clock.monotonic();
    this.#unpin();
    if (!this.#connection.beginExclusive()) {
      this.#pin();
      return null;
    }
    try {
      this.#assertUnchanged();
      this.#write(update, journal);
      this.#point = to;
    } catch (error) {
      this.#connection.rollback();
      this.#heal();
      throw error;
    }
    this.#connection.rollback();
    const heldMs = clock.monotonic() - beganMs;
    this.#pin();
    return heldMs;
  }

  /** Holds writers off where somebody's lock stood in the way before; throws `DatabaseError` when they wrote meanwhile. */
  hold(): void {
    if (!this.#isPinned) this.#pin();
  }

  /** Lets everybody write again; nothing happens the second time. */
  close(): void {
    this.#connection.close();
    this.#file.close();
  }

  /** Begins the read transaction that holds writers off; where somebody's lock stands in the way, `hold` does it later. */
  #pin(): void {
    try {
      this.#connection.beginRead();
    } catch (error) {
      if (error instanceof DatabaseError && error.code === "sqlite_busy") return;
      throw error;
    }
    this.#isPinned = true;
    this.#assertUnchanged();
  }

  #unpin(): void {
    this.#isPinned = false;
    this.#connection.rollback();
  }

  /** SQLite takes back what was done so far, as it would for any other reader; where it cannot, the next one will. */
  #heal(): void {
    try {
      this.#connection.beginRead();
    } catch (error) {
      if (!(error instanceof DatabaseError)) throw error;
    }
  }

  /** Null when no page differs and the size is the same. Leaves out of `staged` what the file holds already. */
  #prepareJournal(staged: StagedPages, firstPage: Uint8Array): ReplicaJournal | null {
    const { pageSize, pageCount } = this.#point;
    const journal = new ReplicaJournal({ ...this.#runtime, localPath: this.#path, pageSize, pageCount });
    const first = new Uint8Array(pageSize);
    this.#read(1, first);
    try {
      journal.add(1, first);
      if (this.#fill(journal, staged, first, firstPage)) {
        journal.finish();
        return journal;
      }
    } catch (error) {
      journal.discard();
      throw error;
    }
    journal.discard();
    return null;
  }

  /** Puts in all that an update overwrites or cuts off; false when it changes nothing. */
  #fill(journal: ReplicaJournal, staged: StagedPages, first: Uint8Array, firstPage: Uint8Array): boolean {
    const { pageSize, pageCount } = this.#point;
    if (staged.pageSize !== pageSize) {
      this.#keep(journal, 2);
      return true;
    }
    first.set(bytesOfHex(this.#point.sourceHeader));
    const isSame = equalBytes(first, firstPage);
    if (this.#keepChanged(journal, staged) && isSame && staged.pageCount === pageCount) return false;
    this.#keep(journal, staged.pageCount + 1);
    return true;
  }

  /** The old images of all pages from `first` on. */
  #keep(journal: ReplicaJournal, first: number): void {
    const { pageSize, pageCount } = this.#point;
    const lockPage = lockBytePage(pageSize);
    const runMax = runSize / pageSize;
    for (let at = Math.max(2, first); at <= pageCount; at += runMax) {
      const run = this.#run.subarray(0, Math.min(runMax, pageCount - at + 1) * pageSize);
      this.#read(at, run);
      for (let offset = 0; offset < run.length; offset += pageSize) {
        const pgno = at + offset / pageSize;
        if (pgno !== lockPage) journal.add(pgno, run.subarray(offset, offset + pageSize));
      }
    }
  }

  /** The old images of the staged pages that differ; the others are left out. True when none does. */
  #keepChanged(journal: ReplicaJournal, staged: StagedPages): boolean {
    const { pageSize, pageCount } = this.#point;
    const fresh = new Uint8Array(runSize);
    let isSame = true;
    for (const { first, count } of staged.pgnos.runs(runSize / pageSize)) {
      const inFile = Math.min(count, Math.max(0, pageCount - first + 1));
      if (inFile < count) isSame = false;
      if (inFile === 0) continue;
      const run = this.#run.subarray(0, inFile * pageSize);
      this.#read(first, run);
      staged.read(first, fresh.subarray(0, run.length));
      for (let offset = 0; offset < run.length; offset += pageSize) {
        const pgno = first + offset / pageSize;
        const page = run.subarray(offset, offset + pageSize);
        if (equalBytes(page, fresh.subarray(offset, offset + pageSize))) {
          staged.pgnos.delete(pgno);
        } else {
          isSame = false;
          journal.add(pgno, page);
        }
      }
    }
    return isSame;
  }

  #write(update: PreparedUpdate, journal: ReplicaJournal): void {
    const { files } = this.#runtime;
    const directory = directoryOf(this.#path);
    const hotPath = `${this.#path}-journal`;
    io(() => {
      files.rename(journal.path, hotPath);
      files.syncDirectory(directory);
      writeUpdate(this.#file, update, this.#run);
      files.remove(hotPath);
      files.syncDirectory(directory);
    }, this.#path);
  }

  #assertUnchanged(): void {
    const difference = differenceOf(this.#file, this.#path, this.#point, this.#runtime);
    if (difference !== null) throw changed(this.#path, difference);
  }

  #read(first: number, into: Uint8Array): void {
    readWhole(this.#file, into, (first - 1) * this.#point.pageSize);
  }
}
