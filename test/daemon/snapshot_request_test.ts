import assert from "node:assert/strict";
import { test } from "node:test";
import { isLocked, lockInstance } from "../../src/daemon/instance_lock.ts";
import { snapshotNow } from "../../src/daemon/snapshot_request.ts";
import { watch } from "../../src/daemon/watch.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { root, Scene, system, turn } from "../replication/engine_scene.ts";

const timeout = 20_000;

function callOf(scene: Scene): Parameters<typeof snapshotNow>[0] {
  return { path: scene.path, store: scene.store, root, runtime: system, options: scene.options };
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
    options: scene.options,
    signal: stop.signal,
  });
  const directory = `${scene.directory}/.walrust-app.db`;
  while (!isLocked(system, directory)) await turn(10);
  scene.commit(7);
  const report = await snapshotNow({ ...callOf(scene), limitMs: 15_000 });
  assert.ok(report.seq >= 1n);
  const elsewhere = snapshotNow({ ...callOf(scene), store: new MemoryStore(), root: "other/", limitMs: 15_000 });
  await assert.rejects(elsewhere, /replicates to memory:\/app\//);
  stop.abort();
  assert.deepEqual((await watching).failures, []);
  assert.equal(isLocked(system, directory), false);
  scene.start();
  await scene.prove();
});

test("snapshotNow: a watch that ended does not leave the one who asks waiting", { timeout }, async () => {
  const scene = new Scene();
  const directory = `${scene.directory}/.walrust-app.db`;
  const lock = lockInstance(system, { path: scene.path, directory, holder: "pid 1" });
  const asked = assert.rejects(snapshotNow(callOf(scene)), { code: "no_answer" });
  await turn(50);
  lock.release();
  await asked;
});

test("lockInstance: the second one is refused and told who holds it; asking harms nobody", { timeout }, () => {
  const scene = new Scene();
  const options = { path: scene.path, directory: `${scene.directory}/state`, holder: "pid 7" };
  assert.equal(isLocked(system, options.directory), false);
  const lock = lockInstance(system, options);
  assert.equal(isLocked(system, options.directory), true);
  assert.throws(() => lockInstance(system, options), { code: "locked", exitCode: 3, message: /pid 7/ });
  lock.release();
  lockInstance(system, options).release();
});
