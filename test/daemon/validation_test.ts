import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { limiter } from "../../src/daemon/upload_limit.ts";
import { Validation, type ValidationEvent } from "../../src/daemon/validation.ts";
import { watch, type WatchEvent } from "../../src/daemon/watch.ts";
import { StorageError } from "../../src/errors.ts";
import type { Clock } from "../../src/runtime/types.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { getBytes, type ObjectStore } from "../../src/storage/object_store.ts";
import { wrapStore } from "../../src/storage/wrap.ts";
import { BucketWriter } from "../replication/bucket_writer.ts";
import { Scene, system, turn, watchOptionsOf } from "../replication/engine_scene.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";

const timeout = 30_000;
const hourMs = 3_600_000;

async function bucket(): Promise<{ store: MemoryStore; writer: BucketWriter; bytes: number }> {
  const store = new MemoryStore();
  const writer = new BucketWriter({ store });
  await writer.begin({ state: false });
  await writer.snapshot();
  await writer.deltas(8);
  await writer.snapshot();
  await writer.point({ lineageId: writer.lineage, claim: null });
  await writer.deltas(5);
  let bytes = 0;
  for await (const { key, size } of store.list("")) if (key.endsWith(".hadbp")) bytes += size;
  return { store, writer, bytes };
}

/** Time that passes only by sleeping; ends the run after so many sleeps. */
class SleepingClock implements Clock {
  nowMs = 1_800_000_000_000;
  readonly end = new AbortController();
  #left: number;

  constructor(sleeps: number) {
    this.#left = sleeps;
  }

  now = (): number => this.nowMs;
  monotonic = (): number => this.nowMs;

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    await turn();
    signal?.throwIfAborted();
    if (ms > 0 && this.#left-- === 0) this.end.abort(new Error("enough"));
    signal?.throwIfAborted();
    this.nowMs += ms;
  }
}

let directories = 0;
const folder = temporaryDirectory("validation");

/** Runs for so many sleeps; `directory` keeps what is known over restarts. */
async function validate(
  store: ObjectStore,
  options: { sleeps: number; budget: number; directory?: string; intervalMs?: number; nowMs?: number },
): Promise<{ events: ValidationEvent[]; directory: string; nowMs: number }> {
  const { sleeps, budget, directory = join(folder, String(++directories)), intervalMs = hourMs } = options;
  mkdirSync(directory, { recursive: true });
  const clock = new SleepingClock(sleeps);
  if (options.nowMs !== undefined) clock.nowMs = options.nowMs;
  const events: ValidationEvent[] = [];
  const validation = new Validation({
    path: "app.db",
    root: "app/",
    directory,
    store,
    runtime: { ...system, clock },
    options: { validationIntervalMs: intervalMs, validationBudget: budget },
    turns: limiter(1),
    emit: (event) => events.push(event),
  });
  await validation.run(clock.end.signal);
  return { events, directory, nowMs: clock.nowMs };
}

function validated(events: ValidationEvent[]): Extract<ValidationEvent, { kind: "validated" }>[] {
  return events.filter((event) => event.kind === "validated");
}

test("Validation: goes round in parts within its budget, also over restarts, and says since when all is verified", {
  timeout,
}, async () => {
  const { store, bytes } = await bucket();
  const budget = Math.ceil(bytes / 4);
  const began = await validate(store, { sleeps: 2, budget });
  assert.deepEqual(validated(began.events).map(({ lastVerifiedMs }) => lastVerifiedMs), [null, null]);
  const { directory, nowMs } = began;
  const { events } = await validate(store, { sleeps: 8, budget, directory, nowMs });
  const [first, ...more] = validated([...began.events, ...events]);
  assert.equal(first.points, 15);
  assert.ok([first, ...more].every((event) => event.bytes < 2 * budget + 4000), "within the budget");
  const rounds = new Set(more.map(({ lastVerifiedMs }) => lastVerifiedMs).filter((ms) => ms !== null));
  assert.ok(rounds.size >= 2, `${rounds.size} rounds`);
  assert.ok([...rounds].every((ms) => ms! >= 1_800_000_000_000 + hourMs), "the moment at which the round began");
  assert.deepEqual(events.filter(({ kind }) => kind !== "validated"), []);
});

test("Validation: damage anywhere is found within one round", { timeout }, async () => {
  const sample = await bucket();
  const keys: string[] = [];
  for await (const { key } of sample.store.list("")) if (key.endsWith(".hadbp")) keys.push(key);
  for (const key of keys) {
    const { store, bytes } = await bucket();
    const object = await getBytes(store, key, 1e6);
    // The previous chain value: what shows between two objects only counts too.
    object.bytes[20] ^= 1;
    await store.put(key, object.bytes);
    const { events } = await validate(store, { sleeps: 7, budget: bytes / 5 });
    const found = events.filter((event) => event.kind === "corruption_detected");
    assert.ok(found.length > 0, key);
    assert.ok(found[0].findings.some(({ object }) => object === key), key);
  }
});

test("Validation: an outage is said and tried again; garbage in its file, and a clock put back, only begin anew", {
  timeout,
}, async () => {
  const { store } = await bucket();
  const down = wrapStore(store, { get: () => Promise.reject(new StorageError("ServiceUnavailable", "503")) });
  const { events, directory } = await validate(down, { sleeps: 5, budget: 1e9 });
  assert.ok(events.length >= 2 && events.every(({ kind }) => kind === "validation_failed"));
  writeFileSync(`${directory}/validation`, '{"lastRunMs":"soon"}');
  assert.equal(validated((await validate(store, { sleeps: 2, budget: 1e9, directory })).events).length, 2);
  const yearsAgo = await validate(store, { sleeps: 2, budget: 1e9, directory, nowMs: 1_500_000_000_000 });
  assert.equal(validated(yearsAgo.events).length, 2);
});

test("watch: verifies on schedule what it stores, and damage in the bucket is an event", { timeout }, async () => {
  const scene = new Scene();
  const events: WatchEvent[] = [];
  const stop = new AbortController();
  const options = { ...watchOptionsOf(scene), validationIntervalMs: 50, walSyncIntervalMs: 50 };
  const watching = watch({
    databases: [{ path: scene.path }],
    store: scene.store,
    prefix: "",
    runtime: system,
    options,
    onEvent: (event) => events.push(event),
    signal: stop.signal,
    ownProcess: true,
  });
  const until = async (kind: WatchEvent["kind"]): Promise<void> => {
    while (!events.some((event) => event.kind === kind)) await turn(20);
  };
  await until("snapshot");
  scene.commit(5);
  await until("delta");
  events.length = 0;
  await until("validated");
  assert.deepEqual(events.filter(({ kind }) => kind === "corruption_detected" || kind === "validation_failed"), []);
  const [key] = await scene.objects();
  const object = await getBytes(scene.store, key, 1e7);
  object.bytes[object.bytes.length - 50] ^= 1;
  await scene.store.put(key, object.bytes);
  await until("corruption_detected");
  stop.abort();
  assert.deepEqual((await watching).failures, [], "replication goes on");
  scene.app.close();
});
