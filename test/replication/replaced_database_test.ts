import assert from "node:assert/strict";
import { rmSync } from "node:fs";
import { test } from "node:test";
import { Scene } from "./engine_scene.ts";

test("[S32] DatabaseEngine: a database deleted and made anew is waited for, then all of it is compared", {
  timeout: 60_000,
}, async () => {
  for (const idle of [false, true]) {
    const scene = new Scene();
    scene.start();
    for (let i = 0; i < (idle ? 5 : 1); i++) await scene.sync();
    scene.app.close();
    for (const suffix of ["", "-wal", "-shm"]) rmSync(scene.path + suffix, { force: true });
    for (let i = 0; i < 3; i++) {
      scene.clock.skip(1000);
      await scene.engine.step();
    }
    assert.deepEqual(scene.of("waiting").map(({ trouble }) => trouble), [true], "said once, as trouble");
    scene.connect();
    scene.app.exec("CREATE TABLE rows (id INTEGER PRIMARY KEY, data BLOB)");
    scene.commit(7);
    await scene.sync();
    // A file made anew may have the inode of the one before: then its other WAL tells.
    if (!idle) assert.equal(scene.of("database_replaced").length, 1, "said so");
    assert.equal(scene.of("difference").length, 1);
    assert.equal((await scene.lineages()).length, 1, "the history goes on");
    await scene.prove();
  }
});
