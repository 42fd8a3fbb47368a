/** What only a store of files can do wrong. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { PreconditionError, StorageError } from "../../src/errors.ts";
import { systemRuntime } from "../../src/runtime/system.ts";
import type { Files } from "../../src/runtime/types.ts";
import { DirectoryStore } from "../../src/storage/directory.ts";
import { getBytes } from "../../src/storage/object_store.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";

const { files, random, clock } = systemRuntime();
const text = (value: string): Uint8Array => new TextEncoder().encode(value);

function open(directory: string, changed: Partial<Files> = {}): DirectoryStore {
  const all: Files = { ...bound(files), ...changed };
  return new DirectoryStore({ directory, files: all, random, clock });
}

/** `Files` as an object whose methods can be replaced. */
function bound(source: Files): Files {
  return {
    uid: files.uid,
    stat: (path) => source.stat(path),
    open: (path, mode) => source.open(path, mode),
    rename: (from, to) => source.rename(from, to),
    link: (from, to) => source.link(from, to),
    remove: (path) => source.remove(path),
    makeDirectory: (path) => source.makeDirectory(path),
    removeDirectory: (path) => source.removeDirectory(path),
    list: (path) => source.list(path),
    syncDirectory: (path) => source.syncDirectory(path),
    freeBytes: (path) => source.freeBytes(path),
    realPath: (path) => source.realPath(path),
  };
}

test("DirectoryStore: objects are plain files, and nothing else stays", async () => {
  const directory = temporaryDirectory("plain");
  const store = open(directory);
  await store.put("a/b", text("x"));
  await store.put("a/b", text("y"), { ifMatch: (await store.head("a/b"))!.etag });
  await store.put("c", text("z"), { ifAbsent: true });
  await assert.rejects(() => store.put("c", text("other"), { ifAbsent: true }), PreconditionError);
  assert.equal(readFileSync(`${directory}/a/b`, "utf8"), "y");
  assert.deepEqual(readdirSync(`${directory}/.walrust-tmp`), []);
  await store.deleteMany(["a/b"]);
  assert.equal(existsSync(`${directory}/a`), false);
});

test("DirectoryStore: between the pieces of a large object everything else gets a turn", async () => {
  const store = open(temporaryDirectory("turns"));
  const piece = new Uint8Array(1024 * 1024);
  let turns = 0;
  let going = true;
  const other = (async () => {
    for (; going; turns++) await new Promise((resolve) => setTimeout(resolve, 0));
  })();
  await store.putStream("large", Array(64).fill(piece));
  const whileWritten = turns;
  for await (const _ of (await store.get("large")).body);
  going = false;
  await other;
  assert.ok(whileWritten > 1, `${whileWritten} turns while 64 MiB were written`);
  assert.ok(turns > whileWritten + 1, `${turns - whileWritten} turns while 64 MiB were read`);
});

/** A store and what it does to the disk, in order. */
function recorded(name: string, changed: Partial<Files> = {}): { store: DirectoryStore; steps: string[] } {
  const directory = temporaryDirectory(name);
  const steps: string[] = [];
  const shown = (path: string): string => path.slice(directory.length).replace(/[0-9a-f]{24}/, "T");
  const store = open(directory, {
    open(path, mode) {
      const file = files.open(path, mode);
      const sync = file.sync.bind(file);
      file.sync = () => {
        steps.push(`sync ${shown(path)}`);
        sync();
      };
      return file;
    },
    rename(from, to) {
      steps.push(`rename ${shown(from)} ${shown(to)}`);
      files.rename(from, to);
    },
    link(from, to) {
      steps.push(`link ${shown(from)} ${shown(to)}`);
      files.link(from, to);
    },
    syncDirectory(path) {
      steps.push(`syncDirectory ${shown(path)}`);
      files.syncDirectory(path);
    },
    ...changed,
  });
  return { store, steps };
}

/** What forces a new object with key `a/b/c` to the disk; `naming` gives it its name. */
function durable(naming: "rename" | "link"): string[] {
  return [
    "sync /.walrust-tmp/T",
    "syncDirectory /a",
    "syncDirectory /",
    `${naming} /.walrust-tmp/T /a/b/c`,
    "syncDirectory /a/b",
  ];
}

test("DirectoryStore: an object is on the disk before it has its name, and the name before put returns", async () => {
  const { store, steps } = recorded("sync");
  const { etag } = await store.put("a/b/c", text("x"));
  assert.deepEqual(steps.splice(0), durable("rename"));
  await store.put("a/b/c", text("y"), { ifMatch: etag });
  assert.deepEqual(steps, durable("rename").filter((step) => !/ \/a?$/.test(step)), "the directories are there");
});

test("DirectoryStore: so is an object that must be new, which gets its name by a link", async () => {
  const put = recorded("link");
  await put.store.put("a/b/c", text("x"), { ifAbsent: true });
  assert.deepEqual(put.steps, durable("link"));
  const stream = recorded("link");
  await stream.store.putStream("a/b/c", [text("x"), text("y")], { ifAbsent: true });
  assert.deepEqual(stream.steps, durable("link"));
});

test("DirectoryStore: an object that is there already counts when its name is on the disk", async () => {
  const { store, steps } = recorded("twice");
  await store.put("a/b/c", text("x"));
  steps.splice(0);
  await store.put("a/b/c", text("x"), { ifAbsent: true });
  assert.deepEqual(steps, ["sync /.walrust-tmp/T", "link /.walrust-tmp/T /a/b/c", "syncDirectory /a/b"]);
});

test("DirectoryStore: canary, a directory that is not forced to the disk is noticed", async () => {
  const { store, steps } = recorded("canary", { syncDirectory: () => {} });
  await store.put("a/b/c", text("x"), { ifAbsent: true });
  assert.throws(() => assert.deepEqual(steps, durable("link")));
});

test("DirectoryStore: a full disk is named, and nothing half-written stays", async () => {
  const directory = temporaryDirectory("full");
  const store = open(directory, {
    open(path, mode) {
      const file = files.open(path, mode);
      file.write = () => {
        throw Object.assign(new Error("ENOSPC: no space left on device, write"), { code: "ENOSPC" });
      };
      return file;
    },
  });
  await assert.rejects(() => store.put("a", text("x")), (error) => {
    assert.ok(error instanceof StorageError);
    assert.equal(error.code, "ENOSPC");
    assert.match(error.hint ?? "", /Free space/);
    return true;
  });
  assert.deepEqual(readdirSync(`${directory}/.walrust-tmp`), []);
  assert.equal(existsSync(`${directory}/a`), false);
});

test("DirectoryStore: its own folder and foreign things are neither listed nor keys", async () => {
  const directory = temporaryDirectory("own");
  const store = open(directory);
  mkdirSync(`${directory}/.walrust-tmp`);
  mkdirSync(`${directory}/empty/deep`, { recursive: true });
  writeFileSync(`${directory}/.walrust-tmp/0123`, "half");
  await store.put("a", text("x"));
  const keys: string[] = [];
  for await (const { key } of store.list("")) keys.push(key);
  assert.deepEqual(keys, ["a"]);
  assert.deepEqual(await store.listDirectories(""), []);
  await assert.rejects(() => store.put(".walrust-tmp/lock", text("x")), StorageError);
  await assert.rejects(() => store.deleteMany([".walrust-tmp/0123"]), StorageError);
});

test("DirectoryStore: leftovers of writers that died are removed after a day", async () => {
  const directory = temporaryDirectory("left");
  mkdirSync(`${directory}/.walrust-tmp`);
  for (const name of ["old", "new"]) writeFileSync(`${directory}/.walrust-tmp/${name}`, "half");
  utimesSync(`${directory}/.walrust-tmp/old`, new Date(0), new Date(0));
  await open(directory).put("a", text("x"));
  assert.deepEqual(readdirSync(`${directory}/.walrust-tmp`), ["new"]);
});

test("DirectoryStore: of many compare-and-swaps in two stores each version has one successor", async () => {
  const directory = temporaryDirectory("swap");
  const stores = [open(directory), open(directory)];
  await stores[0].put("count", text("0"));
  const add = async (store: DirectoryStore, who: number): Promise<void> => {
    for (let added = 0; added < 10;) {
      const { bytes, etag } = await getBytes(store, "count", 100);
      // A tail of its own, so that the identical-bytes rule helps nobody.
      const next = text(`${parseInt(new TextDecoder().decode(bytes)) + 1} by ${who}`);
      try {
        await store.put("count", next, { ifMatch: etag });
        added++;
      } catch (error) {
        assert.ok(error instanceof PreconditionError, String(error));
      }
    }
  };
  await Promise.all(stores.map(add));
  const { bytes } = await getBytes(stores[0], "count", 100);
  assert.equal(parseInt(new TextDecoder().decode(bytes)), 20);
});

test("DirectoryStore: the lock of a dead process is broken, that of a live one is respected", async () => {
  const directory = temporaryDirectory("lock");
  const store = open(directory);
  const lock = `${directory}/.walrust-tmp/lock`;
  const { etag } = await store.put("a", text("1"));
  writeFileSync(lock, "");
  utimesSync(lock, new Date(0), new Date(0));
  const second = await store.put("a", text("2"), { ifMatch: etag });
  assert.equal(existsSync(lock), false);
  writeFileSync(lock, "");
  const impatient = new DirectoryStore({
    directory,
    files,
    random,
    clock: { now: () => 0, monotonic: () => 0, sleep: () => Promise.resolve() },
  });
  await assert.rejects(() => impatient.put("a", text("3"), { ifMatch: second.etag }), (error) => {
    assert.ok(error instanceof StorageError);
    assert.deepEqual([error.code, error.retryable], ["Locked", true]);
    return true;
  });
  assert.equal(readFileSync(`${directory}/a`, "utf8"), "2");
});

test("DirectoryStore: [C: mid snapshot] a lock whose holder was killed a moment ago is waited out", async () => {
  const directory = temporaryDirectory("killed");
  const lock = `${directory}/.walrust-tmp/lock`;
  let waitedMs = 0;
  const sleep = (ms: number): Promise<void> => {
    waitedMs += ms;
    const madeMs = Date.now() - waitedMs;
    if (existsSync(lock)) utimesSync(lock, new Date(madeMs), new Date(madeMs));
    return Promise.resolve();
  };
  const store = new DirectoryStore({ directory, files, random, clock: { ...clock, sleep } });
  const { etag } = await store.put("a", text("1"));
  writeFileSync(lock, "");
  await store.put("a", text("2"), { ifMatch: etag });
  assert.equal(readFileSync(`${directory}/a`, "utf8"), "2");
  assert.ok(waitedMs > 29_000 && waitedMs < 32_000, `${waitedMs} ms`);
});

test("DirectoryStore: a large object replaced before it is read is not mixed", async () => {
  const store = open(temporaryDirectory("replaced"));
  await store.put("a", new Uint8Array(200_000).fill(1));
  const object = await store.get("a");
  await store.put("a", new Uint8Array(200_000).fill(2));
  await assert.rejects(async () => {
    for await (const _ of object.body);
  }, (error) => error instanceof StorageError && error.code === "ObjectChanged");
});
