/**
 * One history of watch and restore, drawn from a seed: the real engine on simulated files, SQLite, clock and bucket.
 * The engine is killed at any call, the application too, sometimes the whole machine; at the end every published point
 * must be the content of some commit, in commit order, and the newest one the database byte for byte.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { DatabaseEngine } from "../../src/replication/engine.ts";
import type { EngineEvent, EngineOptions } from "../../src/replication/options.ts";
import { restore } from "../../src/replication/restore.ts";
import type { Runtime, Sha256 } from "../../src/runtime/types.ts";
import { Application, contentHash, drawHabits } from "./application.ts";
import { SimulatedClock } from "./clock.ts";
import { type FileHook, SimulatedCrash, SimulatedDisk, SimulatedFiles, systemError } from "./files.ts";
import { checkOrder, readPoints } from "./history_check.ts";
import { SeededRandom } from "./random.ts";
import { SimulatedBucket } from "./store.ts";
import { createDatabase } from "./wal_content.ts";
import { WalDatabase } from "./wal_index.ts";
import { SimulatedSqlite } from "./wal_sqlite.ts";

const path = "/data/app.db";
const root = "app/";

/** What to leave out or to break. */
export interface SimulationOptions {
  /** Steps of the engine under fire. */
  steps: number;
  /** The trace names every call of the engine. */
  calls?: boolean;
  /** Breaks the world: only for canaries. */
  sabotage?: (
    world: {
      bucket: SimulatedBucket;
      database: WalDatabase;
      application: Application;
      chaos: Chaos;
      random: SeededRandom;
    },
  ) =>
    | void
    | ((runtime: Runtime) => Runtime);
}

/** Probabilities per call of the engine: others act, it is killed, the machine dies, the disk fails. */
export interface Chaos {
  act: number;
  crash: number;
  power: number;
  io: number;
}

/** What happened. */
export interface Trace {
  seed: number;
  lines: string[];
  commits: number;
  points: number;
  crashes: number;
  rollovers: number;
  barriers: number;
  lineages: number;
}

/** An invariant does not hold; `trace` says what led there. */
export class SimulationFailure extends Error {
  override name = "SimulationFailure";
  readonly trace: Trace;

  constructor(trace: Trace, cause: unknown) {
    super(`seed ${trace.seed}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    this.trace = trace;
  }
}

/** A process that runs the engine; dead for good after its crash. */
interface Incarnation {
  alive: boolean;
  engine: DatabaseEngine;
  died: Promise<"died">;
}

class World {
  readonly random: SeededRandom;
  readonly clock: SimulatedClock;
  readonly disk: SimulatedDisk;
  readonly bucket: SimulatedBucket;
  readonly database: WalDatabase;
  readonly application: Application;
  readonly trace: Trace;
  readonly options: EngineOptions;
  /** The state directory. */
  readonly directory: string;
  chaos: Chaos;
  #wrap: (runtime: Runtime) => Runtime = (runtime) => runtime;
  #die: () => void = () => {};
  /** Complete snapshots. */
  snapshots = 0;
  /** The newest lineage. */
  lineage = "";
  readonly #calls: boolean;
  /** An invariant that broke inside a call of the engine, which may have swallowed it. */
  violation: Error | null = null;
  #incarnation: { alive: boolean } = { alive: false };
  /** Faults were injected that may end the process with an error. */
  faulty = false;
  snapshotComplete = false;
  calm = false;

  constructor(seed: number, options: SimulationOptions) {
    const random = new SeededRandom(seed);
    this.#calls = options.calls ?? false;
    this.random = random;
    this.trace = { seed, lines: [], commits: 0, points: 0, crashes: 0, rollovers: 0, barriers: 0, lineages: 0 };
    this.clock = new SimulatedClock(random.fork());
    this.disk = new SimulatedDisk(() => this.clock.fileTimeNs());
    this.bucket = new SimulatedBucket(this.clock, random.fork());
    this.database = new WalDatabase({
      disk: this.disk,
      path,
      pageSize: random.pick([512, 512, 1024]),
      random: random.fork(),
      synchronous: random.pick(["normal", "full"]),
    });
    createDatabase(this.database, random.between(2, 30));
    this.application = new Application(this.database, random.fork(), drawHabits(random), (line) => this.say(line));
    this.chaos = {
      act: random.pick([0.005, 0.05, 0.3]),
      crash: random.pick([0, 0.0003, 0.003]),
      power: random.pick([0, 0, 0.0003]),
      io: random.pick([0, 0, 0.001]),
    };
    const bad = random.pick([0, 0, 0.02, 0.15]);
    this.bucket.network = {
      failure: bad,
      lostReply: bad,
      slow: random.pick([0, 0.02, 0.1]),
      delayMs: random.pick([5, 100, 2000]),
      slowMs: random.pick([5000, 60_000]),
    };
    this.faulty = bad > 0;
    const intervals: EngineOptions = {
      walSyncIntervalMs: 1000,
      snapshotIntervalMs: random.pick([0, 10_000, 60_000]),
      onStartup: random.chance(0.5),
      checkpointIntervalMs: random.pick([1000, 5000]),
      minCheckpointPages: random.pick([4, 20, 60]),
      walTruncateThresholdPages: random.pick([300, 5000]),
      waitForDatabase: false,
      adopt: false,
      mode: "auto",
      spoolSizeMax: 2 ** 30,
      freeSpaceMin: 0,
    };
    this.directory = `${random.chance(0.8) ? "/data" : "/state"}/.walrust-app.db`;
    this.options = {
      ...intervals,
      ...(random.chance(0.3) ? { batchSizeMax: 4096 } : {}),
      ...(random.chance(0.2) ? { spoolSizeMax: 20_000 } : {}),
    };
    const written = new Map<string, string>();
    this.bucket.onWrite = (key, bytes) => {
      this.say(`bucket ${key.replace(/[0-9a-f]{26}\//, "…/")} (${bytes.length} bytes)`);
      if (!key.endsWith(".hadbp")) return;
      const hash = contentHash(bytes);
      this.demand((written.get(key) ?? hash) === hash, `${key} has two contents`);
      written.set(key, hash);
    };
    this.#wrap = options.sabotage?.(this) ?? this.#wrap;
    this.#keepActing();
  }

  demand(holds: boolean, message: string): void {
    if (!holds) this.violation ??= new Error(message);
  }

  say(line: string): void {
    this.trace.lines.push(`${(this.clock.elapsedMs / 1000).toFixed(3).padStart(9)} ${line}`);
  }

  /** The application also acts while the engine sleeps. */
  #keepActing(): void {
    const pause = this.random.pick([20, 300, 3000]);
    const tick = (): void => {
      if (!this.calm) {
        const burst = this.random.chance(0.2) ? this.random.between(1, 30) : 1;
        // Now and then it pauses long enough for an idle database.
        const next = this.random.chance(0.02) ? 30_000 : this.random.number() * pause * 2;
        for (let at = 0; at < burst; at++) this.application.act();
        if (this.random.chance(0.002)) this.clock.jump(this.random.between(-3_600_000, 3_600_000));
        this.clock.at(next, tick);
      }
    };
    this.clock.at(pause, tick);
  }

  /** Others act, or the process dies, between two calls of the engine. */
  between(self: { alive: boolean }, call: string): void {
    if (!self.alive) throw new SimulatedCrash(call);
    if (this.#calls) this.say(`  ${call}`);
    if (this.calm) return;
    const { chaos, random } = this;
    while (random.chance(chaos.act)) this.application.act();
    if (random.chance(chaos.crash)) this.crash(call);
    else if (random.chance(chaos.power)) this.powerLoss(call);
    if (!self.alive) throw new SimulatedCrash(call);
  }

  crash(call: string): void {
    this.say(`walrust is killed before ${call}`);
    this.trace.crashes++;
    this.#incarnation.alive = false;
    this.database.kill("walrust");
    this.#die();
  }

  powerLoss(call: string): void {
    this.say(`the machine loses power before ${call}`);
    this.trace.crashes++;
    this.#incarnation.alive = false;
    this.database.powerLoss();
    this.disk.powerLoss(this.random);
    this.application.powerLoss();
    this.#die();
  }

  start(): Incarnation {
    const self = { alive: true };
    this.#incarnation = self;
    const died = new Promise<"died">((resolve) => this.#die = () => resolve("died"));
    const hook: FileHook = ({ operation, path, length }) => {
      try {
        this.between(self, `${operation} ${path}`);
      } catch (error) {
        // Killed in the middle of a write: some of it is done.
        if (operation === "write" && error instanceof SimulatedCrash && this.random.chance(0.5)) {
          return { partial: this.random.integer(length + 1), error };
        }
        throw error;
      }
      const writes = ["write", "sync", "rename", "open", "read"].includes(operation);
      if (!this.calm && writes && this.random.chance(this.chaos.io)) {
        this.faulty = true;
        this.say(`${operation} ${path} fails`);
        throw systemError(operation === "write" ? "ENOSPC" : "EIO", operation, path);
      }
    };
    const files = new SimulatedFiles(this.disk, hook);
    files.onClose = (_, closed) => {
      const held = [...this.database.attached].some((connection) => connection.process === "walrust");
      const bad = self.alive && closed === path && held;
      this.demand(!bad, "a descriptor on the database closed under a connection");
    };
    const runtime: Runtime = {
      clock: this.clock,
      random: this.random.fork(),
      files,
      sha256: () => createHash("sha256") as unknown as Sha256,
      sqlite: new SimulatedSqlite(this.database, "walrust", (operation) => this.between(self, operation)),
      fetch: () => Promise.reject(new Error("no network here")),
    };
    const store = this.bucket.connect({
      alive: () => self.alive,
      before: (operation, key) => this.between(self, `${operation} ${key}`),
    });
    const engine = new DatabaseEngine({
      path,
      root,
      directory: this.directory,
      store,
      runtime: this.#wrap(runtime),
      options: this.options,
      emit: (event) => this.#heard(event),
    });
    return {
      get alive() {
        return self.alive;
      },
      engine,
      died,
    };
  }

  #heard(event: EngineEvent): void {
    const text = JSON.stringify(event, (key, value) => {
      if (key === "path" || key === "destination") return undefined;
      if (value instanceof Error) return `${value.name}: ${value.message}`;
      return typeof value === "bigint" ? Number(value) : value;
    });
    this.say(`engine ${text}`);
    if (event.kind === "started") this.lineage = event.lineage;
    if (event.kind === "snapshot") this.snapshots++;
    if (event.kind === "rollover") this.trace.rollovers++;
    if (event.kind === "rollover" && event.barrier) this.trace.barriers++;
    if (event.kind === "new_lineage" || (event.kind === "started" && event.seq === 1n)) this.trace.lineages++;
    if (event.kind === "new_lineage") {
      this.demand(!this.snapshotComplete, `a new lineage without need: ${event.reason}`);
    }
  }

  /** One step and the pause after it; false when the process ended. */
  async step(now: Incarnation): Promise<boolean> {
    if (this.violation !== null) throw this.violation;
    const before = this.snapshots;
    try {
      const waitMs = await this.clock.drive(Promise.race([now.engine.step(), now.died]));
      if (waitMs === "died") return false;
      // Its journal is written within the same step, unless the disk fails.
      if (this.snapshots > before) this.snapshotComplete = this.disk.lookup(`${this.directory}/journal`) !== null;
      const pause = this.clock.sleep(waitMs);
      return await this.clock.drive(Promise.race([pause, now.died])) !== "died";
    } catch (error) {
      if (!now.alive) return false;
      this.say(`walrust ends: ${error instanceof Error ? `${error.name}: ${error.message}` : error}`);
      const code = (error as { kind?: string }).kind;
      const excused = this.faulty && (code === "storage" || code === "database" || code === undefined);
      if (!excused || (error as Error).name === "AssertionError" || /assertion/.test((error as Error).message)) {
        throw error;
      }
      this.crash("its end");
      return false;
    }
  }
}

/** Runs one history; throws `SimulationFailure`. */
export async function simulate(seed: number, options: SimulationOptions): Promise<Trace> {
  const world = new World(seed, options);
  try {
    await run(world, options.steps);
  } catch (error) {
    world.say(`FAILED: ${error instanceof Error ? error.stack : error}`);
    throw new SimulationFailure(world.trace, error);
  }
  return world.trace;
}

async function run(world: World, steps: number): Promise<void> {
  const { clock, random, application, bucket } = world;
  let now = world.start();
  for (let step = 0; step < steps; step++) {
    if (await world.step(now)) continue;
    // Down for a while; the application may go on, requests on their way may still arrive.
    await clock.drive(clock.sleep(random.number() * random.pick([0, 1000, 60_000])));
    now = world.start();
  }
  application.rest();
  world.calm = true;
  bucket.network = { failure: 0, lostReply: 0, slow: 0, delayMs: 5, slowMs: 0 };
  // Longer than a slow request and every backoff; an idle database gets its full look meanwhile.
  const end = clock.elapsedMs + 300_000;
  while (clock.elapsedMs < end || now.engine.busy || world.snapshots === 0) {
    assert.ok(clock.elapsedMs < end + 600_000, "the engine comes to rest");
    if (await world.step(now)) continue;
    await clock.drive(clock.sleep(1000));
    now = world.start();
  }
  if (random.chance(0.5)) await clock.drive(now.engine.stop(60_000));
  await check(world);
}

/** The invariants at the end of a history. */
async function check(world: World): Promise<void> {
  if (world.violation !== null) throw world.violation;
  const { database, application, bucket, disk, clock, random, trace } = world;
  trace.commits = application.timeline.length;
  const points = await readPoints(bucket.objects, root);
  trace.points = points.length;
  checkOrder(points, application.timeline);
  const runtime = {
    clock,
    random,
    files: new SimulatedFiles(disk),
    sha256: () => createHash("sha256") as unknown as Sha256,
    sqlite: null,
  };
  const common = { store: bucket.objects, root, runtime, integrityCheck: "none" as const };
  const restored = async (target: { kind: "latest" } | { kind: "seq"; seq: bigint }, name: string): Promise<string> => {
    await clock.drive(restore({ ...common, target, outputPath: `/data/${name}.db` }));
    const inode = disk.lookup(`/data/${name}.db`)!;
    return contentHash(inode.data.subarray(0, inode.size));
  };
  assert.equal(await restored({ kind: "latest" }, "latest"), contentHash(database.content()), "latest is the database");
  const own = points.filter(({ lineage }) => lineage === world.lineage);
  const point = random.pick(own);
  assert.equal(await restored({ kind: "seq", seq: point.seq }, "point"), point.content, `restore --seq ${point.seq}`);
}
