/** One machine: its disk, its clock, an application with its database, and the process that replicates it. */
import { createHash } from "node:crypto";
import { DatabaseEngine } from "../../src/replication/engine.ts";
import type { EngineEvent, EngineOptions } from "../../src/replication/options.ts";
import type { Clock, NewSha256, Runtime } from "../../src/runtime/types.ts";
import { Administrator } from "./administrator.ts";
import { Application, type Habits } from "./application.ts";
import { Bounds } from "./bounds.ts";
import type { MachineClock, SimulatedClock } from "./clock.ts";
import { DatabaseFiles } from "./databases.ts";
import { DiskFaults } from "./disk_faults.ts";
import { type FileHook, SimulatedCrash, type SimulatedDisk, SimulatedFiles } from "./files.ts";
import { IndexCheck } from "./index_check.ts";
import type { Ledger } from "./ledger.ts";
import type { SeededRandom } from "./random.ts";
import type { SimulatedBucket } from "./store.ts";
import { SimulatedSqlite } from "./wal_sqlite.ts";

export const databasePath = "/data/app.db";
export const root = "app/";
/** Longer than any look at a quiet database waits: a clock that stands still hides a change from `stat`. */
const quietMs = 70_000;

/** Probabilities per call of the engine. */
export interface Chaos {
  /** Others act. */
  act: number;
  /** The process is killed. */
  crash: number;
  /** The machine dies. */
  power: number;
  /** The disk fails this call. */
  io: number;
  /** The disk is full for a while. */
  full: number;
  /** The process stands still for a while. */
  freeze: number;
}

/** What the world gives a machine. */
export interface Surroundings {
  readonly clock: SimulatedClock;
  readonly bucket: SimulatedBucket;
  readonly ledger: Ledger;
  readonly calm: boolean;
  /** Names every call in the trace. */
  readonly calls: boolean;
  say(line: string): void;
  /** An invariant is broken: said at the next chance, whatever the engine makes of an exception. */
  violate(message: string): void;
  /** Counts of the whole history. */
  readonly counts: {
    crashes: number;
    rollovers: number;
    barriers: number;
    lineages: number;
    quiet: number;
    observed: number;
    gaps: number;
  };
}

/** A process that runs the engine; dead for good after its crash. */
export interface Incarnation {
  readonly self: { alive: boolean };
  readonly engine: DatabaseEngine;
  readonly died: Promise<"died">;
}

const sha256: NewSha256 = () => createHash("sha256") as never;

/** See the top of this file. */
export class Machine {
  readonly name: string;
  readonly world: Surroundings;
  readonly random: SeededRandom;
  readonly clock: MachineClock;
  readonly disk: SimulatedDisk;
  readonly files: DatabaseFiles;
  readonly application: Application;
  readonly administrator: Administrator;
  /** The state directory. */
  readonly directory: string;
  readonly options: EngineOptions;
  readonly index: IndexCheck;
  readonly bounds: Bounds;
  chaos: Chaos = { act: 0, crash: 0, power: 0, io: 0, full: 0, freeze: 0 };
  /** Changes the engine's world: only for canaries. */
  wrap: (runtime: Runtime) => Runtime = (runtime) => runtime;
  /** The newest lineage. */
  lineage = "";
  snapshots = 0;
  /** A start after this one finds a journal: a new lineage needs an excuse. */
  snapshotComplete = false;
  /** Why a new lineage is right now; a new lineage uses it up unless it stays. */
  excuse: string | null = null;
  /** A lasting excuse: another writer, objects that vanish, listings of the past. */
  lastingExcuse: string | null = null;
  readonly faults: DiskFaults;
  /** Another writer took over: this engine stays down. */
  fenced = false;
  /** An object of its process is in the bucket. */
  hasConfirmed = false;
  engine: DatabaseEngine | null = null;
  /** SHA-256 of what the bucket may end with when everything has come to rest. */
  settled: readonly string[] = [];
  #current: { alive: boolean } = { alive: false };
  #die: () => void = () => {};
  #parked: (() => void)[] | null = null;
  #changedAt = 0;
  #restsSince = Infinity;
  #quietSeen = -1;
  /** For how long a listing of the past may be believed. */
  #pastMs = 120_000;

  constructor(
    world: Surroundings,
    parts: {
      name: string;
      random: SeededRandom;
      clock: MachineClock;
      disk: SimulatedDisk;
      directory: string;
      synchronous: "normal" | "full";
      habits: Habits;
      options: EngineOptions;
    },
  ) {
    const { name, random, clock, disk, directory, synchronous, habits, options } = parts;
    this.world = world;
    this.name = name;
    this.random = random;
    this.clock = clock;
    this.disk = disk;
    this.directory = directory;
    this.options = options;
    const say = (line: string): void => this.say(line);
    this.files = new DatabaseFiles(disk, databasePath, random.fork(), synchronous);
    this.application = new Application(this.files, random.fork(), habits, say);
    this.application.isObserved = options.mode === "observe";
    this.application.onContent = () => this.#changedAt = world.clock.elapsedMs;
    this.administrator = new Administrator(this.application, this.files, random.fork(), say);
    this.administrator.onPageSize = () => this.excuse = "the page size changed";
    this.index = new IndexCheck(
      disk,
      directory,
      world.ledger,
      () => this.files.current?.content() ?? new Uint8Array(0),
    );
    this.bounds = new Bounds(this);
    this.faults = new DiskFaults(this);
  }

  say(line: string): void {
    this.world.say(this.name === "" ? line : `${this.name}: ${line}`);
  }

  /** Something else of the machine does one thing. */
  act(): void {
    if (this.administrator.busy) this.administrator.act();
    else this.application.act();
    if (this.application.isObserved) this.application.record();
  }

  /** Others act, or the process dies, between two calls of the engine. */
  #between(self: { alive: boolean }, call: string): void {
    if (!self.alive) throw new SimulatedCrash(call);
    if (this.world.calls) this.say(`  ${call}`);
    if (this.world.calm) return;
    const { chaos, random } = this;
    while (random.chance(chaos.act)) this.act();
    if (random.chance(chaos.crash)) this.crash(call);
    else if (random.chance(chaos.power)) this.powerLoss(call);
    if (!self.alive) throw new SimulatedCrash(call);
    if (random.chance(chaos.freeze)) this.freeze(random.pick([2000, 60_000, 600_000]) * random.number());
  }

  #end(): void {
    this.#current.alive = false;
    this.engine = null;
    this.#parked = null;
    this.#die();
  }

  crash(call: string): void {
    this.say(`walrust is killed before ${call}`);
    this.world.counts.crashes++;
    this.files.kill("walrust");
    this.#end();
    this.checkDisk();
  }

  /** The process is over; the kernel takes back what it held. */
  end(): void {
    this.files.kill("walrust");
    this.#end();
    this.checkDisk();
  }

  powerLoss(call: string): void {
    this.say(`the machine loses power before ${call}`);
    this.world.counts.crashes++;
    this.#end();
    this.files.powerLoss();
    this.disk.powerLoss(this.random);
    this.administrator.powerLoss();
    this.application.powerLoss();
    this.checkDisk();
  }

  /** The process stands still (SIGSTOP): its locks stay, its requests go on, it hears nothing. */
  freeze(ms: number): void {
    if (this.#parked !== null) return;
    // What it has listed before it still believes when it goes on.
    if (this.sawPast()) this.#pastMs += ms;
    this.say(`walrust stands still for ${Math.round(ms)} ms`);
    const parked: (() => void)[] = this.#parked = [];
    this.world.clock.at(ms, () => {
      if (this.#parked !== parked) return;
      this.#parked = null;
      this.#restsSince = this.world.clock.elapsedMs;
      this.say("walrust goes on");
      for (const run of parked) run();
    });
  }

  #deliver(self: { alive: boolean }, run: () => void): void {
    if (!self.alive) return;
    if (this.#parked === null) run();
    else this.#parked.push(run);
  }

  /** Time as the process has it: nothing wakes the dead. */
  #processClock(self: { alive: boolean }): Clock {
    return {
      now: () => this.clock.now(),
      monotonic: () => this.clock.monotonic(),
      sleep: (ms, signal) =>
        new Promise((resolve, reject) => {
          const slept = this.clock.sleep(ms, signal);
          slept.then(() => this.#deliver(self, resolve), (error) => this.#deliver(self, () => reject(error)));
        }),
    };
  }

  start(): Incarnation {
    const self = { alive: true };
    this.#current = self;
    const died = new Promise<"died">((resolve) => this.#die = () => resolve("died"));
    const between: FileHook = ({ operation, path }) => this.#between(self, `${operation} ${path}`);
    const files = new SimulatedFiles(this.disk, this.faults.hook(between));
    files.onClose = (_, closed) => {
      const held = self.alive && closed === databasePath && (this.files.current?.attached.size ?? 0) > 0 &&
        [...this.files.current!.attached].some(({ process }) => process === "walrust");
      if (held) this.world.violate("a descriptor on the database closed under a connection");
    };
    this.bounds.begin(files);
    const runtime: Runtime = {
      clock: this.#processClock(self),
      random: this.random.fork(),
      files,
      sha256,
      sqlite: new SimulatedSqlite(this.files, "walrust", (operation) => this.#between(self, operation)),
      fetch: () => Promise.reject(new Error("no network here")),
    };
    const store = this.world.bucket.connect({
      name: this.name,
      alive: () => self.alive,
      deliver: (run) => this.#deliver(self, run),
      before: (operation, key) => {
        this.#between(self, `${operation} ${key}`);
        this.bounds.sent(operation, key);
        // It may take long until that lineage has its first image.
        const begins = operation === "put" && key.endsWith("/lineage.json");
        if (begins && this.sawPast()) this.excuse ??= "a listing of the past";
      },
      ended: (operation, key) => this.bounds.ended(operation, key),
    });
    const engine = new DatabaseEngine({
      path: databasePath,
      root,
      directory: this.directory,
      store,
      runtime: this.wrap(runtime),
      options: this.options,
      emit: (event) => self.alive && this.#heard(event),
    });
    this.engine = engine;
    this.#restsSince = Infinity;
    return { self, engine, died };
  }

  #heard(event: EngineEvent): void {
    const text = JSON.stringify(event, (key, value) => {
      if (key === "path" || key === "destination") return undefined;
      if (value instanceof Error) return `${value.name}: ${value.message}`;
      return typeof value === "bigint" ? Number(value) : value;
    });
    this.say(`engine ${text}`);
    const { counts } = this.world;
    if (event.kind === "delta" || event.kind === "bridge") this.hasConfirmed = true;
    if (event.kind === "started") {
      this.hasConfirmed = false;
      this.lineage = event.lineage;
      this.bounds.restarted();
    }
    if (event.kind === "snapshot") this.snapshots++;
    // The journal is there, but a power loss may take its name.
    if (event.kind === "sync_failed" && /syncDirectory/.test(String(event.error))) this.excuse ??= "the disk failed";
    if (event.kind === "observing") counts.observed++;
    if (event.kind === "wal_gap") counts.gaps++;
    if (event.kind === "rollover") counts.rollovers++;
    if (event.kind === "rollover" && event.barrier) counts.barriers++;
    if (event.kind !== "new_lineage") return;
    counts.lineages++;
    const excused = !this.snapshotComplete || this.excuse !== null ||
      this.lastingExcuse !== null || this.sawPast();
    if (!excused) this.world.violate(`a new lineage without need: ${event.reason}`);
    this.excuse = null;
    this.snapshotComplete = false;
  }

  /** True while its process runs and hears. */
  get listens(): boolean {
    return this.engine !== null && this.#parked === null;
  }

  /** After a step of the engine, in which a snapshot became complete or not. */
  stepped(hasSnapshot: boolean): void {
    // Its journal is written within the same step, unless the disk fails.
    if (hasSnapshot) this.snapshotComplete = this.disk.lookup(`${this.directory}/journal`) !== null;
    this.checkDisk();
    if (this.engine?.atRest !== true) this.#restsSince = Infinity;
    else this.#restsSince = Math.min(this.#restsSince, this.world.clock.elapsedMs);
    this.checkQuiet();
  }

  /** True when a listing of the past may have been seen not long ago. */
  sawPast(): boolean {
    return this.world.clock.elapsedMs - this.world.bucket.staleAtMs < this.#pastMs;
  }

  /** True when an error of this kind may end the process: before anything was replicated, trouble is not waited out. */
  excusesEnd(kind: string | undefined, code: string | undefined): boolean {
    // Who holds no lock cannot always read what is written all the time.
    if (this.application.isObserved && code === "unsteady") return true;
    const isOfSystem = kind === undefined && /^E[A-Z]+$/.test(code ?? "");
    return (this.world.bucket.hasFailed || this.faults.happened || this.administrator.done > 0 ||
      this.administrator.busy) &&
      (kind === "storage" || kind === "database" || isOfSystem);
  }

  /** All troubles are over: what is under way ends, and everybody is well. */
  rest(): void {
    if (this.#parked !== null) {
      const parked = this.#parked;
      this.#parked = null;
      this.#restsSince = this.world.clock.elapsedMs;
      for (const run of parked) run();
    }
    this.faults.heal();
    this.administrator.finish();
    this.application.rest();
  }

  /** The database is now what the bucket must end with. */
  settle(): void {
    this.application.record();
    this.settled = this.files.current === null ? [] : this.application.now;
  }

  /** Journal, index, or all of the state is lost or garbage while no process runs. */
  loseState(): void {
    const { disk, directory, random } = this;
    const names = random.pick([["journal"], ["pages.idx"], ["journal", "pages.idx"]]);
    for (const name of names) {
      const inode = disk.lookup(`${directory}/${name}`);
      if (inode === null) continue;
      if (random.chance(0.5)) disk.remove(`${directory}/${name}`);
      else disk.truncate(inode, random.integer(name === "journal" ? inode.size : 64));
    }
    this.say(`${names.join(" and ")} is lost`);
    this.excuse = "the state was lost";
  }

  /** After each step: what is on disk agrees with the bucket. */
  checkDisk(): void {
    try {
      this.index.run(false);
      this.bounds.check();
    } catch (error) {
      this.world.violate((error as Error).message);
    }
  }

  /** Whether the engine has had the time to see all, and says that nothing is under way. */
  get isQuiet(): boolean {
    const { engine } = this;
    const rested = this.world.clock.elapsedMs - Math.max(this.#changedAt, this.#restsSince) > quietMs;
    return rested && engine !== null && engine.atRest && this.#parked === null && !this.administrator.busy &&
      this.disk.lookup(`${this.directory}/journal`) !== null;
  }

  /** While nothing changes: the head of the lineage is the database, byte for byte, and the index says so. */
  checkQuiet(): void {
    if (!this.isQuiet || this.#quietSeen === this.#changedAt) return;
    this.#quietSeen = this.#changedAt;
    const { files, application, world } = this;
    if (files.current === null || !files.current.isInWalMode) return;
    application.record();
    if (this.#changedAt !== this.#quietSeen) return;
    const head = world.ledger.lineages.get(this.lineage)?.head ?? null;
    // A clone of this machine that took over the lineage is noticed with the next commit.
    if (head === null || head.writer !== this.name) return;
    world.counts.quiet++;
    if (!application.now.includes(head.content)) {
      const [published, ...now] = [head.content, ...application.now].map((hash) => hash.slice(0, 8));
      world.violate(
        `the engine is quiet at seq ${head.seq}, which is ${published}; the database is ${now.join(" or ")}`,
      );
    }
    try {
      this.index.run(true);
    } catch (error) {
      world.violate((error as Error).message);
    }
  }
}
