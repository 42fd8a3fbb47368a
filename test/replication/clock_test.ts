/** Clocks that lie: the machine's, and the one that stamps files. */
import assert from "node:assert/strict";
import { DatabaseSync } from "node:sqlite";
import { writeFileSync } from "node:fs";
import { test } from "node:test";
import type { Files, FileStat } from "../../src/runtime/types.ts";
import { restore } from "../../src/replication/restore.ts";
import { root, Scene, system } from "./engine_scene.ts";

const timeout = 60_000;
const hourMs = 3_600_000;
const tenYearsMs = 10 * 365 * 24 * hourMs;

/** The stat of files with other times of change. */
function stamped(stamp: (mtimeNs: bigint) => bigint): Partial<Files> {
  return {
    stat(path: string): FileStat | null {
      const stat = system.files.stat(path);
      return stat === null ? null : { ...stat, mtimeNs: stamp(stat.mtimeNs) };
    },
  };
}

/** Rows of a database image. */
function countRows(scene: Scene, image: Uint8Array): number {
  const path = `${scene.directory}/point.db`;
  writeFileSync(path, image);
  const point = new DatabaseSync(path, { readOnly: true });
  try {
    return Number((point.prepare("SELECT count(*) AS n FROM rows").get() as { n: number }).n);
  } finally {
    point.close();
  }
}

test(
  "[S68] DatabaseEngine: a wall clock put back an hour and forward ten years changes no order and stops no snapshot",
  {
    timeout,
  },
  async () => {
    const scene = new Scene({ snapshotIntervalMs: 60_000 });
    let offsetMs = 0;
    scene.clock.now = () => 1_800_000_000_000 + Math.floor(scene.clock.monotonic()) + offsetMs;
    scene.start();
    await scene.sync();
    const rows = new Map<bigint, number>([[1n, 20]]);
    const jumps = [0, -hourMs, 0, tenYearsMs, 0, -hourMs];
    for (const [round, jumpMs] of jumps.entries()) {
      offsetMs = jumpMs;
      // Also a process that begins with another clock than the last one had.
      if (round === 2 || round === 4) {
        await scene.engine.stop(5000);
        scene.start();
      }
      const snapshots = scene.of("snapshot").length;
      for (let i = 0; i < 3; i++) {
        scene.commit(1);
        await scene.sync();
        rows.set(scene.of("delta").at(-1)!.seq, 20 + rows.size);
      }
      scene.clock.skip(60_000);
      await scene.sync();
      const taken = scene.of("snapshot").length - snapshots;
      assert.ok(taken === 1 || taken === 2, `${taken} snapshots in round ${round}`);
    }
    const deltas = scene.of("delta");
    for (const [i, { seq, createdMs }] of deltas.entries()) {
      assert.ok(i === 0 || (seq > deltas[i - 1].seq && createdMs >= deltas[i - 1].createdMs), `seq ${seq}`);
    }
    assert.equal(
      new Set(deltas.slice(-6).map(({ createdMs }) => createdMs)).size,
      1,
      "clamped to the future it came from",
    );
    for (const [seq, count] of rows) assert.equal(countRows(scene, await scene.restored(seq)), count, `seq ${seq}`);
    // A time of the hour that came twice: the highest seq that was there by then.
    const target = { kind: "time", ms: deltas[5].createdMs } as const;
    const outputPath = `${scene.directory}/then.db`;
    offsetMs = 0;
    const runtime = { ...system, clock: scene.clock };
    const { seq } = await restore({
      store: scene.store,
      root,
      target,
      outputPath,
      runtime,
      integrityCheck: "quick",
    });
    const last = deltas.filter(({ createdMs }) => createdMs <= target.ms).at(-1)!.seq;
    assert.ok(seq >= last && seq < deltas[9].seq, `seq ${seq}, last delta ${last}`);
    await scene.prove();
  },
);

test("[S45] DatabaseEngine: with times of change that stand still, a full look a minute notices what no poll can", {
  timeout,
}, async () => {
  const scene = new Scene();
  scene.app.exec("PRAGMA wal_checkpoint(TRUNCATE); UPDATE rows SET data = randomblob(1000) WHERE id = 3");
  scene.start(undefined, stamped(() => 0n));
  for (let i = 0; i < 5; i++) await scene.sync();
  assert.equal(scene.life.openHandles, 1, "nothing but the page index is open");
  for (let round = 0; round < 3; round++) {
    // All of the log is in the file, so this overwrites its only frame: same files, same sizes, other times.
    scene.app.exec("PRAGMA wal_checkpoint(PASSIVE); UPDATE rows SET data = randomblob(1000) WHERE id = 3");
    const before = scene.of("difference").length;
    for (let i = 0; i < 10; i++) await scene.sync();
    assert.equal(scene.of("difference").length, before, "the times are all that a poll could see");
    scene.clock.skip(60_000);
    await scene.sync();
    assert.equal(scene.of("difference").length, before + 1, "the full look");
    for (let i = 0; i < 3; i++) await scene.sync();
  }
  await scene.prove();
});

test("[S45] DatabaseEngine: coarse times of change, and those of a file server whose clock is ahead, lose nothing", {
  timeout,
}, async () => {
  const second = 1_000_000_000n;
  const servers = [
    (ns: bigint): bigint => ns / (2n * second) * 2n * second,
    (ns: bigint): bigint => ns + BigInt(hourMs) * 1_000_000n,
    (ns: bigint): bigint => ns - BigInt(hourMs) * 1_000_000n,
  ];
  for (const [server, stamp] of servers.entries()) {
    const scene = new Scene();
    scene.clock.now = () => Date.now();
    scene.start(undefined, stamped(stamp));
    for (let i = 0; i < 20; i++) {
      if (i % 3 !== 2) scene.commit(1);
      await scene.sync();
      if (i % 5 === 4) scene.app.exec("PRAGMA wal_checkpoint(PASSIVE)");
    }
    scene.clock.skip(60_000);
    await scene.sync();
    await scene.prove().catch((error) => assert.fail(`server ${server}: ${error}`));
  }
});
