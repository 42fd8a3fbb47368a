/**
 * One connection to a modelled database, after SQLite's wal.c and pager.c. Long operations are generators:
 * between two steps of theirs other processes may act, or the process may die.
 */
import { walChecksum } from "../../src/format/wal.ts";
import type { CheckpointResult } from "../../src/runtime/types.ts";
import { frameHeaderBytes, type IndexHeader, markNotUsed, SqliteFailure, type WalDatabase } from "./wal_index.ts";

export type CheckpointMode = "noop" | "passive" | "full" | "restart" | "truncate";

/** Runs an operation without a pause. */
export function drain<T>(steps: Generator<string, T>): T {
  for (;;) {
    const step = steps.next();
    if (step.done) return step.value;
  }
}

export class ModelConnection {
  readonly database: WalDatabase;
  readonly process: string;
  readonly readOnly: boolean;
  /** `pWal->nCkpt`: each connection counts for itself. */
  checkpointSequence = 0;
  /** `pWal->hdr`: the snapshot we read; ahead of the shared one while we write. */
  header: IndexHeader = { mxFrame: 0, pageCount: 0, salt1: 0, salt2: 0, checksum1: 0, checksum2: 0 };
  /** Read mark we hold, -1 for none. */
  readLock = -1;
  dead = false;
  #minFrame = 0;
  /** Frames of the running transaction, by page. */
  #uncommitted = new Map<number, number>();
  /** First frame whose checksum was given up when it was overwritten, 0 for none. */
  #recheckFrom = 0;

  constructor(database: WalDatabase, process: string, readOnly: boolean) {
    this.database = database;
    this.process = process;
    this.readOnly = readOnly;
  }

  get writing(): boolean {
    return this.database.writer === this;
  }

  get spilled(): number {
    return this.#uncommitted.size;
  }

  #attach(): void {
    if (this.dead) throw new SqliteFailure("sqlite_misuse");
    if (this.database.attached.has(this)) return;
    this.database.attach(this);
  }

  /** Looks at the database for the first time: journal mode, shared memory. */
  look(): void {
    this.#attach();
    this.database.readIndex(this);
  }

  /** `walTryBeginRead`. */
  beginRead(useWal = false): void {
    this.#attach();
    if (this.readLock >= 0) return;
    const { database } = this;
    const index = database.readIndex(this);
    this.header = { ...index.header };
    if (!useWal && index.backfilled === this.header.mxFrame && database.backfilling === null) {
      this.readLock = 0;
      database.readers[0].add(this);
      return;
    }
    let mark = 0;
    let slot = 0;
    for (let at = 1; at < 5; at++) {
      if (mark <= index.marks[at] && index.marks[at] <= this.header.mxFrame) {
        mark = index.marks[at];
        slot = at;
      }
    }
    if (mark < this.header.mxFrame || slot === 0) {
      for (let at = 1; at < 5; at++) {
        if (database.readers[at].size > 0) continue;
        index.marks[at] = this.header.mxFrame;
        slot = at;
        break;
      }
    }
    if (slot === 0) throw new SqliteFailure("sqlite_busy");
    this.#minFrame = index.backfilled + 1;
    this.readLock = slot;
    database.readers[slot].add(this);
  }

  endRead(): void {
    if (this.readLock >= 0) this.database.readers[this.readLock].delete(this);
    this.readLock = -1;
  }

  /** `BEGIN IMMEDIATE`: false when another connection writes. */
  beginWrite(): boolean {
    if (this.readOnly) throw new SqliteFailure("sqlite_readonly");
    const { database } = this;
    const reading = this.readLock >= 0;
    this.beginRead();
    const stale = this.header.mxFrame !== database.index!.header.mxFrame ||
      this.header.salt1 !== database.index!.header.salt1;
    if (database.writer !== null || stale) {
      if (!reading) this.endRead();
      return false;
    }
    database.writer = this;
    return true;
  }

  /** The page as this connection's snapshot has it. */
  page(pgno: number): Uint8Array {
    const { database } = this;
    const last = this.readLock === 0 ? 0 : this.header.mxFrame;
    for (let frame = last; frame >= this.#minFrame && frame > 0; frame--) {
      if (database.index!.frames[frame - 1] === pgno) return database.frame(frame).subarray(frameHeaderBytes);
    }
    const bytes = new Uint8Array(database.pageSize);
    database.disk.read(database.file, bytes, (pgno - 1) * database.pageSize);
    return bytes;
  }

  /** Pages of the database in this connection's snapshot. */
  get pageCount(): number {
    const { database } = this;
    // A transaction that spilled the first frames of a log has none committed yet.
    return this.header.pageCount > 0 ? this.header.pageCount : Math.floor(database.file.size / database.pageSize);
  }

  /** Cache spill: frames without a commit, which may be overwritten by the same transaction. */
  *spill(pages: ReadonlyMap<number, Uint8Array>): Generator<string, void> {
    yield* this.#writeFrames(pages, 0);
  }

  /** Writes the frames, forces them where asked, then publishes them in the wal-index. */
  *commit(pages: ReadonlyMap<number, Uint8Array>, pageCount: number): Generator<string, void> {
    const kept = new Map([...pages].filter(([pgno]) => pgno <= pageCount));
    if (kept.size > 0) {
      yield* this.#writeFrames(kept, pageCount);
      yield "commit frame written, wal-index not";
      this.database.index!.header = { ...this.header };
    }
    this.#endTransaction();
  }

  /** `walRestartLog`: when all is backfilled and nobody reads frames, the log begins anew. */
  #restartLog(): void {
    if (this.readLock !== 0) return;
    const { database } = this;
    if (database.index!.backfilled > 0 && database.readMarksFree) database.restart(this, database.random.next());
    this.endRead();
    this.beginRead(true);
  }

  *#writeFrames(pages: ReadonlyMap<number, Uint8Array>, commitSize: number): Generator<string, void> {
    const { database } = this;
    this.#restartLog();
    if (this.header.mxFrame === 0) this.#writeHeader();
    const sorted = [...pages].sort(([a], [b]) => a - b);
    for (const [at, [pgno, data]] of sorted.entries()) {
      const last = at === sorted.length - 1 && commitSize > 0;
      const old = this.#uncommitted.get(pgno);
      if (old !== undefined && !last) {
        database.disk.write(database.wal, data, database.frameOffset(old) + frameHeaderBytes);
        if (this.#recheckFrom === 0 || old < this.#recheckFrom) this.#recheckFrom = old;
        yield `frame ${old} overwritten`;
        continue;
      }
      const frame = ++this.header.mxFrame;
      this.#writeFrame(frame, pgno, last ? commitSize : 0, data, this.#recheckFrom === 0);
      database.index!.frames.length = frame - 1;
      database.index!.frames.push(pgno);
      this.#uncommitted.set(pgno, frame);
      if (!last) yield `frame ${frame} written`;
    }
    if (commitSize === 0) return;
    if (this.#recheckFrom > 0) this.#rewriteChecksums();
    if (database.synchronous === "full") database.syncWal();
    this.header.pageCount = commitSize;
  }

  #writeHeader(): void {
    const { database, header } = this;
    if (this.checkpointSequence === 0) {
      header.salt1 = database.random.next();
      header.salt2 = database.random.next();
    }
    const bytes = new Uint8Array(32);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, 0x377f0682);
    view.setUint32(4, 3007000);
    view.setUint32(8, database.pageSize);
    view.setUint32(12, this.checkpointSequence);
    view.setUint32(16, header.salt1);
    view.setUint32(20, header.salt2);
    [header.checksum1, header.checksum2] = walChecksum("little", bytes.subarray(0, 24), 0, 0);
    view.setUint32(24, header.checksum1);
    view.setUint32(28, header.checksum2);
    database.disk.write(database.wal, bytes, 0);
    database.syncWal();
  }

  #writeFrame(frame: number, pgno: number, commitSize: number, data: Uint8Array, summed: boolean): void {
    const { database, header } = this;
    const bytes = new Uint8Array(frameHeaderBytes + database.pageSize);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, pgno);
    view.setUint32(4, commitSize);
    bytes.set(data, frameHeaderBytes);
    if (summed) {
      [header.checksum1, header.checksum2] = walChecksum(
        "little",
        bytes.subarray(0, 8),
        header.checksum1,
        header.checksum2,
      );
      [header.checksum1, header.checksum2] = walChecksum("little", data, header.checksum1, header.checksum2);
      view.setUint32(8, header.salt1);
      view.setUint32(12, header.salt2);
      view.setUint32(16, header.checksum1);
      view.setUint32(20, header.checksum2);
    }
    database.disk.write(database.wal, bytes, database.frameOffset(frame));
  }

  /** `walRewriteChecksums`: every frame from the first overwritten one on. */
  #rewriteChecksums(): void {
    const { database, header } = this;
    const first = this.#recheckFrom;
    const before = new Uint8Array(8);
    database.disk.read(database.wal, before, first === 1 ? 24 : database.frameOffset(first - 1) + 16);
    header.checksum1 = new DataView(before.buffer).getUint32(0);
    header.checksum2 = new DataView(before.buffer).getUint32(4);
    for (let frame = first; frame <= header.mxFrame; frame++) {
      const bytes = database.frame(frame);
      const view = new DataView(bytes.buffer);
      this.#writeFrame(frame, view.getUint32(0), view.getUint32(4), bytes.subarray(frameHeaderBytes), true);
    }
    this.#recheckFrom = 0;
  }

  #endTransaction(): void {
    this.#uncommitted.clear();
    this.#recheckFrom = 0;
    if (this.writing) this.database.writer = null;
    this.endRead();
  }

  /** Ends the transaction; what it spilled stays in the file beyond the log's end. */
  rollback(): void {
    if (this.dead) return;
    if (this.writing) {
      const { index } = this.database;
      this.header = { ...index!.header };
      index!.frames.length = index!.header.mxFrame;
    }
    this.#endTransaction();
  }

  /** `sqlite3WalCheckpoint` and `walCheckpoint`. */
  *checkpoint(mode: CheckpointMode): Generator<string, CheckpointResult> {
    const { database } = this;
    this.#attach();
    if (this.readLock >= 0) throw new SqliteFailure("sqlite_locked");
    if (mode === "noop") return this.#gauge();
    if (this.readOnly) throw new SqliteFailure("sqlite_readonly");
    if (database.checkpointer !== null) return { busy: true, log: -1, checkpointed: -1 };
    database.checkpointer = this;
    const wanted = mode;
    let took = false;
    try {
      if (mode !== "passive") {
        if (database.writer === null) {
          database.writer = this;
          took = true;
        } else mode = "passive";
      }
      const index = database.readIndex(this);
      this.header = { ...index.header };
      yield* this.#backfill();
      let busy = mode !== wanted;
      if (mode !== "passive") {
        if (index.backfilled < this.header.mxFrame) busy = true;
        else if (mode !== "full") {
          if (!database.readMarksFree) busy = true;
          else if (mode === "truncate") {
            database.restart(this, database.random.next());
            database.disk.truncate(database.wal, 0);
          }
        }
      }
      return { busy, log: this.header.mxFrame, checkpointed: index.backfilled };
    } finally {
      // A process that was killed has lost its locks already, perhaps to another.
      if (!this.dead) {
        if (database.checkpointer === this) database.checkpointer = null;
        if (database.backfilling === this) database.backfilling = null;
        if (took && database.writer === this) database.writer = null;
      }
    }
  }

  #gauge(): CheckpointResult {
    const index = this.database.readIndex(this);
    return { busy: false, log: index.header.mxFrame, checkpointed: index.backfilled };
  }

  *#backfill(): Generator<string, void> {
    const { database, header } = this;
    const index = database.index!;
    if (index.backfilled >= header.mxFrame) return;
    let safe = header.mxFrame;
    for (let slot = 1; slot < 5; slot++) {
      if (safe <= index.marks[slot]) continue;
      if (database.readers[slot].size > 0) safe = index.marks[slot];
      else index.marks[slot] = slot === 1 ? safe : markNotUsed;
    }
    if (index.backfilled >= safe || database.readers[0].size > 0) return;
    database.backfilling = this;
    database.syncWal();
    const newest = new Map<number, number>();
    for (let frame = index.backfilled + 1; frame <= header.mxFrame; frame++) newest.set(index.frames[frame - 1], frame);
    for (const [pgno, frame] of [...newest].sort(([a], [b]) => a - b)) {
      if (frame > safe || pgno > header.pageCount) continue;
      const data = database.frame(frame).subarray(frameHeaderBytes);
      database.disk.write(database.file, data, (pgno - 1) * database.pageSize);
      yield `page ${pgno} backfilled`;
    }
    if (safe === database.index!.header.mxFrame) {
      database.disk.truncate(database.file, header.pageCount * database.pageSize);
      database.disk.sync(database.file);
    }
    index.backfilled = safe;
    database.backfilling = null;
  }

  /** The last connection checkpoints and deletes the WAL, unless it is read-only. */
  close(): void {
    if (this.dead) return;
    this.rollback();
    const { database } = this;
    if (!database.attached.has(this)) {
      this.dead = true;
      return;
    }
    const last = database.attached.size === 1;
    if (last && !this.readOnly) {
      drain(this.checkpoint("passive"));
      database.disk.remove(database.walPath);
      database.disk.remove(`${database.path}-shm`);
    }
    database.drop(this);
    if (last) database.index = null;
  }
}
