/** More databases than the system lets a process hold open, and how many files each of them takes. */
import assert from "node:assert/strict";
import { copyFileSync, readdirSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { skipReason } from "../support/need.ts";
import { walrustCommand } from "../support/runtime.ts";
import { openWithRows } from "./rows_table.ts";
import { inScene, type Scene, sleep, WatchProcess } from "./watch_process.ts";

const skip = process.platform === "linux" ? false : skipReason("/proc is of Linux");

/** Copies of a small database, `0.db`, `1.db` …; the first one is `app.db` itself. */
async function makeDatabases(scene: Scene, count: number): Promise<string[]> {
  await (await openWithRows(scene, 1)).quit();
  const paths = Array.from({ length: count }, (_, i) => i === 0 ? scene.db : scene.path(`${i}.db`));
  for (const path of paths.slice(1)) copyFileSync(scene.db, path);
  return paths;
}

function descriptors(watch: WatchProcess): number {
  return readdirSync(`/proc/${watch.child.pid}/fd`).length;
}

test("[S40] watch: 1,000 databases and 400 open files allowed: each that failed is told so, the others go on", {
  skip,
  timeout: 120_000,
}, () =>
  inScene(async (scene) => {
    const paths = await makeDatabases(scene, 1000);
    // Some runtimes raise the soft limit by themselves.
    const script = 'ulimit -n 400 && ulimit -Hn 400 && exec "$@"';
    const words = [...walrustCommand(), "watch", ...paths, "-b", scene.bucketUrl, "--json"];
    const watch = scene.start(new WatchProcess(["sh", "-c", script, "sh", ...words]));
    await watch.alive("every database started or failed", () =>
      watch.of("snapshot").length + watch.of("failed").length === paths.length);
    assert.ok(watch.of("failed").length > 0 && watch.of("snapshot").length > 10, `${watch.of("snapshot").length}`);
    const { code } = await watch.terminate();
    assert.equal(code, 3);
    const errors = watch.stderr.trim().split("\n").map((line) =>
      JSON.parse(line).error
    );
    assert.deepEqual(new Set(errors.map((error) => error.code)), new Set(["too_many_files"]));
    assert.match(errors[0].message, /^\/.* cannot be opened: this process has as many open files as it may$/);
    assert.match(errors[0].hint, /ulimit -n/);
  }));

test(
  "[S40] watch: a quiet database takes four open files, one in use at most sixteen more",
  { skip, timeout: 60_000 },
  () =>
    inScene(async (scene) => {
      const paths = await makeDatabases(scene, 42);
      const one = scene.watch();
      const others = scene.start(
        new WatchProcess([...walrustCommand(), "watch", ...paths.slice(1), "-b", scene.bucketUrl, "--json"]),
      );
      await one.event("snapshot");
      await others.alive("all started", () => others.of("snapshot").length === paths.length - 1);
      await others.alive("all quiet", () => descriptors(others) - descriptors(one) <= 40 * 4);
      const quiet = descriptors(one);
      const application = scene.application();
      let most = 0;
      // Until it was seen at work, and some rollovers longer.
      for (let i = 0; i < 60 || (most <= quiet && i < 600); i++) {
        await application.run("UPDATE t SET bytes = randomblob(3900)");
        await sleep(10);
        most = Math.max(most, descriptors(one));
      }
      assert.ok(most > quiet && most <= quiet + 16, `${quiet} when quiet, ${most} in use`);
      await application.quit();
      await one.stop();
      await others.stop();
    }),
);
