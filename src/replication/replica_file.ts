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
import { assert, DatabaseError } from "../errors.ts";
import { bytesOfHex, equalBytes, hexOf } from "../format/bytes.ts";
import { lockBytePage, parseSqliteHeader, setRollbackForm, sqliteHeaderSize } from "../format/sqlite_header.ts";
import type { OpenFile, Runtime, SqliteConnection } from "../runtime/types.ts";
import { io, unsound } from "./apply.ts";
import { openDatabaseFile } from "./database_file.ts";
import { readWhole } from "./image.ts";
import { directoryOf } from "./paths.ts";
import { ReplicaJournal } from "./replica_journal.ts";
import { type ReplicaPoint, type ReplicaState, writeReplicaState } from "./replica_state.ts";
import { type StageBase, StagedPages } from "./staged_pages.ts";

/** What a replica needs of the machine. */
export type ReplicaRuntime = Pick<Runtime, "files" | "sha256" | "sqlite" | "random" | "clock">;

/** Options of {@linkcode ReplicaFile}. */
export interface ReplicaFileOptions {
  runtime: ReplicaRuntime;
  /** Absolute path of the database. */
  localPath: string;
  /** True where other code of this process may have the replica open. */
  isShared: boolean;
}

/** An update that is ready but for the exclusive lock. */
export interface PreparedUpdate {
  /** Where it leads. */
  readonly to: ReplicaPoint;
  /** Pages it writes. */
  readonly pages: number;
  /** Null when no page differs: the document alone changes. */
  readonly journal: ReplicaJournal | null;
  readonly staged: StagedPages;
  /** Page 1 as it will be. */
  readonly firstPage: Uint8Array;
}

/** How long readers may hold up an update before it is tried again later, milliseconds. New ones wait meanwhile. */
const lockTimeoutMs = 1000;

/** Bytes read, compared and written at once. */
const runSize = 1024 * 1024;

/** An open replica. Call {@linkcode ReplicaFile.close} when done. */
export class ReplicaFile implements StageBase {
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
  constructor(options: ReplicaFileOptions, state: ReplicaState) {
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
      const point = [state.after, state.before].find((candidate) => this.#difference(candidate) === null);
      if (point === undefined) throw changed(localPath, this.#difference(state.after)!);
      this.#point = point;
      this.#documented = state.after;
    } catch (error) {
      connection?.close();
      this.#file.close();
      throw error;
    }
  }

  /** The point it is at. */
  get point(): ReplicaPoint {
    return this.#point;
  }

  get pageSize(): number {
    return this.#point.pageSize;
  }

  get pageCount(): number {
    return this.#point.pageCount;
  }

  readAsSource(first: number, into: Uint8Array): void {
    this.#read(first, into);
    if (first === 1) into.set(bytesOfHex(this.#point.sourceHeader));
  }

  /** Begins to stage an update. */
  stage(): StagedPages {
    const { files, sha256 } = this.#runtime;
    return new StagedPages({ files, sha256, path: `${this.#path}-replica-staged`, base: this });
  }

  /** Prepares what is staged, without holding up anybody; its last changeset belongs to `lineage`. */
  prepare(staged: StagedPages, lineage: string | null): PreparedUpdate {
    const { last, pageSize, pageCount } = staged;
    assert(last !== null, "an update has at least one changeset");
    const old = this.#point;
    staged.fillCutPages(old.pageCount * old.pageSize);
    const firstPage = new Uint8Array(pageSize);
    if (staged.pgnos.has(1)) staged.read(1, firstPage);
    else this.readAsSource(1, firstPage);
    staged.pgnos.delete(1);
    checkHeader(firstPage, pageSize, pageCount);
    const { header, chain } = last;
    const to = { ...old, lineage, seq: header.seq, chain, createdMs: header.createdMs, pageSize, pageCount };
    const journal = this.#prepareJournal(staged, firstPage);
    if (journal === null) return { to, pages: 0, journal, staged, firstPage };
    const sourceHeader = hexOf(firstPage.subarray(0, sqliteHeaderSize));
    const counter = (old.counter + 1) >>> 0;
    setRollbackForm(firstPage, counter, pageCount);
    let pages = 1;
    for (const { count } of staged.pgnos.runs(pageCount)) pages += count;
    return {
      to: { ...to, counter, sourceHeader, firstPageSha256: this.#digest(firstPage) },
      pages,
      journal,
      staged,
      firstPage,
    };
  }

  /**
   * Makes a prepared update happen. Returns how long readers were kept out, milliseconds, or null when they did not let
   * go: nothing has changed then, and it may be tried again.
   */
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

  #write({ staged, to, firstPage }: PreparedUpdate, journal: ReplicaJournal): void {
    const { files } = this.#runtime;
    const { pageSize, pageCount } = to;
    const directory = directoryOf(this.#path);
    const hotPath = `${this.#path}-journal`;
    io(() => {
      files.rename(journal.path, hotPath);
      files.syncDirectory(directory);
      this.#file.write(firstPage, 0);
      for (const { first, count } of staged.pgnos.runs(runSize / pageSize)) {
        const run = this.#run.subarray(0, count * pageSize);
        staged.read(first, run);
        this.#file.write(run, (first - 1) * pageSize);
      }
      if (this.#file.stat().size !== pageCount * pageSize) this.#file.truncate(pageCount * pageSize);
      this.#file.sync();
      files.remove(hotPath);
      files.syncDirectory(directory);
    }, this.#path);
  }

  #assertUnchanged(): void {
    const difference = this.#difference(this.#point);
    if (difference !== null) throw changed(this.#path, difference);
  }

  /** Says in what the file is not the one of `point`; null when it is. Only under a lock. */
  #difference(point: ReplicaPoint): string | null {
    const stat = this.#file.stat();
    const named = this.#runtime.files.stat(this.#path);
    if (named === null || named.inode !== stat.inode || named.device !== stat.device) {
      return "another file has its name";
    }
    const size = point.pageCount * point.pageSize;
    if (stat.size !== size) return `it has ${stat.size} bytes, expected ${size}`;
    const page = new Uint8Array(point.pageSize);
    readWhole(this.#file, page, 0);
    const header = parseSqliteHeader(page);
    if (typeof header === "string") return "it is no SQLite database";
    if (header.changeCounter !== point.counter) {
      return `its change counter is ${header.changeCounter}, expected ${point.counter}`;
    }
    return this.#digest(page) === point.firstPageSha256 ? null : "its first page is another one";
  }

  #read(first: number, into: Uint8Array): void {
    readWhole(this.#file, into, (first - 1) * this.#point.pageSize);
  }

  #digest(bytes: Uint8Array): string {
    const hash = this.#runtime.sha256();
    hash.update(bytes);
    return hexOf(hash.digest());
  }
}

/** Throws `IntegrityError` when the source's page 1 does not describe a database of this size. */
export function checkHeader(firstPage: Uint8Array, pageSize: number, pageCount: number): void {
  const header = parseSqliteHeader(firstPage);
  if (typeof header === "string") throw unsound(`its header is not that of a SQLite database (${header})`);
  if (header.pageSize !== pageSize) {
    throw unsound(`its header says page size ${header.pageSize}, the changesets ${pageSize}`);
  }
  if (header.versionValidFor === header.changeCounter && header.pageCount !== pageCount) {
    throw unsound(`its header says ${header.pageCount} pages, the last changeset ${pageCount}`);
  }
}

/** Somebody else wrote to the replica. */
export function changed(localPath: string, reason: string): DatabaseError {
  return new DatabaseError("replica_changed", `${localPath} is not as walrust left it: ${reason}`, {
    hint: "somebody wrote to it; --rebootstrap makes it anew and keeps what is there now aside",
    data: { path: localPath, reason },
  });
}
