import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { IntegrityError, RestoreError } from "../../src/errors.ts";
import { renderKey } from "../../src/format/keys.ts";
import { readState } from "../../src/replication/lineage.ts";
import { Crash, root, Scene } from "./engine_scene.ts";

const timeout = 30_000;

/** Whose bucket holds a snapshot, deltas, a bridge and deltas behind it, and whose state directory is then lost. */
async function lostState(): Promise<{ scene: Scene; points: Map<bigint, Uint8Array> }> {
  const scene = new Scene({ adopt: true });
  scene.start();
  await scene.sync();
  const points = new Map<bigint, Uint8Array>();
  for (let i = 0; i < 6; i++) {
    scene.commit(30);
    if (i === 4) scene.app.exec("DELETE FROM rows WHERE id % 2 = 0; VACUUM");
    await scene.sync();
    if (i === 2) {
      const snapshot = scene.engine.requestSnapshot();
      await scene.sync();
      await snapshot;
    }
  }
  await scene.engine.stop(5000);
  for (const key of await scene.objects()) {
    const seq = BigInt(`0x${key.slice(-22, -6)}`);
    points.set(seq, await scene.restored(seq));
  }
  rmSync(scene.state, { recursive: true });
  scene.events.length = 0;
  return { scene, points };
}

async function provePoints(scene: Scene, points: Map<bigint, Uint8Array>): Promise<void> {
  for (const [seq, bytes] of points) assert.equal(Buffer.compare(await scene.restored(seq), bytes), 0, `seq ${seq}`);
}

test("[S43] DatabaseEngine --adopt: the lineage goes on, only what differs is sent, and both sizes are told", {
  timeout,
}, async () => {
  const { scene, points } = await lostState();
  const before = await scene.objects();
  scene.app.exec("UPDATE rows SET data = randomblob(1000) WHERE id = 1");
  scene.start();
  await scene.sync();
  const [adopted] = scene.of("adopted");
  assert.equal(adopted.reason, "first start");
  assert.equal(scene.of("started")[0].seq, BigInt(points.size));
  const [difference] = scene.of("difference");
  assert.ok(difference.pages > 0 && difference.pages < 4, `${difference.pages} pages differ`);
  assert.equal(difference.bytes, difference.pages * 4096);
  assert.ok(difference.databaseBytes > 20 * 4096);
  assert.equal((await scene.objects()).length, before.length + 1, "one delta, no snapshot");
  assert.deepEqual(scene.of("new_lineage"), []);
  await provePoints(scene, points);
  await scene.prove();
});

test("[S43] DatabaseEngine --adopt: where nothing was changed nothing is sent, and the next start resumes", {
  timeout,
}, async () => {
  const { scene } = await lostState();
  const before = await scene.objects();
  scene.start();
  await scene.sync();
  assert.equal(scene.of("difference")[0].pages, 0);
  await scene.engine.stop(5000);
  assert.deepEqual(await scene.objects(), before);
  scene.events.length = 0;
  scene.start();
  await scene.sync();
  assert.deepEqual(scene.of("adopted"), []);
  scene.commit();
  await scene.sync();
  await scene.prove();
});

test("[S44] DatabaseEngine --adopt: a journal of garbage, an index of garbage", { timeout }, async () => {
  for (const name of ["journal", "pages.idx"]) {
    const scene = new Scene({ adopt: true });
    scene.start();
    await scene.sync();
    scene.commit(50);
    await scene.sync();
    await scene.engine.stop(5000);
    writeFileSync(`${scene.state}/${name}`, "garbage");
    scene.commit();
    scene.start();
    await scene.sync();
    assert.equal(scene.of("adopted").length, 1, name);
    assert.equal((await scene.lineages()).length, 1);
    await scene.prove();
  }
});

test("[S43] DatabaseEngine --adopt: killed at every operation it goes on in the same lineage at the next start", {
  timeout: 120_000,
}, async () => {
  const { scene, points } = await lostState();
  scene.commit(3);
  let kills = 0;
  for (let at = 1;; at++) {
    scene.start();
    let operations = 0;
    scene.life.onOperation = () => {
      if (++operations === at) scene.life.crash();
    };
    try {
      await scene.sync();
      scene.life.onOperation = () => {};
      break;
    } catch (error) {
      if (scene.life.alive && !(error instanceof Crash)) throw error;
      kills++;
    }
  }
  assert.ok(kills > 20, `${kills} kills`);
  assert.equal((await scene.lineages()).length, 1);
  await provePoints(scene, points);
  await scene.prove();
});

test("[S44] DatabaseEngine --adopt: killed while it builds the index, whose old journal is there, no start trusts it", {
  timeout: 120_000,
}, async () => {
  for (let at = 1, killed = true; killed; at++) {
    const scene = new Scene({ adopt: true });
    scene.start();
    await scene.sync();
    const first = scene.app.prepare("SELECT data FROM rows WHERE id = 1").get()!.data as Uint8Array;
    scene.app.exec("UPDATE rows SET data = randomblob(1000) WHERE id = 1");
    await scene.sync();
    await scene.engine.stop(5000);
    writeFileSync(`${scene.state}/pages.idx`, "garbage");
    // As it was in the snapshot, from which the index is built: half of it would say that nothing is to be sent.
    scene.app.prepare("UPDATE rows SET data = ? WHERE id = 1").run(first);
    scene.start();
    let operations = 0;
    scene.life.onOperation = () => {
      if (++operations === at) scene.life.crash();
    };
    killed = await scene.sync().then(() => false, (error) => {
      if (scene.life.alive && !(error instanceof Crash)) throw error;
      return true;
    });
    if (!killed) assert.ok(at > 10, `${at} operations`);
    scene.life.onOperation = () => {};
    if (killed) scene.start();
    await scene.sync();
    await scene.prove();
  }
});

test("DatabaseEngine --adopt: an empty bucket gets its first lineage", { timeout }, async () => {
  const scene = new Scene({ adopt: true });
  scene.start();
  await scene.sync();
  assert.deepEqual(scene.of("adopted"), []);
  await scene.prove();
});

test("DatabaseEngine --adopt: what cannot be continued is refused with its reason", { timeout }, async () => {
  const refuses = (scene: Scene, reason: RegExp): Promise<void> => {
    scene.start();
    return assert.rejects(scene.sync(), (error) => {
      assert.ok(error instanceof RestoreError && error.code === "cannot_adopt", String(error));
      assert.match(error.message, reason);
      return true;
    });
  };
  const { scene: claimed } = await lostState();
  const { state } = await readState(claimed.store, root);
  const text = JSON.stringify({ lineage_id: state.lineageId, claim: "b".repeat(32) });
  await claimed.store.put(renderKey(root, { kind: "state" }), new TextEncoder().encode(text));
  await refuses(claimed, /just begun/);

  const { scene: foreign } = await lostState();
  const own = (await readState(foreign.store, root)).state.lineageId!;
  await foreign.store.deleteMany([renderKey(root, { kind: "lineage", lineage: own })]);
  await refuses(foreign, /another program/);

  const { scene: resized } = await lostState();
  resized.app.exec("PRAGMA journal_mode = DELETE; PRAGMA page_size = 8192; VACUUM; PRAGMA journal_mode = WAL");
  await refuses(resized, /page size/);
});

test("DatabaseEngine --adopt: a damaged object on the way is an integrity error, nothing is written", {
  timeout,
}, async () => {
  const { scene } = await lostState();
  const objects = await scene.objects();
  const key = objects.filter((name) => name.includes("/0000/")).at(-1)!;
  const { body } = await scene.store.get(key);
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(chunk);
  const bytes = new Uint8Array(Buffer.concat(chunks));
  bytes[bytes.length >> 1] ^= 1;
  await scene.store.put(key, bytes);
  scene.start();
  await assert.rejects(scene.sync(), IntegrityError);
  assert.deepEqual(await scene.objects(), objects);
});
