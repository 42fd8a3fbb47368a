import fc from "fast-check";
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  beginWalScan,
  parseWalHeader,
  scanWalFrames,
  walChecksum,
  walFrameOffset,
  type WalHeader,
} from "../../src/format/wal.ts";
import { checkProperty } from "../support/property.ts";
import { type FrameSpec, makeWal, plainChecksum, scan, type Visit } from "./wal_files.ts";

const orders = ["little", "big"] as const;
const pageSizes = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];
const two: FrameSpec[] = [{ pgno: 1, fill: 1 }, { pgno: 2, commit: 2, fill: 2 }];

function headerOf(wal: Uint8Array): WalHeader {
  const header = parseWalHeader(wal);
  if (typeof header === "string") throw new Error(header);
  return header;
}

/** The log with some bytes changed. */
function changed(wal: Uint8Array, change: (view: DataView<ArrayBuffer>) => void): Uint8Array<ArrayBuffer> {
  const bytes = wal.slice();
  change(new DataView(bytes.buffer));
  return bytes;
}

test("[S1] parseWalHeader: no bytes are an empty log", () => {
  assert.equal(parseWalHeader(new Uint8Array(0)), "empty");
});

test("[S2] parseWalHeader: 1 to 31 bytes are short, a torn header has a wrong checksum", () => {
  const wal = makeWal(512, "little", two);
  for (let length = 1; length < 32; length++) assert.equal(parseWalHeader(wal.subarray(0, length)), "short");
  const old = makeWal(512, "little", two, [7, 8]);
  for (let torn = 17; torn < 31; torn++) {
    const bytes = old.slice();
    bytes.set(wal.subarray(0, torn));
    assert.equal(parseWalHeader(bytes), "checksum", `${torn} bytes of the new header`);
  }
});

test("[S3] parseWalHeader: a wrong magic is not a log", () => {
  const wal = makeWal(512, "little", two);
  for (const magic of [0, 0x377f0681, 0x377f0684, 0x82067f37, 0x53514c69]) {
    assert.equal(parseWalHeader(changed(wal, (view) => view.setUint32(0, magic))), "magic");
  }
});

test("[S4] scanWalFrames: both checksum byte orders, every page size, aligned or not", () => {
  for (const order of orders) {
    for (const pageSize of pageSizes) {
      const wal = makeWal(pageSize, order, two);
      assert.equal(headerOf(wal).byteOrder, order);
      assert.equal(headerOf(wal).pageSize, pageSize);
      for (const shift of [0, 1, 2, 4]) {
        const shifted = new Uint8Array(wal.length + shift).subarray(shift);
        shifted.set(wal);
        const { visits, end } = scan(shifted);
        assert.deepEqual(visits, [{ frame: 0, pgno: 1, commit: 0 }, { frame: 1, pgno: 2, commit: 2 }]);
        assert.equal(end, "end");
      }
    }
  }
});

test("[S4] parseWalHeader: the other order's magic over the same checksums is refused", () => {
  const wal = makeWal(512, "little", two);
  assert.equal(parseWalHeader(changed(wal, (view) => view.setUint32(0, 0x377f0683))), "checksum");
});

/** The log with its header changed and the header's checksum made right again. */
function resealed(wal: Uint8Array, change: (view: DataView<ArrayBuffer>) => void): Uint8Array<ArrayBuffer> {
  return changed(wal, (view) => {
    change(view);
    const [first, second] = plainChecksum(true, [new Uint8Array(view.buffer, 0, 24)], [0, 0]);
    view.setUint32(24, first);
    view.setUint32(28, second);
  });
}

test("[S5] parseWalHeader: another version is refused", () => {
  const wal = makeWal(512, "little", two);
  for (const version of [0, 3006000, 3007001]) {
    assert.equal(parseWalHeader(resealed(wal, (view) => view.setUint32(4, version))), "version");
  }
});

test("[S6] parseWalHeader: page sizes other than powers of two from 512 to 65536 are refused", () => {
  const wal = makeWal(512, "little", two);
  for (const pageSize of [0, 1, 256, 513, 1000, 131072, 0x80000000, 0xffffffff]) {
    assert.equal(parseWalHeader(resealed(wal, (view) => view.setUint32(8, pageSize))), "page-size");
  }
});

test("[S7] parseWalHeader: a wrong header checksum is a header being written", () => {
  const wal = makeWal(512, "little", two);
  for (let offset = 4; offset < 32; offset++) {
    const problem = parseWalHeader(changed(wal, (view) => view.setUint8(offset, view.getUint8(offset) ^ 0x01)));
    assert.ok(problem === "checksum" || (problem === "page-size" && offset < 12), `${offset}: ${problem}`);
  }
});

test("[S8] scanWalFrames: other salts end the log, a stale tail is ignored", () => {
  const stale = makeWal(512, "little", [...two, { pgno: 3, commit: 3 }, { pgno: 4, commit: 4 }], [0x01020303, 99]);
  const live = makeWal(512, "little", two);
  stale.set(live);
  const { visits, end } = scan(stale);
  assert.equal(visits.length, 2);
  assert.equal(end, "salt");
  for (const offset of [8, 15]) {
    const at = walFrameOffset(512, 1) + offset;
    assert.equal(scan(changed(live, (view) => view.setUint8(at, view.getUint8(at) ^ 0x80))).end, "salt");
  }
});

test("[S9] scanWalFrames: a flip anywhere in a frame ends the log before it, also in one that commits", () => {
  for (const order of orders) {
    const wal = makeWal(512, order, [...two, { pgno: 3, commit: 3 }]);
    const start = walFrameOffset(512, 1);
    for (let at = start; at < walFrameOffset(512, 2); at++) {
      const { visits, end } = scan(changed(wal, (view) => view.setUint8(at, view.getUint8(at) ^ 0x40)));
      assert.equal(visits.length, 1, `byte ${at - start}`);
      assert.equal(end, at - start >= 8 && at - start < 16 ? "salt" : "checksum");
    }
  }
});

test("[S10] scanWalFrames: frames without a commit are visited as such", () => {
  const { visits } = scan(makeWal(512, "big", [...two, { pgno: 5 }, { pgno: 6 }]));
  assert.deepEqual(visits.map(({ commit }) => commit), [0, 2, 0, 0]);
});

test("[S11] scanWalFrames: a partial last frame is left until it is whole", () => {
  const wal = makeWal(512, "little", [...two, { pgno: 3, commit: 3 }]);
  const header = headerOf(wal);
  const last = walFrameOffset(512, 2);
  for (let length = last; length <= wal.length; length++) {
    const state = beginWalScan(header);
    const visits: number[] = [];
    const end = scanWalFrames(header, state, wal.subarray(32, length), (frame) => visits.push(frame));
    assert.equal(end, length === last || length === wal.length ? "end" : "short");
    assert.equal(state.frames, length === wal.length ? 3 : 2);
    // Going on from the state with the whole frame gives exactly the rest.
    const rest = wal.subarray(walFrameOffset(512, state.frames));
    assert.equal(scanWalFrames(header, state, rest, (frame) => visits.push(frame)), "end");
    assert.deepEqual(visits, [0, 1, 2]);
  }
});

test("[S15] scanWalFrames: page number 0 ends the log, with right checksums too", () => {
  const { visits, end } = scan(makeWal(512, "little", [two[0], { pgno: 0, commit: 1 }, { pgno: 3, commit: 3 }]));
  assert.equal(visits.length, 1);
  assert.equal(end, "page-zero");
});

test("[S16] walFrameOffset: logs above 4 GiB", () => {
  assert.equal(walFrameOffset(4096, 0), 32);
  assert.equal(walFrameOffset(4096, 2_000_000), 32 + 2_000_000 * 4120);
  assert.equal(walFrameOffset(65536, 2 ** 32 - 2), 32 + (2 ** 32 - 2) * 65560);
});

test("walChecksum: the sums of the format, continued, in both orders and at every alignment", () => {
  checkProperty(
    fc.property(
      fc.uint8Array({ minLength: 0, maxLength: 400 }),
      fc.constantFrom(...orders),
      fc.nat({ max: 7 }),
      fc.integer({ min: 0, max: 0xffff_ffff }),
      fc.integer({ min: 0, max: 0xffff_ffff }),
      (source, order, shift, first, second) => {
        const length = source.length & ~7;
        const bytes = new Uint8Array(length + shift).subarray(shift);
        bytes.set(source.subarray(0, length));
        const expected = plainChecksum(order === "little", [bytes], [first, second]);
        assert.deepEqual(walChecksum(order, bytes, first, second), expected);
      },
    ),
    500,
  );
  assert.throws(() => walChecksum("little", new Uint8Array(7), 0, 0), RangeError);
});

test("scanWalFrames: any frames in any pieces are visited as in one piece", () => {
  const frame = fc.record({
    pgno: fc.integer({ min: 1, max: 0xffff_ffff }),
    commit: fc.integer({ min: 0, max: 0xffff_ffff }),
    fill: fc.nat({ max: 255 }),
  });
  checkProperty(
    fc.property(
      fc.array(frame, { maxLength: 12 }),
      fc.constantFrom(...orders),
      fc.constantFrom(512, 1024),
      fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1 }),
      (frames, order, pageSize, pieces) => {
        const wal = makeWal(pageSize, order, frames);
        const header = headerOf(wal);
        const state = beginWalScan(header);
        const visits: Visit[] = [];
        for (let piece = 0; state.frames < frames.length; piece++) {
          const start = walFrameOffset(pageSize, state.frames);
          const end = Math.min(wal.length, walFrameOffset(pageSize, state.frames + pieces[piece % pieces.length]));
          scanWalFrames(header, state, wal.subarray(start, end), (index, pgno, commit) => {
            visits.push({ frame: index, pgno, commit });
          });
        }
        assert.deepEqual(visits, frames.map(({ pgno, commit }, index) => ({ frame: index, pgno, commit })));
        assert.deepEqual(scan(wal), { visits, end: "end" });
      },
    ),
    100,
  );
});

test("canary: the sound log of these tests scans to its end", () => {
  assert.deepEqual(scan(makeWal(512, "little", two)).end, "end");
  assert.throws(() => assert.equal(scan(makeWal(512, "little", [{ pgno: 0 }])).end, "end"));
});
