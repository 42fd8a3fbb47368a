/**
 * The locks of SQLite that a watch must not lose, through long random sequences of what an application, disk and bucket
 * do: the real engine in this process, the application in others, and after every step what the kernel says.
 */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { closeSync, openSync, readFileSync, renameSync, rmSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { StorageError } from "../../src/errors.ts";
import { locateDatabase } from "../../src/daemon/locate.ts";
import { DatabaseEngine } from "../../src/replication/engine.ts";
import type { EngineEvent } from "../../src/replication/options.ts";
import { restore } from "../../src/replication/restore.ts";
import type { Files, Runtime } from "../../src/runtime/types.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { wrapStore } from "../../src/storage/wrap.ts";
import { root, SkippingClock, system, turn } from "../replication/engine_scene.ts";
import { SeededRandom } from "../simulation/random.ts";
import { LockWatch } from "../support/lock_watch.ts";
import { skipReason } from "../support/need.ts";
import { testSeed } from "../support/seed.ts";
import { insertRows, openWithRows } from "./rows_table.ts";
import { type Application, inScene, type Scene } from "./watch_process.ts";

const skip = process.platform === "linux" ? false : skipReason("/proc/locks is of Linux");
const timeout = 120_000 + 30_000 * Number(process.env.WALRUST_HISTORIES ?? 0);
const operationsMax = 70;
/** More of them, with as much time as they need: `WALRUST_HISTORIES=200`. */
const histories = Number(process.env.WALRUST_HISTORIES ?? 4);
const intervalMs = 1000;
/** Steps of one interval: a bucket that is down keeps an engine busy. */
const stepsMax = 30;

function systemError(code: string): Error {
  return Object.assign(new Error(code), { code });
}

/** An engine, its application, and everything that may happen to them. */
class History {
  readonly watch: LockWatch = new LockWatch();
  readonly events: EngineEvent[] = [];
  readonly #scene: Scene;
  readonly #random: SeededRandom;
  readonly #store: MemoryStore = new MemoryStore();
  readonly #clock: SkippingClock = new SkippingClock();
  readonly #runtime: Runtime;
  #engine: DatabaseEngine;
  #application: Application | null = null;
  #reader: Application | null = null;
  #isDown = false;
  #isFull = false;
  #failingReads = 0;
  readonly trace: string[] = [];

  constructor(scene: Scene, seed: number) {
    this.#scene = scene;
    this.#random = new SeededRandom(seed);
    const isDatabase = (path: string): boolean => path === scene.db;
    const watched = this.watch.runtime({ ...system, clock: this.#clock, random: this.#random.fork() }, isDatabase);
    this.#runtime = { ...watched, files: this.#failing(watched.files) };
    this.#engine = this.#newEngine();
  }

  /** Files on a disk that is full or unreadable when it is asked for. */
  #failing(files: Files): Files {
    return {
      ...files,
      open: (path, mode) => {
        if (this.#isFull && mode === "exclusive") throw systemError("ENOSPC");
        const file = files.open(path, mode);
        const read = file.read.bind(file);
        file.read = (into, position) => {
          if (path.startsWith(this.#scene.db) && this.#failingReads-- > 0) throw systemError("EIO");
          return read(into, position);
        };
        return file;
      },
    };
  }

  #newEngine(): DatabaseEngine {
    const outage = (): Promise<never> =>
      Promise.reject(new StorageError("ServiceUnavailable", "503", { retryable: true }));
    const store = wrapStore(this.#store, {
      put: (key, body, options) => this.#isDown ? outage() : this.#store.put(key, body, options),
      get: (key, options) => this.#isDown ? outage() : this.#store.get(key, options),
      putStream: (key, chunks, options) => this.#isDown ? outage() : this.#store.putStream(key, chunks, options),
    });
    return new DatabaseEngine({
      path: this.#scene.db,
      root,
      directory: `${this.#scene.directory}/.walrust-app.db`,
      store,
      runtime: this.#runtime,
      options: {
        walSyncIntervalMs: intervalMs,
        snapshotIntervalMs: 20_000,
        onStartup: true,
        checkpointIntervalMs: 2000,
        minCheckpointPages: 8,
        walTruncateThresholdPages: 600,
        waitForDatabase: true,
        mode: "pin",
        adopt: false,
        spoolSizeMax: 2 ** 30,
        freeSpaceMin: 0,
      },
      emit: (event) => this.events.push(event),
    });
  }

  async begin(): Promise<void> {
    await (await this.#app()).run(insertRows(30));
    await this.sync();
  }

  /** One interval later: until the engine rests, or waits for something that only another operation can change. */
  async sync(): Promise<void> {
    this.#clock.skip(intervalMs);
    for (let i = 0; i < stepsMax; i++) {
      try {
        await this.#engine.step();
      } catch (error) {
        // Before anything was replicated trouble ends an engine; a person would start it again.
        this.trace.push(`  ended: ${error}`);
        this.#engine = this.#newEngine();
      }
      await turn();
      this.watch.check("a step");
      if (!this.#engine.busy) return;
    }
  }

  async #app(): Promise<Application> {
    if (this.#application !== null) return this.#application;
    this.#application = await openWithRows(this.#scene, 1);
    // Not for long: a checkpoint that a pin stops is not what is tried here.
    await this.#application.run("PRAGMA busy_timeout = 20");
    return this.#application;
  }

  async #closeApps(): Promise<void> {
    await this.#reader?.quit();
    await this.#application?.quit();
    this.#reader = this.#application = null;
  }

  /** Another file under the database's name. */
  async #replace(how: "rename" | "recreate"): Promise<void> {
    await this.#closeApps();
    const other = this.#scene.path("other.db");
    if (how === "rename") await (await openWithRows(this.#scene, this.#random.between(1, 40), other)).quit();
    for (const end of ["", "-wal", "-shm"]) rmSync(this.#scene.db + end, { force: true });
    if (how === "rename") renameSync(other, this.#scene.db);
    else if (this.#random.chance(0.5)) await this.sync();
    await this.#app();
  }

  async #switchMode(): Promise<void> {
    const app = await this.#app();
    await this.#reader?.quit();
    this.#reader = null;
    // Refused while the engine holds the database.
    const { rows } = await app.try("PRAGMA journal_mode = DELETE");
    if (rows[0]?.journal_mode !== "delete") return;
    await this.sync();
    await app.try("PRAGMA journal_mode = WAL");
  }

  /** What may happen, and how often. */
  readonly #operations: Record<string, [weight: number, run: () => Promise<unknown>]> = {
    commit: [20, async () => (await this.#app()).try(insertRows(this.#random.between(1, 12)))],
    update: [10, async () => (await this.#app()).try("UPDATE t SET bytes = randomblob(3900) WHERE id % 7 = 1")],
    bulk: [6, async () => (await this.#app()).try(insertRows(140))],
    // Commits all the time while the engine works: then a rollover needs the barrier.
    storm: [4, async () => {
      const app = await this.#app();
      const update = `${insertRows(10)}; DELETE FROM t WHERE id IN (SELECT id FROM t ORDER BY id LIMIT 10)`;
      const answers = Array.from({ length: 80 }, () => app.try(update));
      for (let i = 0; i < 2; i++) await this.sync();
      await Promise.all(answers);
    }],
    vacuum: [2, async () => {
      const app = await this.#app();
      await app.try("DELETE FROM t WHERE id % 2 = 0");
      await app.try("VACUUM");
    }],
    checkpoint: [8, async () => {
      const kind = this.#random.pick(["PASSIVE", "FULL", "RESTART", "TRUNCATE"]);
      await (await this.#app()).try(`PRAGMA wal_checkpoint(${kind})`);
    }],
    sync: [30, () => this.sync()],
    idle: [8, async () => {
      for (let i = 0; i < 4; i++) await this.sync();
    }],
    minute: [3, () => Promise.resolve(this.#clock.skip(60_000))],
    close: [5, () => this.#closeApps()],
    reader: [4, async () => {
      await this.#app();
      if (this.#reader !== null) return void (await this.#reader.quit(), this.#reader = null);
      this.#reader = this.#scene.application();
      await this.#reader.try("BEGIN");
      await this.#reader.try("SELECT count(*) FROM t");
    }],
    snapshot: [4, () => Promise.resolve(void this.#engine.requestSnapshot().catch(() => undefined))],
    bucket: [5, () => Promise.resolve(this.#isDown = !this.#isDown)],
    disk: [3, () => Promise.resolve(this.#isFull = !this.#isFull)],
    reads: [4, () => Promise.resolve(this.#failingReads = this.#random.between(1, 6))],
    rename: [2, () => this.#replace("rename")],
    recreate: [2, () => this.#replace("recreate")],
    mode: [3, () => this.#switchMode()],
    restart: [3, async () => {
      await this.#engine.stop(20).catch(() => undefined);
      this.#engine = this.#newEngine();
    }],
    // What a snapshot asked of this same process does first.
    locate: [3, () => {
      locateDatabase(this.#runtime.files, this.#scene.db, { mode: "pin", isShared: false });
      return Promise.resolve();
    }],
  };

  async run(operations: number): Promise<void> {
    const names = Object.entries(this.#operations).flatMap(([name, [weight]]) => Array<string>(weight).fill(name));
    // Each at least once, so that every history meets everything.
    const queue = Object.keys(this.#operations);
    for (let i = queue.length - 1; i > 0; i--) {
      const other = this.#random.integer(i + 1);
      [queue[i], queue[other]] = [queue[other], queue[i]];
    }
    while (queue.length < operations) queue.splice(this.#random.integer(queue.length + 1), 0, this.#random.pick(names));
    for (const name of queue) {
      this.trace.push(name);
      try {
        await this.#operations[name][1]();
      } catch (error) {
        // The disk or the bucket failed in a call of ours.
        this.trace.push(`  failed: ${error}`);
      }
      this.watch.check(name);
      if (this.watch.violations.length > 0) return;
    }
  }

  /** All is well again: then the latest point is the database, and nothing is held any more. */
  async prove(): Promise<void> {
    this.#isDown = this.#isFull = false;
    this.#failingReads = 0;
    await this.#reader?.quit();
    const app = await this.#app();
    await app.try("PRAGMA journal_mode = WAL");
    this.#clock.skip(60_000);
    for (let i = 0; i < 3; i++) await this.sync();
    await app.run("UPDATE t SET bytes = randomblob(3900) WHERE id = 1");
    await this.sync();
    assert.equal(await this.#engine.stop(20_000), null);
    assert.equal(this.watch.open, 0, "nothing is held any more");
    await app.run("PRAGMA wal_checkpoint(TRUNCATE)");
    await app.quit();
    const outputPath = this.#scene.path("restored.db");
    const target = { kind: "latest" } as const;
    await restore({ store: this.#store, root, target, outputPath, runtime: system, integrityCheck: "quick" });
    const isSame = Buffer.compare(readFileSync(outputPath), readFileSync(this.#scene.db)) === 0;
    assert.ok(isSame, "the restored database differs from the source");
  }

  /** How often an event came. */
  count(isCounted: (event: EngineEvent) => boolean): number {
    return this.events.filter(isCounted).length;
  }
}

test("LiveDatabase: random histories close no descriptor on a living database, never open -shm, and lose no lock", {
  skip,
  timeout,
}, async () => {
  const sums = { checks: 0, closes: 0, rollovers: 0, barriers: 0, replaced: 0, failures: 0, snapshots: 0 };
  for (let seed = testSeed; seed < testSeed + histories; seed++) {
    await inScene(async (scene) => {
      const history = new History(scene, seed);
      try {
        await history.begin();
        await history.run(operationsMax);
        assert.deepEqual(history.watch.violations, []);
        await history.prove();
        assert.deepEqual(history.watch.violations, []);
      } catch (error) {
        const { message } = error as Error;
        throw new Error(`replay with WALRUST_SEED=${seed}: ${message}\n${history.trace.join("\n")}`, { cause: error });
      }
      sums.checks += history.watch.checks;
      sums.closes += history.watch.closes;
      sums.rollovers += history.count((event) => event.kind === "rollover" && !event.barrier);
      sums.barriers += history.count((event) => event.kind === "rollover" && event.barrier);
      sums.replaced += history.count((event) => event.kind === "database_replaced");
      sums.failures += history.count((event) => event.kind === "sync_failed");
      sums.snapshots += history.count((event) => event.kind === "snapshot");
    });
  }
  const seen = `WALRUST_SEED=${testSeed}: ${JSON.stringify(sums)}`;
  assert.ok(sums.checks > 100 * histories && sums.closes > 2 * histories && sums.snapshots > histories, seen);
  assert.ok(sums.rollovers + sums.barriers > 0 && sums.replaced > 0 && sums.failures > 0, seen);
  if (process.env.WALRUST_HISTORIES !== undefined) console.log(seen);
});

/** What one mistake in a living watch makes the watch of its locks say. */
async function afterMistake(mistake: (path: string, history: History) => void): Promise<string> {
  let said: readonly string[] = [];
  await inScene(async (scene) => {
    const history = new History(scene, 1);
    await history.begin();
    assert.deepEqual(history.watch.violations, []);
    mistake(scene.db, history);
    history.watch.check("a mistake");
    said = history.watch.violations.slice();
  });
  return said.join("\n");
}

function openAndClose(path: string): void {
  closeSync(openSync(path, "r"));
}

test("LockWatch: canary, a database or its -shm that is opened and closed beside a connection is noticed", {
  skip,
  timeout,
}, async () => {
  assert.equal(await afterMistake((path) => openAndClose(`${path}-wal`)), "", "the WAL may be");
  assert.match(await afterMistake(openAndClose), /the shared lock on .*app\.db is gone after a mistake/);
  assert.match(
    await afterMistake((path) => openAndClose(`${path}-shm`)),
    /the read mark of a pin on .*app\.db is gone after a mistake\n/,
  );
  const mistake = (path: string, { watch }: History): void => {
    watch.runtime(system, (name) => name === path).files.open(path, "read").close();
  };
  assert.match(await afterMistake(mistake), /a descriptor on .*app\.db was closed while a connection lives/);
});
