/** What watch refuses, with exit 3 and what to do about it; and how it ends. */
import assert from "node:assert/strict";
import { rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { prove } from "./proof.ts";
import { eagerFlags, inScene, type Running, type Scene } from "./watch_process.ts";

/** Runs watch to its end; it must refuse by itself. */
async function refused(scene: Scene, ...flags: string[]): Promise<Running> {
  const run = scene.start(await scene.walrust("watch", scene.db, "-b", scene.bucketUrl, ...eagerFlags, ...flags));
  assert.equal(run.ending?.code, 3, `${run.stdout}\n${run.stderr}`);
  assert.equal(scene.head(), 0n, "nothing is published");
  return run;
}

test("watch: a missing file is refused with exit 3 and --wait as a hint", () =>
  inScene(async (scene) => {
    const { stderr } = await refused(scene);
    assert.match(stderr, /app\.db/);
    assert.match(stderr, /--wait/);
  }));

test("watch: --wait waits for the file, then replicates it", () =>
  inScene(async (scene) => {
    const watch = scene.watch([...eagerFlags, "--wait"]);
    await watch.event("waiting");
    const application = scene.application();
    await application.run("PRAGMA journal_mode = WAL");
    await application.run("CREATE TABLE t(a)");
    await watch.event("started");
    await scene.headBeyond(watch, 0n);
    await application.quit();
    await watch.stop();
    await prove(scene, { logged: false });
  }));

test("watch: a database that is not in WAL mode is refused with exit 3 and the pragma", () =>
  inScene(async (scene) => {
    const application = scene.application();
    await application.run("CREATE TABLE t(a)");
    await application.quit();
    const { stderr } = await refused(scene);
    assert.match(stderr, /PRAGMA journal_mode ?= ?WAL/i);
  }));

test("watch: a file that is not SQLite is refused with exit 3", () =>
  inScene(async (scene) => {
    writeFileSync(scene.db, "this is certainly no database, ".repeat(100));
    const { stderr } = await refused(scene);
    assert.match(stderr, /SQLite/i);
  }));

test("[S30] watch: an application in EXCLUSIVE locking mode is named, exit 3", () =>
  inScene(async (scene) => {
    const application = scene.application();
    await application.run("PRAGMA locking_mode = EXCLUSIVE");
    await application.run("PRAGMA journal_mode = WAL");
    await application.run("CREATE TABLE t(a)");
    const { stderr } = await refused(scene);
    assert.match(stderr, /EXCLUSIVE/);
    await application.run("INSERT INTO t VALUES (1)");
    await application.quit();
  }));

test("[S64] watch: a second watch on the same database exits 3 and names the holder; the first goes on", () =>
  inScene(async (scene) => {
    const application = scene.application();
    await application.run("PRAGMA journal_mode = WAL");
    await application.run("CREATE TABLE t(a)");
    const first = scene.watch();
    await first.event("started");
    const second = await scene.walrust("watch", scene.db, "-b", `file://${scene.path("other")}`, ...eagerFlags);
    assert.equal(second.ending?.code, 3, second.stderr);
    assert.match(second.stderr, new RegExp(`\\b${first.child.pid}\\b`));
    await application.run("INSERT INTO t VALUES (1)");
    await application.quit();
    await first.stop();
    await prove(scene, { logged: false });
  }));

test("watch: one failing database does not stop the other; the exit code at the end says so", () =>
  inScene(async (scene) => {
    const application = scene.application();
    await application.run("PRAGMA journal_mode = WAL");
    await application.run("CREATE TABLE t(a)");
    const watch = scene.watch([...eagerFlags, scene.path("absent.db")]);
    await watch.event("started");
    await watch.event("failed");
    const before = await scene.headBeyond(watch, 0n);
    await application.run("INSERT INTO t VALUES (1)");
    await scene.headBeyond(watch, before);
    await application.quit();
    const { code } = await watch.terminate();
    assert.equal(code, 3, watch.stderr);
    await prove(scene, { logged: false });
  }));

test("watch: SIGTERM does a final sync, whatever the interval", () =>
  inScene(async (scene) => {
    const application = scene.application();
    await application.run("PRAGMA journal_mode = WAL");
    await application.run("CREATE TABLE t(a)");
    const watch = scene.watch(["--wal-sync-interval", "3600"]);
    await watch.event("started");
    await application.run("INSERT INTO t VALUES (zeroblob(20000))");
    await watch.stop();
    assert.equal(watch.of("stopped").length, 1);
    await application.quit();
    await prove(scene, { logged: false });
  }));

test("prove: canary, a commit after the watch ended makes latest differ", () =>
  inScene(async (scene) => {
    const application = scene.application();
    await application.run("PRAGMA journal_mode = WAL");
    await application.run("CREATE TABLE t(a)");
    const watch = scene.watch();
    await watch.event("started");
    await watch.stop();
    await application.run("INSERT INTO t VALUES (1)");
    await application.quit();
    await assert.rejects(prove(scene, { logged: false }), /pages differ/);
    rmSync(scene.path("head.db"), { force: true });
  }));
