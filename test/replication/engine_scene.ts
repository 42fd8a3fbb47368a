/**
 * A database, an application that writes to it, and an engine that can be killed: everything real but the bucket, the
 * passing of time and the death of the process.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import type { WatchOptions } from "../../src/daemon/watch.ts";
import { DatabaseEngine } from "../../src/replication/engine.ts";
import type { EngineEvent, EngineOptions } from "../../src/replication/options.ts";
import { restore } from "../../src/replication/restore.ts";
import { systemRuntime } from "../../src/runtime/system.ts";
import type { Clock, Files, OpenFile, Runtime, Sqlite, SqliteConnection } from "../../src/runtime/types.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";
import { wrapStore } from "../../src/storage/wrap.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";

export const system: Runtime = systemRuntime();
export const root = "app/";

/** Thrown by everything that a dead process still tries. */
export class Crash extends Error {}

/** One life of walrust: `crash()` ends it as SIGKILL would. */
export class Life {
  alive = true;
  #die: () => void = () => {};
  /** Resolves when the process was killed. */
  readonly died: Promise<void> = new Promise((resolve) => this.#die = resolve);
  /** Called before every change of a file (`write`, `rename`, …) and before and after every request. */
  onOperation: (name: string, target: string) => void = () => {};
  /** Called before and after everything that SQLite does for us, and before every read of the WAL. */
  onMoment: (call: string) => void = () => {};
  /** The file system as this process has it. */
  readonly files: Files = this.#fileSystem(system.files);
  readonly #connections = new Set<SqliteConnection>();
  readonly #files = new Set<OpenFile>();

  /** The kernel closes everything: connections first, as their locks go in the same moment. */
  crash(): void {
    this.alive = false;
    for (const connection of this.#connections) connection.close();
    for (const file of this.#files) file.close();
    this.#die();
  }

  get openHandles(): number {
    return this.#connections.size + this.#files.size;
  }

  operate(name: string, target: string): void {
    if (!this.alive) throw new Crash("the process is dead");
    this.onOperation(name, target);
    if (!this.alive) throw new Crash(`killed at ${name} ${target}`);
  }

  runtime(clock: Clock, sqlite: Sqlite | null = system.sqlite): Runtime {
    const sleep = (ms: number, signal?: AbortSignal): Promise<void> =>
      this.alive ? clock.sleep(ms, signal) : new Promise(() => {});
    return {
      ...system,
      sqlite: sqlite === null ? null : this.#sqlite(sqlite),
      files: this.files,
      clock: { now: () => clock.now(), monotonic: () => clock.monotonic(), sleep },
    };
  }

  #sqlite(sqlite: Sqlite): Sqlite {
    return {
      version: sqlite.version,
      open: (path, options) => {
        this.operate("connect", path);
        const connection = sqlite.open(path, options);
        this.#connections.add(connection);
        const { close } = connection;
        connection.close = () => {
          this.#connections.delete(connection);
          close.call(connection);
        };
        for (
          const name of ["gauge", "beginRead", "beginImmediate", "checkpointPassive", "rollback", "close"] as const
        ) {
          const call: () => unknown = connection[name].bind(connection);
          const around = (): unknown => {
            this.onMoment(name);
            const answer = call();
            this.onMoment(`after ${name}`);
            return answer;
          };
          Object.assign(connection, { [name]: around });
        }
        return connection;
      },
    };
  }

  #fileSystem(files: Files): Files {
    const changing = (name: "remove" | "makeDirectory" | "syncDirectory") => (path: string): void => {
      this.operate(name, path);
      files[name](path);
    };
    return {
      ...files,
      remove: changing("remove"),
      makeDirectory: changing("makeDirectory"),
      syncDirectory: changing("syncDirectory"),
      rename: (from, to) => {
        this.operate("rename", to);
        files.rename(from, to);
      },
      open: (path, mode) => {
        this.operate("open", path);
        const file = files.open(path, mode);
        this.#files.add(file);
        const { read, write, truncate, sync, close } = {
          read: file.read,
          write: file.write,
          truncate: file.truncate,
          sync: file.sync,
          close: file.close,
        };
        file.read = (into, position) => {
          if (path.endsWith("-wal")) this.onMoment("read");
          return read.call(file, into, position);
        };
        file.write = (bytes, position) => (this.operate("write", path), write.call(file, bytes, position));
        file.truncate = (size) => (this.operate("truncate", path), truncate.call(file, size));
        file.sync = () => (this.operate("sync", path), sync.call(file));
        file.close = () => {
          this.#files.delete(file);
          close.call(file);
        };
        return file;
      },
    };
  }

  connect(store: ObjectStore): ObjectStore {
    const request = async <T>(name: string, key: string, send: () => Promise<T>): Promise<T> => {
      this.operate(name, key);
      const answer = await send();
      this.operate(`${name} answered`, key);
      return answer;
    };
    return wrapStore(store, {
      get: (key, options) => request("get", key, () => store.get(key, options)),
      head: (key, options) => request("head", key, () => store.head(key, options)),
      put: (key, body, options) => request("put", key, () => store.put(key, body, options)),
      putStream: (key, chunks, options) => request("putStream", key, () => store.putStream(key, chunks, options)),
      list: (prefix, options) => (this.operate("list", prefix), store.list(prefix, options)),
    });
  }
}

/** The machine's clock, which can be put forward. */
export class SkippingClock implements Clock {
  #skipped = 0;
  now = (): number => Date.now() + this.#skipped;
  monotonic = (): number => performance.now() + this.#skipped;

  skip(ms: number): void {
    this.#skipped += ms;
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    const until = this.monotonic() + ms;
    do {
      signal?.throwIfAborted();
      await turn(Math.max(0, Math.min(2, until - this.monotonic())));
    } while (this.monotonic() < until);
    signal?.throwIfAborted();
  }
}

/** Lets everything else run. */
export function turn(ms: number = 0): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** How an engine of a scene runs, unless said otherwise. */
export const engineOptions: EngineOptions = {
  walSyncIntervalMs: 1000,
  snapshotIntervalMs: 0,
  onStartup: false,
  checkpointIntervalMs: 60_000,
  minCheckpointPages: 1000,
  walTruncateThresholdPages: 100_000,
  waitForDatabase: false,
  adopt: false,
  mode: "auto",
  spoolSizeMax: 2 ** 30,
  freeSpaceMin: 0,
};

/** How a watch of the scene's database runs: with its state beside it, or below a directory. */
export function watchOptionsOf(scene: Scene, stateDirectory: string | null = null): WatchOptions {
  const validation = { validationIntervalMs: 0, validationBudget: 2 ** 30 };
  return { ...scene.options, ...validation, stateDirectory, fallbackStateDirectory: null };
}

/** See the top of this file. */
export class Scene {
  readonly directory: string = temporaryDirectory("engine");
  readonly path: string = `${this.directory}/app.db`;
  /** The state directory. */
  readonly state: string = `${this.directory}/.walrust-app.db`;
  readonly store: MemoryStore;
  readonly clock: SkippingClock = new SkippingClock();
  readonly events: EngineEvent[] = [];
  readonly options: EngineOptions;
  life: Life = new Life();
  engine!: DatabaseEngine;
  app: DatabaseSync;
  #restores = 0;

  /** Scenes that share a `store` are hosts that write to one bucket. */
  constructor(options: Partial<EngineOptions> & { pageSize?: number; store?: MemoryStore } = {}) {
    const { pageSize = 4096, store = new MemoryStore(), ...rest } = options;
    this.store = store;
    this.options = { ...engineOptions, ...rest };
    this.app = new DatabaseSync(this.path);
    this.app.exec(`PRAGMA page_size = ${pageSize}`);
    this.connect();
    this.app.exec("CREATE TABLE rows (id INTEGER PRIMARY KEY, data BLOB)");
    this.commit(20);
  }

  /** Opens the application's connection (again). */
  connect(): void {
    if (this.app.isOpen) this.app.close();
    this.app = new DatabaseSync(this.path);
    this.app.exec("PRAGMA busy_timeout = 2000; PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0");
  }

  /** One transaction of `rows` rows. */
  commit(rows: number = 1, bytes: number = 1000): void {
    this.app.exec("BEGIN");
    const insert = this.app.prepare("INSERT INTO rows (data) VALUES (randomblob(?))");
    for (let i = 0; i < rows; i++) insert.run(bytes);
    this.app.exec("COMMIT");
  }

  /** A new process with the same disk; `wrap` stands between it and the bucket. */
  start(
    wrap: (store: ObjectStore) => ObjectStore = (store) => store,
    machine: Partial<Files> = {},
    sqlite: Sqlite | null = system.sqlite,
  ): void {
    this.life = new Life();
    const runtime = this.life.runtime(this.clock, sqlite);
    this.engine = new DatabaseEngine({
      path: this.path,
      root,
      directory: this.state,
      store: wrap(this.life.connect(this.store)),
      runtime: { ...runtime, files: { ...runtime.files, ...machine } },
      options: this.options,
      emit: (event) => this.events.push(event),
    });
  }

  /** One interval later: looks, and goes on until nothing is under way. */
  async sync(): Promise<void> {
    this.clock.skip(this.options.walSyncIntervalMs);
    for (let i = 0; i < 400; i++) {
      await Promise.race([this.engine.step(), this.life.died]);
      await turn();
      if (!this.life.alive) throw new Crash("killed");
      if (!this.engine.busy) return;
    }
    assert.fail("the engine does not come to rest");
  }

  /** Events of a kind, oldest first. */
  of<K extends EngineEvent["kind"]>(kind: K): Extract<EngineEvent, { kind: K }>[] {
    return this.events.filter((event) => event.kind === kind) as Extract<EngineEvent, { kind: K }>[];
  }

  /** Keys in the bucket that end with `.hadbp`. */
  async objects(): Promise<string[]> {
    const keys = [];
    for await (const { key } of this.store.list("")) if (key.endsWith(".hadbp")) keys.push(key);
    return keys;
  }

  /** Lineages with objects in the bucket. */
  async lineages(): Promise<string[]> {
    return await this.store.listDirectories(`${root}lineages/`);
  }

  /** The bytes that a restore of the latest point gives. */
  async restored(seq?: bigint): Promise<Uint8Array> {
    const outputPath = `${this.directory}/restored-${++this.#restores}.db`;
    const target = seq === undefined ? { kind: "latest" as const } : { kind: "seq" as const, seq };
    await restore({ store: this.store, root, target, outputPath, runtime: system, integrityCheck: "full" });
    return readFileSync(outputPath);
  }

  /** The bytes of the database when everything is checkpointed. Closes the application; the engine must be gone. */
  source(): Uint8Array {
    assert.equal(this.life.openHandles, 0, "walrust holds nothing any more");
    this.app.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    this.app.close();
    return readFileSync(this.path);
  }

  /** Stops walrust and proves that the latest point is the database. */
  async prove(): Promise<void> {
    await this.engine.stop(5000);
    const expected = this.source();
    assert.ok(Buffer.compare(await this.restored(), expected) === 0, "the restored database differs from the source");
  }
}
