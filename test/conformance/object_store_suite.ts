/** What every object store must do; see the contract in src/storage/object_store.ts. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import { NotFoundError, PreconditionError, StorageError } from "../../src/errors.ts";
import { ignoredConditions } from "../../src/replication/condition_probe.ts";
import { getBytes, type ObjectStore } from "../../src/storage/object_store.ts";

/** One rule: throws when `store`, empty at first, breaks it. */
export interface StoreCheck {
  readonly name: string;
  check(store: ObjectStore): Promise<void>;
}

const MiB = 1024 * 1024;

/** Runs every rule on a new store each. */
export function objectStoreSuite(
  storeName: string,
  open: () => Promise<ObjectStore> | ObjectStore,
  options: { skip?: string | false } = {},
): void {
  for (const { name, check } of objectStoreChecks) {
    test(`${storeName}: ${name}`, { skip: options.skip || undefined, timeout: 60_000 }, async () => {
      await check(await open());
    });
  }
}

/** Bytes that look random and are the same each time. */
export function noise(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let x = seed | 1;
  for (let i = 0; i < length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    bytes[i] = x;
  }
  return bytes;
}

const text = (value: string): Uint8Array => new TextEncoder().encode(value);

async function read(store: ObjectStore, key: string, range?: { start: number; end: number }): Promise<string> {
  const { bytes } = await getBytes(store, key, MiB, range ? { range } : {});
  return new TextDecoder().decode(bytes);
}

async function keysOf(store: ObjectStore, prefix: string, startAfter?: string): Promise<string[]> {
  const keys: string[] = [];
  for await (const info of store.list(prefix, startAfter === undefined ? {} : { startAfter })) keys.push(info.key);
  return keys;
}

async function digestOf(store: ObjectStore, key: string): Promise<string> {
  const hash = createHash("sha256");
  for await (const chunk of (await store.get(key)).body) hash.update(chunk);
  return hash.digest("hex");
}

/** `total` bytes in chunks of `size`, all from one buffer that is overwritten for each. */
async function* stream(total: number, size: number, hash?: ReturnType<typeof createHash>): AsyncGenerator<Uint8Array> {
  const buffer = new Uint8Array(size);
  for (let at = 0; at < total; at += size) {
    const chunk = buffer.subarray(0, Math.min(size, total - at));
    chunk.set(noise(chunk.length, at + 7));
    hash?.update(chunk);
    await Promise.resolve();
    yield chunk;
  }
}

/** The rules. */
export const objectStoreChecks: readonly StoreCheck[] = [
  {
    name: "put, get and head agree",
    async check(store) {
      const { etag } = await store.put("a/b.txt", text("hello"));
      assert.ok(etag.length > 0);
      const object = await store.get("a/b.txt");
      assert.equal(object.size, 5);
      assert.equal(object.etag, etag);
      const parts: string[] = [];
      for await (const chunk of object.body) parts.push(new TextDecoder().decode(chunk));
      assert.equal(parts.join(""), "hello");
      const info = await store.head("a/b.txt");
      assert.ok(info);
      assert.deepEqual({ key: info.key, size: info.size, etag: info.etag }, { key: "a/b.txt", size: 5, etag });
    },
  },
  {
    name: "put replaces, and an empty object is an object",
    async check(store) {
      await store.put("a", text("one"));
      await store.put("a", text("three"));
      assert.equal(await read(store, "a"), "three");
      await store.put("a", new Uint8Array(0));
      assert.equal(await read(store, "a"), "");
      assert.equal((await store.head("a"))?.size, 0);
      assert.equal(await read(store, "a", { start: 0, end: 48 }), "");
    },
  },
  {
    name: "put keeps its own copy of the body",
    async check(store) {
      const body = text("before");
      await store.put("a", body);
      body.fill(0);
      assert.equal(await read(store, "a"), "before");
    },
  },
  {
    name: "get and head of an absent object",
    async check(store) {
      await assert.rejects(() => store.get("no/such"), (error) => {
        assert.ok(error instanceof NotFoundError);
        assert.equal(error.key, "no/such");
        return true;
      });
      await assert.rejects(() => store.get("no/such", { range: { start: 0, end: 4 } }), NotFoundError);
      await assert.rejects(() => store.get("no/such", { range: { start: 4, end: 4 } }), NotFoundError);
      assert.equal(await store.head("no/such"), null);
    },
  },
  {
    name: "ranged get",
    async check(store) {
      await store.put("a", text("0123456789"));
      assert.equal(await read(store, "a", { start: 0, end: 4 }), "0123");
      assert.equal(await read(store, "a", { start: 3, end: 7 }), "3456");
      assert.equal(await read(store, "a", { start: 8, end: 100 }), "89");
      assert.equal(await read(store, "a", { start: 10, end: 100 }), "");
      assert.equal(await read(store, "a", { start: 20, end: 30 }), "");
      assert.equal(await read(store, "a", { start: 5, end: 5 }), "");
      assert.equal((await getBytes(store, "a", 4, { range: { start: 3, end: 7 } })).size, 10);
      await assert.rejects(() => store.get("a", { range: { start: 7, end: 3 } }), RangeError);
      await assert.rejects(() => store.get("a", { range: { start: -1, end: 3 } }), RangeError);
    },
  },
  {
    name: "put if absent: the second loses and changes nothing",
    async check(store) {
      await store.put("a", text("first"), { ifAbsent: true });
      await assert.rejects(() => store.put("a", text("other"), { ifAbsent: true }), (error) => {
        assert.ok(error instanceof PreconditionError);
        assert.equal(error.key, "a");
        return true;
      });
      assert.equal(await read(store, "a"), "first");
    },
  },
  {
    name: "put if absent: identical bytes succeed",
    async check(store) {
      const { etag } = await store.put("a", text("same"), { ifAbsent: true });
      assert.equal((await store.put("a", text("same"), { ifAbsent: true })).etag, etag);
    },
  },
  {
    name: "put if absent: of many at once exactly one wins",
    async check(store) {
      const outcomes = await Promise.allSettled(
        Array.from({ length: 8 }, (_, i) => store.put("race", text(`writer ${i}`), { ifAbsent: true })),
      );
      const won = outcomes.flatMap((outcome, i) => outcome.status === "fulfilled" ? [i] : []);
      for (const outcome of outcomes) {
        if (outcome.status === "rejected") assert.ok(outcome.reason instanceof PreconditionError, outcome.reason);
      }
      assert.equal(won.length, 1);
      assert.equal(await read(store, "race"), `writer ${won[0]}`);
    },
  },
  {
    name: "put if match: only the expected version is replaced",
    async check(store) {
      const first = await store.put("a", text("one"));
      const second = await store.put("a", text("two"), { ifMatch: first.etag });
      assert.notEqual(second.etag, first.etag);
      await assert.rejects(() => store.put("a", text("three"), { ifMatch: first.etag }), PreconditionError);
      assert.equal(await read(store, "a"), "two");
      assert.equal((await store.put("a", text("two"), { ifMatch: first.etag })).etag, second.etag);
      await assert.rejects(() => store.put("absent", text("x"), { ifMatch: first.etag }), PreconditionError);
      assert.equal(await store.head("absent"), null);
    },
  },
  {
    name: "put if match works with the etag of get, head and list",
    async check(store) {
      await store.put("a", text("0"));
      await store.put("a", text("1"), { ifMatch: (await getBytes(store, "a", MiB)).etag });
      await store.put("a", text("2"), { ifMatch: (await store.head("a"))!.etag });
      for await (const info of store.list("a")) {
        if (info.etag !== "") await store.put("a", text("3"), { ifMatch: info.etag });
      }
    },
  },
  {
    name: "put refuses more than 64 MiB",
    async check(store) {
      await assert.rejects(() => store.put("a", new Uint8Array(64 * MiB + 1)), RangeError);
    },
  },
  {
    name: "putStream: a stream that fits in memory",
    async check(store) {
      await store.putStream("empty", []);
      assert.equal((await store.head("empty"))?.size, 0);
      const { etag } = await store.putStream("a/small", [text("he"), text(""), text("llo")]);
      assert.equal(await read(store, "a/small"), "hello");
      assert.equal((await store.head("a/small"))?.etag, etag);
    },
  },
  {
    name: "putStream: a large stream arrives whole, and resists a second one",
    async check(store) {
      const hash = createHash("sha256");
      const size = 17 * MiB + 123;
      const { etag } = await store.putStream("big", stream(size, 300_000, hash), { ifAbsent: true });
      const digest = hash.digest("hex");
      const info = await store.head("big");
      assert.deepEqual([info?.size, info?.etag], [size, etag]);
      assert.equal(await digestOf(store, "big"), digest);
      const again = await store.putStream("big", stream(size, 300_000), { ifAbsent: true });
      assert.equal(again.etag, etag);
      await assert.rejects(
        () => store.putStream("big", stream(size - 1, 300_000), { ifAbsent: true }),
        PreconditionError,
      );
      assert.equal(await digestOf(store, "big"), digest);
      const middle = await getBytes(store, "big", MiB, { range: { start: 300_000, end: 300_010 } });
      assert.deepEqual(middle.bytes, noise(300_000, 300_007).subarray(0, 10));
    },
  },
  {
    name: "putStream: exactly one part, and exactly two",
    async check(store) {
      for (const size of [8 * MiB, 16 * MiB]) {
        const hash = createHash("sha256");
        await store.putStream(`parts/${size}`, stream(size, MiB, hash));
        assert.equal(await digestOf(store, `parts/${size}`), hash.digest("hex"));
      }
    },
  },
  {
    name: "putStream: a stream that throws leaves nothing",
    async check(store) {
      for (const size of [100, 17 * MiB]) {
        const broken = async function* (): AsyncGenerator<Uint8Array> {
          yield* stream(size, MiB);
          throw new Error("the source broke");
        };
        await assert.rejects(() => store.putStream("half", broken()), /the source broke/);
        assert.equal(await store.head("half"), null);
        assert.deepEqual(await keysOf(store, ""), []);
      }
    },
  },
  {
    name: "list: ascending by UTF-8 bytes, below the prefix, after the key",
    async check(store) {
      const sorted = ["a-b/1", "a.b", "a/1", "a/10", "a/2", "a/b/c", "a0", "b/\u00e9", "b/\uffee", "b/\u{1f600}"];
      for (const key of [...sorted].reverse()) await store.put(key, text(key));
      assert.deepEqual(await keysOf(store, ""), sorted);
      assert.deepEqual(await keysOf(store, "a/"), ["a/1", "a/10", "a/2", "a/b/c"]);
      assert.deepEqual(await keysOf(store, "a/1"), ["a/1", "a/10"]);
      assert.deepEqual(await keysOf(store, "a"), sorted.slice(0, 7));
      assert.deepEqual(await keysOf(store, "a/", "a/1"), ["a/10", "a/2", "a/b/c"]);
      assert.deepEqual(await keysOf(store, "", "a/b"), ["a/b/c", "a0", "b/\u00e9", "b/\uffee", "b/\u{1f600}"]);
      assert.deepEqual(await keysOf(store, "a/", "b"), []);
      assert.deepEqual(await keysOf(store, "none/"), []);
      for await (const info of store.list("a/b/")) {
        assert.equal(info.size, 5);
        assert.ok(info.lastModifiedMs > 0);
      }
    },
  },
  {
    name: "list: more than a page",
    async check(store) {
      const keys = Array.from({ length: 1100 }, (_, i) => `many/${String(i).padStart(5, "0")}`);
      for (let from = 0; from < keys.length; from += 50) {
        await Promise.all(keys.slice(from, from + 50).map((key) => store.put(key, text(key))));
      }
      assert.deepEqual(await keysOf(store, "many/"), keys);
      assert.deepEqual(await keysOf(store, "many/", keys[499]), keys.slice(500));
      assert.deepEqual(await store.deleteMany(keys), []);
      assert.deepEqual(await keysOf(store, ""), []);
    },
  },
  {
    name: "listDirectories: one level, each once",
    async check(store) {
      for (const key of ["x/1", "x/a/1", "x/a/2", "x/b/c/1", "xy/1", "z"]) await store.put(key, text(key));
      assert.deepEqual(await store.listDirectories(""), ["x/", "xy/"]);
      assert.deepEqual(await store.listDirectories("x/"), ["x/a/", "x/b/"]);
      assert.deepEqual(await store.listDirectories("x"), ["x/", "xy/"]);
      assert.deepEqual(await store.listDirectories("none/"), []);
      await store.deleteMany(["x/b/c/1"]);
      assert.deepEqual(await store.listDirectories("x/"), ["x/a/"]);
    },
  },
  {
    name: "deleteMany: absent keys count as deleted",
    async check(store) {
      await store.put("a/b/c", text("1"));
      await store.put("a/d", text("2"));
      assert.deepEqual(await store.deleteMany([]), []);
      assert.deepEqual(await store.deleteMany(["a/b/c", "a/none", "none/none"]), []);
      assert.deepEqual(await keysOf(store, ""), ["a/d"]);
      await store.put("a/b/c", text("again"));
      assert.equal(await read(store, "a/b/c"), "again");
    },
  },
  {
    name: "[S63] conditions are kept, and the probe for it changes nothing",
    async check(store) {
      const lineage = "0".repeat(32);
      const key = `app/lineages/${lineage}/lineage.json`;
      for (const document of ["{}", "{}\n"]) {
        await store.put(key, text(document));
        assert.deepEqual(await ignoredConditions(store, "app/", lineage), []);
        assert.equal(await read(store, key), document);
      }
    },
  },
  {
    name: "[S62] keys with special characters mean themselves",
    async check(store) {
      const keys = [
        "sp ace/a b",
        "plus+plus",
        "per%cent/%41%2F",
        "q?a=b&c#d",
        "st*r(1)!'x'",
        "co:lon;semi,comma=eq@at$",
        'quote"<tag>&amp;',
        "\u00e9/\u65e5\u672c/\u{1f600}",
        "tilde~_-.x",
        "[brackets]{braces}|^`",
      ];
      for (const key of keys) await store.put(key, text(key), { ifAbsent: true });
      for (const key of keys) {
        assert.equal(await read(store, key), key);
        assert.equal((await store.head(key))?.key, key);
      }
      assert.deepEqual(new Set(await keysOf(store, "")), new Set(keys));
      for (const key of keys) assert.deepEqual(await keysOf(store, key), [key]);
      assert.deepEqual(await store.deleteMany(keys), []);
      assert.deepEqual(await keysOf(store, ""), []);
    },
  },
  {
    name: "[S62] keys that no store can hold are refused",
    async check(store) {
      const invalid = (error: unknown): boolean => error instanceof StorageError && error.code === "InvalidKey";
      for (const key of ["", "/a", "a//b", "a/", "..", "../a", "a/../b", "a/..", "./a", "a/.", "a\0b", "\ud800"]) {
        await assert.rejects(() => store.put(key, text("x")), invalid, JSON.stringify(key));
        await assert.rejects(() => store.get(key), invalid, JSON.stringify(key));
        await assert.rejects(() => store.head(key), invalid);
        await assert.rejects(() => store.putStream(key, [text("x")]), invalid);
        await assert.rejects(() => store.deleteMany([key]), invalid);
      }
      await assert.rejects(() => store.put("k".repeat(1025), text("x")), invalid);
      await assert.rejects(() => keysOf(store, "../"), invalid);
      await assert.rejects(() => store.listDirectories("a/../../"), invalid);
    },
  },
  {
    name: "every call ends with the reason of an aborted signal",
    async check(store) {
      await store.put("a", text("x"));
      const reason = new Error("enough");
      const signal = AbortSignal.abort(reason);
      const same = (error: unknown): boolean => error === reason;
      await assert.rejects(() => store.get("a", { signal }), same);
      await assert.rejects(() => store.head("a", { signal }), same);
      await assert.rejects(() => store.put("b", text("x"), { signal }), same);
      await assert.rejects(() => store.putStream("b", stream(17 * MiB, MiB), { signal }), same);
      await assert.rejects(() => store.deleteMany(["a"], { signal }), same);
      await assert.rejects(() => store.listDirectories("", { signal }), same);
      await assert.rejects(async () => {
        for await (const _ of store.list("", { signal }));
      }, same);
      assert.deepEqual(await keysOf(store, ""), ["a"]);
    },
  },
  {
    name: "putStream ends in the middle when aborted, and leaves nothing",
    async check(store) {
      const controller = new AbortController();
      const reason = new Error("enough");
      let sent = 0;
      const chunks = async function* (): AsyncGenerator<Uint8Array> {
        for await (const chunk of stream(20 * MiB, MiB)) {
          yield chunk;
          if (chunk.length > 0 && ++sent === 18) controller.abort(reason);
        }
      };
      await assert.rejects(
        () => store.putStream("half", chunks(), { signal: controller.signal }),
        (error) => error === reason,
      );
      assert.deepEqual(await keysOf(store, ""), []);
    },
  },
  {
    name: "a body may be left unread or half read",
    async check(store) {
      await store.put("a", noise(3 * MiB, 5));
      for (let i = 0; i < 20; i++) {
        for await (const chunk of (await store.get("a")).body) {
          assert.ok(chunk.length > 0);
          break;
        }
      }
      await assert.rejects(() => getBytes(store, "a", 100), StorageError);
      assert.equal((await getBytes(store, "a", 3 * MiB)).bytes.length, 3 * MiB);
    },
  },
];
