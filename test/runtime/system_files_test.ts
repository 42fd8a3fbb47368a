import assert from "node:assert/strict";
import { symlinkSync } from "node:fs";
import { test } from "node:test";
import { systemFiles as files } from "../../src/runtime/system_files.ts";
import type { Files } from "../../src/runtime/types.ts";
import { skipReason } from "../support/need.ts";
import { runtimeName } from "../support/runtime.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";

const directory = temporaryDirectory("files");

function write(path: string, text: string): void {
  const file = files.open(path, "create");
  file.write(new TextEncoder().encode(text), 0);
  file.sync();
  file.close();
}

function read(path: string): string {
  const file = files.open(path, "read");
  const bytes = new Uint8Array(file.stat().size + 10);
  const count = file.read(bytes, 0);
  file.close();
  return new TextDecoder().decode(bytes.subarray(0, count));
}

function checkPositions(files: Files): void {
  files.remove(`${directory}/positions`);
  const file = files.open(`${directory}/positions`, "exclusive");
  file.write(Uint8Array.of(1, 2, 3, 4), 4);
  assert.equal(file.stat().size, 8);
  const into = new Uint8Array(6);
  assert.equal(file.read(into, 3), 5);
  assert.deepEqual([...into], [0, 1, 2, 3, 4, 0]);
  assert.equal(file.read(into, 100), 0);
  file.truncate(5);
  assert.equal(file.stat().size, 5);
  file.close();
  file.close();
  assert.throws(() => file.read(into, 0), TypeError);
}

test("OpenFile: reads and writes at positions, short at the end of the file", () => checkPositions(files));

test("Files.open: modes", () => {
  const path = `${directory}/modes`;
  assert.throws(() => files.open(path, "read"), { code: "ENOENT" });
  assert.throws(() => files.open(path, "update"), { code: "ENOENT" });
  write(path, "abc");
  assert.throws(() => files.open(path, "exclusive"), { code: "EEXIST" });
  const file = files.open(path, "create");
  assert.equal(file.stat().size, 3);
  file.close();
});

test("Files.stat: nanoseconds, inode and type; null when nothing is there", () => {
  write(`${directory}/stat`, "x");
  const stat = files.stat(`${directory}/stat`);
  assert.equal(stat?.type, "file");
  assert.equal(stat?.size, 1);
  assert.equal(typeof stat?.inode, "bigint");
  assert.equal(typeof stat?.mtimeNs, "bigint");
  assert.equal(files.stat(directory)?.type, "directory");
  assert.equal(files.stat(`${directory}/nothing`), null);
  assert.equal(files.stat(`${directory}/stat/below-a-file`), null);
});

// Deno's node:fs knows whole milliseconds only, which capture.md allows for (stat-only polling begins after 2 s).
const coarse = runtimeName === "deno" && skipReason("Deno cuts mtimes to milliseconds");

test("Files.stat: tells two writes within one millisecond apart", { skip: coarse }, () => {
  const path = `${directory}/fast`;
  const seen = new Set<bigint>();
  for (let i = 0; i < 200; i++) {
    write(path, String(i));
    seen.add((files.stat(path)?.mtimeNs ?? 0n) % 1_000_000n);
  }
  assert.ok([...seen].some((part) => part !== 0n), "the mtime is cut to milliseconds");
});

function checkNames(files: Files): void {
  write(`${directory}/a`, "a");
  write(`${directory}/b`, "b");
  assert.throws(() => files.link(`${directory}/a`, `${directory}/b`), { code: "EEXIST" });
  files.rename(`${directory}/a`, `${directory}/b`);
  assert.equal(read(`${directory}/b`), "a");
  files.link(`${directory}/b`, `${directory}/c`);
  assert.equal(read(`${directory}/c`), "a");
  files.remove(`${directory}/b`);
  files.remove(`${directory}/b`);
  assert.equal(read(`${directory}/c`), "a");
  files.remove(`${directory}/c`);
}

test("Files: rename replaces, link does not", () => checkNames(files));

test("Files: directories are made, listed in order, synced and removed only when empty", () => {
  const top = `${directory}/top/deep`;
  files.makeDirectory(top);
  files.makeDirectory(top);
  write(`${directory}/plain`, "");
  assert.throws(() => files.makeDirectory(`${directory}/plain`), { code: "EEXIST" });
  assert.throws(() => files.makeDirectory(`${directory}/plain/below`), { code: "ENOTDIR" });
  files.remove(`${directory}/plain`);
  for (const name of ["b", "a", "ä", "B"]) write(`${top}/${name}`, name);
  symlinkSync(`${top}/a`, `${top}/z`);
  symlinkSync(`${top}/gone`, `${top}/zz`);
  files.syncDirectory(top);
  const listed = files.list(top);
  assert.deepEqual(listed.map((entry) => entry.name), ["B", "a", "b", "z", "zz", "ä"]);
  assert.deepEqual(listed.slice(3, 5).map((entry) => entry.type), ["file", "other"]);
  files.removeDirectory(top);
  assert.equal(files.list(top).length, 6);
  for (const { name } of listed) files.remove(`${top}/${name}`);
  files.removeDirectory(top);
  files.removeDirectory(top);
  assert.deepEqual(files.list(top), []);
});

test("Files: a file's names are counted, and a local disk is no network file system", () => {
  const path = `${directory}/placed`;
  files.open(path, "create").close();
  assert.deepEqual(files.placeOf!(path), { links: 1, network: null });
  files.link(path, `${path}-too`);
  assert.deepEqual(files.placeOf!(path), { links: 2, network: null });
  assert.equal(files.placeOf!(`${path}-absent`), null);
});

test("Files: free bytes and the real path", () => {
  assert.ok(files.freeBytes(directory) > 0);
  symlinkSync(directory, `${directory}/self`);
  assert.equal(files.realPath(`${directory}/self/self`), directory);
  assert.throws(() => files.realPath(`${directory}/nothing`), { code: "ENOENT" });
});

test("canary: a link that replaces, and a read that fills up at the end of the file, are found out", () => {
  const replacing: Files = {
    ...files,
    link(from, to) {
      files.remove(to);
      files.link(from, to);
    },
  };
  assert.throws(() => checkNames(replacing), assert.AssertionError);
  const filling: Files = {
    ...files,
    open(path, mode) {
      const file = files.open(path, mode);
      const read = file.read.bind(file);
      file.read = (into, position) => Math.max(read(into, position), into.length);
      return file;
    },
  };
  assert.throws(() => checkPositions(filling), assert.AssertionError);
});
