/** Databases of every shape that SQLite knows: each is replicated and restored byte for byte. */
import assert from "node:assert/strict";
import { closeSync, openSync, readSync, rmSync, statSync, writeFileSync, writeSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { Buffer } from "node:buffer";
import { test } from "node:test";
import { lockBytePage } from "../../src/format/sqlite_header.ts";
import { ImageFile } from "../../src/replication/apply.ts";
import { lookAtWal, takeImage } from "../../src/replication/pin_capture.ts";
import { readFrame } from "../../src/replication/image.ts";
import { LiveDatabase } from "../../src/replication/live_database.ts";
import { restore } from "../../src/replication/restore.ts";
import { extendDatabase, sparseFiles, sparseStore } from "../support/sparse.ts";
import { root, Scene, system } from "./engine_scene.ts";

const timeout = 60_000;
const maximal = 65536;

/** A scene whose database was made by `create`, which gets a connection to a file of no bytes. */
function sceneOf(create: (database: DatabaseSync, path: string) => void): Scene {
  const scene = new Scene({ minCheckpointPages: 10, checkpointIntervalMs: 1000, snapshotIntervalMs: 4000 });
  scene.app.close();
  for (const suffix of ["", "-wal", "-shm"]) rmSync(scene.path + suffix, { force: true });
  const database = new DatabaseSync(scene.path);
  create(database, scene.path);
  if (database.isOpen) database.close();
  scene.connect();
  scene.app.exec("CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, data BLOB)");
  return scene;
}

/** Rounds of commits, some of which shrink the database, then the proof. */
async function replicate(scene: Scene, write: (round: number) => string): Promise<void> {
  // By the wall clock the files are never old enough to be let go of: waking up ends in a difference.
  scene.clock.now = () => Date.now();
  scene.start();
  for (let round = 0; round < 6; round++) {
    scene.commit(20, 700);
    scene.app.exec(write(round));
    if (round === 3) scene.app.exec("DELETE FROM rows WHERE id % 3 > 0; VACUUM");
    await scene.sync();
  }
  assert.ok(scene.of("delta").length >= 4 && scene.of("rollover").length > 0 && scene.of("snapshot").length > 1);
  assert.equal(scene.of("difference").length, 0, "nothing had to be repaired");
  await scene.prove();
}

/** What a header says at an offset: proof that the shape is there. */
function headerByte(path: string, offset: number): number {
  const file = openSync(path, "r");
  const bytes = Buffer.alloc(100);
  readSync(file, bytes, 0, 100, 0);
  closeSync(file);
  return bytes[offset];
}

/** Sets aside bytes at the end of each page of a database of one empty page, as extensions that add a checksum do. */
function reserve(database: DatabaseSync, path: string, reserved: number): void {
  database.exec("PRAGMA page_size = 4096; CREATE TABLE t (a); DROP TABLE t; VACUUM");
  database.close();
  assert.equal(statSync(path).size, 4096);
  const file = openSync(path, "r+");
  writeSync(file, Uint8Array.of(reserved), 0, 1, 20);
  const end = Buffer.alloc(2);
  end.writeUInt16BE(4096 - reserved);
  writeSync(file, end, 0, 2, 105);
  closeSync(file);
}

for (const pageSize of [512, 1024, 2048, 8192, 16384, 32768, maximal]) {
  test(`[S90] DatabaseEngine: a page size of ${pageSize}`, { timeout }, async () => {
    const scene = sceneOf((database) => database.exec(`PRAGMA page_size = ${pageSize}`));
    await replicate(scene, (round) => `UPDATE rows SET data = randomblob(900) WHERE id % 5 = ${round % 5}`);
  });
}

test("[S90] DatabaseEngine: reserved bytes at the end of each page", { timeout }, async () => {
  const scene = sceneOf((database, path) => reserve(database, path, 32));
  await replicate(scene, () => "UPDATE rows SET data = randomblob(3000) WHERE id % 4 = 1");
  assert.equal(headerByte(scene.path, 20), 32);
});

for (const [mode, incremental] of [["FULL", 0], ["INCREMENTAL", 1]] as const) {
  test(`[S90] DatabaseEngine: auto_vacuum ${mode}`, { timeout }, async () => {
    const scene = sceneOf((database) => database.exec(`PRAGMA auto_vacuum = ${mode}; CREATE TABLE first (a)`));
    // Freed pages leave the file with the commit, or when they are asked to: the database shrinks without VACUUM.
    await replicate(scene, (round) => `DELETE FROM rows WHERE id % 2 = ${round % 2}; PRAGMA incremental_vacuum(20)`);
    assert.ok(headerByte(scene.path, 55) > 0, "the largest root page: auto_vacuum is on");
    assert.equal(headerByte(scene.path, 67), incremental);
  });
}

for (const encoding of ["UTF-16le", "UTF-16be"]) {
  test(`[S90] DatabaseEngine: ${encoding}`, { timeout }, async () => {
    const scene = sceneOf((database) => {
      database.exec(`PRAGMA encoding = '${encoding}'; CREATE TABLE words (word TEXT)`);
    });
    await replicate(scene, (round) => `INSERT INTO words VALUES ('naïve 日本 🦭 ${round}')`);
    assert.equal(headerByte(scene.path, 59), encoding === "UTF-16le" ? 2 : 3);
  });
}

const tables: Record<string, readonly [create: string, write: (round: number) => string]> = {
  "WITHOUT ROWID": [
    "CREATE TABLE t (k TEXT PRIMARY KEY, v BLOB) WITHOUT ROWID",
    (round) => `INSERT INTO t SELECT hex(randomblob(8)), randomblob(300) FROM rows LIMIT ${round + 5}`,
  ],
  FTS5: [
    "CREATE VIRTUAL TABLE t USING fts5(body)",
    (round) =>
      `INSERT INTO t SELECT hex(randomblob(90)) || ' word${round}' FROM rows LIMIT 20;
      DELETE FROM t WHERE rowid % 7 = ${round}; INSERT INTO t(t) VALUES ('optimize')`,
  ],
  "R-tree": [
    "CREATE VIRTUAL TABLE t USING rtree(id, left, right)",
    (round) => `INSERT INTO t SELECT id + ${round * 10_000}, id, id + 10 FROM rows; DELETE FROM t WHERE id % 3 = 0`,
  ],
  "generated columns, indexes and triggers": [
    `CREATE TABLE t (a INTEGER, b AS (a * 2) STORED, c AS (a + 1) VIRTUAL); CREATE INDEX i ON t (b, c);
     CREATE TRIGGER copy AFTER INSERT ON rows BEGIN INSERT INTO t (a) VALUES (new.id); END`,
    (round) => `UPDATE t SET a = a + ${round}; REINDEX i`,
  ],
};

for (const [shape, [create, write]] of Object.entries(tables)) {
  test(`[S90] DatabaseEngine: ${shape}`, { timeout }, async () => {
    const scene = sceneOf(() => undefined);
    scene.app.exec(create);
    await replicate(scene, write);
  });
}

test("[S90] DatabaseEngine: a database of no bytes is waited for; one not in WAL mode, or encrypted, is refused", {
  timeout,
}, async () => {
  const scene = new Scene({ waitForDatabase: true });
  scene.app.close();
  for (const suffix of ["-wal", "-shm"]) rmSync(scene.path + suffix, { force: true });
  writeFileSync(scene.path, "");
  scene.start();
  for (let i = 0; i < 3; i++) await scene.sync();
  assert.match(scene.of("waiting")[0].reason, /app\.db is empty: no application has created a table yet/);
  scene.connect();
  scene.app.exec("CREATE TABLE rows (id INTEGER PRIMARY KEY, data BLOB)");
  scene.commit();
  await scene.sync();
  await scene.prove();

  const plain = sceneOf(() => undefined);
  plain.app.exec("PRAGMA journal_mode = DELETE");
  plain.start();
  await assert.rejects(plain.engine.step(), (error: Error & { hint?: string; exitCode?: number }) => {
    assert.equal(error.exitCode, 3);
    assert.match(error.hint ?? "", /PRAGMA journal_mode=WAL/);
    return true;
  });

  const encrypted = new Scene();
  encrypted.app.close();
  writeFileSync(encrypted.path, system.random.bytes(8192));
  encrypted.start();
  await assert.rejects(encrypted.engine.step(), { code: "not_sqlite", exitCode: 3 });
});

/** An application that has nearly filled `pageCount` pages, most of them never written. */
function sparseScene(pageCount: number): Scene {
  const scene = sceneOf((database, path) => {
    database.exec(`PRAGMA page_size = ${maximal}; CREATE TABLE rows (id INTEGER PRIMARY KEY, data BLOB)`);
    database.close();
    extendDatabase(path, pageCount, maximal);
  });
  const [{ page_count }] = scene.app.prepare("PRAGMA page_count").all() as { page_count: number }[];
  assert.equal(page_count, pageCount);
  return scene;
}

/** Compares files of gigabytes. */
function assertSameFiles(a: string, b: string): void {
  assert.equal(statSync(a).size, statSync(b).size);
  const [one, other] = [openSync(a, "r"), openSync(b, "r")];
  const [left, right] = [Buffer.alloc(16 * 1024 * 1024), Buffer.alloc(16 * 1024 * 1024)];
  for (let at = 0, count = -1; count !== 0; at += count) {
    count = readSync(one, left, 0, left.length, at);
    assert.equal(readSync(other, right, 0, right.length, at), count);
    assert.ok(left.equals(right), `other bytes within 16 MiB of ${at}`);
  }
  closeSync(one);
  closeSync(other);
}

test(
  "[S90] DatabaseEngine: growth across 1 GiB leaves out the page that SQLite locks",
  { timeout: 300_000 },
  async () => {
    const lockPage = lockBytePage(maximal);
    const scene = sparseScene(lockPage - 4);
    const store = sparseStore();
    scene.start(() => store);
    await scene.sync();
    for (let i = 0; i < 4; i++) {
      scene.commit(3, 60_000);
      await scene.sync();
    }
    assert.equal(await scene.engine.stop(5000), null);
    assert.equal(scene.of("difference").length, 0, "the missing page is no reason to compare all of them");
    assert.ok(scene.of("delta").length >= 4);
    scene.app.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    scene.app.close();
    assert.ok(statSync(scene.path).size > lockPage * maximal, "it has grown beyond the lock page");
    const outputPath = `${scene.directory}/restored.db`;
    const runtime = { ...system, files: sparseFiles(system.files) };
    await restore({ store, root, target: { kind: "latest" }, outputPath, runtime, integrityCheck: "none" });
    assertSameFiles(outputPath, scene.path);
  },
);

test("[S90] takeImage, ImageFile: pages beyond 4 GiB, from the WAL, from the file and into a restored one", () => {
  const before = 2 ** 32 / maximal + 10;
  const scene = sparseScene(before);
  scene.commit(8, 60_000);
  const live = LiveDatabase.open(scene.path, system.files, system.sqlite!);
  const look = lookAtWal(live, null, Infinity);
  assert.equal(look.kind, "batch");
  const { batch } = look as Extract<typeof look, { kind: "batch" }>;
  const beyond = [...batch.pgnos].filter((pgno) => pgno > before);
  assert.ok(beyond.length >= 8 && batch.pageCount > before);
  const framed = new Uint8Array(maximal);
  const imaged = new Uint8Array(maximal);
  const same = (): void => {
    const taken = takeImage(live)!;
    for (const [i, pgno] of batch.pgnos.entries()) {
      readFrame(live, batch.sources[i], framed);
      taken.image.read(pgno, 1, imaged);
      assert.ok(Buffer.compare(framed, imaged) === 0, `page ${pgno}`);
    }
  };
  same();
  scene.app.exec("PRAGMA wal_checkpoint(PASSIVE)");
  assert.ok(statSync(scene.path).size > 2 ** 32);
  same();

  const outputPath = `${scene.directory}/restored.db`;
  const file = new ImageFile({ ...system, files: sparseFiles(system.files), outputPath });
  const { image } = takeImage(live)!;
  const pages = [1, 2, ...beyond];
  for (const pgno of pages) {
    image.read(pgno, 1, imaged);
    file.pages(pgno, imaged, maximal);
  }
  file.end({ header: { pageSize: maximal }, pageCount: image.pageCount } as Parameters<typeof file.end>[0]);
  file.finish();
  live.close();
  const restored = new DatabaseSync(file.path, { readOnly: true });
  const hashes = "SELECT group_concat(hex(substr(data, 30000, 8))) AS sum FROM rows";
  assert.deepEqual(restored.prepare(hashes).get(), scene.app.prepare(hashes).get());
  restored.close();
  scene.app.close();
});

test("replicate: canary, a page of zeros where the database has another is noticed", { timeout }, async () => {
  const scene = sceneOf(() => undefined);
  scene.start();
  await scene.sync();
  scene.commit(3);
  await scene.sync();
  await scene.engine.stop(5000);
  scene.app.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  scene.app.close();
  const copy = `${scene.directory}/copy.db`;
  writeFileSync(copy, await scene.restored());
  assertSameFiles(copy, scene.path);
  const file = openSync(copy, "r+");
  writeSync(file, new Uint8Array(100), 0, 100, 4096 + 3000);
  closeSync(file);
  assert.throws(() => assertSameFiles(copy, scene.path), /other bytes/);
});
