/** compact beside a live engine: the engine goes on, resumes and adopts in what is left. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { rmSync } from "node:fs";
import { test } from "node:test";
import { WalrustError } from "../../src/errors.ts";
import { compact, type CompactReport } from "../../src/replication/compact.ts";
import { sha256 } from "../support/vectors.ts";
import { root, Scene } from "./engine_scene.ts";

const timeout = 60_000;
const dayMs = 86_400_000;

async function snapshot(scene: Scene): Promise<void> {
  const done = scene.engine.requestSnapshot();
  await scene.sync();
  await done;
}

/** Two runs: the first merges and marks, the second deletes. */
async function compactTwice(scene: Scene): Promise<CompactReport[]> {
  const tiers = { hourly: 0, daily: 0, weekly: 0, monthly: 0 };
  const options = { store: scene.store, root, runtime: { clock: scene.clock, sha256 }, tiers, force: true };
  const both = { ...options, merge: true, mergeFans: [3, 2], graceMs: 0 };
  return [await compact(both), await compact(both)];
}

/** Days of commits and snapshots; every point with its bytes. */
async function days(scene: Scene, count: number, points: Map<bigint, Uint8Array>): Promise<void> {
  for (let day = 0; day < count; day++) {
    for (let i = 0; i < 7; i++) {
      scene.commit(5);
      if (i === 3) scene.app.exec("DELETE FROM rows WHERE id % 3 = 0; VACUUM");
      await scene.sync();
    }
    await snapshot(scene);
    scene.clock.skip(dayMs);
  }
  for (const key of await scene.objects()) {
    const seq = BigInt(`0x${key.slice(-22, -6)}`);
    if (!points.has(seq) && !key.includes("/levels/")) points.set(seq, await scene.restored(seq));
  }
}

/** How many points restore; the others must be refused as given up. */
async function provePoints(scene: Scene, points: Map<bigint, Uint8Array>): Promise<number> {
  let restored = 0;
  for (const [seq, bytes] of points) {
    try {
      assert.equal(Buffer.compare(await scene.restored(seq), bytes), 0, `seq ${seq}`);
      restored++;
    } catch (error) {
      assert.ok(error instanceof WalrustError && error.exitCode === 6, `seq ${seq}: ${error}`);
    }
  }
  return restored;
}

test(
  "compact: beside a running engine, before a restart and before --adopt, nothing that stays is lost",
  { timeout },
  async () => {
    const scene = new Scene({ adopt: true });
    const points = new Map<bigint, Uint8Array>();
    scene.start();
    await scene.sync();
    await days(scene, 3, points);
    const [first, second] = await compactTwice(scene);
    assert.ok(first.merged.length > 0 && first.removable.objects > 5, "there was something to do");
    assert.ok(second.deleted.objects > 0);
    scene.commit(3);
    await scene.sync();
    await days(scene, 1, points);
    await compactTwice(scene);
    await scene.engine.stop(5000);
    const left = await provePoints(scene, points);
    assert.ok(left >= 3 && left < points.size, `${left} of ${points.size}`);

    scene.start();
    scene.commit(3);
    await scene.sync();
    assert.equal((await scene.lineages()).length, 1, "resumed");
    await scene.engine.stop(5000);
    rmSync(scene.state, { recursive: true });
    scene.events.length = 0;
    scene.start();
    scene.commit(3);
    await scene.sync();
    assert.equal(scene.of("adopted").length, 1);
    assert.deepEqual((await compactTwice(scene))[1].failed, []);
    assert.ok(await provePoints(scene, points) > 0);
    await scene.prove();
  },
);

test(
  "[S122] compact: after everything before the newest snapshot is gone, no seq is used again",
  { timeout },
  async () => {
    const scene = new Scene();
    scene.start();
    await scene.sync();
    const points = new Map<bigint, Uint8Array>();
    await days(scene, 3, points);
    scene.life.crash();
    await compactTwice(scene);
    const head = [...points.keys()].reduce((max, seq) => seq > max ? seq : max);
    const marked = new Map(
      await Promise.all(
        (await scene.objects()).map(async (key) => [key, (await scene.store.head(key))!.etag] as const),
      ),
    );
    scene.start();
    scene.commit(2);
    await scene.sync();
    const seqs = (await scene.objects()).filter((key) => !marked.has(key)).map((key) =>
      BigInt(`0x${key.slice(-22, -6)}`)
    );
    assert.ok(seqs.length > 0 && seqs.every((seq) => seq > head), `${seqs} after ${head}`);
    for (const [key, etag] of marked) assert.equal((await scene.store.head(key))?.etag, etag, key);
    await scene.prove();
  },
);
