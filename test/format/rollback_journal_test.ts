import assert from "node:assert/strict";
import { copyFileSync, existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import {
  encodeRollbackHeader,
  encodeRollbackRecord,
  rollbackChecksum,
  rollbackHeaderSize,
  rollbackRecordSize,
} from "../../src/format/rollback_journal.ts";
import { setRollbackForm } from "../../src/format/sqlite_header.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";

const directory = temporaryDirectory("rollback");

function database(path: string, pageSize: number, sql: string): void {
  const connection = new DatabaseSync(path);
  connection.exec(`PRAGMA page_size = ${pageSize}; ${sql}`);
  connection.close();
}

/** A journal that takes a file back to `image`. */
function journalOf(image: Uint8Array, pageSize: number, nonce: number): Uint8Array {
  const pageCount = image.length / pageSize;
  const size = rollbackRecordSize(pageSize);
  const bytes = new Uint8Array(rollbackHeaderSize + pageCount * size);
  bytes.set(encodeRollbackHeader({ records: pageCount, nonce, pageCount, pageSize }));
  for (let page = 0; page < pageCount; page++) {
    const into = bytes.subarray(rollbackHeaderSize + page * size, rollbackHeaderSize + (page + 1) * size);
    encodeRollbackRecord(into, page + 1, image.subarray(page * pageSize, (page + 1) * pageSize), nonce);
  }
  return bytes;
}

for (const pageSize of [512, 1024, 4096, 65536]) {
  test(`encodeRollbackRecord: SQLite takes a file of ${pageSize}-byte pages back, whatever its size became`, () => {
    const old = join(directory, `old-${pageSize}.db`);
    database(
      old,
      pageSize,
      "CREATE TABLE t(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n " +
        `WHERE i < 20) INSERT INTO t SELECT randomblob(${pageSize}) FROM n`,
    );
    const image = new Uint8Array(readFileSync(old));
    for (const pages of [-5, 0, 7]) {
      const path = join(directory, `hot-${pageSize}-${pages}.db`);
      copyFileSync(old, path);
      const torn = new Uint8Array(image.length + pages * pageSize).fill(0xa5);
      writeFileSync(path, torn);
      writeFileSync(`${path}-journal`, journalOf(image, pageSize, 0xfffffff0));
      const reader = new DatabaseSync(path);
      assert.deepEqual({ ...reader.prepare("SELECT count(*) AS n FROM t").get() }, { n: 20 });
      assert.deepEqual({ ...reader.prepare("PRAGMA integrity_check").get() }, { integrity_check: "ok" });
      reader.close();
      assert.ok(readFileSync(path).equals(image), "the file before, byte for byte");
      assert.ok(!existsSync(`${path}-journal`), "played back and gone");
    }
  });
}

test("rollbackChecksum: a record that is not as it was written ends the playback (canary)", () => {
  const old = join(directory, "canary-old.db");
  database(old, 4096, "CREATE TABLE t(x); INSERT INTO t VALUES (1)");
  const image = new Uint8Array(readFileSync(old));
  const path = join(directory, "canary.db");
  writeFileSync(path, new Uint8Array(image.length).fill(0xa5));
  const journal = journalOf(image, 4096, 7);
  journal[rollbackHeaderSize + 4 + 4096 - 200] ^= 1;
  writeFileSync(`${path}-journal`, journal);
  const reader = new DatabaseSync(path);
  assert.throws(() => reader.prepare("SELECT * FROM t").all());
  reader.close();
  assert.ok(!readFileSync(path).equals(image));
});

test("rollbackChecksum: every 200th byte from the end, never byte 0, modulo 2^32", () => {
  const page = new Uint8Array(512);
  page[312] = 1;
  page[112] = 2;
  page[0] = 4;
  page[511] = 8;
  assert.equal(rollbackChecksum(page, 5), 8);
  assert.equal(rollbackChecksum(page, 0xffffffff), 2);
});

test("encodeRollbackHeader: its fields lie where the table says; what SQLite would misread is refused", () => {
  const bytes = encodeRollbackHeader({ records: 3, nonce: 0xdeadbeef, pageCount: 9, pageSize: 65536 });
  assert.equal(bytes.length, 512);
  const hex = [...bytes.subarray(0, 28)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  assert.equal(hex, "d9d505f920a163d7" + "00000003" + "deadbeef" + "00000009" + "00000200" + "00010000");
  const sound = { records: 1, nonce: 1, pageCount: 1, pageSize: 512 };
  for (
    const wrong of [{ records: 0xffffffff }, { records: -1 }, { nonce: 1.5 }, { pageCount: 2 ** 32 }, {
      pageSize: 1000,
    }]
  ) {
    assert.throws(() => encodeRollbackHeader({ ...sound, ...wrong }), RangeError, JSON.stringify(wrong));
  }
});

test("setRollbackForm: SQLite opens a database that was in WAL mode without a WAL, and believes the page count", () => {
  const path = join(directory, "form.db");
  database(path, 4096, "PRAGMA journal_mode = WAL; CREATE TABLE t(x); INSERT INTO t VALUES (1)");
  const image = new Uint8Array(readFileSync(path));
  setRollbackForm(image.subarray(0, 4096), 0xfffffffe, image.length / 4096);
  writeFileSync(path, image);
  const reader = new DatabaseSync(path, { readOnly: true });
  assert.deepEqual({ ...reader.prepare("PRAGMA journal_mode").get() }, { journal_mode: "delete" });
  assert.deepEqual({ ...reader.prepare("PRAGMA integrity_check").get() }, { integrity_check: "ok" });
  reader.close();
});
