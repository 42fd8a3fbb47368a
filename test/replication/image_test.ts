import assert from "node:assert/strict";
import { test } from "node:test";
import { DatabaseError } from "../../src/errors.ts";
import { readThere, readWhole } from "../../src/replication/image.ts";
import type { OpenFile } from "../../src/runtime/types.ts";

/** A file of 100 bytes, whose reads go wrong one after the other as `failures` say: how much comes, or an error. */
function failing(...failures: (number | Error)[]): OpenFile {
  const read = (into: Uint8Array, position: number): number => {
    const failure = failures.shift();
    if (failure instanceof Error) throw failure;
    return failure ?? Math.max(0, Math.min(into.length, 100 - position));
  };
  return { path: "app.db", read, stat: () => ({ size: 100 }) } as unknown as OpenFile;
}

const isShort = (error: unknown): boolean => error instanceof DatabaseError && error.code === "short_read";
const into = new Uint8Array(40);

test("[S39] readThere: ends where the file ends, and nowhere else", () => {
  assert.equal(readThere(failing(), into, 0), 40);
  assert.equal(readThere(failing(), into, 80), 20);
  assert.equal(readThere(failing(), into, 100), 0);
  assert.equal(readThere(failing(), into, 1000), 0);
  for (const failure of [0, 39, new Error("EIO")]) {
    assert.equal(readThere(failing(failure), into, 0), 40, `${failure} once`);
    assert.throws(() => readThere(failing(failure, failure), into, 0), isShort, `${failure} twice`);
  }
});

test("readThere: a file that grows between a read and the look at its size was read to its end", () => {
  let size = 100;
  const read = (_: Uint8Array, position: number): number => {
    const length = size - position;
    size += 10;
    return length;
  };
  const file = { path: "app.db", read, stat: () => ({ size }) } as unknown as OpenFile;
  assert.equal(readThere(file, new Uint8Array(1000), 0), 110);
});

test("[S39] readWhole: everything, or an error that keeps its cause", () => {
  readWhole(failing(39), into, 60);
  assert.throws(() => readWhole(failing(), into, 61), isShort);
  const cause = new Error("EIO");
  assert.throws(() => readWhole(failing(cause, cause), into, 0), (error) => (error as Error).cause === cause);
});
