/** The engine of one machine: step by step, started again whenever it ended. */
import assert from "node:assert/strict";
import type { Incarnation, Machine } from "./machine.ts";
import type { World } from "./world.ts";

/** See the top of this file. */
export class Life {
  readonly machine: Machine;
  readonly #world: World;
  #now: Incarnation | null = null;

  constructor(world: World, machine: Machine) {
    this.#world = world;
    this.machine = machine;
  }

  /** While something is under way the engine steps often: such a step counts for less. */
  async steps(count: number): Promise<void> {
    const { clock, random, bucket } = this.#world;
    let before = clock.elapsedMs;
    for (let spent = 0; spent < count && !this.machine.fenced;) {
      spent += Math.max(1 / 6, Math.min(1, (clock.elapsedMs - before) / 1000));
      before = clock.elapsedMs;
      if (this.#now === null) {
        await this.#loseState();
        this.#now = this.machine.start();
      }
      if (await this.#step(this.#now)) continue;
      this.#now = null;
      // Down for a while; the application may go on, requests on their way may still arrive.
      await clock.sleep(random.number() * random.pick([0, 1000, 60_000]));
      while (bucket.network.ignoresConditions && bucket.underway > 0) await clock.sleep(100);
    }
  }

  /** Goes on until it has had the time to see everything, and nothing is under way. */
  async toRest(end: number, needsSnapshot: boolean): Promise<void> {
    const { clock } = this.#world;
    const { machine } = this;
    let asked = false;
    let answered = !needsSnapshot;
    const isDone = (): boolean => clock.elapsedMs >= end && machine.isQuiet && answered;
    while (!machine.fenced && !isDone()) {
      assert.ok(clock.elapsedMs < end + 600_000, "the engine comes to rest");
      this.#now ??= machine.start();
      if (!asked && clock.elapsedMs >= end && machine.isQuiet) {
        asked = true;
        this.#now.engine.requestSnapshot().then(() => answered = true, () => asked = false);
      }
      if (await this.#step(this.#now)) continue;
      await clock.sleep(1000);
      this.#now = null;
    }
    machine.settle();
    if (this.#now === null || this.#world.random.chance(0.5)) return;
    const { checked } = this.#world.ledger;
    await this.#now.engine.stop(60_000).catch((error) => this.#ended(error));
    // A commit that only a recovery finds comes to light when the last connection is closed: then it may be published.
    if (this.#world.ledger.checked > checked) machine.settle();
  }

  /** One step and the pause after it; false when the process ended. */
  async #step(now: Incarnation): Promise<boolean> {
    const { machine } = this;
    const world = this.#world;
    const { random, troubles, calm } = world;
    const before = machine.snapshots;
    try {
      if (!calm && random.chance(troubles.snapshot)) now.engine.requestSnapshot().catch(() => undefined);
      if (!calm && random.chance(troubles.stop)) return await this.#stop(now);
      const waitMs = await Promise.race([now.engine.step(), now.died]);
      if (world.violation !== null) throw world.violation;
      if (waitMs === "died") return false;
      machine.stepped(machine.snapshots > before);
      if (world.violation !== null) throw world.violation;
      return await Promise.race([world.clock.sleep(waitMs), now.died]) !== "died";
    } catch (error) {
      if (error === world.violation) throw error;
      if (!now.self.alive) return false;
      this.#ended(error);
      return false;
    }
  }

  /** A proper stop: what it says is in the bucket must be there. */
  async #stop(now: Incarnation): Promise<boolean> {
    const { machine } = this;
    const { random, ledger, troubles } = this.#world;
    const { timeline, now: contents } = machine.application;
    const committed = timeline.length - 1;
    machine.say("walrust is asked to stop");
    const stopping = now.engine.stop(random.pick([0, 100, 5000, 60_000])).catch((error) => {
      // An upload of the process before came late and was met by the first one of this: the next start takes it up.
      if (machine.hasConfirmed || error?.code !== "fenced") throw error;
      return error;
    });
    const left = await Promise.race([stopping, now.died]);
    if (left === "died") return false;
    const head = ledger.lineages.get(machine.lineage)?.head ?? null;
    // A clock that stands still hides from `stat` what was committed; another writer's head says nothing of ours.
    const isSure = left === null && now.engine.started && troubles.clock === 0 && head?.writer === machine.name;
    if (isSure && head.commit < committed && !contents.includes(head.content)) {
      this.#world.violate(`the stop says that all is in the bucket, which ends at content ${head.commit}`);
    }
    machine.end();
    return false;
  }

  /** The process ended by itself: some errors are right. */
  #ended(error: unknown): void {
    const { machine } = this;
    const world = this.#world;
    machine.say(`walrust ends: ${error instanceof Error ? `${error.name}: ${error.message}` : error}`);
    const { kind, code, name, message } = error as { kind?: string; code?: string; name: string; message: string };
    if (name === "AssertionError" || /assertion/.test(message)) throw error;
    const isFenced = kind === "integrity" && code === "fenced";
    if (isFenced && world.machines.some((other) => other !== machine && !other.fenced)) {
      machine.fenced = true;
      world.trace.fenced++;
    } else if (isFenced ? machine.lastingExcuse === null && !machine.sawPast() : !machine.excusesEnd(kind, code)) {
      throw error;
    }
    machine.end();
  }

  /** Journal, index or all of it is lost while the engine is down. */
  async #loseState(): Promise<void> {
    const { random, troubles, calm } = this.#world;
    if (calm || !this.machine.snapshotComplete || !random.chance(troubles.lostState)) return;
    this.machine.loseState();
    await Promise.resolve();
  }
}
