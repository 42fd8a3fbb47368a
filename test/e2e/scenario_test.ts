/** Checkpoints, closes, long readers and other things an application does beside watch, with real processes. */
import assert from "node:assert/strict";
import { existsSync, readFileSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { listKeys } from "./bucket.ts";
import { type Proof, prove } from "./proof.ts";
import { insertRows, openWithRows } from "./rows_table.ts";
import {
  type Application,
  eagerFlags,
  inScene,
  patienceMs,
  type Scene,
  sleep,
  until,
  type WatchProcess,
} from "./watch_process.ts";

const quietFlags = ["--wal-sync-interval", "0.1", "--on-startup", "false"];

/** Resolves when nothing new was published for several polls. */
async function settled(scene: Scene, watch: WatchProcess): Promise<bigint> {
  for (let head = await scene.headBeyond(watch, 0n);;) {
    await sleep(400);
    const now = scene.head();
    if (now === head) return head;
    head = now;
  }
}

async function endAndProve(scene: Scene, watch: WatchProcess, application?: Application): Promise<Proof> {
  await application?.quit();
  await watch.stop();
  return await prove(scene, { logged: false });
}

test("[S20] [S22] watch: RESTART and TRUNCATE by the application after every commit lose nothing", () =>
  inScene(async (scene) => {
    const application = await openWithRows(scene, 20);
    const watch = scene.watch();
    await watch.event("started");
    await application.run("PRAGMA busy_timeout = 0");
    for (let round = 0; round < 60; round++) {
      // The same rows each time: the WAL comes back to the same size with other salts.
      await application.run("UPDATE t SET bytes = randomblob(3900) WHERE id <= 10");
      await application.run(`PRAGMA wal_checkpoint(${round % 2 === 0 ? "RESTART" : "TRUNCATE"})`);
      if (round % 7 === 0) await sleep(130);
    }
    await endAndProve(scene, watch, application);
  }));

test("[S21] watch: RESTART and no write after ships nothing twice, also after a restart of watch", () =>
  inScene(async (scene) => {
    const application = await openWithRows(scene, 20);
    const watch = scene.watch(quietFlags);
    const head = await settled(scene, watch);
    await application.run("PRAGMA busy_timeout = 0");
    await application.run("PRAGMA wal_checkpoint(RESTART)");
    await sleep(500);
    assert.equal(scene.head(), head);
    await watch.stop();
    await application.run("PRAGMA wal_checkpoint(TRUNCATE)");
    const again = scene.watch(quietFlags);
    await again.event("started");
    await sleep(500);
    assert.equal(scene.head(), head);
    await endAndProve(scene, again, application);
  }));

test("[S23] watch: the last close of the application leaves the WAL to us; the next one goes on", () =>
  inScene(async (scene) => {
    const application = await openWithRows(scene, 20);
    const watch = scene.watch(quietFlags);
    await settled(scene, watch);
    for (let round = 0; round < 5; round++) {
      const next = round === 0 ? application : scene.application();
      await next.run(insertRows(5));
      await next.quit();
      assert.ok(existsSync(`${scene.db}-wal`), "the pin keeps the WAL");
    }
    await endAndProve(scene, watch);
  }));

test("[S25] watch: a checkpoint while we were down is answered by a small difference in the same lineage", () =>
  inScene(async (scene) => {
    const application = await openWithRows(scene, 2000);
    const watch = scene.watch(quietFlags);
    const head = await settled(scene, watch);
    await watch.stop();
    await application.run("UPDATE t SET bytes = randomblob(3900) WHERE id % 500 = 0");
    const [{ busy }] = await application.run("PRAGMA wal_checkpoint(TRUNCATE)");
    assert.equal(busy, 0);
    const again = scene.watch(quietFlags);
    await scene.headBeyond(again, head);
    const { lineage } = await endAndProve(scene, again, application);
    const difference = lineage.points.find(({ seq }) => seq === head + 1n)!;
    assert.ok(difference.kind === "delta" && difference.pages <= 10, JSON.stringify(difference.pages));
  }));

test("[S26] watch: a foreign long reader stops no delta, and rollovers come back after it", () =>
  inScene(async (scene) => {
    const application = await openWithRows(scene, 20);
    const reader = scene.application();
    await reader.run("BEGIN");
    await reader.run("SELECT count(*) FROM t");
    const watch = scene.watch([...eagerFlags, "--wal-truncate-threshold", "100"]);
    await watch.event("started");
    const cpuBefore = cpuSeconds(watch.child.pid!);
    for (let round = 0; round < 30; round++) {
      const head = scene.head();
      await application.run(insertRows(40));
      if (round % 10 === 0) await scene.headBeyond(watch, head);
    }
    await sleep(1500);
    // A hot loop would take a whole core; polls and the rest take a fraction of it.
    if (cpuBefore !== null) assert.ok(cpuSeconds(watch.child.pid!)! - cpuBefore < 1.5, "a hot loop");
    const { readers } = await watch.event("wal_size_exceeded");
    if (process.platform === "linux") assert.match(String(readers), new RegExp(`\\(pid ${reader.child.pid}\\)`));
    await reader.run("COMMIT");
    const before = watch.of("rollover").length;
    // Going on: a quiet database would be let go instead, and its WAL left to the application.
    for (const endMs = Date.now() + patienceMs; watch.of("rollover").length === before;) {
      assert.ok(Date.now() < endMs, "no rollover after the reader has gone");
      await application.run(insertRows(20));
      await sleep(50);
    }
    await reader.quit();
    await endAndProve(scene, watch, application);
  }));

/** Processor time a process has used, or null where /proc does not tell. */
function cpuSeconds(pid: number): number | null {
  if (!existsSync(`/proc/${pid}/stat`)) return null;
  const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1].split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100;
}

test("[S27] watch: an application that holds the write lock for long delays rollovers only", () =>
  inScene(async (scene) => {
    const application = await openWithRows(scene, 1500);
    const watch = scene.watch();
    await watch.event("started");
    await application.run("BEGIN IMMEDIATE");
    await application.run(insertRows(300));
    await sleep(1500);
    await application.run("COMMIT");
    await application.run(insertRows(10));
    await settled(scene, watch);
    await endAndProve(scene, watch, application);
  }));

test("[S31] watch: journal_mode switched to DELETE and back; latest is the source again", () =>
  inScene(async (scene) => {
    const application = await openWithRows(scene, 20);
    const watch = scene.watch(quietFlags);
    await settled(scene, watch);
    // While we hold a connection SQLite refuses the switch; an idle database is let go after some seconds.
    const switched = async (mode: string): Promise<boolean> => {
      const { rows, error } = await application.try(`PRAGMA journal_mode = ${mode}`);
      return error === null && rows[0]?.journal_mode === mode.toLowerCase();
    };
    await application.run("PRAGMA busy_timeout = 0");
    let isDone = false;
    for (let attempt = 0; attempt < 100 && !isDone; attempt++) {
      isDone = await switched("DELETE");
      if (!isDone) await sleep(100);
    }
    assert.ok(isDone, "an idle database is not held open");
    await application.run(insertRows(5));
    await sleep(500);
    await application.run("PRAGMA busy_timeout = 5000");
    assert.ok(await switched("WAL"));
    await application.run(insertRows(5));
    const wasRefused = await Promise.race([watch.ended.then(() => true), sleep(1000).then(() => false)]);
    if (wasRefused) {
      assert.equal(watch.ending?.code, 3, watch.stderr);
      assert.match(watch.stderr + watch.stdout, /WAL/);
      const again = scene.watch(quietFlags);
      await again.event("started");
      return void await endAndProve(scene, again, application);
    }
    await endAndProve(scene, watch, application);
  }));

test("[S33] watch: VACUUM in place becomes one delta and is restored byte for byte", () =>
  inScene(async (scene) => {
    const application = await openWithRows(scene, 600);
    const watch = scene.watch(quietFlags);
    await settled(scene, watch);
    await application.run("DELETE FROM t WHERE id % 3 <> 0");
    const before = await settled(scene, watch);
    await application.run("VACUUM");
    await scene.headBeyond(watch, before);
    const head = await settled(scene, watch);
    assert.equal(head, before + 1n, "one delta");
    const { lineage } = await endAndProve(scene, watch, application);
    const [previous, vacuum] = lineage.points.filter(({ seq }) => seq === before || seq === head);
    assert.ok(vacuum.pageCount < previous.pageCount / 2, `${previous.pageCount} → ${vacuum.pageCount} pages`);
  }));

test("[S35] watch: many short-lived writers, each closing last, lose nothing", () =>
  inScene(async (scene) => {
    await (await openWithRows(scene, 20)).quit();
    const watch = scene.watch(["--wal-sync-interval", "0.3"]);
    await watch.event("started");
    for (let round = 0; round < 20; round++) {
      const application = scene.application();
      await application.run(insertRows(1 + round % 4));
      await application.quit();
      if (round % 6 === 5) await sleep(400);
    }
    await endAndProve(scene, watch);
  }));

test("[S36] [S121] watch: an idle database publishes nothing; a writer between two polls is noticed", () =>
  inScene(async (scene) => {
    await (await openWithRows(scene, 20)).quit();
    const watch = scene.watch(["--wal-sync-interval", "0.5"]);
    const head = await settled(scene, watch);
    // Beyond two quiet seconds the database is let go: no WAL is left beside it.
    await until("the idle database is let go", () => !existsSync(`${scene.db}-wal`), 8000).catch(() => {});
    const before = listKeys(scene.bucket);
    await sleep(3000);
    assert.deepEqual(listKeys(scene.bucket), before, "idle");
    for (let round = 0; round < 3; round++) {
      const seen = scene.head();
      const application = scene.application();
      await application.run(insertRows(1));
      await application.quit();
      await scene.headBeyond(watch, seen);
      if (round === 1) await sleep(2500);
    }
    assert.ok(scene.head() > head);
    await endAndProve(scene, watch);
  }));

test("[S118] watch: the first commits after rollovers restart the WAL while snapshots read; every snapshot is its seq", () =>
  inScene(async (scene) => {
    const application = await openWithRows(scene, 800);
    const watch = scene.watch([
      ...["--wal-sync-interval", "0.1", "--checkpoint-interval", "0.1", "--min-checkpoint-pages", "1"],
      ...["--snapshot-interval", "1"],
    ]);
    await watch.event("started");
    for (const endMs = Date.now() + 5000; Date.now() < endMs;) {
      await application.run("UPDATE t SET bytes = randomblob(3900) WHERE id IN (1, 400, 800)");
      await sleep(15);
    }
    // Snapshots are compared page for page with the replayed image of their seq.
    const { lineage } = await endAndProve(scene, watch, application);
    const kinds = JSON.stringify(watch.events.filter(({ kind }) => kind !== "delta" && kind !== "rollover"));
    assert.ok(lineage.snapshots.length >= 3, `${lineage.snapshots.length} snapshots: ${kinds}`);
    assert.ok(watch.of("rollover").length >= 2, `rollovers: ${kinds}`);
  }));
