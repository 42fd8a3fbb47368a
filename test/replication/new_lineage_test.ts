/** When a new lineage begins, and which seqs it may use. */
import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { test } from "node:test";
import { parseKey } from "../../src/format/keys.ts";
import { getBytes } from "../../src/storage/object_store.ts";
import { Crash, root, Scene } from "./engine_scene.ts";

const timeout = 60_000;
const state = `${root}state.json`;

test("[S34] DatabaseEngine: a page size changed by an offline VACUUM begins a new lineage that names its parent", {
  timeout,
}, async () => {
  for (const pageSize of [512, 16384, 65536]) {
    const scene = new Scene();
    scene.start();
    await scene.sync();
    scene.commit(5);
    await scene.sync();
    await scene.engine.stop(5000);
    const { seq } = scene.of("delta").at(-1)!;
    const before = await scene.restored(seq);
    scene.app.exec(`PRAGMA journal_mode = DELETE; PRAGMA page_size = ${pageSize}; VACUUM`);
    scene.connect();
    scene.start();
    await scene.sync();
    scene.commit(5);
    await scene.sync();
    const [{ reason }] = scene.of("new_lineage");
    assert.equal(reason, "the page size changed");
    assert.equal(scene.of("started")[1].seq, seq + 1n, "it goes on where the parent ended");
    assert.deepEqual(await scene.restored(seq), before, "points before stay restorable");
    assert.equal((await scene.lineages()).length, 2);
    const image = await scene.restored();
    assert.equal((image[16] << 8 | image[17]) || 65536, pageSize === 65536 ? 1 : pageSize);
    await scene.prove();
  }
});

test("[S79] DatabaseEngine: an old pointer that somebody put back is warned of with the seq we remember", {
  timeout,
}, async () => {
  const scene = new Scene();
  scene.start();
  await scene.sync();
  scene.commit();
  await scene.sync();
  await scene.engine.stop(5000);
  const { bytes: old } = await getBytes(scene.store, state, 4096);
  // Without its state the next process begins a lineage of its own.
  rmSync(scene.state, { recursive: true });
  scene.start();
  await scene.sync();
  for (let i = 0; i < 4; i++) {
    scene.commit();
    await scene.sync();
  }
  await scene.engine.stop(5000);
  const { lineage } = scene.of("started")[1];
  const { seq } = scene.of("stopped")[1];
  await scene.store.put(state, old);
  scene.commit();
  scene.start();
  await scene.sync();
  const { reason } = scene.of("new_lineage").at(-1)!;
  assert.match(reason, new RegExp(`not ${lineage}, which we published up to seq ${seq}$`));
  assert.equal((await scene.lineages()).length, 3, "nothing is written into a lineage that is not the active one");
  await scene.prove();
});

test("[S79] DatabaseEngine: an old pointer of the same lineage changes nothing", { timeout }, async () => {
  const scene = new Scene({ snapshotIntervalMs: 2000 });
  scene.start();
  await scene.sync();
  const { bytes: old } = await getBytes(scene.store, state, 4096);
  for (let i = 0; i < 8; i++) {
    scene.commit();
    await scene.sync();
  }
  await scene.engine.stop(5000);
  assert.ok(scene.of("snapshot").length >= 3);
  await scene.store.put(state, old);
  scene.start();
  scene.commit();
  await scene.sync();
  assert.equal((await scene.lineages()).length, 1);
  await scene.prove();
});

/** Seqs of the objects under the lineages, by the lineage. */
async function seqsIn(scene: Scene): Promise<{ lineage: string | null; seq: bigint; key: string }[]> {
  const found = [];
  for (const key of await scene.objects()) {
    const parsed = parseKey(root, key);
    if (parsed?.kind === "delta" || parsed?.kind === "snapshot") {
      found.push({ lineage: parsed.lineage, seq: parsed.seq, key });
    }
  }
  return found;
}

/** Runs until a second snapshot is complete, killed `after` operations later; false when all was done by then. */
async function killedAfterSnapshot(scene: Scene, after: number): Promise<boolean> {
  scene.start();
  const { life } = scene;
  let left = Infinity;
  life.onOperation = (name) => {
    if (name === "putStream answered" && scene.of("snapshot").length === 1) left = after;
    if (left-- === 0) life.crash();
  };
  try {
    for (let i = 0; i < 6; i++) {
      scene.commit(3);
      await scene.sync();
    }
  } catch (error) {
    if (!(error instanceof Crash) && life.alive) throw error;
  }
  return !life.alive;
}

test("[S122] DatabaseEngine: killed after a snapshot, the deltas before it swept, no seq is used again", {
  timeout,
}, async () => {
  let kills = 0;
  for (const bridge of ["kept", "swept"]) {
    for (let after = 0; after < 40; after++) {
      const scene = new Scene({ snapshotIntervalMs: 3000 });
      if (!await killedAfterSnapshot(scene, after)) break;
      kills++;
      const note = `killed ${after} operations after the snapshot, bridge ${bridge}`;
      const before = await seqsIn(scene);
      const head = before.reduce((max, { seq }) => seq > max ? seq : max, 0n);
      const snapshot = before.filter(({ key }) => key.includes("/0001/")).at(-1)!.seq;
      const swept = before.filter(({ seq, key }) =>
        key.includes("/0000/") && (bridge === "kept" ? seq < snapshot : seq <= snapshot)
      );
      await scene.store.deleteMany(swept.map(({ key }) => key));
      scene.start();
      for (let i = 0; i < 3; i++) {
        scene.commit(2);
        await scene.sync();
      }
      const old = new Set(before.map(({ key }) => key));
      const added = (await seqsIn(scene)).filter(({ key }) => !old.has(key));
      assert.ok(added.length >= 3, note);
      for (const { seq, key } of added) assert.ok(seq > head, `${note}: ${key} comes after seq ${head}`);
      await scene.prove().catch((error) => assert.fail(`${note}: ${error}`));
    }
  }
  assert.ok(kills > 20, `${kills} kills`);
});
