import assert from "node:assert/strict";
import { test } from "node:test";
import { ChangesetDecoder, type ChangesetExpectation, decodeChangeset, decodeHeader } from "../../src/format/hadbp.ts";
import { sha256, vectorObjects } from "../support/vectors.ts";
import { decodeStream, encode, every, header, marker, object, page, refusal } from "./changesets.ts";

const delta = encode(header({ pageCount: 3 }), [page(1), page(3), marker(3)]).bytes;
const snapshot = encode(header({ flags: 0 }), [page(1), page(2)]).bytes;
const bridge =
  encode(header({ version: 2, flags: 0x81, pageCount: 1, declaredEnd: 0x0123456789abcdefn }), [marker(2)]).bytes;
const level = encode(
  header({ version: 2, flags: 0x81, pageCount: 2, declaredEnd: 0x0123456789abcdefn }),
  [page(2), marker(2)],
).bytes;

/** Offsets at which at least one other value of the byte goes unseen; every one of the 255 is tried. */
function unseenOffsets(bytes: Uint8Array, expect: ChangesetExpectation): number[] {
  const damaged = bytes.slice();
  const unseen: number[] = [];
  for (let offset = 0; offset < bytes.length; offset++) {
    // Data is covered by the hash alone, so one flip there stands for all.
    const masks = offset < 64 || offset >= bytes.length - 24 ? 255 : 1;
    let seen = true;
    for (let mask = 1; mask <= masks; mask++) {
      damaged[offset] = bytes[offset] ^ mask;
      if (refusal(() => decodeChangeset(damaged, { object, sha256, expect })) === "sound") seen = false;
    }
    damaged[offset] = bytes[offset];
    if (!seen) unseen.push(offset);
  }
  return unseen;
}

function range(start: number, end: number): number[] {
  return Array.from({ length: end - start }, (_, index) => start + index);
}

// The highest byte of the time, and most of the next one, are seen because no calendar reaches so far.
const seqBytes = range(12, 20);
const timeBytes = range(33, 40);
const declaredBytes = range(40, 48);

test("[S72] decodeChangeset: a flip in any byte of a delta is seen, but for seq and time", () => {
  assert.deepEqual(unseenOffsets(delta, {}), [...seqBytes, ...timeBytes]);
});

test("[S72] decodeChangeset: a flip in any byte of a snapshot is seen, but for seq and time", () => {
  assert.deepEqual(unseenOffsets(snapshot, {}), [...seqBytes, ...timeBytes]);
});

test("[S72] decodeChangeset: merged deltas and bridges also leave the declared end, a bridge the page size", () => {
  assert.deepEqual(unseenOffsets(level, {}), [...seqBytes, ...timeBytes, ...declaredBytes]);
  assert.deepEqual(unseenOffsets(bridge, {}), [10, ...seqBytes, ...timeBytes, ...declaredBytes]);
});

test("[S72] [S76] decodeChangeset: key, page size and chain leave only time and declared end unseen", () => {
  const expect = { seq: 7n, pageSize: 512, prevChecksum: 0x1122334455667788n };
  assert.deepEqual(unseenOffsets(delta, { ...expect, kind: "delta" }), timeBytes);
  assert.deepEqual(unseenOffsets(snapshot, { ...expect, kind: "snapshot" }), timeBytes);
  assert.deepEqual(unseenOffsets(bridge, { ...expect, kind: "delta" }), [...timeBytes, ...declaredBytes]);
});

test("[S109] ChangesetDecoder: a tampered declared end breaks the chain at the next delta", () => {
  const next = encode(header({ seq: 8n, prevChecksum: 0x0123456789abcdefn }), [page(1), marker(1)]).bytes;
  for (const offset of range(40, 49)) {
    const damaged = bridge.slice();
    if (offset < 48) damaged[offset] ^= 0x10;
    const { chainEnd } = decodeChangeset(damaged, { object, sha256 });
    const code = refusal(() => decodeChangeset(next, { object, sha256, expect: { prevChecksum: chainEnd } }));
    assert.equal(code, offset < 48 ? "chain_mismatch" : "sound");
  }
});

test("[S76] ChangesetDecoder: an object of another seq, chain, page size or pool is refused by its header", () => {
  const cases: [ChangesetExpectation, string][] = [
    [{ seq: 8n }, "seq_mismatch"],
    [{ prevChecksum: 1n }, "chain_mismatch"],
    [{ pageSize: 4096 }, "page_size_mismatch"],
    [{ kind: "snapshot" }, "kind_mismatch"],
  ];
  for (const [expect, code] of cases) {
    const decoder = new ChangesetDecoder({ object, sha256, expect });
    assert.equal(refusal(() => [...decoder.push(delta.subarray(0, 48))]), code);
  }
});

test("decodeChangeset: cut at every byte it is refused, with known and unknown size", () => {
  for (const bytes of [delta, snapshot, bridge, level]) {
    for (let length = 0; length < bytes.length; length++) {
      const cut = bytes.subarray(0, length);
      const codes = [
        refusal(() => decodeChangeset(cut, { object, sha256 })),
        refusal(() => decodeStream(cut, every(100))),
        refusal(() => decodeStream(cut, every(1), { size: bytes.length })),
      ];
      assert.ok(codes.every((code) => code === "short" || code === "page_count"), `${length}: ${codes}`);
    }
  }
});

test("decodeChangeset: golden objects are refused when cut or flipped", () => {
  const objects = vectorObjects().filter(({ key }) => key.endsWith(".hadbp"));
  for (const { key, bytes } of objects) {
    const start = bytes[5] === 1 ? 40 : 48;
    for (let offset = start; offset < bytes.length; offset += 97) {
      assert.notEqual(refusal(() => decodeChangeset(bytes.subarray(0, offset), { object: key, sha256 })), "sound");
      const damaged = bytes.slice();
      damaged[offset] ^= 1 << (offset % 8);
      assert.notEqual(refusal(() => decodeChangeset(damaged, { object: key, sha256 })), "sound");
    }
  }
});

test("decodeChangeset: bytes after the end are refused", () => {
  const longer = new Uint8Array(delta.length + 1);
  longer.set(delta);
  assert.equal(refusal(() => decodeChangeset(longer, { object, sha256 })), "trailing");
  assert.equal(refusal(() => decodeStream(longer, every(64))), "trailing");
  assert.equal(refusal(() => decodeStream(longer, [delta.length, 1])), "trailing");
});

/** The delta with one field of its header or first entry changed. */
function changed(change: (view: DataView) => void): Uint8Array<ArrayBuffer> {
  const bytes = delta.slice();
  change(new DataView(bytes.buffer));
  return bytes;
}

test("decodeChangeset: each rule of the format has its own refusal", () => {
  const cases: [string, (view: DataView) => void][] = [
    ["magic", (view) => view.setUint8(4, 0x51)],
    ["version", (view) => view.setUint8(5, 3)],
    ["version", (view) => view.setUint8(5, 0)],
    ["flags", (view) => view.setUint8(5, 2)],
    ["flags", (view) => view.setUint8(6, 0x81)],
    ["flags", (view) => view.setUint8(6, 0x03)],
    ["page_id_width", (view) => view.setUint8(7, 8)],
    ["page_size", (view) => view.setUint32(8, 256)],
    ["page_size", (view) => view.setUint32(8, 131072)],
    ["page_size", (view) => view.setUint32(8, 513)],
    ["page_size", (view) => view.setUint32(8, 0)],
    ["page_count", (view) => view.setUint32(28, 0)],
    ["trailing", (view) => view.setUint32(28, 2)],
    ["short", (view) => view.setUint32(28, 4)],
    ["page_count", (view) => view.setUint32(28, 200)],
    ["created_ms", (view) => view.setBigInt64(32, -1n)],
    ["page_zero", (view) => view.setUint32(40, 0)],
    ["page_order", (view) => view.setUint32(40, 3)],
    ["page_order", (view) => view.setUint32(40, 4)],
    ["data_length", (view) => view.setUint32(44, 511)],
    ["data_length", (view) => view.setUint32(44, 513)],
    ["data_length", (view) => view.setUint32(44, 0xffff_ffff)],
    ["marker", (view) => view.setUint32(44, 0)],
    ["page_order", (view) => view.setUint32(delta.length - 16, 3)],
    ["marker", (view) => view.setUint32(delta.length - 12, 512)],
    ["checksum_mismatch", (view) => view.setUint32(delta.length - 16, 5)],
    ["checksum_mismatch", (view) => view.setUint8(delta.length - 1, ~view.getUint8(delta.length - 1))],
    ["checksum_mismatch", (view) => view.setBigUint64(20, 1n)],
  ];
  for (const [code, change] of cases) {
    const bytes = changed(change);
    assert.equal(refusal(() => decodeChangeset(bytes, { object, sha256 })), code, String(change));
  }
  const hole = snapshot.slice();
  new DataView(hole.buffer).setUint32(40 + 520, 3);
  assert.equal(refusal(() => decodeChangeset(hole, { object, sha256 })), "page_order");
});

test("[S73] decodeHeader, ChangesetDecoder: a header that claims 2^32 pages is refused before any memory is taken", () => {
  const claims = changed((view) => {
    view.setUint32(8, 65536);
    view.setUint32(28, 0xffff_ffff);
  });
  // The header alone is legal: 256 TiB. The size of the object contradicts it.
  assert.equal(decodeHeader(claims, object).pageCount, 0xffff_ffff);
  for (const size of [claims.length, 2 ** 40]) {
    const decoder = new ChangesetDecoder({ object, sha256, size });
    const code = refusal(() => [...decoder.push(claims.subarray(0, 48))]);
    assert.equal(code, size === claims.length ? "page_count" : "short");
  }
  // Where the size is not known, memory is one page however many are claimed.
  const decoder = new ChangesetDecoder({ object, sha256 });
  assert.equal(refusal(() => [...decoder.push(claims)]), "data_length");
});

test("[S74] FormatError: the key in a message is printed without control characters", () => {
  const name = "app/\u001b[2J\r\n0000";
  assert.throws(
    () => decodeChangeset(new Uint8Array(10), { object: name, sha256 }),
    (error: Error & { data?: { object?: string }; exitCode?: number }) =>
      !error.message.includes("\u001b") && !error.message.includes("\r") && error.data?.object === name &&
      error.exitCode === 5,
  );
});

test("ChangesetDecoder: after a refusal it takes nothing more", () => {
  const decoder = new ChangesetDecoder({ object, sha256 });
  assert.equal(refusal(() => [...decoder.push(new Uint8Array(48))]), "magic");
  assert.throws(() => decoder.push(delta), TypeError);
  assert.throws(() => decoder.finish(), TypeError);
});

test("ChangesetDecoder: a chunk left half iterated is the caller's mistake", () => {
  const decoder = new ChangesetDecoder({ object, sha256 });
  for (const { pgno } of decoder.push(delta)) {
    assert.equal(pgno, 1);
    break;
  }
  assert.throws(() => decoder.finish(), TypeError);
});

test("canary: unseenOffsets finds nothing unseen only where a check is at work", () => {
  assert.equal(refusal(() => decodeChangeset(delta, { object, sha256 })), "sound");
  const same = delta.slice();
  same[13] ^= 1;
  assert.equal(refusal(() => decodeChangeset(same, { object, sha256 })), "sound");
  assert.equal(refusal(() => decodeChangeset(same, { object, sha256, expect: { seq: 7n } })), "seq_mismatch");
});
