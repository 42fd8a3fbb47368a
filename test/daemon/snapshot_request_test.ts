import assert from "node:assert/strict";
import { test } from "node:test";
import { isLocked, lockInstance } from "../../src/daemon/instance_lock.ts";
import { decodeAnswer, snapshotNow } from "../../src/daemon/snapshot_request.ts";
import { watch, type WatchEvent } from "../../src/daemon/watch.ts";
import { StorageError } from "../../src/errors.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { wrapStore } from "../../src/storage/wrap.ts";
import { root, Scene, system, turn, watchOptionsOf } from "../replication/engine_scene.ts";

const timeout = 20_000;

function callOf(scene: Scene): Parameters<typeof snapshotNow>[0] {
  return { path: scene.path, store: scene.store, root, runtime: system, options: watchOptionsOf(scene) };
}

test("snapshotNow: alone, and again with nothing changed", { timeout }, async () => {
  const scene = new Scene();
  const first = await snapshotNow(callOf(scene));
  assert.equal(first.seq, 1n);
  scene.commit(5);
  const second = await snapshotNow(callOf(scene));
  assert.ok(second.seq > first.seq);
  const third = await snapshotNow(callOf(scene));
  assert.ok(third.seq > second.seq);
  assert.equal(third.checksum, second.checksum);
  assert.equal((await scene.lineages()).length, 1);
  scene.start();
  await scene.prove();
});

test("snapshotNow: beside a running watch it is the watch that takes it, and only for its own destination", {
  timeout,
}, async () => {
  const scene = new Scene({ walSyncIntervalMs: 50 });
  const stop = new AbortController();
  const watching = watch({
    databases: [{ path: scene.path }],
    store: scene.store,
    prefix: "",
    runtime: system,
    options: watchOptionsOf(scene),
    signal: stop.signal,
  });
  while (!isLocked(system, scene.state)) await turn(10);
  scene.commit(7);
  const report = await snapshotNow({ ...callOf(scene), limitMs: 15_000 });
  assert.ok(report.seq >= 1n);
  const elsewhere = snapshotNow({ ...callOf(scene), store: new MemoryStore(), root: "other/", limitMs: 15_000 });
  await assert.rejects(elsewhere, /replicates to memory:\/app\//);
  stop.abort();
  assert.deepEqual((await watching).failures, []);
  assert.equal(isLocked(system, scene.state), false);
  scene.start();
  await scene.prove();
});

test("[S64] snapshotNow: with another state directory it is still the running watch that takes it", {
  timeout,
}, async () => {
  const scene = new Scene({ walSyncIntervalMs: 50 });
  const stop = new AbortController();
  const events: WatchEvent[] = [];
  const watching = watch({
    databases: [{ path: scene.path }],
    store: scene.store,
    prefix: "",
    runtime: system,
    options: watchOptionsOf(scene, `${scene.directory}/one`),
    onEvent: (event) => void events.push(event),
    signal: stop.signal,
  });
  while (!events.some(({ kind }) => kind === "snapshot")) await turn(10);
  scene.commit(3);
  const other = watchOptionsOf(scene, `${scene.directory}/two`);
  const report = await snapshotNow({ ...callOf(scene), options: other, limitMs: 15_000 });
  assert.deepEqual(events.filter(({ kind }) => kind === "snapshot").map((event) => "seq" in event && event.seq), [
    1n,
    report.seq,
  ]);
  assert.equal((await scene.lineages()).length, 1, "never a second writer");
  stop.abort();
  await watching;
});

test("snapshotNow: two at once beside a watch are both answered, the bucket's trouble as what it is", {
  timeout,
}, async () => {
  const scene = new Scene({ walSyncIntervalMs: 50 });
  const stop = new AbortController();
  let started = false;
  let broken = false;
  const store = wrapStore(scene.store, {
    identity: "https://one.example/bucket",
    putStream: (key, chunks, options) => {
      if (broken) throw new StorageError("AccessDenied", "the bucket says no");
      return scene.store.putStream(key, chunks, options);
    },
  });
  const watching = watch({
    databases: [{ path: scene.path }],
    store,
    prefix: "",
    runtime: system,
    options: watchOptionsOf(scene),
    onEvent: ({ kind }) => started ||= kind === "snapshot",
    signal: stop.signal,
  });
  try {
    while (!started) await turn(10);
    const call = { ...callOf(scene), store, limitMs: 15_000 };
    scene.commit(3);
    const [one, two] = await Promise.all([snapshotNow(call), snapshotNow(call)]);
    assert.ok(one.seq > 1n && two.seq > 1n);
    // The same name at another endpoint is another bucket.
    const elsewhere = { ...call, store: wrapStore(store, { identity: "https://two.example/bucket" }) };
    await assert.rejects(snapshotNow(elsewhere), { code: "other_destination", exitCode: 3 });
    broken = true;
    scene.commit(3);
    await assert.rejects(snapshotNow(call), { code: "AccessDenied", exitCode: 4, message: /the bucket says no/ });
  } finally {
    broken = false;
    stop.abort();
    await watching;
  }
  assert.deepEqual(system.files.list(`${scene.state}/requests`), []);
});

test("snapshotNow: one that runs is waited for, and then it is our turn", { timeout }, async () => {
  const scene = new Scene();
  const place = { directory: scene.state, locks: [scene.state] };
  // What an earlier watch left there.
  system.files.makeDirectory(`${scene.state}/requests`);
  const lock = lockInstance(system, { path: scene.path, place, name: "pid 1", role: "snapshot" });
  const asked = snapshotNow(callOf(scene));
  await turn(300);
  assert.deepEqual(await scene.objects(), []);
  lock.release();
  assert.equal((await asked).seq, 1n);
  const both = await Promise.all([snapshotNow(callOf(scene)), snapshotNow(callOf(scene))]);
  assert.equal(new Set(both.map(({ seq }) => seq)).size, 2);
});

test("snapshotNow: a watch that ended does not leave the one who asks waiting", { timeout }, async () => {
  const scene = new Scene();
  const place = { directory: scene.state, locks: [scene.state] };
  system.files.makeDirectory(`${scene.state}/requests`);
  const lock = lockInstance(system, { path: scene.path, place, name: "pid 1", role: "watch" });
  const asked = assert.rejects(snapshotNow(callOf(scene)), { code: "no_answer" });
  await turn(50);
  lock.release();
  await asked;
});

test("decodeAnswer: what a watch says, or an error that says so; never an error of its own reading", () => {
  const decode = (text: string): ReturnType<typeof decodeAnswer> => decodeAnswer(new TextEncoder().encode(text));
  const sound = '{"done":{"seq":"7","bytes":4096,"durationMs":12.5,"checksum":"18446744073709551615"}}';
  assert.deepEqual(decode(sound), { seq: 7n, bytes: 4096, durationMs: 12.5, checksum: 2n ** 64n - 1n });
  const garbage = ["", "{", "null", "{}", "[]", '{"done":null}', '{"done":{"seq":"7"}}'];
  for (
    const [from, to] of [['"7"', "7"], ['"7"', '"x"'], ["4096", "1e999"], ["18446744073709551615", "1".repeat(21)]]
  ) {
    garbage.push(sound.replace(from, to));
  }
  for (const text of garbage) assert.throws(() => decode(text), { code: "bad_answer", exitCode: 6 }, text);
  assert.throws(
    () => decode('{"error":{"kind":"storage","code":"AccessDenied","message":"a\\u001b[2J","hint":"b"}}'),
    { kind: "storage", code: "AccessDenied", message: "the running watch: a\\u{1b}[2J", hint: "b" },
  );
  for (const text of ['{"error":null}', '{"error":{"kind":"toString","code":{},"message":[],"hint":1}}']) {
    assert.throws(() => decode(text), { kind: "general", code: "snapshot_failed", hint: undefined }, text);
  }
});
