import assert from "node:assert/strict";
import { existsSync, linkSync, readFileSync, writeFileSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { DatabaseError } from "../../src/errors.ts";
import { LiveDatabase } from "../../src/replication/live_database.ts";
import { Scene, system } from "./engine_scene.ts";

const timeout = 30_000;
/** Where SQLite locks a database that is open: its shared bytes. */
const sharedFirst = "1073741826";

/** True when this process holds a lock on the shared bytes of the file. */
function holdsShared(path: string): boolean {
  const { inode } = system.files.stat(path)!;
  const mine = `${process.pid}`;
  return readFileSync("/proc/locks", "utf8").split("\n").some((line) => {
    const [, , , , pid, file, first] = line.trim().split(/\s+/);
    return pid === mine && file?.endsWith(`:${inode}`) && first === sharedFirst;
  });
}

test("openDatabaseFile: shared with an application it stays open, for closing it would drop the application's locks", {
  skip: existsSync("/proc/locks") ? false : "only Linux shows who holds locks",
}, () => {
  const scene = new Scene();
  scene.commit();
  assert.ok(holdsShared(scene.path), "the application's own connection");
  for (let i = 0; i < 3; i++) {
    LiveDatabase.open(scene.path, system.files, system.sqlite!, true).close();
    assert.ok(holdsShared(scene.path), "still there");
  }
  // Canary: this is what the lock rules are about.
  LiveDatabase.open(scene.path, system.files, system.sqlite!).close();
  assert.ok(!holdsShared(scene.path), "a descriptor that is closed takes them along");
});

test("LiveDatabase.open: refuses beside another copy of SQLite in the same process, and offers a process of its own", () => {
  const scene = new Scene();
  assert.deepEqual(system.sqlite!.otherCopies!(), []);
  const copies = ["/app/node_modules/better-sqlite3/build/Release/better_sqlite3.node"];
  const sqlite = { ...system.sqlite!, otherCopies: () => copies };
  assert.throws(() => LiveDatabase.open(scene.path, system.files, sqlite, true), (error) => {
    assert.ok(error instanceof DatabaseError && error.code === "second_sqlite" && error.exitCode === 3);
    assert.match(error.message, /better_sqlite3\.node/);
    assert.match(error.hint!, /walrust watch .*app\.db.* --with-parent/);
    return true;
  });
  scene.app.close();
});

test("DatabaseEngine: an application with the WAL-reset race is warned about once", { timeout }, async () => {
  for (const [version, warned] of [[3_040_001, ["3.40.1"]], [3_051_002, ["3.51.2"]], [3_051_003, []]] as const) {
    const scene = new Scene();
    scene.app.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    scene.app.close();
    const bytes = readFileSync(scene.path);
    bytes.writeUInt32BE(version, 96);
    writeFileSync(scene.path, bytes);
    scene.start();
    for (let i = 0; i < 4; i++) await scene.sync();
    scene.clock.skip(120_000);
    for (let i = 0; i < 4; i++) await scene.sync();
    assert.deepEqual(scene.of("old_sqlite").map((event) => event.version), warned);
    await scene.engine.stop(1000);
  }
});

test("[S41] DatabaseEngine: hard links and network file systems are warned about once", { timeout }, async () => {
  const scene = new Scene();
  linkSync(scene.path, `${scene.directory}/other.db`);
  const { placeOf } = system.files;
  scene.start(undefined, { placeOf: (path) => ({ ...placeOf!(path)!, network: "NFS" }) });
  for (let i = 0; i < 4; i++) await scene.sync();
  scene.clock.skip(120_000);
  for (let i = 0; i < 4; i++) await scene.sync();
  const [links, network, ...more] = scene.of("unsafe_place").map(({ reason }) => reason);
  assert.match(links, /2 names \(hard links\)/);
  assert.match(network, /network file system \(NFS\)/);
  assert.deepEqual(more, []);
  await scene.engine.stop(1000);

  const usual = new Scene();
  usual.start();
  await usual.sync();
  assert.deepEqual(usual.of("unsafe_place"), [], "canary");
  await usual.engine.stop(1000);
});
