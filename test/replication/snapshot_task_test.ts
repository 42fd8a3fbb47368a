import assert from "node:assert/strict";
import { test } from "node:test";
import { StorageError } from "../../src/errors.ts";
import type { ImageSource } from "../../src/replication/image.ts";
import { hashImage, uploadSnapshot } from "../../src/replication/snapshot.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { wrapStore } from "../../src/storage/wrap.ts";
import { Scene, system, turn } from "./engine_scene.ts";

test("SnapshotTask: an upload that fails before its bridge is published leaves nobody waiting for it", {
  timeout: 30_000,
}, async () => {
  const scene = new Scene();
  let down = false;
  const outage = (): Promise<never> => Promise.reject(new StorageError("ServiceUnavailable", "503"));
  scene.start((store) =>
    wrapStore(store, {
      put: (key, body, options) => down ? outage() : store.put(key, body, options),
      putStream: (key, chunks, options) => down ? outage() : store.putStream(key, chunks, options),
    })
  );
  await scene.sync();
  scene.commit();
  await scene.sync();
  down = true;
  const asked = scene.engine.requestSnapshot().catch(() => undefined);
  for (let i = 0; i < 20 && scene.of("sync_failed").length < 2; i++) {
    await scene.engine.step();
    await turn();
  }
  assert.ok(scene.of("sync_failed").length >= 2, "bridge and snapshot failed");
  let waits = 0;
  const sleep = scene.clock.sleep.bind(scene.clock);
  scene.clock.sleep = (ms, signal) => {
    waits++;
    return sleep(ms, signal);
  };
  await scene.engine.stop(1);
  await asked;
  await turn(50);
  waits = 0;
  for (let i = 0; i < 20; i++) await turn(5);
  // Whoever would still wait does so no more: else this file would never end.
  scene.life.crash();
  scene.app.close();
  assert.equal(waits, 0, "nothing goes on after the stop");
});

test("SnapshotTask: a writer that never pauses and looks that never rest do not keep a snapshot from beginning", {
  timeout: 30_000,
}, async () => {
  const scene = new Scene({ walSyncIntervalMs: 20 });
  scene.start();
  await scene.sync();
  let isAnswered = false;
  scene.engine.requestSnapshot().then(() => isAnswered = true, () => undefined);
  for (let i = 0; i < 200 && !isAnswered; i++) {
    scene.commit();
    scene.clock.skip(20);
    await scene.engine.step();
    await turn();
  }
  assert.ok(isAnswered, `${scene.of("delta").length} deltas and no snapshot`);
  await scene.prove();
});

test("uploadSnapshot: an image that is no longer the one its bridge declares never becomes complete", async () => {
  const { sha256, clock } = system;
  const content = new Uint8Array(3 * 512).fill(7);
  const image: ImageSource = {
    pageSize: 512,
    pageCount: 3,
    read: (first, count, into) => into.set(content.subarray((first - 1) * 512, (first - 1 + count) * 512)),
  };
  const rawHash = await hashImage(image, { sha256, clock });
  const store = new MemoryStore();
  const upload = async (key: string): Promise<number> =>
    await uploadSnapshot(
      { key, seq: 5n, prevChecksum: 0n, createdMs: 1, rawHash, image },
      { store, sha256, ready: Promise.resolve(), signal: new AbortController().signal },
    );
  await upload("same");
  content[700] ^= 1;
  await assert.rejects(upload("changed"), { code: "snapshot_changed" });
  assert.ok(await store.head("same") !== null);
  assert.equal(await store.head("changed"), null);
});
