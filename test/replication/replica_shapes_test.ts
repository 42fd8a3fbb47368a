/** Replicas of shapes that are rare: across the lock-byte page, and sets of pages that are spread far. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { closeSync, existsSync, openSync, readSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import fc from "fast-check";
import { lockBytePage } from "../../src/format/sqlite_header.ts";
import { PageSet } from "../../src/replication/page_set.ts";
import { ReplicaFile } from "../../src/replication/replica_file.ts";
import type { ReplicaPoint, ReplicaState } from "../../src/replication/replica_state.ts";
import { StagedPages } from "../../src/replication/staged_pages.ts";
import type { PoolObject } from "../../src/replication/inventory.ts";
import { checkProperty } from "../support/property.ts";
import { extendDatabase } from "../support/sparse.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { Died, MortalRuntime } from "./mortal_runtime.ts";
import { ask, runtime } from "./replica_scene.ts";

const pageSize = 65_536;
const lockPage = lockBytePage(pageSize);

/** Bytes of a file that nobody has open. */
function bytesAt(path: string, position: number, length: number): Uint8Array {
  const file = openSync(path, "r");
  const bytes = new Uint8Array(length);
  const count = readSync(file, bytes, 0, length, position);
  closeSync(file);
  return bytes.subarray(0, count);
}

/** What the file is around the lock-byte page, and its page 1. */
function shapeOf(path: string): string {
  const start = (lockPage - 21) * pageSize;
  const { size } = statSync(path);
  const hash = createHash("sha256").update(bytesAt(path, 0, pageSize));
  return `${size} ${hash.update(bytesAt(path, start, Math.max(0, size - start))).digest("hex")}`;
}

function pageOf(fill: number): Uint8Array {
  return new Uint8Array(pageSize).fill(fill);
}

function pointOf(path: string, pageCount: number): ReplicaPoint {
  const page = bytesAt(path, 0, pageSize);
  const counter = new DataView(page.buffer).getUint32(24);
  const firstPageSha256 = createHash("sha256").update(page).digest("hex");
  const sourceHeader = [...page.subarray(0, 100)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return {
    ...{ lineage: null, seq: 1n, chain: 1n, createdMs: 1, pageSize, pageCount },
    ...{ counter, firstPageSha256, sourceHeader },
  };
}

/** Stages page 1 with this size, `pages` with content, and the end of the changeset. */
function stageTo(staged: StagedPages, source: Uint8Array, pageCount: number, pages: readonly number[]): void {
  const first = source.slice();
  const view = new DataView(first.buffer);
  view.setUint32(28, pageCount);
  staged.pages(1, first, pageSize);
  for (const pgno of pages) staged.pages(pgno, pageOf(pgno & 0xff), pageSize);
  const object: PoolObject = { kind: "delta", lineage: null, level: 0, min: 2n, max: 2n, size: 1, lastModifiedMs: 0 };
  staged.end({
    object,
    pageCount,
    chain: 2n,
    header: {
      ...{ version: 1, flags: 1, pageSize, seq: 2n, prevChecksum: 1n, pageCount: 2, createdMs: 2, declaredEnd: null },
    },
  });
}

const directory = temporaryDirectory("replica-shapes");

for (
  const [name, from, to] of [["shrink", lockPage + 10, lockPage - 4], ["growth", lockPage - 4, lockPage + 10]] as const
) {
  test(`[S123] ReplicaFile: a ${name} across the lock-byte page, killed at every step, is undone or done`, () => {
    const path = join(directory, `${name}.db`);
    const database = new DatabaseSync(path);
    database.exec(`PRAGMA page_size = ${pageSize}; CREATE TABLE t(x); INSERT INTO t VALUES (1)`);
    database.close();
    extendDatabase(path, from, pageSize);
    const file = openSync(path, "r+");
    for (let pgno = lockPage - 20; pgno <= from; pgno++) {
      if (pgno !== lockPage) writeSync(file, pageOf(0x55), 0, pageSize, (pgno - 1) * pageSize);
    }
    closeSync(file);
    const point = pointOf(path, from);
    const source = bytesAt(path, 0, pageSize).slice();
    const state: ReplicaState = { source: "test", before: point, after: point };
    const before = shapeOf(path);
    const seen = new Set<string>();
    // The lock-byte page is among them: no journal could take it back.
    const pages = [3, 9000, lockPage - 10];
    for (let pgno = from + 1; pgno <= to; pgno++) pages.push(pgno);
    for (let deadly = 1;; deadly++) {
      const mortal = new MortalRuntime(runtime, deadly);
      try {
        const replica = new ReplicaFile({ runtime: mortal.runtime, localPath: path, isShared: false }, state);
        const staged = replica.stage();
        stageTo(staged, source, to, pages);
        const update = replica.prepare(staged, null);
        assert.ok(replica.commit(update) !== null);
        replica.close();
      } catch (error) {
        if (!(error instanceof Died)) throw error;
      } finally {
        mortal.bury();
      }
      assert.deepEqual(ask(path, "SELECT x FROM t"), { x: 1 }, mortal.names.at(-1));
      assert.ok(!existsSync(`${path}-journal`));
      const shape = shapeOf(path);
      seen.add(shape);
      assert.ok(seen.size <= 2, `${mortal.names.at(-1)}: a third state`);
      if (shape !== before) break;
    }
    assert.ok(seen.has(before));
    assert.equal(statSync(path).size, to * pageSize);
    if (to > lockPage) assert.ok(bytesAt(path, (lockPage - 1) * pageSize, pageSize).every((byte) => byte === 0));
  });
}

test("StagedPages: what a shrink cuts off comes back as zeros, as a restore has it; the digest is that image's", () => {
  const size = 512;
  const before = new Uint8Array(10 * size).fill(7);
  const base = {
    point: { pageSize: size, pageCount: 10 },
    readAsSource: (first: number, into: Uint8Array) =>
      into.set(before.subarray((first - 1) * size).subarray(0, into.length)),
  };
  const { files, sha256 } = runtime;
  const staged = new StagedPages({ files, sha256, path: join(directory, "staged"), base });
  const object: PoolObject = { kind: "delta", lineage: null, level: 0, min: 2n, max: 2n, size: 1, lastModifiedMs: 0 };
  const end = (pageCount: number): void => {
    const header = { version: 1, flags: 1, pageSize: size, seq: 2n, prevChecksum: 0n, createdMs: 0 } as const;
    staged.end({ object, pageCount, chain: 0n, header: { ...header, pageCount: 1, declaredEnd: null } });
  };
  staged.pages(8, new Uint8Array(size).fill(8), size);
  staged.pages(3, new Uint8Array(size).fill(3), size);
  end(4);
  staged.pages(6, new Uint8Array(size).fill(6), size);
  end(8);
  const expected = new Uint8Array(8 * size);
  for (const [page, fill] of [[1, 7], [2, 7], [3, 3], [4, 7], [6, 6]]) {
    expected.fill(fill, (page - 1) * size, page * size);
  }
  assert.deepEqual([...staged.imageDigest()], [...createHash("sha256").update(expected).digest()]);
  staged.fillCutPages(10 * size);
  assert.deepEqual([...staged.pgnos.pages()], [3, 5, 6, 7, 8]);
  const page = new Uint8Array(size);
  for (const [pgno, fill] of [[3, 3], [5, 0], [6, 6], [7, 0], [8, 0]]) {
    staged.read(pgno, page);
    assert.ok(page.every((byte) => byte === fill), `page ${pgno}`);
  }
  staged.discard();
});

test("PageSet: is the set that it says, whatever is added, left out and cut", () => {
  const pgno = fc.oneof(
    fc.integer({ min: 1, max: 200 }),
    fc.integer({ min: 32_700, max: 32_800 }),
    fc.constant(2 ** 32 - 2),
  );
  const deed = fc.record({ kind: fc.constantFrom("add" as const, "delete" as const, "cut" as const), pgno });
  checkProperty(
    fc.property(fc.array(deed, { maxLength: 80 }), fc.integer({ min: 1, max: 5 }), (deeds, pagesMax) => {
      const set = new PageSet();
      const model = new Set<number>();
      for (const { kind, pgno } of deeds) {
        set[kind](pgno);
        if (kind === "add") model.add(pgno);
        if (kind === "delete") model.delete(pgno);
        if (kind === "cut") { for (const page of model) if (page > pgno) model.delete(page); }
      }
      const expected = [...model].sort((a, b) => a - b);
      assert.deepEqual([...set.pages()], expected);
      for (const page of [...expected, 1, 31, 32, 33, 32_767, 32_768]) assert.equal(set.has(page), model.has(page));
      const runs = [...set.runs(pagesMax)];
      assert.deepEqual(
        runs.flatMap(({ first, count }) => Array.from({ length: count }, (_, i) => first + i)),
        expected,
      );
      assert.ok(runs.every(({ count }) => count >= 1 && count <= pagesMax));
      set.clear();
      assert.deepEqual([...set.pages()], []);
    }),
    300,
  );
});
