import assert from "node:assert/strict";
import { test } from "node:test";
import { FormatError } from "../../src/errors.ts";
import { IndexedDecoder } from "../../src/replication/indexed_decoder.ts";
import { PageIndex } from "../../src/replication/page_index.ts";
import { encode, header, marker, object, page } from "../format/changesets.ts";
import { AllocationMeter, AllocationRefused } from "../fuzz/allocation_meter.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { system } from "./engine_scene.ts";

const lineage = "0123456789abcdef0123456789abcdef";
const { sha256 } = system;

function createIndex(): PageIndex {
  const path = `${temporaryDirectory("decoder")}/pages.idx`;
  return PageIndex.create(system.files, path, { lineage, pageSize: 512, ...system });
}

test("IndexedDecoder: a hash for each page, in chunks of any size, however many pages there are", () => {
  const index = createIndex();
  const count = 1000;
  const pages = Array.from({ length: count }, (_, i) => page(i + 1));
  const { bytes } = encode(header({ pageCount: count + 1 }), [...pages, marker(count)]);
  for (const size of [1000, bytes.length]) {
    const decoder = new IndexedDecoder(index, { object, sha256, size: bytes.length });
    for (let at = 0; at < bytes.length; at += size) decoder.push(bytes.subarray(at, at + size));
    const { hashes, end } = decoder.finish();
    assert.equal(end.endPageCount, count);
    assert.deepEqual(hashes.pgnos, pages.map(({ pgno }) => pgno));
    const expected = new Uint8Array(8 * count);
    pages.forEach(({ data }, i) => index.hashPage(data, expected, 8 * i));
    assert.deepEqual(hashes.hashes, expected);
  }
  index.close();
});

test("[S73] IndexedDecoder: a header that claims 2^32 pages takes no memory before its pages come", () => {
  const index = createIndex();
  const { bytes } = encode(header({ flags: 0, pageCount: 2 }), [page(1), page(2)]);
  new DataView(bytes.buffer).setUint32(28, 0xffff_ffff);
  // The bucket agrees with the header, in its listing and in Content-Length.
  const size = 40 + 0xffff_ffff * 520 + 8;
  const meter = new AllocationMeter();
  const uninstall = meter.install();
  try {
    meter.reset(64 * 1024);
    const decoder = new IndexedDecoder(index, { object, sha256, size });
    decoder.push(bytes.subarray(0, bytes.length - 8));
    assert.throws(() => decoder.finish(), FormatError);
    meter.check();
    assert.throws(() => new Uint8Array(0xffff_ffff * 8), AllocationRefused, "canary: the meter refuses that much");
  } finally {
    uninstall();
    index.close();
  }
});
