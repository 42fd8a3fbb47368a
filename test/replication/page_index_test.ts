import assert from "node:assert/strict";
import { readFileSync, statSync, truncateSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { differingPages } from "../../src/replication/difference.ts";
import { PageIndex } from "../../src/replication/page_index.ts";
import type { Files, OpenFile } from "../../src/runtime/types.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { system } from "./engine_scene.ts";

const lineage = "0123456789abcdef0123456789abcdef";
const pageSize = 512;

function create(path: string): PageIndex {
  return PageIndex.create(system.files, path, { lineage, pageSize, ...system });
}

/** Pages of an image as one number each. */
function imageOf(pages: readonly number[]): {
  pageSize: number;
  pageCount: number;
  read(first: number, count: number, into: Uint8Array): void;
} {
  return {
    pageSize,
    pageCount: pages.length,
    read: (first, count, into) => {
      for (let i = 0; i < count; i++) into.fill(pages[first - 1 + i], i * pageSize, (i + 1) * pageSize);
    },
  };
}

function applyAll(index: PageIndex, pages: readonly number[]): void {
  const hashes = new Uint8Array(pages.length * 8);
  pages.forEach((value, i) => index.hashPage(new Uint8Array(pageSize).fill(value), hashes, i * 8));
  index.apply({ pgnos: pages.map((_, i) => i + 1), hashes }, pages.length);
}

function differing(
  index: PageIndex,
  pages: readonly number[],
  indexed: number,
  candidates: number[] | null = null,
): Promise<number[]> {
  const image = imageOf(pages) as Parameters<typeof differingPages>[0];
  return differingPages(image, index, indexed, candidates === null ? null : new Set(candidates), system.clock);
}

test("PageIndex: reopened it knows its pages; another lineage, another header, a short file and none are refused", () => {
  const path = `${temporaryDirectory("index")}/pages.idx`;
  assert.equal(PageIndex.open(system.files, path, lineage, system.sha256), null);
  const index = create(path);
  applyAll(index, [1, 2, 3]);
  const before = index.read(1, 3);
  index.sync();
  index.close();
  const again = PageIndex.open(system.files, path, lineage, system.sha256)!;
  assert.equal(again.pageSize, pageSize);
  assert.deepEqual(again.read(1, 3), before);
  assert.deepEqual(again.read(4, 1), new Uint8Array(8), "never indexed");
  again.close();
  assert.equal(PageIndex.open(system.files, path, lineage.replace("0", "f"), system.sha256), null);
  for (const damaged of [0, 513, 1024 ** 2, 0xffff_ffff]) {
    const header = readFileSync(path);
    header.writeUInt32BE(damaged, 24);
    writeFileSync(`${path}-damaged`, header);
    assert.equal(PageIndex.open(system.files, `${path}-damaged`, lineage, system.sha256), null, `page size ${damaged}`);
  }
  truncateSync(path, 63);
  assert.equal(PageIndex.open(system.files, path, lineage, system.sha256), null);
});

test("PageIndex.apply: shrink and growth bring no old entry back", async () => {
  const path = `${temporaryDirectory("index")}/pages.idx`;
  const index = create(path);
  applyAll(index, [1, 2, 3, 4]);
  applyAll(index, [1, 2]);
  assert.equal(statSync(path).size, 64 + 16);
  index.apply({ pgnos: [], hashes: new Uint8Array(0) }, 4);
  assert.deepEqual(await differing(index, [1, 2, 3, 4], 4), [3, 4]);
  index.close();
});

test("PageIndex: where there is no room, or nothing can be read, no descriptor stays open", () => {
  const path = `${temporaryDirectory("index")}/pages.idx`;
  create(path).close();
  let open = 0;
  const fails = (): never => {
    throw Object.assign(new Error("ENOSPC"), { code: "ENOSPC" });
  };
  const files: Files = {
    ...system.files,
    open: (name, mode) => {
      const file = system.files.open(name, mode);
      open++;
      const close = (): void => {
        open--;
        file.close();
      };
      return Object.assign(Object.create(file), { read: fails, write: fails, close }) as OpenFile;
    },
  };
  assert.throws(() => PageIndex.open(files, path, lineage, system.sha256), { code: "ENOSPC" });
  assert.throws(() => PageIndex.create(files, path, { lineage, pageSize, ...system }), { code: "ENOSPC" });
  assert.equal(open, 0);
});

test("PageIndex: two indexes key their hashes differently", () => {
  const directory = temporaryDirectory("index");
  const [a, b] = [create(`${directory}/a`), create(`${directory}/b`)];
  applyAll(a, [1]);
  applyAll(b, [1]);
  assert.notDeepEqual(a.read(1, 1), b.read(1, 1));
  a.close();
  b.close();
});

test("differingPages: exactly the pages that differ, new ones always, candidates limit the old ones", async () => {
  const index = create(`${temporaryDirectory("index")}/pages.idx`);
  applyAll(index, [1, 2, 3, 4, 5]);
  assert.deepEqual(await differing(index, [1, 2, 3, 4, 5], 5), []);
  assert.deepEqual(await differing(index, [1, 9, 3, 4, 9], 5), [2, 5]);
  assert.deepEqual(await differing(index, [1, 9, 3, 4, 9, 6], 5, [1, 5]), [5, 6]);
  assert.deepEqual(await differing(index, [1, 9], 5, [2, 4]), [2], "shrunk");
  assert.deepEqual(await differing(index, [1, 2, 3, 4, 5], 3), [4, 5], "not covered yet");
  index.close();
});
