import assert from "node:assert/strict";
import { test } from "node:test";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { WalrustError } from "../../src/errors.ts";
import { parseRetention } from "../../src/format/documents.ts";
import { compact, type CompactOptions, type CompactReport } from "../../src/replication/compact.ts";
import { readHistory } from "../../src/replication/history.ts";
import { mergeRun } from "../../src/replication/merge.ts";
import { planMerges } from "../../src/replication/merge_plan.ts";
import { systemRuntime } from "../../src/runtime/system.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { getBytes, type ObjectStore } from "../../src/storage/object_store.ts";
import { wrapStore } from "../../src/storage/wrap.ts";
import { sha256 } from "../support/vectors.ts";
import { BucketWriter } from "./bucket_writer.ts";
import { goldenBuckets, goldenRoot, goldenTargets, uploadGolden } from "./golden.ts";
import { restoreToMemory } from "./memory_image.ts";

const root = "app/";
const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const nowMs = Date.parse("2026-06-15T12:30:00Z");
const noTiers = { hourly: 0, daily: 0, weekly: 0, monthly: 0 };

/** Snapshots 60, 40, 20 and 2 days old, three deltas after each; stored by a clock of that time. */
async function fourSnapshots(
  options: { lineage?: string | null } = {},
): Promise<BucketWriter & { store: MemoryStore }> {
  const clock = { ...systemRuntime().clock, now: () => writer.nowMs };
  const store = new MemoryStore({ clock });
  const writer = new BucketWriter({ store, ...options }) as BucketWriter & { store: MemoryStore };
  const bridge = writer.lineage !== null;
  if (bridge) await writer.begin();
  for (const days of [60, 40, 20, 2]) {
    writer.nowMs = nowMs - days * dayMs;
    await writer.snapshot({ bridge });
    await writer.deltas(3);
  }
  return writer;
}

function optionsOf(store: ObjectStore, more: Partial<CompactOptions> = {}): CompactOptions {
  const clock = { ...systemRuntime().clock, now: () => nowMs };
  return { store, root, runtime: { clock, sha256 }, tiers: noTiers, graceMs: hourMs, mergeFans: [3, 2], ...more };
}

async function run(store: ObjectStore, more: Partial<CompactOptions> & { atMs?: number } = {}): Promise<CompactReport> {
  const { atMs = nowMs, ...options } = more;
  const clock = { ...systemRuntime().clock, now: () => atMs };
  return await compact(optionsOf(store, { force: true, ...options, runtime: { clock, sha256 } }));
}

async function content(store: ObjectStore): Promise<string[]> {
  return (await Array.fromAsync(store.list(""))).map(({ key, etag }) => `${key} ${etag}`);
}

async function seqsLeft(writer: BucketWriter): Promise<bigint[]> {
  const { segments: [segment] } = await readHistory(writer.store, root);
  return [...segment.deltas, ...segment.snapshots].map(({ max }) => max).sort((a, b) => Number(a - b));
}

async function exitOf(restored: Promise<unknown>): Promise<number> {
  try {
    await restored;
    return 0;
  } catch (error) {
    assert.ok(error instanceof WalrustError, String(error));
    return error.exitCode;
  }
}

test("compact: without force it says what it would do and changes nothing", async () => {
  const { store } = await fourSnapshots();
  const before = await content(store);
  const { dryRun, removable, deleted, waiting, waitingUntilMs, plan, runs } = await run(store, {
    force: false,
    merge: true,
  });
  assert.deepEqual(await content(store), before);
  assert.equal(dryRun, true);
  assert.deepEqual(plan.snapshots.map(({ object, keptBy }) => [object.max, ...keptBy]), [
    [13n, "newest"],
    [9n, "second"],
    [5n],
    [1n],
  ]);
  assert.deepEqual(plan.lost.map(({ min, max, points }) => [min, max, points]), [[1n, 8n, 8]]);
  assert.equal(removable.objects, 9);
  assert.deepEqual(runs.map(({ min, max }) => [min, max]), [[10n, 12n]]);
  assert.equal(deleted.objects, 0);
  assert.equal(waiting.objects, 12);
  assert.equal(waitingUntilMs, null);
});

test("[S94] compact: what goes is marked first and deleted when the grace has passed, not a moment before", async () => {
  const writer = await fourSnapshots();
  const { store } = writer;
  const first = await run(store);
  assert.deepEqual([first.deleted.objects, first.waiting.objects, first.waitingUntilMs], [0, 9, nowMs + hourMs]);
  const key = `app/lineages/${writer.lineage}/retention.json`;
  const { ranges, snapshots } = parseRetention((await getBytes(store, key, 1e6)).bytes, key);
  assert.deepEqual(ranges, [{ min: 1n, max: 8n, reason: "retention", markedMs: nowMs }]);
  assert.deepEqual(snapshots!.map(({ seq }) => seq), [1n, 5n]);
  for (const seq of writer.images.keys()) await restoreToMemory(store, root, seq);
  const early = await run(store, { atMs: nowMs + hourMs - 1 });
  assert.deepEqual([early.deleted.objects, early.waitingUntilMs], [0, nowMs + hourMs]);
  const due = await run(store, { atMs: nowMs + hourMs });
  assert.deepEqual([due.deleted.objects, due.waiting.objects, due.waitingUntilMs], [9, 0, null]);
  assert.deepEqual(await seqsLeft(writer), [9n, 9n, 10n, 11n, 12n, 13n, 13n, 14n, 15n, 16n]);
  for (const seq of writer.images.keys()) {
    assert.equal(await exitOf(restoreToMemory(store, root, seq)), seq < 9n ? 6 : 0, `seq ${seq}`);
  }
  const after = await content(store);
  await run(store, { atMs: nowMs + hourMs });
  assert.deepEqual(await content(store).then((all) => all.length), after.length);
});

test("compact: merged deltas go after the grace, and where they ended stays a point", async () => {
  const writer = await fourSnapshots();
  const { store } = writer;
  const { merged } = await run(store, { merge: true });
  assert.deepEqual(merged.map(({ level, min, max, sources }) => [level, min, max, sources]), [[1, 10n, 12n, 3]]);
  assert.ok((await seqsLeft(writer)).includes(11n), "the sources are still there");
  const { deleted, merged: again } = await run(store, { merge: true, atMs: nowMs + hourMs });
  assert.deepEqual([deleted.objects, again.length], [12, 0]);
  assert.deepEqual(await seqsLeft(writer), [9n, 9n, 13n, 13n, 14n, 15n, 16n]);
  for (const seq of [9n, 12n, 13n, 14n, 15n, 16n]) {
    assert.ok(Buffer.compare(await restoreToMemory(store, root, seq), writer.images.get(seq)!) === 0);
  }
  for (const seq of [10n, 11n]) assert.equal(await exitOf(restoreToMemory(store, root, seq)), 6);
});

test("compact: deltas behind the newest snapshot are never merged, however old", async () => {
  const clock = { ...systemRuntime().clock, now: () => nowMs - 90 * dayMs };
  const store = new MemoryStore({ clock });
  const writer = new BucketWriter({ store });
  writer.nowMs = nowMs - 90 * dayMs;
  await writer.begin();
  await writer.snapshot();
  await writer.deltas(130);
  const { runs, removable } = await run(store, { merge: true });
  assert.deepEqual([runs.length, removable.objects], [0, 0]);
});

test("compact: more than max-delete objects are refused before anything is changed", async () => {
  const { store } = await fourSnapshots();
  const before = await content(store);
  await assert.rejects(run(store, { maxDelete: 8, merge: true }), { code: "max_delete", exitCode: 2 });
  assert.deepEqual(await content(store), before);
  assert.equal((await run(store, { maxDelete: 9, graceMs: 0 })).deleted.objects, 9);
});

test("compact: an object that cannot be deleted is named, those below it stay, and the next run goes on", async () => {
  const writer = await fourSnapshots();
  const stuck = writer.key("delta", 6n);
  const store = wrapStore(writer.store, {
    deleteMany: async (keys, options) => {
      await writer.store.deleteMany(keys.filter((key) => key !== stuck), options);
      return keys.includes(stuck) ? [{ key: stuck, error: { code: "AccessDenied", message: "no" } }] : [];
    },
  });
  const { failed, deleted, waiting } = await run(store, { graceMs: 0 });
  assert.deepEqual(failed.map(({ key, error }) => [key, error.code]), [[stuck, "AccessDenied"]]);
  assert.deepEqual([deleted.objects, waiting.objects], [8, 1]);
  assert.deepEqual([(await run(writer.store, { graceMs: 0 })).deleted.objects], [1]);
});

test("compact: behind an object that cannot be deleted no more is asked for, so that its point is not left without a way", async () => {
  const clock = { ...systemRuntime().clock, now: () => writer.nowMs };
  const store = new MemoryStore({ clock });
  const writer: BucketWriter = new BucketWriter({ store });
  await writer.begin();
  writer.stepMs = 1;
  for (const deltas of [1100, 3, 3]) {
    writer.nowMs += 10 * dayMs;
    await writer.snapshot();
    await writer.deltas(deltas);
  }
  const stuck = writer.key("delta", 1101n);
  const refusing = wrapStore(store, {
    deleteMany: async (keys, options) => {
      await store.deleteMany(keys.filter((key) => key !== stuck), options);
      return keys.includes(stuck) ? [{ key: stuck, error: { code: "AccessDenied", message: "no" } }] : [];
    },
  });
  const { deleted, failed } = await run(refusing, { graceMs: 0 });
  assert.deepEqual([deleted.objects, failed.length], [999, 1]);
  assert.ok(await store.head(writer.key("delta", 2n)) !== null);
  assert.equal((await run(store, { graceMs: 0 })).deleted.objects, 102);
});

test("compact: without a lineage it marks beside the pools and merges into Rust's shape", async () => {
  const writer = await fourSnapshots({ lineage: null });
  const { store } = writer;
  const { merged } = await run(store, { merge: true, graceMs: 0 });
  assert.deepEqual(merged.map(({ key }) => key), ["app/levels/L1/000000000000000a-000000000000000c.hadbp"]);
  await run(store, { merge: true, graceMs: 0 });
  const { segments: [segment], warnings } = await readHistory(store, root);
  assert.deepEqual(warnings, []);
  assert.deepEqual(segment.retention!.ranges.map(({ min, max, reason, level }) => [min, max, reason, level]), [
    [1n, 8n, "retention", undefined],
    [10n, 12n, "merge", 1],
  ]);
  assert.deepEqual(segment.deltas.map(({ max }) => max), [14n, 15n, 16n]);
  for (const [seq, image] of writer.images) {
    const isThere = [9n, 12n, 13n, 14n, 15n, 16n].includes(seq);
    assert.equal(await exitOf(restoreToMemory(store, root, seq)), isThere ? 0 : 6, `seq ${seq}`);
    if (isThere) assert.ok(Buffer.compare(await restoreToMemory(store, root, seq), image) === 0);
  }
});

test("compact: a seq before the first point that is left of a lineage is gone, not damaged", async () => {
  const { store } = await fourSnapshots();
  const child = new BucketWriter({ store, lineage: "c".repeat(32), seq: 16n });
  const parent = new BucketWriter({ store });
  await parent.snapshot({ upload: false });
  child.continueFrom(
    Object.assign(parent, { images: new Map([[16n, parent.images.get(1n)!]]), times: new Map([[16n, nowMs - dayMs]]) }),
    16n,
  );
  await child.begin({ parent: "a".repeat(32), parentSeq: 16n, state: false });
  for (const hours of [23, 20, 2]) {
    child.nowMs = nowMs - hours * hourMs;
    await child.snapshot();
    await child.deltas(2);
  }
  await child.point({ lineageId: child.lineage, claim: null });
  const tiers = { ...noTiers, monthly: 12 };
  await run(store, { tiers, graceMs: 0, fineWindowMs: hourMs });
  const { segments } = await readHistory(store, root);
  assert.deepEqual(segments.map(({ snapshots }) => snapshots.map(({ max }) => max)), [[20n, 23n], [1n, 9n]]);
  for (let seq = 1n; seq <= 25n; seq++) {
    const left = seq === 1n || seq === 9n || seq >= 20n;
    assert.equal(await exitOf(restoreToMemory(store, root, seq)), left ? 0 : 6, `seq ${seq}`);
  }
});

test("compact: a damaged header keeps its snapshot and is named; a damaged delta is not merged and is named", async () => {
  const writer = await fourSnapshots();
  const { store } = writer;
  const flip = async (key: string, at: number): Promise<void> => {
    const { bytes } = await getBytes(store, key, 1e6);
    bytes[at] ^= 1;
    await store.put(key, bytes);
  };
  writer.nowMs = nowMs - 20 * dayMs;
  await flip(writer.key("snapshot", 5n), 0);
  await flip(writer.key("delta", 11n), 300);
  const { warnings, merged, plan } = await run(store, { merge: true, graceMs: 0 });
  assert.equal(merged.length, 0);
  assert.match(warnings.join("\n"), /0005\.hadbp.*is kept[^]*seqs 10 to 12 were not merged.*000b\.hadbp/);
  assert.deepEqual(plan.snapshots.map(({ keptBy }) => keptBy.join()), ["newest", "second", "unreadable", ""]);
  assert.ok(await store.head(writer.key("delta", 11n)) !== null);
});

test("compact: nothing stored, and another program's layout, are refused", async () => {
  await assert.rejects(run(new MemoryStore()), { code: "nothing_stored", exitCode: 6 });
  const store = new MemoryStore();
  await store.put("app/ltx/0/0000000000000001-0000000000000001.ltx", new Uint8Array(8));
  await assert.rejects(run(store), { code: "foreign_layout", exitCode: 6 });
});

for (const bucket of goldenBuckets.filter((name) => name !== "owned-renumbered")) {
  test(`planMerges, mergeRun: ${bucket}, made by the Rust library, merged by us restores the same bytes where runs end`, async () => {
    const store = new MemoryStore();
    await uploadGolden(store, bucket);
    const { segments: [segment] } = await readHistory(store, goldenRoot);
    const keep = [...segment.deltas, ...segment.snapshots, ...segment.levels];
    const through = segment.snapshots.at(-1)!.max;
    const plan = { segment, keep, remove: [], ranges: [] };
    const runs = planMerges(plan, { through, beforeMs: Infinity });
    const inside = new Set<string>();
    for (const run of runs) {
      await mergeRun({ store, root: goldenRoot, run, sha256, parallel: 4 });
      for (const { max } of run.sources) if (max !== run.max) inside.add(String(max));
      const keys = run.sources.map(({ max }) => `${goldenRoot}${keyBase(segment.lineage)}0000/${hex(max)}.hadbp`);
      await store.deleteMany(keys);
    }
    if (bucket !== "owned-leveled") assert.ok(runs.length > 0);
    for (const { target, outcome, sha256: expected } of goldenTargets(bucket)) {
      const wanted = target === "latest" ? { kind: "latest" } as const : BigInt(target);
      const restored = restoreToMemory(store, goldenRoot, wanted);
      if (inside.has(target) || outcome !== "ok") {
        assert.equal(await exitOf(restored), 6, target);
      } else {
        assert.equal(createHash("sha256").update(await restored).digest("hex"), expected, target);
      }
    }
  });
}

function keyBase(lineage: string | null): string {
  return lineage === null ? "" : `lineages/${lineage}/`;
}

function hex(seq: bigint): string {
  return seq.toString(16).padStart(16, "0");
}

test("canary: exitOf tells a point that is there from one that is not", async () => {
  const { store } = await fourSnapshots();
  assert.equal(await exitOf(restoreToMemory(store, root, 9n)), 0);
  assert.equal(await exitOf(restoreToMemory(store, root, 99n)), 6);
});
