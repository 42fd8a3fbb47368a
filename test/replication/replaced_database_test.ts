import assert from "node:assert/strict";
import { copyFileSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
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

test("[S32] DatabaseEngine: a file put in its place while it was down is compared whole, also beside the same WAL", {
  timeout: 60_000,
}, async () => {
  const scene = new Scene();
  scene.commit(200);
  scene.app.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  scene.start();
  await scene.sync();
  scene.app.exec("UPDATE rows SET data = randomblob(1000) WHERE id = 1");
  await scene.sync();
  await scene.engine.stop(5000);
  // Another file where a page differs that the WAL does not bring.
  const bytes = readFileSync(scene.path);
  bytes[bytes.length - 100] ^= 1;
  writeFileSync(`${scene.path}.new`, bytes);
  copyFileSync(`${scene.path}-wal`, `${scene.path}.wal`);
  scene.app.close();
  renameSync(`${scene.path}.new`, scene.path);
  renameSync(`${scene.path}.wal`, `${scene.path}-wal`);
  scene.connect();
  scene.events.length = 0;
  scene.start();
  await scene.sync();
  assert.equal(scene.of("database_replaced").length, 1);
  assert.equal((await scene.lineages()).length, 1, "the history goes on");
  await scene.prove();
});
