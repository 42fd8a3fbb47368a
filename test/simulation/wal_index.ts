/**
 * What the connections to one database share: SQLite's wal-index and locks (after SQLite's wal.c, 3.53).
 * Each call is atomic; a lock that outlives a call has its holder here.
 */
import { walChecksum } from "../../src/format/wal.ts";
import type { Inode, SimulatedDisk } from "./files.ts";
import type { SeededRandom } from "./random.ts";
import type { ModelConnection } from "./wal_model.ts";

/** `READMARK_NOT_USED` in wal.c. */
export const markNotUsed = 0xffffffff;
export const walHeaderBytes = 32;
export const frameHeaderBytes = 24;

/** `WalIndexHdr`: what a commit publishes at once. */
export interface IndexHeader {
  /** Committed frames. */
  mxFrame: number;
  /** Database size after the last commit, pages. */
  pageCount: number;
  salt1: number;
  salt2: number;
  checksum1: number;
  checksum2: number;
}

/** The wal-index in shared memory: lives as long as a connection does. */
export interface WalIndex {
  header: IndexHeader;
  /** Page number of each frame, uncommitted ones included; frame n is at n - 1. */
  frames: number[];
  backfilled: number;
  /** Read marks 0..4; 0 stands for "the database file alone". */
  marks: number[];
  /** A process died while publishing a header: whoever looks next must recover. */
  torn: boolean;
}

/** Faults that only show when the order of SQLite's own steps is wrong. */
export class ModelError extends Error {
  override name = "ModelError";
}

/** Result of a failed call, by SQLite's name of it. */
export class SqliteFailure extends Error {
  readonly code: "sqlite_busy" | "sqlite_locked" | "sqlite_readonly" | "sqlite_misuse";

  constructor(code: "sqlite_busy" | "sqlite_locked" | "sqlite_readonly" | "sqlite_misuse") {
    super(code);
    this.code = code;
  }
}

/** A database and its WAL on the simulated disk. */
export class WalDatabase {
  readonly disk: SimulatedDisk;
  readonly path: string;
  readonly pageSize: number;
  readonly random: SeededRandom;
  /** `PRAGMA synchronous` of the writers: FULL forces each commit to disk, NORMAL only checkpoints. */
  readonly synchronous: "normal" | "full";
  index: WalIndex | null = null;
  #file: Inode | null = null;
  #wal: Inode | null = null;
  /** Called after a recovery: it may have made a commit of frames that no wal-index had named. */
  onRecover: () => void = () => {};
  /** Connections that have looked at the database: each holds SHARED on the database file. */
  attached: Set<ModelConnection> = new Set();
  readers: Set<ModelConnection>[] = [new Set(), new Set(), new Set(), new Set(), new Set()];
  writer: ModelConnection | null = null;
  checkpointer: ModelConnection | null = null;
  /** Holds READ(0) exclusively: nobody may begin to read the database file alone. */
  backfilling: ModelConnection | null = null;

  constructor(
    options: {
      disk: SimulatedDisk;
      path: string;
      pageSize: number;
      random: SeededRandom;
      synchronous: "normal" | "full";
    },
  ) {
    this.disk = options.disk;
    this.path = options.path;
    this.pageSize = options.pageSize;
    this.random = options.random;
    this.synchronous = options.synchronous;
  }

  get walPath(): string {
    return `${this.path}-wal`;
  }

  /** The file that was opened first, whatever its name leads to by now. */
  get file(): Inode {
    return this.#file ??= this.disk.inode(this.path, "update");
  }

  /** The log that the attached connections hold open; without any, what its name leads to. */
  get wal(): Inode {
    return this.#wal ?? this.disk.inode(this.walPath, "update");
  }

  /** True when the header of the file says WAL. */
  get isInWalMode(): boolean {
    return this.file.data[18] === 2;
  }

  /** A connection looks at the database: the first one makes the log and the shared memory. */
  attach(connection: ModelConnection): void {
    const { file } = this;
    if (this.attached.size === 0) {
      this.#wal = this.disk.inode(this.walPath, "create");
      this.disk.inode(`${this.path}-shm`, "create");
    }
    if (file.type !== "file") throw new ModelError(`${this.path} is no file`);
    this.attached.add(connection);
  }

  frameOffset(frame: number): number {
    return walHeaderBytes + (frame - 1) * (frameHeaderBytes + this.pageSize);
  }

  frame(frame: number): Uint8Array {
    const bytes = new Uint8Array(frameHeaderBytes + this.pageSize);
    if (this.disk.read(this.wal, bytes, this.frameOffset(frame)) !== bytes.length) {
      throw new ModelError(`frame ${frame} is not in the WAL`);
    }
    return bytes;
  }

  /** Forces the WAL to disk; the first time its name too. */
  syncWal(): void {
    this.disk.sync(this.wal);
    this.disk.syncDirectory(this.path.slice(0, Math.max(1, this.path.lastIndexOf("/"))));
  }

  /** `walTryBeginRead`'s first part: makes the shared memory when it is absent, recovers when it is torn. */
  readIndex(connection: ModelConnection): WalIndex {
    if (this.index === null || this.index.torn) {
      if (this.writer !== null && this.writer !== connection) throw new SqliteFailure("sqlite_busy");
      const old = this.index;
      const recovered = this.recover();
      connection.checkpointSequence = recovered.checkpointSequence;
      const { header, frames } = recovered;
      const marks = [0, header.mxFrame || markNotUsed, markNotUsed, markNotUsed, markNotUsed];
      // A mark in use cannot be locked, so it stays as it is.
      for (let slot = 1; slot < 5; slot++) if (this.readers[slot].size > 0) marks[slot] = old!.marks[slot];
      this.index = { header, frames, backfilled: 0, marks, torn: false };
      this.onRecover();
    }
    return this.index;
  }

  /** `walIndexRecover`: the log is what the file's checksums say. */
  recover(): { header: IndexHeader; frames: number[]; checkpointSequence: number } {
    const header: IndexHeader = { mxFrame: 0, pageCount: 0, salt1: 0, salt2: 0, checksum1: 0, checksum2: 0 };
    const inode = this.#wal ?? this.disk.lookup(this.walPath);
    const none = { header, frames: [], checkpointSequence: 0 };
    if (inode === null || inode.size <= walHeaderBytes) return none;
    const bytes = inode.data.subarray(0, inode.size);
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    let [sum1, sum2] = walChecksum("little", bytes.subarray(0, 24), 0, 0);
    if (view.getUint32(0) !== 0x377f0682 || view.getUint32(8) !== this.pageSize) return none;
    if (view.getUint32(24) !== sum1 || view.getUint32(28) !== sum2) return none;
    header.salt1 = view.getUint32(16);
    header.salt2 = view.getUint32(20);
    header.checksum1 = sum1;
    header.checksum2 = sum2;
    const frames: number[] = [];
    for (let frame = 1;; frame++) {
      const at = this.frameOffset(frame);
      if (at + frameHeaderBytes + this.pageSize > bytes.length) break;
      if (view.getUint32(at + 8) !== header.salt1 || view.getUint32(at + 12) !== header.salt2) break;
      if (view.getUint32(at) === 0) break;
      [sum1, sum2] = walChecksum("little", bytes.subarray(at, at + 8), sum1, sum2);
      [sum1, sum2] = walChecksum("little", bytes.subarray(at + 24, at + 24 + this.pageSize), sum1, sum2);
      if (view.getUint32(at + 16) !== sum1 || view.getUint32(at + 20) !== sum2) break;
      frames.push(view.getUint32(at));
      const commit = view.getUint32(at + 4);
      if (commit === 0) continue;
      header.mxFrame = frame;
      header.pageCount = commit;
      header.checksum1 = sum1;
      header.checksum2 = sum2;
    }
    frames.length = header.mxFrame;
    return { header, frames, checkpointSequence: view.getUint32(12) };
  }

  /** `walRestartHdr`: the next frame will be the first of a new log. */
  restart(connection: ModelConnection, salt2: number): void {
    const index = this.index!;
    connection.checkpointSequence++;
    connection.header.mxFrame = 0;
    connection.header.salt1 = (connection.header.salt1 + 1) >>> 0;
    connection.header.salt2 = salt2;
    index.header = { ...connection.header };
    index.frames.length = 0;
    index.backfilled = 0;
    index.marks = [0, 0, markNotUsed, markNotUsed, markNotUsed];
  }

  /** True when no reader but those of the database file alone stands in the way. */
  get readMarksFree(): boolean {
    return this.readers.every((readers, slot) => slot === 0 || readers.size === 0);
  }

  /** The database as a reader who begins now would see it. */
  content(): Uint8Array {
    return this.#contentOf(this.index !== null && !this.index.torn ? this.index : this.recover());
  }

  /** The database as its files alone have it: with commits that no wal-index knows, or none will know. */
  contentOfFiles(): Uint8Array {
    return this.#contentOf(this.recover());
  }

  #contentOf(state: Pick<WalIndex, "header" | "frames">): Uint8Array {
    const file = this.file;
    const pages = state.header.mxFrame > 0 ? state.header.pageCount : Math.floor(file.size / this.pageSize);
    const image = new Uint8Array(pages * this.pageSize);
    this.disk.read(file, image, 0);
    if (state.header.mxFrame === 0) return image;
    const { data, size } = this.wal;
    const isNewer = new Uint8Array(pages + 1);
    for (let frame = state.header.mxFrame; frame > 0; frame--) {
      const page = state.frames[frame - 1];
      if (page > pages || isNewer[page] === 1) continue;
      isNewer[page] = 1;
      const from = this.frameOffset(frame) + frameHeaderBytes;
      if (from + this.pageSize > size) throw new ModelError(`frame ${frame} is not in the WAL`);
      image.set(data.subarray(from, from + this.pageSize), (page - 1) * this.pageSize);
    }
    return image;
  }

  /** A process was killed: the kernel releases its locks, nothing is cleaned up. */
  kill(process: string): void {
    for (const connection of [...this.attached]) if (connection.process === process) this.drop(connection);
    if (this.attached.size === 0) this.index = null;
  }

  /** Releases every lock of a connection. */
  drop(connection: ModelConnection): void {
    connection.dead = true;
    this.attached.delete(connection);
    if (this.attached.size === 0) this.#wal = null;
    for (const readers of this.readers) readers.delete(connection);
    if (this.writer === connection) this.writer = null;
    if (this.checkpointer === connection) this.checkpointer = null;
    if (this.backfilling === connection) this.backfilling = null;
  }

  /** The machine died: no connection and no shared memory is left. */
  powerLoss(): void {
    for (const connection of [...this.attached]) this.drop(connection);
    this.index = null;
  }
}
