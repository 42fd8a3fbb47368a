import assert from "node:assert/strict";
import { test } from "node:test";
import { type CompactionEvent, type CompactionOptions, Compactions } from "../../src/daemon/compaction.ts";
import { limiter } from "../../src/daemon/upload_limit.ts";
import { watch, type WatchEvent } from "../../src/daemon/watch.ts";
import type { Clock } from "../../src/runtime/types.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";
import { wrapStore } from "../../src/storage/wrap.ts";
import { BucketWriter } from "../replication/bucket_writer.ts";
import { Scene, system, turn, watchOptionsOf } from "../replication/engine_scene.ts";
import { sha256 } from "../support/vectors.ts";

const timeout = 30_000;
const dayMs = 86_400_000;
const nowMs = Date.parse("2026-06-15T12:30:00Z");
const tiers = { hourly: 0, daily: 0, weekly: 0, monthly: 0 };

/** Three snapshots of which one may go. */
async function bucket(): Promise<MemoryStore> {
  const store = new MemoryStore();
  const writer = new BucketWriter({ store });
  await writer.begin();
  for (const days of [40, 20, 2]) {
    writer.nowMs = nowMs - days * dayMs;
    await writer.snapshot();
    await writer.deltas(3);
  }
  return store;
}

class Compacting {
  readonly events: CompactionEvent[] = [];
  readonly compactions: Compactions;
  monotonicMs = 0;
  limit = limiter(1);

  constructor(store: ObjectStore, options: Partial<CompactionOptions>) {
    const clock: Clock = { ...system.clock, now: () => nowMs, monotonic: () => this.monotonicMs };
    this.compactions = new Compactions({
      path: "/data/app.db",
      root: "app/",
      store,
      runtime: { clock, sha256 },
      options: { afterSnapshot: false, intervalMs: 0, tiers, graceMs: 0, ...options },
      limit: (work, signal) => this.limit(work, signal),
      emit: (event) => this.events.push(event),
    });
  }

  async until(count: number): Promise<void> {
    while (this.events.length < count) await turn(1);
    await turn(1);
  }
}

test("Compactions: after a snapshot, once for each, and never without one", { timeout }, async () => {
  const compacting = new Compacting(await bucket(), { afterSnapshot: true });
  const { compactions, events } = compacting;
  compactions.poll();
  await turn(20);
  assert.equal(events.length, 0);
  compactions.snapshotTaken();
  compactions.poll();
  await compacting.until(1);
  compactions.poll();
  await turn(20);
  assert.equal(events.length, 1);
  const [event] = events;
  assert.ok(event.kind === "compacted" && event.bytes > 0);
  assert.deepEqual([event.objects, event.merged, event.waiting, event.warnings], [4, 4, 4, []]);
  await compactions.end();
});

test("Compactions: at its interval, and not after snapshots where that was not asked for", { timeout }, async () => {
  const compacting = new Compacting(await bucket(), { intervalMs: 1000 });
  const { compactions, events } = compacting;
  compactions.snapshotTaken();
  compacting.monotonicMs = 999;
  compactions.poll();
  await turn(20);
  assert.equal(events.length, 0);
  for (const [ms, count] of [[1000, 1], [1999, 1], [2000, 2]]) {
    compacting.monotonicMs = ms;
    compactions.poll();
    await compacting.until(count);
    assert.equal(events.length, count);
  }
  await compactions.end();
});

test(
  "Compactions: a failure is told and the next one is tried when it is due; one at a time",
  { timeout },
  async () => {
    const store = await bucket();
    let fails = true;
    let running = 0;
    let most = 0;
    const failing = wrapStore(store, {
      put: (key, body, options) => fails ? Promise.reject(new Error("no route")) : store.put(key, body, options),
    });
    const compacting = new Compacting(failing, { intervalMs: 1 });
    const { compactions, events } = compacting;
    const one = compacting.limit;
    compacting.limit = (work, signal) =>
      one(async () => {
        most = Math.max(most, ++running);
        try {
          return await work();
        } finally {
          running--;
        }
      }, signal);
    for (let poll = 0; poll < 5; poll++) {
      compacting.monotonicMs += 10;
      compactions.poll();
    }
    await compacting.until(1);
    assert.equal(events[0].kind, "compaction_failed");
    fails = false;
    compacting.monotonicMs += 10;
    compactions.poll();
    await compacting.until(2);
    assert.equal(events[1].kind, "compacted");
    assert.equal(most, 1);
    await compactions.end();
  },
);

test("Compactions: the end stops what is under way and says nothing of it", { timeout }, async () => {
  const store = await bucket();
  const hanging = wrapStore(store, {
    put: (_key, _body, options) =>
      new Promise((_, reject) => options!.signal!.addEventListener("abort", () => reject(options!.signal!.reason))),
  });
  const { compactions, events } = new Compacting(hanging, { afterSnapshot: true });
  compactions.snapshotTaken();
  compactions.poll();
  await turn(30);
  await compactions.end();
  compactions.snapshotTaken();
  compactions.poll();
  await turn(20);
  assert.equal(events.length, 0);
});

test("watch: compacts beside replication, and what it says comes with the other events", { timeout }, async () => {
  const scene = new Scene();
  const stop = new AbortController();
  const events: WatchEvent[] = [];
  const watching = watch({
    databases: [{ path: scene.path }],
    store: scene.store,
    prefix: "",
    runtime: { ...system, clock: scene.clock },
    options: {
      ...watchOptionsOf(scene),
      walSyncIntervalMs: 20,
      snapshotIntervalMs: 60,
      compaction: { afterSnapshot: true, intervalMs: 0, tiers, graceMs: 0 },
    },
    onEvent: (event) => void events.push(event),
    signal: stop.signal,
  });
  const count = (kind: WatchEvent["kind"]): number => events.filter((event) => event.kind === kind).length;
  try {
    for (let round = 1; round <= 4; round++) {
      scene.commit();
      for (let turns = 0; count("snapshot") < round || count("compacted") < round; turns++) {
        assert.ok(turns < 1000, events.map(({ kind }) => kind).join());
        await turn(5);
      }
      // Else every point lies in the last day.
      scene.clock.skip(2 * dayMs);
    }
  } finally {
    stop.abort();
    assert.deepEqual((await watching).failures, []);
    scene.app.close();
  }
  assert.equal(count("compaction_failed"), 0);
  assert.ok(events.some((event) => event.kind === "compacted" && event.objects > 0));
  await scene.restored();
});
