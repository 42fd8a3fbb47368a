/** Every store keeps the one contract. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { systemRuntime } from "../../src/runtime/system.ts";
import { explicitCredentials } from "../../src/storage/credentials.ts";
import { DirectoryStore } from "../../src/storage/directory.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { getBytes, type ObjectStore, type PutOptions } from "../../src/storage/object_store.ts";
import { S3Store } from "../../src/storage/s3.ts";
import { wrapStore } from "../../src/storage/wrap.ts";
import { objectStoreChecks, objectStoreSuite } from "../conformance/object_store_suite.ts";
import { needS3Server, type S3Server, type S3ServerKind, startS3Server } from "../support/s3_server.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";

const runtime = systemRuntime();

objectStoreSuite("MemoryStore", () => new MemoryStore());

objectStoreSuite("DirectoryStore", () => {
  const { files, random, clock } = runtime;
  return new DirectoryStore({ directory: `${temporaryDirectory("store")}/bucket`, files, random, clock });
});

for (const kind of ["versitygw", "moto"] as const) {
  objectStoreSuite(`S3Store on ${kind}`, () => openOn(kind), { skip: needS3Server(kind) });
}

const servers = new Map<S3ServerKind, Promise<S3Server>>();
let buckets = 0;

async function openOn(kind: S3ServerKind): Promise<ObjectStore> {
  if (!servers.has(kind)) servers.set(kind, startS3Server(kind));
  const { endpoint, accessKeyId, secretAccessKey, createBucket } = await servers.get(kind)!;
  const bucket = `bucket-${++buckets}`;
  await createBucket(bucket);
  const credentials = explicitCredentials({ accessKeyId, secretAccessKey });
  return new S3Store({ bucket, endpoint, credentials, ...runtime });
}

after(async () => {
  for (const server of servers.values()) await (await server).stop();
});

test("getBytes: a store that gives too few bytes is not believed", async () => {
  const store = new MemoryStore();
  await store.put("k", new Uint8Array(10));
  const short = wrapStore(store, {
    get: async () => ({ ...await store.get("k"), body: (await store.get("k", { range: { start: 0, end: 9 } })).body }),
  });
  assert.equal((await getBytes(store, "k", 10)).bytes.length, 10);
  await assert.rejects(() => getBytes(short, "k", 10), { code: "Truncated" });
});

/** A store that breaks one rule. */
class ForgetsConditions extends MemoryStore {
  override put(key: string, body: Uint8Array, options: PutOptions = {}): Promise<{ etag: string }> {
    return super.put(key, body, options.signal ? { signal: options.signal } : {});
  }
}

class ReturnsTooMuch extends MemoryStore {
  override get(key: string): ReturnType<MemoryStore["get"]> {
    return super.get(key);
  }
}

class ListsBackwards extends MemoryStore {
  override async *list(prefix: string): ReturnType<MemoryStore["list"]> {
    const all = [];
    for await (const info of super.list(prefix)) all.push(info);
    yield* all.reverse();
  }
}

test("objectStoreChecks: canary, broken stores are found out", async () => {
  const failing = async (open: () => ObjectStore): Promise<string[]> => {
    const failed: string[] = [];
    for (const { name, check } of objectStoreChecks) {
      await check(open()).catch(() => failed.push(name));
    }
    return failed;
  };
  assert.deepEqual(await failing(() => new MemoryStore()), []);
  assert.ok((await failing(() => new ForgetsConditions())).some((name) => name.startsWith("put if absent")));
  assert.ok((await failing(() => new ReturnsTooMuch())).includes("ranged get"));
  assert.ok((await failing(() => new ListsBackwards())).some((name) => name.startsWith("list")));
});
