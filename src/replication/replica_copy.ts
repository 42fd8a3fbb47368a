/**
 * A replica where the runtime has no SQLite, so that nobody can hold a lock for us: each update is a new file, a clone
 * of the old one where the file system can make one, which then takes its name. Readers see whole states, and the next
 * one when they open the database again. Writers are not held off; what they wrote is found before the next update.
 */
import { bytesOfHex } from "../format/bytes.ts";
import type { OpenFile } from "../runtime/types.ts";
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
import { type ReplicaPoint, type ReplicaState, writeReplicaState } from "./replica_state.ts";
import type { StagedPages } from "./staged_pages.ts";

/** See the top of this file. */
export class ReplicaCopy implements Replica {
  readonly #runtime: ReplicaRuntime;
  readonly #path: string;
  readonly #source: string;
  readonly #run: Uint8Array = new Uint8Array(runSize);
  #file: OpenFile;
  #point: ReplicaPoint;

  /** Opens the replica that `state` describes; throws `DatabaseError` (`replica_changed`) when others wrote to it. */
  constructor({ runtime, localPath }: Pick<ReplicaOptions, "runtime" | "localPath">, state: ReplicaState) {
    this.#runtime = runtime;
    this.#path = localPath;
    this.#source = state.source;
    this.#file = this.#open();
    try {
      this.#assertNoJournal();
      this.#point = pointOfFile(this.#file, localPath, state, runtime);
    } catch (error) {
      this.#file.close();
      throw error;
    }
  }

  get point(): ReplicaPoint {
    return this.#point;
  }

  readAsSource(first: number, into: Uint8Array): void {
    readWhole(this.#file, into, (first - 1) * this.#point.pageSize);
    if (first === 1) into.set(bytesOfHex(this.#point.sourceHeader));
  }

  hold(): void {
    this.#assertNoJournal();
    const difference = differenceOf(this.#file, this.#path, this.#point, this.#runtime);
    if (difference !== null) throw changed(this.#path, difference);
  }

  stage(): StagedPages {
    return stageOn(this, this.#runtime, this.#path);
  }

  prepare(staged: StagedPages, lineage: string | null): PreparedUpdate {
    const { to, firstPage } = targetOf(staged, this.#point, this, lineage);
    const point = withOwnHeader(to, firstPage, this.#runtime.sha256);
    return { to: point, pages: pagesOf(staged), journal: null, staged, firstPage };
  }

  commit(update: PreparedUpdate): number {
    const { files } = this.#runtime;
    const { to } = update;
    const next = `${this.#path}-replica-next`;
    writeReplicaState(files, this.#path, { source: this.#source, before: this.#point, after: to });
    io(() => {
      this.#clone(next);
      const file = files.open(next, "update");
      try {
        writeUpdate(file, update, this.#run);
      } finally {
        file.close();
      }
    }, this.#path);
    this.hold();
    io(() => {
      files.rename(next, this.#path);
      files.syncDirectory(directoryOf(this.#path));
    }, this.#path);
    this.#file.close();
    this.#file = this.#open();
    this.#point = to;
    return 0;
  }

  close(): void {
    this.#file.close();
  }

  #open(): OpenFile {
    const { files } = this.#runtime;
    // Closed at each update: locks on a file that was replaced are worth nothing, and there is no SQLite here.
    return io(() => openDatabaseFile(this.#path, files, { mode: "read", isShared: false }), this.#path);
  }

  #clone(path: string): void {
    const { files } = this.#runtime;
    files.remove(path);
    if (files.clone !== undefined) return files.clone(this.#path, path);
    const file = files.open(path, "exclusive");
    try {
      for (let at = 0, length = 1; length > 0; at += length) {
        length = this.#file.read(this.#run, at);
        if (length > 0) file.write(this.#run.subarray(0, length), at);
      }
    } finally {
      file.close();
    }
  }

  /** What a program began to write it has not taken back yet, and only SQLite could. */
  #assertNoJournal(): void {
    if (this.#runtime.files.stat(`${this.#path}-journal`) !== null) throw changed(this.#path, "it has a journal");
  }
}
