/** The main job: watch beside a busy application, restore any point, byte for byte. */
import assert from "node:assert/strict";
import { closeSync, openSync, readSync, statSync } from "node:fs";
import { test } from "node:test";
import { need } from "../support/need.ts";
import { checkPointInTime, fileHash, pointAt } from "./checker.ts";
import { prove } from "./proof.ts";
import { eagerFlags, inScene, sleep, type WatchLine, type WatchProcess } from "./watch_process.ts";

/** Salt-1 of the WAL, or null; opening and closing the WAL file harms no lock. */
function salt(db: string): number | null {
  const bytes = Buffer.alloc(32);
  try {
    const file = openSync(`${db}-wal`, "r");
    const count = readSync(file, bytes, 0, 32, 0);
    closeSync(file);
    return count === 32 ? bytes.readUInt32BE(16) : null;
  } catch {
    return null;
  }
}

/** Watches the WAL file for `seconds`: how often it was restarted, as far as samples show, and its largest size. */
async function observeWal(db: string, seconds: number): Promise<{ restarts: number; largestBytes: number }> {
  let restarts = 0;
  let largestBytes = 0;
  let last = salt(db);
  for (const endMs = Date.now() + seconds * 1000; Date.now() < endMs;) {
    await sleep(20);
    const now = salt(db);
    if (now !== null && now !== last) restarts++;
    last = now ?? last;
    largestBytes = Math.max(largestBytes, statSync(`${db}-wal`, { throwIfNoEntry: false })?.size ?? 0);
  }
  return { restarts, largestBytes };
}

function rollovers(watch: WatchProcess, barrier: boolean): WatchLine[] {
  return watch.of("rollover").filter((event) => event.barrier === barrier);
}

/** Times strictly between the first and the last point, none of them a point's own. */
function randomTimes(created: readonly number[], count: number): number[] {
  const taken = new Set(created);
  const times: number[] = [];
  const [first, last] = [created[0], created[created.length - 1]];
  while (times.length < count) {
    const time = first + 1 + Math.floor(Math.random() * (last - first - 1));
    if (!taken.has(time)) times.push(time);
  }
  return times;
}

test("watch, restore: 20 s of a flat-out writer; latest byte for byte, ten random times are exact prefixes", {
  timeout: 120_000,
}, () =>
  inScene(async (scene) => {
    // The pauses give rollovers without a barrier their chance; between them the WAL outgrows the barrier threshold.
    const writer = scene.writer("runtime", ["--pause-every", "30000", "--pause-ms", "700"]);
    await writer.started();
    const watch = scene.watch();
    await watch.event("started");
    const wal = await observeWal(scene.db, 20);
    const summary = await writer.finish();
    await watch.stop();
    const facts = JSON.stringify({
      summary,
      wal,
      with: rollovers(watch, true).length,
      kinds: kindsOf(watch),
      differences: watch.of("difference"),
    });
    assert.equal(summary.busy, 0, facts);
    assert.ok(summary.vacuums > 0, facts);
    assert.ok(wal.restarts >= 5, facts);
    assert.ok(wal.largestBytes < 2 ** 30, facts);
    assert.ok(rollovers(watch, true).length >= 5 && rollovers(watch, false).length >= 3, facts);

    const { lineage, log, hashes } = await prove(scene, { logged: true });
    assert.ok(lineage.snapshots.length >= 2, `${lineage.snapshots.length} snapshots; ${facts}`);
    for (const time of randomTimes(lineage.points.map(({ createdMs }) => createdMs), 10)) {
      const iso = new Date(time).toISOString();
      const restored = await scene.restore("then.db", "--point-in-time", iso);
      const { chosen } = pointAt(lineage.points, time);
      assert.equal(fileHash(restored), hashes.get(chosen.seq), `${iso} is seq ${chosen.seq}`);
      checkPointInTime(restored, log!, lineage.points, time);
    }
  }));

function kindsOf(watch: WatchProcess): Record<string, number> {
  const kinds: Record<string, number> = {};
  for (const { kind } of watch.events) kinds[kind] = (kinds[kind] ?? 0) + 1;
  return kinds;
}

test("watch: Python's sqlite3 with its defaults, flat out, sees no error and is restored byte for byte", {
  skip: need("python3"),
  timeout: 60_000,
}, () =>
  inScene(async (scene) => {
    const writer = scene.writer("python");
    await writer.started();
    const watch = scene.watch();
    await watch.event("started");
    await sleep(4000);
    const summary = await writer.finish();
    await watch.stop();
    assert.equal(summary.busy, 0);
    await prove(scene, { logged: true, samples: 20 });
  }));

test(
  "watch: the sqlite3 command as writer is restored byte for byte",
  { skip: need("sqlite3"), timeout: 60_000 },
  () =>
    inScene(async (scene) => {
      const writer = scene.writer("sqlite3", ["--cycle", "1000", "--bulk", "400"]);
      await writer.started();
      const watch = scene.watch();
      await watch.event("started");
      await sleep(3000);
      await writer.finish();
      await watch.stop();
      await prove(scene, { logged: true, samples: 20 });
    }),
);

test("[S115] watch: an application without busy_timeout sees SQLITE_BUSY at most while a barrier stands", {
  skip: need("python3"),
  timeout: 60_000,
}, () =>
  inScene(async (scene) => {
    const writer = scene.writer("python", ["--busy-timeout", "0"]);
    await writer.started();
    const watch = scene.watch();
    await watch.event("started");
    await sleep(4000);
    await writer.finish();
    await watch.stop();
    const { log } = await prove(scene, { logged: true, samples: 20 });
    // The event is printed when the barrier has fallen; its own clock and the writer's are the same machine's.
    const held = [...rollovers(watch, true), ...watch.of("barrier_in_vain")];
    assert.ok(held.length > 0, "a barrier stood");
    const barriers = held.map(({ time, heldMs }) => [time - Number(heldMs) - 10, time + 2]);
    const outside = log!.busy.filter(({ ms }) => !barriers.some(([from, to]) => ms >= from && ms <= to));
    // SQLite lets any reader take the write lock for microseconds when it meets the wal-index header half written: a plain
    // reading loop beside a flat-out writer without busy_timeout gives it some SQLITE_BUSY in a million commits too.
    assert.ok(outside.length <= 3, `${JSON.stringify(outside)}, outside every barrier of ${JSON.stringify(barriers)}`);
  }));

test("[S28] [S115] watch: an application without busy_timeout that pauses sees no SQLITE_BUSY at all", {
  timeout: 60_000,
}, () =>
  inScene(async (scene) => {
    const writer = scene.writer("runtime", ["--busy-timeout", "0", "--pause-every", "1000", "--pause-ms", "300"]);
    await writer.started();
    // Between two pauses the WAL stays below the barrier's threshold, so every rollover finds one.
    const watch = scene.watch([...eagerFlags, "--min-checkpoint-pages", "500"]);
    await watch.event("started");
    await sleep(4000);
    const summary = await writer.finish();
    await watch.stop();
    assert.equal(summary.busy, 0, JSON.stringify(watch.of("rollover")));
    assert.ok(rollovers(watch, false).length > 0, "no rollover happened");
    await prove(scene, { logged: true, samples: 20 });
  }));
