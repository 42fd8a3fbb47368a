/** The undo command that `restore --force` prints: the old database comes back whole, the restored one is kept. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { vectorsDirectory } from "../support/vectors.ts";
import { inScene, Running, type Scene } from "./watch_process.ts";

const golden = `file://${vectorsDirectory}/owned-lineage/bucket/backups`;

const sidecars = ["-wal", "-shm", "-journal"];

/** Restores over what is there; returns the undo command. */
async function restoreOver(scene: Scene, output: string): Promise<string> {
  const run = await scene.walrust("restore", "app", "-o", output, "-b", golden, "--force", "--json");
  assert.equal(run.ending?.code, 0, run.stderr);
  const { undo } = JSON.parse(run.stdout);
  assert.ok(typeof undo === "string" && !undo.includes("\n"), String(undo));
  return undo;
}

/** Runs a command line in another directory than that of the restore. */
async function shell(scene: Scene, command: string): Promise<Running> {
  const run = scene.start(new Running(["sh", "-c", `cd / && ${command}`]));
  await run.ended;
  return run;
}

/** Content of a database and its sidecars by suffix; -shm is only an index of -wal. */
function contents(path: string): Record<string, Uint8Array> {
  const found = ["", "-wal", "-journal"].filter((suffix) => existsSync(path + suffix));
  return Object.fromEntries(found.map((suffix) => [suffix, new Uint8Array(readFileSync(path + suffix))]));
}

/** Leaves a database with one committed table behind, killed with an open write: as -wal or as a hot -journal. */
async function killedDatabase(scene: Scene, path: string, mode: "WAL" | "DELETE"): Promise<void> {
  const application = scene.application(path);
  await application.run(`PRAGMA journal_mode = ${mode}`);
  await application.run("CREATE TABLE mine(a); INSERT INTO mine VALUES (randomblob(50000)), (zeroblob(50000))");
  await writeAndKill(scene, path, "UPDATE mine SET a = zeroblob(50000); INSERT INTO mine VALUES (zeroblob(50000))");
  await application.kill();
}

/** A transaction larger than its cache, so that the file itself changes, and SIGKILL before the end. */
async function writeAndKill(scene: Scene, path: string, sql: string): Promise<void> {
  const writer = scene.application(path);
  await writer.run("PRAGMA cache_size = 1");
  await writer.run("CREATE TABLE IF NOT EXISTS kept(a); INSERT INTO kept VALUES (zeroblob(30000))");
  await writer.run(`BEGIN; ${sql}`);
  await writer.kill();
}

async function rows(scene: Scene, path: string, sql: string): Promise<Record<string, unknown>[]> {
  const application = scene.application(path);
  const found = await application.run(sql);
  await application.quit();
  return found;
}

for (const mode of ["WAL", "DELETE"] as const) {
  test(`[S91] restore --force: undo with an old ${mode === "WAL" ? "-wal" : "hot -journal"} and a killed writer since`, () =>
    inScene(async (scene) => {
      const folder = scene.path("it's a folder");
      mkdirSync(folder);
      const output = join(folder, "out.db");
      await killedDatabase(scene, output, mode);
      const before = contents(output);
      assert.ok(before[mode === "WAL" ? "-wal" : "-journal"]?.length > 0, "canary: the old database has its sidecar");

      const undo = await restoreOver(scene, output);
      assert.ok(sidecars.every((suffix) => !existsSync(output + suffix)), "the restored database stands alone");
      const [{ restored }] = await rows(scene, output, "SELECT count(*) AS restored FROM sqlite_schema");
      await writeAndKill(scene, output, "INSERT INTO kept VALUES (zeroblob(30000))");
      assert.ok(existsSync(`${output}-wal`), "canary: the restored database has got a sidecar");
      const since = contents(output);

      const backup = join(folder, readdirSync(folder).find((name) => /\.bak-[0-9a-f]{8}$/.test(name))!);
      const kept = backup.replace(".bak-", ".restored-");
      writeFileSync(kept, "mine");
      assert.notEqual((await shell(scene, undo)).ending?.code, 0, "a name that is taken is not replaced");
      rmSync(kept);
      renameSync(backup, `${backup}.away`);
      assert.notEqual((await shell(scene, undo)).ending?.code, 0, "without the old database nothing is moved");
      renameSync(`${backup}.away`, backup);
      assert.deepEqual(contents(output), since);

      const run = await shell(scene, undo);
      assert.equal(run.ending?.code, 0, run.stderr);
      assert.deepEqual(contents(output), before);
      assert.ok(run.stdout.includes(`is now ${kept}\n`), run.stdout);
      assert.deepEqual(contents(kept), since, "what was restored, and written since, is kept");
      assert.deepEqual(await rows(scene, output, "PRAGMA integrity_check"), [{ integrity_check: "ok" }]);
      assert.deepEqual(await rows(scene, output, "SELECT count(*) AS n FROM mine"), [{ n: 2 }]);
      assert.deepEqual(await rows(scene, kept, "PRAGMA integrity_check"), [{ integrity_check: "ok" }]);
      const [{ after }] = await rows(scene, kept, "SELECT count(*) AS after FROM sqlite_schema");
      assert.equal(after, Number(restored) + 1);

      const names = readdirSync(folder);
      const again = await shell(scene, undo);
      assert.notEqual(again.ending?.code, 0, "a second time it refuses");
      assert.deepEqual(readdirSync(folder), names);
    }));
}

test("[S91] restore --force: an old sidecar without its database does not come back", () =>
  inScene(async (scene) => {
    const output = scene.path("out.db");
    await killedDatabase(scene, scene.path("other.db"), "DELETE");
    const journal = readFileSync(scene.path("other.db-journal"));
    writeFileSync(`${output}-journal`, journal);
    const undo = await restoreOver(scene, output);
    const restored = contents(output);
    const run = await shell(scene, undo);
    assert.equal(run.ending?.code, 0, run.stderr);
    assert.deepEqual(contents(output), {});
    assert.deepEqual(contents(/is now (.*)\n/.exec(run.stdout)![1]), restored);
    const aside = readdirSync(scene.directory).filter((name) => name.includes(".bak-"));
    assert.equal(aside.length, 1);
    assert.ok(readFileSync(scene.path(aside[0])).equals(journal));
  }));
