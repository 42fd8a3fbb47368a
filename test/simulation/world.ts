/** The world of one history: machines, bucket, time, and what happens to them from outside. */
import type { Runtime } from "../../src/runtime/types.ts";
import { type Application, drawHabits } from "./application.ts";
import { MachineClock, SimulatedClock } from "./clock.ts";
import { SimulatedDisk } from "./files.ts";
import { Ledger, type Timeline } from "./ledger.ts";
import { type Chaos, databasePath, Machine, root, type Surroundings } from "./machine.ts";
import { SeededRandom } from "./random.ts";
import { SimulatedBucket } from "./store.ts";
import { drawChaos, drawNetwork, drawOptions, drawTroubles, type Troubles, withoutConditions } from "./troubles.ts";
import { createDatabase } from "./wal_content.ts";
import { WalDatabase } from "./wal_index.ts";

/** What to leave out or to break. */
export interface SimulationOptions {
  /** Steps of the engine under fire. */
  steps: number;
  /** The trace names every call of the engine. */
  calls?: boolean;
  /** Breaks the world: only for canaries. */
  sabotage?: (world: Sabotaged) => void | ((runtime: Runtime) => Runtime);
}

/** What a canary may break. */
export interface Sabotaged {
  readonly bucket: SimulatedBucket;
  readonly machine: Machine;
  readonly application: Application;
  readonly chaos: Chaos;
  readonly troubles: Troubles;
  readonly random: SeededRandom;
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
  /** Times at which the head was compared with the database of a quiet engine. */
  quiet: number;
  /** Times at which a state directory was compared with the bucket. */
  indexes: number;
  /** Tasks of the administrator. */
  tasks: number;
  /** Processes that observed instead of holding a pin, and points in time that they said were lost. */
  observed: number;
  gaps: number;
  /** Histories in which two machines wrote. */
  seconds: number;
  /** Machines that found another writer in their place. */
  fenced: number;
}

/** See the top of this file. */
export class World implements Surroundings {
  readonly random: SeededRandom;
  readonly clock: SimulatedClock;
  readonly bucket: SimulatedBucket;
  readonly ledger: Ledger;
  readonly trace: Trace;
  readonly troubles: Troubles;
  readonly machines: Machine[] = [];
  readonly calls: boolean;
  calm = false;
  /** An invariant that broke inside a call of the engine, which may have swallowed it. */
  violation: Error | null = null;
  /** Keys that were taken out of the bucket. */
  readonly vanished: Set<string> = new Set();
  readonly #timelines = new Map<string, Timeline>();

  constructor(seed: number, options: SimulationOptions) {
    const random = this.random = new SeededRandom(seed);
    this.calls = options.calls ?? false;
    this.trace = {
      seed,
      lines: [],
      commits: 0,
      points: 0,
      crashes: 0,
      rollovers: 0,
      barriers: 0,
      lineages: 0,
      quiet: 0,
      indexes: 0,
      tasks: 0,
      observed: 0,
      gaps: 0,
      seconds: 0,
      fenced: 0,
    };
    this.clock = new SimulatedClock(random.fork());
    this.bucket = new SimulatedBucket(this.clock, random.fork());
    this.ledger = new Ledger(root, this.#timelines);
    this.bucket.onWrite = (key, bytes, sender) => this.#written(key, bytes, sender);
    const clock = new MachineClock(this.clock);
    const disk = new SimulatedDisk(() => clock.fileTimeNs());
    const chaos = drawChaos(random);
    this.troubles = drawTroubles(random);
    this.bucket.network = random.chance(0.05) ? withoutConditions(chaos, this.troubles) : drawNetwork(random);
    const first = this.#add("", clock, disk);
    first.chaos = chaos;
    this.#nameMachine(disk, "machine-a");
    const pageSize = random.pick([512, 512, 1024]);
    const { synchronous } = first.files;
    const database = new WalDatabase({ disk, path: databasePath, pageSize, random: random.fork(), synchronous });
    createDatabase(database, random.between(2, 30));
    first.application.record();
    const { bucket, troubles } = this;
    const { application } = first;
    const wrap = options.sabotage?.({ bucket, machine: first, application, chaos, troubles, random });
    if (wrap) first.wrap = wrap;
  }

  get counts(): Trace {
    return this.trace;
  }

  violate(message: string): void {
    this.violation ??= new Error(message);
  }

  say(line: string): void {
    this.trace.lines.push(`${(this.clock.elapsedMs / 1000).toFixed(3).padStart(9)} ${line}`);
  }

  #add(name: string, clock: MachineClock, disk: SimulatedDisk): Machine {
    const { random } = this;
    const machine = new Machine(this, {
      name,
      random: name === "" ? random : random.fork(),
      clock,
      disk,
      directory: `${random.chance(0.8) ? "/data" : "/state"}/.walrust-app.db`,
      synchronous: random.pick(["normal", "full"]),
      habits: drawHabits(random),
      options: drawOptions(random),
    });
    this.machines.push(machine);
    this.#timelines.set(name, machine.application.timeline);
    this.#keepActing(machine);
    return machine;
  }

  #nameMachine(disk: SimulatedDisk, name: string): void {
    disk.makeDirectory("/etc");
    const file = disk.inode("/etc/machine-id", "create");
    disk.write(file, new TextEncoder().encode(name), 0);
    disk.sync(file);
    disk.syncDirectory("/etc");
    disk.syncDirectory("/");
  }

  #written(key: string, bytes: Uint8Array, sender: string): void {
    this.say(`bucket ${key.replace(/[0-9a-f]{26}\//, "…/")} (${bytes.length} bytes)`);
    // An upload that comes late may take the place that became free: its chain tells who reads it.
    if (this.vanished.has(key)) return;
    try {
      this.ledger.add(key, bytes, sender);
    } catch (error) {
      this.violation ??= error as Error;
    }
  }

  /** Another machine begins to write to the same prefix. */
  addSecond(): Machine {
    const { random } = this;
    const [first] = this.machines;
    const kind = this.troubles.second!;
    const clock = new MachineClock(this.clock, random.pick([0, 0, 90_000, -3_600_000]));
    const disk = first.disk.clone(() => clock.fileTimeNs());
    const second = this.#add("b", clock, disk);
    this.say(`a second machine begins: ${kind}`);
    if (kind !== "same name") this.#nameMachine(disk, "machine-b");
    if (kind === "restored") { for (const file of ["journal", "pages.idx"]) disk.remove(`${first.directory}/${file}`); }
    // Its spool may hold what was committed before.
    if (kind !== "restored") second.application.timeline.push(...first.application.timeline);
    second.application.record();
    second.chaos = drawChaos(random);
    for (const machine of this.machines) machine.lastingExcuse = "two machines write";
    this.trace.seconds++;
    return second;
  }

  /** The machine's own life goes on while the engine sleeps. */
  #keepActing(machine: Machine): void {
    const { random, troubles } = this;
    const pause = random.pick([20, 300, 3000]);
    const tick = (): void => {
      if (this.calm) return;
      const burst = random.chance(0.2) ? random.between(1, 30) : 1;
      // Now and then it pauses long enough for an idle database, or for a check of a quiet one.
      const rest = random.chance(0.02) ? random.pick([30_000, 30_000, 100_000]) : random.number() * pause * 2;
      for (let at = 0; at < burst; at++) machine.act();
      if (random.chance(troubles.administrator)) machine.administrator.begin();
      if (random.chance(troubles.clock)) this.#disturbClock(machine);
      if (random.chance(troubles.vanish)) this.#vanish();
      // Where nobody listens, nothing new is learned from a thousand more commits.
      this.clock.at(machine.listens ? rest : Math.max(rest, 500), tick);
    };
    this.clock.at(pause, tick);
  }

  #disturbClock(machine: Machine): void {
    const { random } = this;
    const year = 365 * 86_400_000;
    if (random.chance(0.4)) return machine.clock.freeze(random.between(1, 60_000));
    const ms = random.pick([random.between(-3_600_000, 3_600_000), -3_600_000, 10 * year, -10 * year]);
    if (machine.clock.now() + ms < 0) return;
    machine.say(`the clock jumps by ${ms} ms`);
    machine.clock.jump(ms);
  }

  /**
   * An object that is not the newest of its lineage vanishes, or the pointer. Not where a clone writes the same lineage:
   * it may take the place that became free.
   */
  #vanish(): void {
    const { random, bucket, ledger } = this;
    if (this.machines.length > 1 && this.troubles.second !== "restored") return;
    const lineages = [...ledger.lineages.values()].filter(({ points }) => points.length > 2);
    if (lineages.length === 0) return;
    const { lineage, points } = random.pick(lineages);
    const { seq } = random.pick(points.slice(0, -1));
    const pool = random.pick(["0000", "0000", "0001"]);
    const key = random.chance(0.1)
      ? `${root}state.json`
      : `${root}lineages/${lineage}/${pool}/${seq.toString(16).padStart(16, "0")}.hadbp`;
    this.say(`${key} vanishes`);
    this.vanished.add(key);
    bucket.vanish(key);
    for (const machine of this.machines) machine.lastingExcuse = "objects vanished";
  }
}
