/** A machine on which the process dies at a step of its choosing, in this very process: what was done stays done. */
import type { Files, OpenFile, Runtime, Sqlite, SqliteConnection } from "../../src/runtime/types.ts";

/** Thrown at the step of death and by everything that is tried afterwards. */
export class Died extends Error {}

/** See the file's head. A step is a call that changes the disk or a lock. */
export class MortalRuntime {
  readonly runtime: Runtime;
  /** Steps so far. */
  steps = 0;
  /** The step that is not survived; half of its bytes are there when it writes. */
  deadly: number;
  /** What each step was. */
  readonly names: string[] = [];
  #isDead = false;
  readonly #open: { close(): void }[] = [];

  constructor(runtime: Runtime, deadly: number = Infinity) {
    this.deadly = deadly;
    const { sqlite } = runtime;
    this.runtime = { ...runtime, files: this.#files(runtime.files), sqlite: sqlite && this.#sqlite(sqlite) };
  }

  /** What the kernel does when a process is gone: descriptors are closed, locks are free. */
  bury(): void {
    this.#isDead = true;
    for (const thing of this.#open.splice(0)) thing.close();
  }

  #step<T>(name: string, run: () => T, half: () => void = () => {}): T {
    this.#live();
    this.names.push(name);
    if (++this.steps >= this.deadly) {
      this.#isDead = true;
      half();
      throw new Died(`died at step ${this.steps}: ${name}`);
    }
    return run();
  }

  #live(): void {
    if (this.#isDead) throw new Died("dead");
  }

  #file(file: OpenFile): OpenFile {
    this.#open.push(file);
    const name = file.path.replace(/^.*\//, "");
    return {
      path: file.path,
      read: (into, position) => {
        this.#live();
        return file.read(into, position);
      },
      write: (bytes, position) =>
        this.#step(
          `write ${name}`,
          () => file.write(bytes, position),
          () => file.write(bytes.subarray(0, bytes.length >> 1), position),
        ),
      truncate: (size) => this.#step(`truncate ${name}`, () => file.truncate(size)),
      sync: () => this.#step(`sync ${name}`, () => file.sync()),
      stat: () => file.stat(),
      close: () => {
        if (!this.#isDead) file.close();
      },
    };
  }

  #files(files: Files): Files {
    const named = (path: string): string => path.replace(/^.*\//, "");
    return {
      uid: files.uid,
      stat: (path) => files.stat(path),
      open: (path, mode) => {
        if (mode === "read" || mode === "update") {
          this.#live();
          return this.#file(files.open(path, mode));
        }
        return this.#step(`open ${named(path)}`, () => this.#file(files.open(path, mode)));
      },
      rename: (from, to) => this.#step(`rename ${named(to)}`, () => files.rename(from, to)),
      link: (from, to) => this.#step(`link ${named(to)}`, () => files.link(from, to)),
      remove: (path) => this.#step(`remove ${named(path)}`, () => files.remove(path)),
      makeDirectory: (path) => files.makeDirectory(path),
      removeDirectory: (path) => files.removeDirectory(path),
      list: (path) => files.list(path),
      syncDirectory: (path) => this.#step("syncDirectory", () => files.syncDirectory(path)),
      freeBytes: (path) => files.freeBytes(path),
      realPath: (path) => files.realPath(path),
    };
  }

  #sqlite(sqlite: Sqlite): Sqlite {
    return {
      version: sqlite.version,
      open: (path, options) => {
        this.#live();
        const raw = sqlite.open(path, options);
        this.#open.unshift(raw);
        const connection: SqliteConnection = {
          journalMode: () => raw.journalMode(),
          beginRead: () => this.#step("beginRead", () => raw.beginRead()),
          beginImmediate: () => this.#step("beginImmediate", () => raw.beginImmediate()),
          beginExclusive: () => this.#step("beginExclusive", () => raw.beginExclusive()),
          rollback: () => this.#step("rollback", () => raw.rollback()),
          gauge: () => raw.gauge(),
          checkpointPassive: () => raw.checkpointPassive(),
          check: (level) => raw.check(level),
          close: () => {
            if (!this.#isDead) raw.close();
          },
        };
        return connection;
      },
    };
  }
}
