import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { cpSync, existsSync, readFileSync } from "node:fs";
import { test } from "node:test";
import { IntegrityError } from "../../src/errors.ts";
import { renderKey } from "../../src/format/keys.ts";
import { readState } from "../../src/replication/lineage.ts";
import { restore } from "../../src/replication/restore.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { wrapStore } from "../../src/storage/wrap.ts";
import { root, Scene, system, turn } from "./engine_scene.ts";

const timeout = 30_000;
/** Longer than a writer goes on without asking whether it still is the one. */
const checkMs = 31_000;

/** Two hosts with a database and a clock each, and one bucket. */
function twoHosts(): [Scene, Scene] {
  const store = new MemoryStore();
  const [a, b] = [new Scene({ store }), new Scene({ store })];
  b.commit(50);
  return [a, b];
}

async function keysOf(scene: Scene, lineage: string): Promise<string[]> {
  return (await scene.objects()).filter((key) => key.includes(lineage));
}

async function activeLineage(store: MemoryStore): Promise<string> {
  const { state } = await readState(store, root);
  return state.lineageId!;
}

async function assertFenced(work: Promise<unknown>): Promise<void> {
  await assert.rejects(work, (error) => error instanceof IntegrityError && error.code === "fenced");
}

test("[S65] DatabaseEngine: of two hosts the newer lineage wins, the older stops as fenced and keeps its state", {
  timeout,
}, async () => {
  const [a, b] = twoHosts();
  a.start();
  await a.sync();
  a.commit();
  await a.sync();
  const older = await activeLineage(a.store);
  const before = await a.restored();
  b.start();
  await b.sync();
  const newer = await activeLineage(a.store);
  assert.notEqual(newer, older);
  const published = await keysOf(a, older);
  a.commit();
  a.clock.skip(checkMs);
  await assertFenced(a.sync());
  assert.deepEqual(await keysOf(a, older), published, "nothing more was written");
  assert.equal(a.of("fenced").length, 1);
  assert.equal(a.life.openHandles, 0);
  assert.ok(existsSync(`${a.state}/journal`) && existsSync(`${a.state}/pages.idx`));
  assert.equal(await a.engine.step(), Infinity);
  b.commit();
  await b.sync();
  assert.equal(Buffer.compare(await b.restored(2n), before), 0, "the history before the fork");
  await b.prove();
});

test("[S65] DatabaseEngine: what the older writer publishes before it notices is no part of the history", {
  timeout,
}, async () => {
  const [a, b] = twoHosts();
  a.start();
  await a.sync();
  b.start();
  await b.sync();
  const older = a.of("started")[0].lineage;
  a.commit();
  await a.sync();
  assert.equal((await keysOf(a, older)).length, 2, "a snapshot and a delta beyond the fork");
  const restored = await b.restored();
  await b.engine.stop(5000);
  assert.equal(Buffer.compare(restored, b.source()), 0);
  await a.engine.stop(0);
});

test("[S66] DatabaseEngine: a process that was frozen in the middle of a PUT writes only into its own lineage", {
  timeout,
}, async () => {
  const [a, b] = twoHosts();
  let wake = (): void => {};
  let isFreezing = false;
  a.start((store) =>
    wrapStore(store, {
      put: async (key, body, options) => {
        if (isFreezing && key.endsWith(".hadbp")) await new Promise<void>((resolve) => wake = resolve);
        return await store.put(key, body, options);
      },
    })
  );
  await a.sync();
  const older = await activeLineage(a.store);
  isFreezing = true;
  a.commit();
  a.clock.skip(1000);
  await a.engine.step();
  b.start();
  await b.sync();
  b.commit();
  await b.sync();
  isFreezing = false;
  a.clock.skip(checkMs);
  wake();
  await turn(5);
  assert.deepEqual((await keysOf(a, older)).length, 2, "its PUT arrived, in its lineage");
  a.commit();
  await assertFenced(a.sync().then(() => a.sync()));
  await b.prove();
});

test("[S67] DatabaseEngine: a copy that goes on elsewhere begins a new lineage; history before the fork stays", {
  timeout,
}, async () => {
  const [a, b] = twoHosts();
  a.start();
  await a.sync();
  const points: Uint8Array[] = [];
  for (let i = 0; i < 3; i++) {
    a.commit();
    await a.sync();
    points.push(await a.restored());
  }
  await a.engine.stop(5000);
  b.clock.skip(60_000);
  b.start();
  await b.sync();
  const { state } = await readState(b.store, root);
  const document = await b.store.get(renderKey(root, { kind: "lineage", lineage: state.lineageId! }));
  let text = "";
  for await (const chunk of document.body) text += Buffer.from(chunk).toString();
  assert.equal(JSON.parse(text).parent, a.of("started")[0].lineage);
  assert.equal(JSON.parse(text).parent_seq, "4");
  for (const [i, point] of points.entries()) {
    assert.equal(Buffer.compare(await b.restored(BigInt(i + 2)), point), 0, `seq ${i + 2}`);
  }
  const outputPath = `${b.directory}/then.db`;
  const target = { kind: "time", ms: a.of("delta")[1].createdMs } as const;
  await restore({
    store: b.store,
    root,
    target,
    outputPath,
    runtime: { ...system, clock: b.clock },
    integrityCheck: "quick",
  });
  assert.equal(Buffer.compare(readFileSync(outputPath), points[1]), 0, "by time, in the parent");
  await b.prove();
});

test("DatabaseEngine: of a host and its clone, state directory included, one goes on and the other stops", {
  timeout,
}, async () => {
  const [a, b] = twoHosts();
  a.start();
  await a.sync();
  await a.engine.stop(5000);
  a.app.close();
  cpSync(a.directory, b.directory, { recursive: true, filter: (path) => !path.endsWith("-shm") });
  a.connect();
  b.connect();
  a.start();
  b.start();
  await a.sync();
  a.commit(3);
  await a.sync();
  b.commit(7);
  await b.sync();
  a.commit(5);
  await assertFenced(a.sync());
  assert.equal((await b.lineages()).length, 1, "nothing forks: the chain is one line");
  await b.prove();
});

test("DatabaseEngine: a bucket that is emptied under it gets a new lineage", { timeout }, async () => {
  const scene = new Scene();
  scene.start();
  await scene.sync();
  const keys = [];
  for await (const { key } of scene.store.list("")) keys.push(key);
  await scene.store.deleteMany(keys);
  scene.clock.skip(checkMs);
  scene.commit();
  for (let i = 0; i < 3; i++) {
    await scene.sync();
    scene.clock.skip(1000);
  }
  assert.equal(scene.of("new_lineage").length, 1);
  await scene.prove();
});
