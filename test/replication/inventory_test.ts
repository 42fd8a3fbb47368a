import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { join } from "node:path";
import { test } from "node:test";
import { detectLayout, listDatabases } from "../../src/replication/inventory.ts";
import { findNearby, listHistory } from "../../src/replication/listing.ts";
import { restore } from "../../src/replication/restore.ts";
import { systemRuntime } from "../../src/runtime/system.ts";
import { DirectoryStore } from "../../src/storage/directory.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import type { ListOptions, ObjectInfo } from "../../src/storage/object_store.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { BucketWriter } from "./bucket_writer.ts";
import { goldenTargets, uploadGolden } from "./golden.ts";
import { vectorsDirectory } from "../support/vectors.ts";

const runtime = systemRuntime();

function older(name: string): DirectoryStore {
  return new DirectoryStore({ ...runtime, directory: join(vectorsDirectory, "older", name, "bucket") });
}

async function findFirst(store: DirectoryStore, layout: string): Promise<string> {
  const roots = [""];
  for (let root = roots.shift(); root !== undefined; root = roots.shift()) {
    const entries = await listDatabases(store, root);
    const hit = entries.find((entry) => entry.layout === layout);
    if (hit !== undefined) return hit.root;
    if (roots.length < 20) roots.push(...entries.map((entry) => entry.root));
  }
  assert.fail(`no ${layout}`);
}

for (
  const [name, layout] of [
    ["litestream-03", "litestream-0.3"],
    ["litestream-05", "litestream-0.5"],
    ["walrust-0.7", "walrust-ltx"],
  ]
) {
  test(`detectLayout: the golden bucket of ${name} is recognised and named by restore`, async () => {
    const store = older(name);
    const root = await findFirst(store, layout);
    const outputPath = join(temporaryDirectory("older"), "out.db");
    const target = { kind: "latest" } as const;
    await assert.rejects(restore({ store, root, target, outputPath, runtime, integrityCheck: "none" }), {
      code: "foreign_layout",
      exitCode: 6,
    });
  });
}

test("detectLayout: the other eras by their keys, and nothing for what nobody wrote", async () => {
  const layouts: [string, string | null][] = [
    ["app/00000001-00000007.ltx", "walrust-0.3.0"],
    ["app/snapshots/20250101120000.db", "walsync-0.1"],
    ["app/ltx/0/0000000000000001-0000000000000001.ltx", "litestream-0.5"],
    ["app/0000/0000000000000002.hadbp", "walrust"],
    ["app/levels/L1/0000000000000002-0000000000000003.hadbp", "walrust"],
    ["app/state.json", "walrust"],
    ["app/photo.jpg", null],
  ];
  for (const [key, layout] of layouts) {
    const store = new MemoryStore();
    await store.put(key, new Uint8Array(8));
    assert.equal(await detectLayout(store, "app/"), layout, key);
  }
});

test("listHistory: the golden bucket with its snapshots, points and bytes", async () => {
  const store = new MemoryStore();
  await uploadGolden(store, "owned-lineage");
  const entries = await listDatabases(store, "backups/");
  assert.deepEqual(entries.map((entry) => [entry.name, entry.layout]), [["app", "walrust"]]);
  const summary = await listHistory(store, entries[0]);
  const [lineage] = summary.lineages;
  assert.equal(lineage.lineage, "d3dc938d604247e99e7d2d741a3ab94b");
  assert.equal(lineage.active, true);
  assert.deepEqual(lineage.snapshots.map((snapshot) => snapshot.seq), [5n, 14n]);
  assert.ok(lineage.snapshots.every((snapshot) => snapshot.createdMs !== null && snapshot.size > 1000));
  assert.deepEqual([lineage.first?.seq, lineage.last?.seq, lineage.deltas, lineage.levels], [5n, 20n, 14, 0]);
  const golden = goldenTargets("owned-lineage").find(({ target }) => target === "14");
  assert.equal(lineage.checksum, golden!.sha256.slice(0, 16));
});

test("listHistory: the checksum of the newest snapshot is the start of its image's SHA-256", async () => {
  const store = new MemoryStore();
  const writer = new BucketWriter({ store });
  const checksum = async (): Promise<string | null> => {
    const [entry] = await listDatabases(store, "");
    return (await listHistory(store, entry)).lineages[0].checksum;
  };
  const hashOf = (seq: bigint): string =>
    createHash("sha256").update(writer.images.get(seq)!).digest("hex").slice(0, 16);
  await writer.begin();
  const first = await writer.snapshot();
  assert.equal(await checksum(), null, "no bridge, and state.json says nothing of it");
  await writer.point({ lineageId: writer.lineage, claim: null });
  assert.equal(await checksum(), hashOf(first), "from state.json");
  await writer.deltas(2);
  const second = await writer.snapshot();
  await writer.deltas(2);
  assert.equal(await checksum(), hashOf(second), "from the bridge");
  await store.deleteMany([writer.key("delta", second)]);
  assert.equal(await checksum(), hashOf(second), "from the delta after it");
  await writer.remove(second + 1n, second + 2n);
  assert.equal(await checksum(), null, "what state.json says is of another snapshot");
});

test("listDatabases: ours and another program's below the same name are both named", async () => {
  const store = new MemoryStore();
  const writer = new BucketWriter({ store });
  await writer.begin();
  await writer.snapshot();
  const keys: [string, string][] = [
    ["app/generations/0123456789abcdef/snapshots/00000000.snapshot.lz4", "litestream-0.3"],
    ["app/ltx/0/0000000000000001-0000000000000001.ltx", "litestream-0.5"],
    ["app/0000/0000000000000001-0000000000000001.ltx", "litestream-0.5"],
    ["app/snapshots/20250101120000.db", "walsync-0.1"],
    ["app/00000001-00000007.ltx", "walrust-0.3.0"],
  ];
  for (const [key, layout] of keys) {
    await store.put(key, new Uint8Array(8));
    const [entry] = await listDatabases(store, "");
    assert.deepEqual([entry.layout, entry.otherLayouts], ["walrust", [layout]], key);
    const summary = await listHistory(store, entry);
    assert.deepEqual(summary.otherLayouts, [layout]);
    assert.equal(summary.lineages[0].snapshotCount, 1);
    await store.deleteMany([key]);
  }
  await store.put(keys[0][0], new Uint8Array(8));
  await store.put(keys[1][0], new Uint8Array(8));
  await store.deleteMany((await Array.fromAsync(store.list("app/lineages/"))).map(({ key }) => key));
  const [entry] = await listDatabases(store, "");
  assert.deepEqual([entry.layout, entry.otherLayouts], ["litestream-0.3", ["litestream-0.5"]]);
});

test("[S80] findNearby: a prefix one level too low or too high is recognised, one that is elsewhere is not", async () => {
  const store = new MemoryStore();
  for (const root of ["backups/app/", "backups/users/", "other/litestream/app/"]) {
    const writer = new BucketWriter({ store, root });
    await writer.begin();
    await writer.snapshot();
  }
  await store.put("photos/2026/summer.jpg", new Uint8Array(8));
  assert.deepEqual(await findNearby(store, "backups/app/"), { itself: "walrust", folders: [] });
  assert.deepEqual(await findNearby(store, ""), { itself: null, folders: ["backups"] });
  assert.deepEqual(await findNearby(store, "other/"), { itself: null, folders: ["litestream"] });
  assert.deepEqual(await findNearby(store, "photos/"), { itself: null, folders: [] });
  assert.deepEqual(await findNearby(new MemoryStore(), ""), { itself: null, folders: [] });
});

/** A store that adds keys no store of ours would keep. */
class HostileStore extends MemoryStore {
  extra: string[] = [];
  override async *list(prefix: string, options?: ListOptions): AsyncGenerator<ObjectInfo> {
    yield* super.list(prefix, options);
    for (const key of this.extra) {
      if (key.startsWith(prefix)) yield { key, size: 1e15, etag: "", lastModifiedMs: 0 };
    }
  }
}

test("[S74] listHistory: keys with ../, NUL, CR, terminal escapes or 1,024 bytes are ignored and counted", async () => {
  const store = new HostileStore();
  const writer = new BucketWriter({ store });
  await writer.begin();
  await writer.snapshot();
  await writer.deltas(2);
  const base = `app/lineages/${writer.lineage}/`;
  const tails = ["../../../etc/passwd", "0000/\0.hadbp", "0000/a\r\n.hadbp", "0000/\u001b[2J.hadbp", "9".repeat(1024)];
  store.extra = tails.map((tail) => base + tail);
  const [entry] = await listDatabases(store, "");
  const { lineages: [lineage] } = await listHistory(store, entry);
  assert.equal(lineage.ignoredKeys, tails.length);
  assert.deepEqual([lineage.deltas, lineage.snapshotCount, lineage.last?.seq], [2, 1, 3n]);
  assert.ok(lineage.bytes < 1e6);
});

test("[S80] listDatabases: an empty bucket and a wrong prefix hold nothing", async () => {
  assert.deepEqual(await listDatabases(new MemoryStore(), ""), []);
  const store = new MemoryStore();
  await store.put("a/app/state.json", new TextEncoder().encode("{}"));
  assert.deepEqual(await listDatabases(store, "b/"), []);
});

test("listHistory: a circular chain of parents ends with a warning", async () => {
  const store = new MemoryStore();
  const first = new BucketWriter({ store, lineage: "a".repeat(32) });
  await first.begin({ parent: "b".repeat(32), parentSeq: 0n });
  await first.snapshot();
  const second = new BucketWriter({ store, lineage: "b".repeat(32) });
  await second.begin({ parent: "a".repeat(32), parentSeq: 0n, state: false });
  await second.snapshot();
  const [entry] = await listDatabases(store, "");
  const summary = await listHistory(store, entry);
  assert.match(summary.warnings.join("\n"), /circular/);
});
