/** A path that is a link, switched to another database while watch runs and while it does not. */
import assert from "node:assert/strict";
import { renameSync, symlinkSync } from "node:fs";
import { test } from "node:test";
import { prove } from "./proof.ts";
import { insertRows, openWithRows } from "./rows_table.ts";
import { inScene, type Scene } from "./watch_process.ts";

const flags = ["--wal-sync-interval", "0.1"];

/** Lets `app.db` lead to `name`, in one step as deployments do it. */
function leadTo(scene: Scene, name: string): void {
  symlinkSync(name, scene.path("next"));
  renameSync(scene.path("next"), scene.db);
}

test("[S32] watch: a switched link is noticed, and the history goes on in the same lineage", () =>
  inScene(async (scene) => {
    const one = await openWithRows(scene, 20, scene.path("v1.db"));
    const two = await openWithRows(scene, 30, scene.path("v2.db"));
    leadTo(scene, "v1.db");
    const watch = scene.watch(flags);
    await watch.event("snapshot");
    await one.run(insertRows(5));
    leadTo(scene, "v2.db");
    await watch.event("database_replaced");
    await two.run(insertRows(3));
    const head = scene.head();
    await two.run(insertRows(3));
    await scene.headBeyond(watch, head);
    // What the link no longer leads to is nothing to us.
    await one.run(insertRows(50));
    await Promise.all([one.quit(), two.quit()]);
    await watch.stop();
    assert.equal(watch.of("stopped").length, 1);
    assert.equal(watch.of("new_lineage").length, 0);
    await prove(scene, { logged: false });
  }));

test("[S32] watch: a link that was switched while it did not run is a replaced database, not a new lineage", () =>
  inScene(async (scene) => {
    await (await openWithRows(scene, 20, scene.path("v1.db"))).quit();
    await (await openWithRows(scene, 30, scene.path("v2.db"))).quit();
    leadTo(scene, "v1.db");
    const first = scene.watch(flags);
    await first.event("snapshot");
    await first.stop();
    leadTo(scene, "v2.db");
    const second = scene.watch([...flags, "--on-startup", "false"]);
    await second.event("database_replaced");
    await scene.headBeyond(second, 1n);
    await second.stop();
    assert.equal(second.of("new_lineage").length, 0);
    await prove(scene, { logged: false });
  }));

test("[S32] [S31] watch: a link switched to what cannot be replicated is trouble until it can", () =>
  inScene(async (scene) => {
    const one = await openWithRows(scene, 20, scene.path("v1.db"));
    const two = scene.application(scene.path("v2.db"));
    await two.run("CREATE TABLE t(id INTEGER PRIMARY KEY, bytes BLOB)");
    leadTo(scene, "v1.db");
    const watch = scene.watch(flags);
    await watch.event("snapshot");
    leadTo(scene, "v2.db");
    assert.equal((await watch.event("waiting")).trouble, true);
    await two.run("PRAGMA journal_mode = WAL");
    await two.run(insertRows(3));
    await watch.event("database_replaced");
    await Promise.all([one.quit(), two.quit()]);
    await watch.stop();
    await prove(scene, { logged: false });
  }));
