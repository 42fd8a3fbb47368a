import assert from "node:assert/strict";
import { test } from "node:test";
import { decodeChangeset } from "../../src/format/hadbp.ts";
import { lockBytePage, parseSqliteHeader } from "../../src/format/sqlite_header.ts";
import { sha256, vectorObjects } from "../support/vectors.ts";

function headerBytes(pageSize: number): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(100);
  bytes.set(new TextEncoder().encode("SQLite format 3\0"));
  const view = new DataView(bytes.buffer);
  view.setUint16(16, pageSize);
  view.setUint8(18, 2);
  view.setUint8(19, 2);
  view.setUint8(20, 8);
  view.setUint32(24, 11);
  view.setUint32(28, 0xfffffffe);
  view.setUint32(92, 12);
  view.setUint32(96, 3051003);
  return bytes;
}

test("parseSqliteHeader: the fields of the format", () => {
  assert.deepEqual(parseSqliteHeader(headerBytes(4096)), {
    pageSize: 4096,
    writeVersion: 2,
    readVersion: 2,
    changeCounter: 11,
    pageCount: 0xfffffffe,
    reservedBytes: 8,
    versionValidFor: 12,
    sqliteVersion: 3051003,
  });
});

test("[S6] parseSqliteHeader: 65536 is stored as 1, other sizes are refused", () => {
  const header = parseSqliteHeader(headerBytes(1));
  assert.ok(typeof header !== "string" && header.pageSize === 65536);
  for (const pageSize of [0, 2, 256, 513, 1000, 65535]) {
    assert.equal(parseSqliteHeader(headerBytes(pageSize)), "page-size");
  }
});

test("parseSqliteHeader: empty, short and encrypted files are told apart", () => {
  const bytes = headerBytes(4096);
  assert.equal(parseSqliteHeader(bytes.subarray(0, 0)), "empty");
  for (let length = 1; length < 100; length++) assert.equal(parseSqliteHeader(bytes.subarray(0, length)), "short");
  for (let offset = 0; offset < 16; offset++) {
    const damaged = bytes.slice();
    damaged[offset] ^= 0x20;
    assert.equal(parseSqliteHeader(damaged), "magic");
    assert.equal(parseSqliteHeader(damaged.subarray(0, 16)), "magic");
  }
});

test("parseSqliteHeader: the first page of a golden snapshot", () => {
  const snapshot = vectorObjects().find(({ key }) => key.includes("/0001/"));
  assert.ok(snapshot !== undefined);
  const { entries } = decodeChangeset(snapshot.bytes, { object: snapshot.key, sha256 });
  const header = parseSqliteHeader(entries[0].data);
  assert.ok(typeof header !== "string");
  assert.equal(header.pageSize, 1024);
  assert.equal(header.pageCount, entries.length);
});

test("lockBytePage: the page that holds byte 1 GiB", () => {
  for (let pageSize = 512; pageSize <= 65536; pageSize *= 2) {
    const page = lockBytePage(pageSize);
    assert.ok(Number.isInteger(page));
    assert.equal((page - 1) * pageSize, 2 ** 30);
  }
});

test("canary: a sound header is no problem", () => {
  assert.notEqual(typeof parseSqliteHeader(headerBytes(512)), "string");
});
