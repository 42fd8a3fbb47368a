import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { DatabaseError } from "../../src/errors.ts";
import { systemRuntime } from "../../src/runtime/system.ts";
import { systemSqlite } from "../../src/runtime/system_sqlite.ts";
import type { Sqlite } from "../../src/runtime/types.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";

const directory = temporaryDirectory("sqlite");
const sqlite = systemSqlite() as Sqlite;
let files = 0;

/** A WAL database with one table and a writer that never checkpoints by itself. */
function makeDatabase(): { path: string; writer: DatabaseSync } {
  const path = `${directory}/${++files}.db`;
  const writer = new DatabaseSync(path);
  writer.exec("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; PRAGMA busy_timeout = 0; CREATE TABLE t (x)");
  return { path, writer };
}

test("systemSqlite: is at least 3.51, which the gauge needs", () => {
  const [major, minor] = sqlite.version;
  assert.ok(major === 3 && minor >= 51, sqlite.version.join("."));
});

test("systemRuntime: sqlite false behaves as a runtime without SQLite", () => {
  assert.equal(systemRuntime({ sqlite: false }).sqlite, null);
  assert.notEqual(systemRuntime().sqlite, null);
});

test("SqliteConnection.journalMode: tells WAL from the others", () => {
  const { path, writer } = makeDatabase();
  const connection = sqlite.open(path, { readOnly: true });
  assert.equal(connection.journalMode(), "wal");
  connection.close();
  connection.close();
  writer.close();
  const plain = `${directory}/plain.db`;
  new DatabaseSync(plain).exec("CREATE TABLE t (x)");
  const other = sqlite.open(plain, { readOnly: true });
  assert.equal(other.journalMode(), "delete");
  assert.equal(other.gauge().log, -1);
  other.close();
});

test("SqliteConnection.gauge: counts committed frames only and checkpoints nothing", () => {
  const { path, writer } = makeDatabase();
  const gauge = sqlite.open(path, { readOnly: true });
  const before = gauge.gauge();
  assert.equal(before.busy, false);
  writer.exec("BEGIN; INSERT INTO t VALUES (1)");
  assert.deepEqual(gauge.gauge(), before);
  writer.exec("COMMIT");
  const after = gauge.gauge();
  assert.equal(after.log, before.log + 1);
  assert.equal(after.checkpointed, 0);
  gauge.close();
  writer.close();
});

function checkPin(sqlite: Sqlite): void {
  const { path, writer } = makeDatabase();
  const pin = sqlite.open(path, { readOnly: true });
  pin.beginRead();
  writer.exec("INSERT INTO t VALUES (1)");
  const gauge = sqlite.open(path, { readOnly: false });
  const partial = gauge.checkpointPassive();
  assert.ok(partial.checkpointed < partial.log, "frames after the pin were checkpointed");
  pin.rollback();
  pin.rollback();
  const whole = gauge.checkpointPassive();
  assert.deepEqual(whole, { busy: false, log: partial.log, checkpointed: partial.log });
  gauge.close();
  pin.close();
  writer.close();
}

test("SqliteConnection.beginRead: the pin keeps the WAL from being restarted, until rolled back", () => {
  checkPin(sqlite);
});

test("canary: a connection that pins nothing is found out", () => {
  const loose: Sqlite = {
    version: sqlite.version,
    open(path, options) {
      const connection = sqlite.open(path, options);
      connection.beginRead = () => {};
      return connection;
    },
  };
  assert.throws(() => checkPin(loose), assert.AssertionError);
});

test("SqliteConnection.beginImmediate: false while another writes; true blocks the other until rollback", () => {
  const { path, writer } = makeDatabase();
  const barrier = sqlite.open(path, { readOnly: false });
  writer.exec("BEGIN IMMEDIATE");
  assert.equal(barrier.beginImmediate(), false);
  writer.exec("ROLLBACK");
  assert.equal(barrier.beginImmediate(), true);
  assert.throws(() => writer.prepare("INSERT INTO t VALUES (1)").run(), /locked/);
  barrier.rollback();
  writer.prepare("INSERT INTO t VALUES (1)").run();
  barrier.close();
  writer.close();
});

test("SqliteConnection.checkpointPassive: busy while another connection holds the file exclusively", () => {
  const { path, writer } = makeDatabase();
  writer.close();
  const exclusive = new DatabaseSync(path);
  exclusive.exec("PRAGMA locking_mode = EXCLUSIVE; BEGIN IMMEDIATE; INSERT INTO t VALUES (3); COMMIT");
  const second = sqlite.open(path, { readOnly: false });
  assert.throws(() => second.journalMode(), { code: "sqlite_busy" });
  assert.throws(() => second.beginRead(), { code: "sqlite_busy" });
  assert.equal(second.checkpointPassive().busy, true);
  second.close();
  exclusive.close();
});

test("SqliteConnection: a read-only connection that closes last keeps the WAL", () => {
  const { path, writer } = makeDatabase();
  const pin = sqlite.open(path, { readOnly: true });
  pin.beginRead();
  writer.exec("INSERT INTO t VALUES (1)");
  writer.close();
  pin.close();
  assert.ok((systemRuntime().files.stat(`${path}-wal`)?.size ?? 0) > 0);
});

test("SqliteConnection.check: no findings in a sound database, some in a broken one", () => {
  const { path, writer } = makeDatabase();
  writer.exec("CREATE INDEX i ON t (x); INSERT INTO t SELECT value FROM json_each('[1,2,3,4,5]')");
  writer.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  writer.close();
  const sound = sqlite.open(path, { readOnly: true });
  assert.deepEqual(sound.check("quick"), []);
  assert.deepEqual(sound.check("full"), []);
  sound.close();
  const { files } = systemRuntime();
  const file = files.open(path, "update");
  file.write(new Uint8Array(4096), 4096); // Page 2: the table's root.
  file.close();
  const broken = sqlite.open(path, { readOnly: true });
  let findings: string[] = [];
  try {
    findings = broken.check("full");
  } catch (error) {
    assert.ok(error instanceof DatabaseError);
    findings = [error.message];
  }
  assert.notDeepEqual(findings, []);
  broken.close();
});

test("Sqlite.open: what is no database, and what is not there, is a DatabaseError that names the path", () => {
  const garbage = `${directory}/garbage.db`;
  writeFileSync(garbage, "not a database ".repeat(1000));
  const named = (code: string, sqliteCode: number, path: string) => (error: unknown): boolean => {
    assert.ok(error instanceof DatabaseError);
    assert.equal(error.code, code);
    assert.equal(error.data.sqlite, sqliteCode);
    assert.ok(error.message.includes(path));
    return true;
  };
  assert.throws(() => {
    const connection = sqlite.open(garbage, { readOnly: true });
    try {
      connection.journalMode();
    } finally {
      connection.close();
    }
  }, named("sqlite_notadb", 26, garbage));
  const missing = `${directory}/missing.db`;
  assert.throws(() => sqlite.open(missing, { readOnly: true }).journalMode(), named("sqlite_cantopen", 14, missing));
});

test("SqliteConnection.beginExclusive: keeps readers out, and is false while one reads", () => {
  const path = `${directory}/exclusive.db`;
  const reader = new DatabaseSync(path, { timeout: 0 });
  reader.exec("CREATE TABLE t (x); BEGIN; SELECT * FROM t");
  const count = reader.prepare("SELECT count(*) AS n FROM t");
  count.get();
  const connection = sqlite.open(path, { readOnly: false, busyTimeoutMs: 10 });
  connection.beginRead();
  connection.rollback();
  assert.equal(connection.beginExclusive(), false);
  count.get();
  reader.exec("COMMIT");
  assert.equal(connection.beginExclusive(), true);
  assert.throws(() => count.get(), /locked/);
  connection.rollback();
  assert.deepEqual({ ...count.get() }, { n: 0 });
  connection.close();
  reader.close();
});
