/** Random histories with compact and merge between: what was promised restores page for page, whatever else happens. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import { WalrustError } from "../../src/errors.ts";
import { compact, type CompactOptions, type CompactReport } from "../../src/replication/compact.ts";
import { readHistory } from "../../src/replication/history.ts";
import { verify } from "../../src/replication/verify.ts";
import type { Clock } from "../../src/runtime/types.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { getBytes, type ObjectStore } from "../../src/storage/object_store.ts";
import { wrapStore } from "../../src/storage/wrap.ts";
import { replayedSeed, testSeed } from "../support/seed.ts";
import { sha256 } from "../support/vectors.ts";
import { BucketWriter } from "./bucket_writer.ts";
import { restoreToMemory } from "./memory_image.ts";

const root = "app/";
const hourMs = 3_600_000;
const dayMs = 24 * hourMs;

/** A clock that the test sets. */
class TestClock implements Clock {
  ms = Date.parse("2026-01-01T00:00:00Z");
  now(): number {
    return this.ms;
  }
  monotonic(): number {
    return this.ms;
  }
  sleep(): Promise<void> {
    return Promise.resolve();
  }
}

/** Small numbers from a seed (mulberry32). */
class Dice {
  #state: number;
  constructor(seed: number) {
    this.#state = seed;
  }
  roll(sides: number): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) % sides;
  }
  pick<T>(...choices: T[]): T {
    return choices[this.roll(choices.length)];
  }
}

/** A bucket, its writers, and what each seq must restore to. */
class Model {
  readonly clock = new TestClock();
  store = new MemoryStore({ clock: this.clock });
  readonly images = new Map<bigint, Uint8Array>();
  readonly times = new Map<bigint, number>();
  /** Points that must restore. */
  promised = new Set<bigint>();
  readonly dice: Dice;
  readonly own: boolean;
  #writer: BucketWriter;
  #lineages = 0;
  /** How far the writer's clock is off. */
  #skewMs = 0;
  #pages = 3;
  #pointed = false;

  constructor(seed: number) {
    this.dice = new Dice(seed);
    this.own = this.dice.roll(4) > 0;
    const lineage = this.own ? this.#nextLineage() : this.dice.pick(null, "e".repeat(32));
    this.#writer = new BucketWriter({ store: this.#late(), lineage });
  }

  /** Writes go where `store` is by then. */
  #late(): ObjectStore {
    const change: Partial<ObjectStore> = {
      put: async (key, body, options) => await this.store.put(key, body, options),
    };
    return wrapStore(this.store, change);
  }

  #nextLineage(): string {
    return (++this.#lineages).toString(16).padStart(32, "a");
  }

  async begin(): Promise<void> {
    if (this.own) await this.#writer.begin();
    await this.#snapshot(true);
  }

  /** One step of watch, of the machine's clock, or a new lineage. */
  async step(): Promise<void> {
    const { dice } = this;
    this.clock.ms += dice.pick(1000, 60_000, hourMs / 2, 5 * hourMs);
    switch (
      dice.pick("delta", "delta", "delta", "delta", "grow", "shrink", "vacuum", "snapshot", "snapshot", "other")
    ) {
      case "delta":
        return await this.#delta([1 + dice.roll(this.#pages)]);
      case "grow":
        this.#pages += 1 + dice.roll(12);
        return await this.#delta([1]);
      case "shrink":
        this.#pages = Math.max(1, this.#pages - 1 - dice.roll(10));
        return await this.#delta([1]);
      case "vacuum":
        this.#pages = Math.ceil(this.#pages / 2);
        return await this.#delta(Array.from({ length: this.#pages }, (_, index) => index + 1));
      case "snapshot":
        return await this.#snapshot(!this.own || dice.roll(5) > 0);
      case "other":
        return await this.#other();
    }
  }

  async #other(): Promise<void> {
    const { dice } = this;
    switch (dice.roll(5)) {
      case 0:
        this.clock.ms += dayMs * dice.pick(1, 2, 8, 40);
        return;
      case 1:
        this.#skewMs = dice.pick(0, 0, -hourMs, 3650 * dayMs);
        return;
      case 2:
        if (this.own) await this.#fork();
        return;
      default:
        await this.compact({});
    }
  }

  #tick(): void {
    this.#writer.nowMs = Math.max(this.#writer.nowMs, this.clock.ms + this.#skewMs);
  }

  #keep(seq: bigint): void {
    this.images.set(seq, this.#writer.images.get(seq)!);
    this.times.set(seq, this.#writer.times.get(seq)!);
    this.promised.add(seq);
  }

  async #delta(pages: number[]): Promise<void> {
    this.#tick();
    this.#keep(await this.#writer.delta(pages.filter((pgno) => pgno <= this.#pages), this.#pages));
  }

  async #snapshot(upload: boolean): Promise<void> {
    this.#tick();
    this.#keep(await this.#writer.snapshot({ upload, bridge: this.own }));
    if (this.own && !this.#pointed) {
      await this.#writer.point({ lineageId: this.#writer.lineage, claim: null });
      this.#pointed = true;
    }
  }

  /** A new lineage goes on from the newest point. */
  async #fork(): Promise<void> {
    const parent = this.#writer;
    const at = parent.seq;
    const child = new BucketWriter({ store: this.#late(), lineage: this.#nextLineage(), seq: at });
    child.continueFrom(parent, at);
    await child.begin({ parent: parent.lineage, parentSeq: at, state: false });
    this.#writer = child;
    await this.#snapshot(true);
    await child.point({ lineageId: child.lineage, claim: null });
  }

  options(more: Partial<CompactOptions>): CompactOptions {
    const { dice } = this;
    const fans = dice.pick([2, 2], [4, 3], [60, 24]);
    const tiers = dice.pick(
      { hourly: 0, daily: 0, weekly: 0, monthly: 0 },
      { hourly: 3, daily: 2, weekly: 1, monthly: 1 },
      { hourly: 24, daily: 7, weekly: 12, monthly: 12 },
    );
    return {
      store: this.store,
      root,
      runtime: { clock: this.clock, sha256 },
      tiers,
      fineWindowMs: dice.pick(hourMs, dayMs),
      graceMs: dice.pick(0, hourMs),
      merge: dice.roll(4) > 0,
      mergeFans: fans,
      parallel: 4,
      ...more,
    };
  }

  /** Compacts and takes from the promise what the plan said it would give up, and nothing else. */
  async compact(more: Partial<CompactOptions>): Promise<CompactReport> {
    const options = this.options({ force: true, ...more });
    const report = await compact(options);
    if (options.force) this.giveUp(report);
    return report;
  }

  giveUp({ plan, runs }: CompactReport): void {
    for (const { min, max } of plan.lost) for (let seq = min; seq <= max; seq++) this.promised.delete(seq);
    for (const { sources, max } of runs) {
      for (const source of sources) if (source.max !== max) this.promised.delete(source.max);
    }
  }

  /** Every promised point restores to its bytes; every other one too, or it is refused as one that is gone. */
  async check(what: string): Promise<void> {
    const history = await readHistory(this.store, root);
    for (const [seq, image] of this.images) {
      let bytes: Uint8Array;
      try {
        bytes = await restoreToMemory(this.store, root, seq, history);
      } catch (error) {
        assert.ok(error instanceof WalrustError, String(error));
        assert.ok(!this.promised.has(seq), `${what}: seq ${seq} was promised: ${error.message}`);
        assert.equal(error.exitCode, 6, `${what}: seq ${seq}: ${error.message}`);
        continue;
      }
      assert.ok(Buffer.compare(bytes, image) === 0, `${what}: seq ${seq} has other bytes`);
    }
    for (let count = 0; count < 5; count++) {
      const seq = this.dice.pick(...this.images.keys());
      const ms = this.times.get(seq)! + this.dice.roll(2);
      try {
        const bytes = await restoreToMemory(this.store, root, { kind: "time", ms }, history);
        // Times of a clock that jumped may be equal: the newest point of them counts.
        const atMost = [...this.images].filter(([other]) => this.times.get(other)! <= ms);
        assert.ok(atMost.some(([, image]) => Buffer.compare(bytes, image) === 0), `${what}: time of seq ${seq}`);
      } catch (error) {
        if (!(error instanceof WalrustError)) throw error;
        assert.ok(!this.promised.has(seq) && error.exitCode === 6, `${what}: time of seq ${seq}: ${error.message}`);
      }
    }
    const head = [...this.images.keys()].at(-1)!;
    assert.ok(this.promised.has(head), "the newest point is always promised");
    const { findings, restorable } = await verify({
      store: this.store,
      root,
      level: "full",
      runtime: { clock: this.clock, sha256 },
    });
    const errors = findings.filter(({ severity }) => severity === "error").map(({ message }) => message);
    assert.deepEqual(errors, [], `${what}: what goes on purpose is no damage`);
    assert.ok(restorable !== null && restorable.points >= this.promised.size, what);
  }

  /** The same bucket again, to try something on. */
  async copy(): Promise<MemoryStore> {
    const clock = new TestClock();
    const copy = new MemoryStore({ clock });
    for await (const { key, lastModifiedMs } of this.store.list("")) {
      clock.ms = lastModifiedMs;
      await copy.put(key, (await getBytes(this.store, key, 1 << 24)).bytes);
    }
    clock.ms = this.clock.ms;
    return copy;
  }
}

function seeds(count: number): number[] {
  return replayedSeed === null ? Array.from({ length: count }, (_, index) => testSeed + index) : [replayedSeed];
}

async function replayable(seed: number, body: () => Promise<void>): Promise<void> {
  try {
    await body();
  } catch (error) {
    throw new Error(`replay with WALRUST_SEED=${seed}: ${(error as Error).message}`, { cause: error });
  }
}

test("[S99] compact: in random histories every point that was promised restores page for page", async () => {
  const seen = { merged: 0, deleted: 0, lost: 0 };
  for (const seed of seeds(12)) {
    await replayable(seed, async () => {
      const model = new Model(seed);
      await model.begin();
      for (let step = 0; step < 40; step++) {
        await model.step();
        if (step % 8 !== 7) continue;
        const { merged, deleted, plan } = await model.compact({});
        seen.merged += merged.length;
        seen.deleted += deleted.objects;
        seen.lost += plan.lost.length;
        await model.check(`step ${step}`);
      }
    });
  }
  if (replayedSeed === null) assert.ok(Math.min(...Object.values(seen)) > 2, JSON.stringify(seen));
});

class Killed extends Error {}

/** Dies at the `at`th request, before it or (the reply lost) behind it. */
function killable(store: ObjectStore, at: number, before: boolean): { store: ObjectStore; requests: () => number } {
  let count = 0;
  const guard = async <T>(call: () => Promise<T>): Promise<T> => {
    if (count >= at) throw new Killed();
    count++;
    if (count === at && before) throw new Killed();
    const result = await call();
    if (count >= at) throw new Killed();
    return result;
  };
  const wrapped = wrapStore(store, {
    get: (key, options) => guard(() => store.get(key, options)),
    head: (key, options) => guard(() => store.head(key, options)),
    put: (key, body, options) => guard(() => store.put(key, body, options)),
    putStream: (key, chunks, options) => guard(() => store.putStream(key, chunks, options)),
    listDirectories: (prefix, options) => guard(() => store.listDirectories(prefix, options)),
    // One key after another, so that a kill may leave some.
    deleteMany: async (keys, options) => {
      for (const key of keys) await guard(() => store.deleteMany([key], options));
      return [];
    },
  });
  return { store: wrapped, requests: () => count };
}

test("[SC] [S99] compact: killed at every request, what was promised restores and the next run goes on", async () => {
  let kills = 0;
  for (const seed of seeds(2)) {
    await replayable(seed, async () => {
      const model = new Model(seed);
      await model.begin();
      for (let step = 0; step < 30; step++) await model.step();
      const fixed: Partial<CompactOptions> = {
        tiers: { hourly: 2, daily: 2, weekly: 1, monthly: 1 },
        fineWindowMs: 5 * hourMs,
        graceMs: 0,
        merge: true,
        mergeFans: [3, 2],
      };
      // Marks and merged objects of an earlier run, so that this one has everything to do.
      await model.compact(fixed);
      for (let step = 0; step < 12; step++) await model.step();
      const whole = killable(await model.copy(), Infinity, true);
      await compact(model.options({ ...fixed, force: true, store: whole.store }));
      const planned = await compact(model.options({ ...fixed, store: await model.copy() }));
      model.giveUp(planned);
      const original = model.store;
      for (let at = 1; at <= whole.requests(); at += 1 + model.dice.roll(3)) {
        for (const before of [true, false]) {
          model.store = original;
          model.store = await model.copy();
          const { store } = killable(model.store, at, before);
          await assert.rejects(compact(model.options({ ...fixed, force: true, store })), Killed);
          kills++;
          await model.check(`killed at request ${at} of ${whole.requests()}`);
          const again = await compact(model.options({ ...fixed, force: true, store: model.store }));
          assert.deepEqual(again.warnings.filter((text) => /merged/.test(text)), []);
          await model.check(`going on after request ${at}`);
        }
      }
      model.store = original;
    });
  }
  if (replayedSeed === null) assert.ok(kills > 20, `only ${kills} kills`);
});

test("canary: the model notices a deleted object, other bytes, and a plan that promises too much", async () => {
  const model = new Model(4);
  await model.begin();
  for (let step = 0; step < 30; step++) await model.step();
  await model.check("sound");
  const seq = [...model.promised].at(-3)!;
  const bytes = model.images.get(seq)!;
  bytes[5] ^= 1;
  await assert.rejects(model.check("bytes"), /other bytes/);
  bytes[5] ^= 1;
  const keys = (await Array.fromAsync(model.store.list(root))).map(({ key }) => key);
  await model.store.deleteMany(keys.filter((key) => /\/0000\/.*[24680ace]\.hadbp$/.test(key)));
  await assert.rejects(model.check("deleted"), /was promised/);
});
