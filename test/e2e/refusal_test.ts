/** What watch refuses, with exit 3 and what to do about it; and how it ends. */
import assert from "node:assert/strict";
import { mkdirSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { prove } from "./proof.ts";
import { eagerFlags, inScene, type Running, type Scene, sleep } from "./watch_process.ts";

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

test("[S64] watch: another --state-dir is no way round the lock", () =>
  inScene(async (scene) => {
    const application = scene.application();
    await application.run("PRAGMA journal_mode = WAL");
    await application.run("CREATE TABLE t(a)");
    const first = scene.watch([...eagerFlags, "--state-dir", scene.path("one")]);
    const { lineage } = await first.event("started");
    const second = await scene.walrust("watch", scene.db, "-b", scene.bucketUrl, "--state-dir", scene.path("two"));
    assert.equal(second.ending?.code, 3, second.stderr);
    assert.match(second.stderr, new RegExp(`\\b${first.child.pid}\\b`));
    await first.event("snapshot");
    const flags = ["-b", scene.bucketUrl, "--state-dir", scene.path("two"), "--json"];
    const snapshot = await scene.walrust("snapshot", scene.db, ...flags);
    assert.equal(snapshot.ending?.code, 0, snapshot.stderr);
    await application.quit();
    await first.stop();
    assert.deepEqual(first.of("snapshot").map(({ seq }) => seq), ["1", JSON.parse(snapshot.stdout).seq]);
    assert.deepEqual(readdirSync(`${scene.bucket}/app/lineages`), [lineage], "never a second writer");
    await prove(scene, { logged: false });
  }));

test("watch: what is refused leaves nothing behind", () =>
  inScene(async (scene) => {
    writeFileSync(scene.path("notes.txt"), "no database");
    mkdirSync(scene.path("folder"));
    const application = scene.application();
    await application.run("CREATE TABLE t(a)");
    await application.quit();
    const before = readdirSync(scene.directory);
    const given = ["notes.txt", "folder", "app.db"];
    const run = await scene.walrust("watch", ...given.map((name) => scene.path(name)), "-b", scene.bucketUrl);
    assert.equal(run.ending?.code, 3, run.stderr);
    assert.match(run.stderr, /folder is not a file but a directory\nhint: /);
    assert.deepEqual(readdirSync(scene.directory), before);
  }));

test("watch: --wait also waits for an application that creates its tables before it switches to WAL", () =>
  inScene(async (scene) => {
    const watch = scene.watch([...eagerFlags, "--wait"]);
    await watch.event("waiting");
    const application = scene.application();
    await application.run("CREATE TABLE t(a)");
    await watch.alive("waits for WAL mode", () => watch.of("waiting").some(({ reason }) => /WAL/.test(String(reason))));
    await application.run("PRAGMA journal_mode = WAL");
    await application.run("INSERT INTO t VALUES (1)");
    await watch.event("snapshot");
    await application.quit();
    await watch.stop();
    await prove(scene, { logged: false });
  }));

test("[S31] watch: a database that left WAL mode or vanished is trouble, and the exit code says so at the stop", () =>
  inScene(async (scene) => {
    for (const [leave, reason] of [["DELETE", /WAL mode/], ["vanish", /does not exist/]] as const) {
      const application = scene.application();
      await application.run("PRAGMA busy_timeout = 100");
      await application.run("PRAGMA journal_mode = WAL");
      await application.run("CREATE TABLE IF NOT EXISTS t(a)");
      const watch = scene.watch(eagerFlags);
      await watch.event("snapshot");
      if (leave === "DELETE") {
        // Refused while it is held open; a quiet one is let go of after some seconds.
        const query = "PRAGMA journal_mode = DELETE";
        while ((await application.try(query)).rows[0]?.journal_mode !== "delete") await sleep(100);
      }
      await application.quit();
      if (leave === "vanish") { for (const end of ["", "-wal", "-shm"]) rmSync(scene.db + end, { force: true }); }
      assert.equal((await watch.event("waiting")).trouble, true);
      const said = watch.stderr.split("\n")[0];
      assert.match(JSON.parse(said).reason, reason);
      assert.equal(JSON.parse(said).level, "warning");
      const { code } = await watch.terminate();
      assert.equal(code, 3, watch.stderr);
      assert.equal(watch.of("failed").length, 1);
    }
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
