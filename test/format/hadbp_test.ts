import fc from "fast-check";
import assert from "node:assert/strict";
import { test } from "node:test";
import { hexOf } from "../../src/format/bytes.ts";
import {
  changesetSize,
  checksumHex,
  checksumOfDigest,
  decodeChangeset,
  decodeHeader,
  headerSize,
  isBridge,
} from "../../src/format/hadbp.ts";
import { parseKey } from "../../src/format/keys.ts";
import { checkProperty } from "../support/property.ts";
import { sha256, vectorObjects } from "../support/vectors.ts";
import { decodeStream, encode, every, header, marker, object, page, refusal } from "./changesets.ts";

const objects = vectorObjects().filter(({ key }) => key.endsWith(".hadbp"));

function bytesOf(hex: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(hex.match(/../g) ?? [], (pair) => parseInt(pair, 16));
}

/** The checksum of an object's bytes by the words of the format alone. */
function plainChecksum(bytes: Uint8Array, headerLength: number): string {
  const hash = sha256();
  hash.update(bytes.subarray(20, 28));
  hash.update(bytes.subarray(headerLength, bytes.length - 8));
  return hexOf(hash.digest().subarray(0, 8));
}

test("decodeChangeset: every golden object encodes to the same bytes again", () => {
  assert.equal(objects.length, 58);
  let bridges = 0;
  const versions = new Set<number>();
  for (const { vector, key, bytes } of objects) {
    const decoded = decodeChangeset(bytes, { object: key, sha256 });
    versions.add(decoded.header.version);
    // By the sum that the vectors below prove, too: theirs have short data, which nothing but that sum takes.
    assert.equal(checksumHex(decoded.checksum), plainChecksum(bytes, headerSize(decoded.header.version)), key);
    assert.equal(checksumHex(decoded.checksum), hexOf(bytes.subarray(-8)), key);
    const name = parseKey("backups/app/", key);
    assert.ok(name !== null, key);
    if (name.kind === "delta" || name.kind === "snapshot") {
      assert.equal(decoded.header.seq, name.seq, key);
      assert.equal(decoded.endPageCount === null, name.kind === "snapshot", key);
      decodeChangeset(bytes, { object: key, sha256, expect: { seq: name.seq, kind: name.kind, pageSize: 1024 } });
    }
    if (isBridge(decoded.header)) bridges++;
    assert.deepEqual(decodeHeader(bytes.subarray(0, 48), key), decoded.header);
    assert.equal(changesetSize(decoded.header), bytes.length, `${vector} ${key}`);
    for (const chunkSize of [1, 7, 1031, 1 << 20]) {
      const { bytes: again, end, chunks } = encode(decoded.header, decoded.entries, chunkSize);
      assert.deepEqual(again, bytes, `${vector} ${key} in chunks of ${chunkSize}`);
      assert.deepEqual(end, {
        checksum: decoded.checksum,
        chainEnd: decoded.chainEnd,
        endPageCount: decoded.endPageCount,
        size: bytes.length,
      });
      assert.ok(chunks.slice(0, -1).every((length) => length === chunkSize));
    }
  }
  assert.equal(bridges, 0, "the Rust library makes none");
  assert.deepEqual([...versions].sort(), [1, 2]);
});

test("decodeChangeset: the deltas of a golden lineage form one chain", () => {
  const ends = new Map<bigint, bigint>();
  let linked = 0;
  for (const { vector, key, bytes } of objects) {
    const name = parseKey("backups/app/", key);
    if (vector !== "owned-lineage" || name?.kind !== "delta") continue;
    const { header: of, chainEnd } = decodeChangeset(bytes, { object: key, sha256 });
    const before = ends.get(of.seq - 1n);
    if (before !== undefined) {
      assert.equal(of.prevChecksum, before, key);
      linked++;
    }
    ends.set(of.seq, chainEnd);
  }
  assert.ok(linked >= 12);
});

test("ChangesetDecoder: chunks of every size from one byte up give the same entries", () => {
  for (const { key, bytes } of objects.filter((_, index) => index % 8 === 0)) {
    const whole = decodeChangeset(bytes, { object: key, sha256 });
    for (const size of [1, 2, 3, 39, 41, 47, 49, 1023, 1025, 1032, 4096, bytes.length]) {
      const streamed = decodeStream(bytes, every(size), { size: bytes.length });
      assert.deepEqual(streamed.header, whole.header);
      assert.deepEqual(streamed.entries, whole.entries.map(({ pgno, data }) => ({ pgno, data: data.slice() })));
      assert.equal(streamed.end.checksum, whole.checksum);
    }
  }
});

test("the vectors of the format: the sum of these tests has its checksums, and the SQLite profile refuses their short data", () => {
  const v1 = bytesOf(
    "48414442500100040000100000000000000000010000000000000000000000010102030405060708" +
      "0000000100000004aaaaaaaa2332a12a6479a06c",
  );
  assert.equal(plainChecksum(v1, headerSize(1)), "2332a12a6479a06c");
  // Its time is far beyond any calendar, its page short: both are refused before the checksum matters.
  assert.equal(refusal(() => decodeChangeset(v1, { object, sha256 })), "created_ms");
  new DataView(v1.buffer).setBigInt64(32, 1n);
  assert.equal(refusal(() => decodeChangeset(v1, { object, sha256 })), "short");
  assert.equal(refusal(() => decodeStream(v1, every(64))), "data_length");
  const v2 = bytesOf(
    "48414442500280040000100000000000000000022332a12a6479a06c00000001" +
      "1112131415161718deadbeefcafebabe0000000200000004bbbbbbbb3aafd49e3ec05175",
  );
  assert.equal(plainChecksum(v2, headerSize(2)), "3aafd49e3ec05175");
  assert.equal(plainChecksum(new Uint8Array(48), headerSize(1)), "af5570f5a1810b7a");
});

test("encodeChangeset: the vector of a delta of one page", () => {
  const of = header({ pageSize: 4096, seq: 1n, prevChecksum: 0n });
  const { bytes, end } = encode(of, [{ pgno: 1, data: new Uint8Array(4096).fill(0x11) }, marker(1)]);
  assert.equal(end.checksum.toString(16), "30ba1a60b7001c69");
  assert.equal(end.chainEnd, end.checksum);
  assert.equal(end.endPageCount, 1);
  assert.equal(decodeChangeset(bytes, { object, sha256 }).checksum, end.checksum);
  const raw = sha256();
  raw.update(new Uint8Array(4096).fill(0x11));
  assert.equal(checksumOfDigest(raw.digest()).toString(16), "c663cfac30430ae0");
});

test("isBridge: a bridge has 64 bytes and its chain goes on at the declared end", () => {
  const of = header({ version: 2, flags: 0x81, pageCount: 1, declaredEnd: 0xfedcba9876543210n });
  const { bytes, end } = encode(of, [marker(3)]);
  assert.equal(bytes.length, 64);
  assert.equal(end.chainEnd, 0xfedcba9876543210n);
  assert.notEqual(end.checksum, end.chainEnd);
  assert.equal(end.endPageCount, 3);
  assert.ok(isBridge(decodeHeader(bytes, object)));
  assert.ok(!isBridge(header()));
  assert.deepEqual(decodeStream(bytes, every(5)).header, of);
});

test("encodeChangeset: what does not fit the header or the profile is the caller's mistake", () => {
  const cases: [string, Parameters<typeof encode>][] = [
    ["too few entries", [header(), [page(1)]]],
    ["too many entries", [header(), [page(1), marker(2), page(9)]]],
    ["no marker", [header(), [page(1), page(2)]]],
    ["two markers", [header({ pageCount: 3 }), [page(1), marker(2), marker(3)]]],
    ["marker in a snapshot", [header({ flags: 0 }), [page(1), marker(1)]]],
    ["page beyond the end", [header({ pageCount: 3 }), [page(1), page(9), marker(4)]]],
    ["order", [header({ pageCount: 3 }), [page(2), page(1), marker(4)]]],
    ["twice", [header({ pageCount: 3 }), [page(2), page(2), marker(4)]]],
    ["page zero", [header(), [page(0), marker(4)]]],
    ["hole in a snapshot", [header({ flags: 0 }), [page(1), page(3)]]],
    ["short page", [header(), [page(1, 511), marker(1)]]],
    ["end page count zero", [header({ pageCount: 1 }), [marker(0)]]],
    ["page number of 33 bits", [header({ pageCount: 1 }), [{ pgno: 2 ** 32, data: new Uint8Array(0) }]]],
    ["page size", [header({ pageSize: 1000 }), [page(1, 1000), marker(1)]]],
    ["no entries", [header({ pageCount: 0 }), []]],
    ["seq of 65 bits", [header({ seq: 1n << 64n }), [page(1), marker(1)]]],
    ["time with a fraction", [header({ createdMs: 1.5 }), [page(1), marker(1)]]],
    ["declared end in version 1", [header({ declaredEnd: 1n }), [page(1), marker(1)]]],
    ["no declared end in version 2", [header({ version: 2, flags: 0x81 }), [page(1), marker(1)]]],
    ["compacted version 1", [header({ flags: 0x81 }), [page(1), marker(1)]]],
    ["chunk size", [header(), [page(1), marker(1)], 0]],
  ];
  for (const [name, [of, entries, chunkSize]] of cases) {
    assert.throws(() => encode(of, entries, chunkSize), RangeError, name);
  }
});

test("encodeChangeset: an entry larger than the chunk passes through it", () => {
  const of = header({ pageSize: 65536, flags: 0, pageCount: 3 });
  const pages = [page(1, 65536), page(2, 65536), page(3, 65536)];
  const { bytes, chunks } = encode(of, pages, 1000);
  assert.ok(chunks.every((length) => length <= 1000));
  assert.deepEqual(decodeStream(bytes, every(999)).entries, pages);
});

const shape = fc.record({
  pageSize: fc.constantFrom(512, 1024, 4096, 65536),
  kind: fc.constantFrom("delta" as const, "snapshot" as const, "level" as const),
  seq: fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
  prev: fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
  declared: fc.bigInt({ min: 0n, max: 0xffff_ffff_ffff_ffffn }),
  createdMs: fc.integer({ min: 0, max: 8_640_000_000_000_000 }),
  pgnos: fc.uniqueArray(fc.integer({ min: 1, max: 0xffff_fffd }), { minLength: 1, maxLength: 6 }),
  writeChunk: fc.integer({ min: 1, max: 5000 }),
  readChunks: fc.array(fc.integer({ min: 1, max: 3000 }), { minLength: 1, maxLength: 8 }),
});

test("encodeChangeset, ChangesetDecoder: any changeset in any chunks comes back the same", () => {
  checkProperty(
    fc.property(shape, ({ pageSize, kind, seq, prev, declared, createdMs, pgnos, writeChunk, readChunks }) => {
      const numbers = kind === "snapshot" ? pgnos.map((_, index) => index + 1) : pgnos.sort((a, b) => a - b);
      const entries = numbers.map((pgno) => page(pgno, pageSize));
      if (kind !== "snapshot") entries.push(marker(numbers[numbers.length - 1]));
      const of = header({
        version: kind === "level" ? 2 : 1,
        flags: { delta: 1, snapshot: 0, level: 0x81 }[kind],
        pageSize,
        seq,
        prevChecksum: prev,
        pageCount: entries.length,
        createdMs,
        declaredEnd: kind === "level" ? declared : null,
      });
      const { bytes, end } = encode(of, entries, writeChunk);
      const sizes = function* (): Generator<number> {
        while (true) yield* readChunks;
      };
      const back = decodeStream(bytes, sizes());
      assert.deepEqual(back.header, of);
      assert.deepEqual(back.entries, entries);
      assert.deepEqual(back.end, end);
      assert.equal(end.size, changesetSize(of));
    }),
    60,
  );
});

test("canary: a property that does not hold fails and says how to replay it", () => {
  assert.throws(
    () => checkProperty(fc.property(fc.integer(), (value) => value < 1000), 200),
    /WALRUST_SEED=-?[0-9]+/,
  );
});
