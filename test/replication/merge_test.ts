import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { test } from "node:test";
import { type ChangesetHeader, decodeChangeset, type Entry } from "../../src/format/hadbp.ts";
import { lockBytePage } from "../../src/format/sqlite_header.ts";
import { readHistory } from "../../src/replication/history.ts";
import type { PoolObject } from "../../src/replication/inventory.ts";
import { mergeRun } from "../../src/replication/merge.ts";
import { type MergeRun, planMerges } from "../../src/replication/merge_plan.ts";
import type { SegmentRetention } from "../../src/replication/retention_plan.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { getBytes, type ObjectStore } from "../../src/storage/object_store.ts";
import { wrapStore } from "../../src/storage/wrap.ts";
import { encode, marker, page } from "../format/changesets.ts";
import { checkAsyncProperty } from "../support/property.ts";
import { sha256 } from "../support/vectors.ts";
import { BucketWriter } from "./bucket_writer.ts";
import { restoreToMemory } from "./memory_image.ts";

const root = "app/";

async function objectOf(
  store: ObjectStore,
  writer: BucketWriter,
  key: string,
  min: bigint,
  max: bigint,
  level: number = 0,
): Promise<PoolObject> {
  const info = (await store.head(key))!;
  const { size, lastModifiedMs } = info;
  return { kind: level === 0 ? "delta" : "level", lineage: writer.lineage, level, min, max, size, lastModifiedMs };
}

async function runOf(writer: BucketWriter, min: bigint, max: bigint): Promise<MergeRun> {
  const sources: PoolObject[] = [];
  for (let seq = min; seq <= max; seq++) {
    sources.push(await objectOf(writer.store, writer, writer.key("delta", seq), seq, seq));
  }
  return { level: 1, min, max, sources };
}

async function merge(store: ObjectStore, run: MergeRun): ReturnType<typeof mergeRun> {
  return await mergeRun({ store, root, run, sha256, parallel: 4 });
}

async function bytesOf(store: ObjectStore, key: string): Promise<Uint8Array> {
  return (await getBytes(store, key, 64 * 1024 * 1024)).bytes;
}

/** Writes a random history. */
async function write(writer: BucketWriter, steps: readonly Step[], bridge: boolean): Promise<void> {
  if (bridge && writer.lineage !== null) await writer.begin();
  await writer.snapshot({ bridge });
  let pages = 3;
  for (const { what, at, count } of steps) {
    if (what === "snapshot") await writer.snapshot({ bridge });
    else {
      if (what === "grow") pages += count;
      if (what === "shrink") pages = Math.max(1, pages - count);
      if (what === "vacuum") pages = Math.max(1, Math.ceil(pages / 2));
      const changed = what === "vacuum" ? Array.from({ length: pages }, (_, index) => index + 1) : [1 + at % pages];
      await writer.delta(changed, pages);
    }
  }
  await writer.snapshot({ bridge });
  await writer.deltas(2);
}

interface Step {
  what: "delta" | "grow" | "shrink" | "vacuum" | "snapshot";
  at: number;
  count: number;
}

const someSteps: fc.Arbitrary<Step[]> = fc.array(
  fc.record({
    what: fc.constantFrom("delta", "delta", "grow", "shrink", "vacuum", "snapshot"),
    at: fc.nat(60),
    count: fc.integer({ min: 1, max: 30 }),
  }),
  { minLength: 2, maxLength: 25 },
);

test("[S96] mergeRun: whatever grew, shrank or was rewritten, each merged run leads to the bytes its sources led to", async () => {
  let merges = 0;
  await checkAsyncProperty(
    fc.asyncProperty(
      someSteps,
      fc.integer({ min: 2, max: 6 }),
      fc.boolean(),
      fc.boolean(),
      async (steps, fan, bridge, bare) => {
        const store = new MemoryStore();
        const writer = new BucketWriter({ store, lineage: bare ? null : "a".repeat(32) });
        await write(writer, steps, bridge && !bare);
        const history = await readHistory(store, root);
        const [segment] = history.segments;
        const all = [...segment.deltas, ...segment.snapshots];
        const plan: SegmentRetention = { segment, keep: all, remove: [], ranges: [] };
        const last = segment.snapshots.at(-1)!.max;
        // Runs of 60 are cut down, so that short histories have many.
        for (const whole of planMerges(plan, { through: last, beforeMs: Infinity })) {
          for (let from = 0; from + 1 < whole.sources.length; from += fan) {
            const sources = whole.sources.slice(from, from + fan);
            const [min, max] = [sources[0].min, sources.at(-1)!.max];
            const merged = await merge(store, { level: 1, min, max, sources });
            merges++;
            await writer.merge(9, min, max, { keep: true });
            const [ours, model] = [
              await bytesOf(store, merged.key),
              await bytesOf(store, writer.levelKey(9, min, max)),
            ];
            assert.ok(Buffer.compare(ours, model) === 0, `${min} to ${max} differs from the model`);
            assert.equal(ours.length, merged.size);
            await store.deleteMany([writer.levelKey(9, min, max)]);
            for (const { max: seq } of sources) await store.deleteMany([writer.key("delta", seq)]);
          }
        }
        const after = await readHistory(store, root);
        for (const { max } of [...after.segments[0].deltas, ...after.segments[0].levels]) {
          const bytes = await restoreToMemory(store, root, max, after);
          assert.ok(Buffer.compare(bytes, writer.images.get(max)!) === 0, `seq ${max} has other bytes`);
        }
      },
    ),
    100,
  );
  assert.ok(merges > 100, `only ${merges} runs were merged`);
});

test("mergeRun: merged objects merge again into the next level, and the end is the same", async () => {
  const store = new MemoryStore();
  const writer = new BucketWriter({ store });
  await writer.begin();
  await writer.snapshot();
  await writer.delta([2], 40);
  await writer.deltas(10);
  await writer.delta([3], 12);
  const [one, two] = [
    await merge(store, await runOf(writer, 2n, 6n)),
    await merge(store, await runOf(writer, 7n, 13n)),
  ];
  const sources = [
    await objectOf(store, writer, one.key, 2n, 6n, 1),
    await objectOf(store, writer, two.key, 7n, 13n, 1),
  ];
  const top = await merge(store, { level: 2, min: 2n, max: 13n, sources });
  await writer.merge(9, 2n, 13n);
  assert.deepEqual(await bytesOf(store, top.key), await bytesOf(store, writer.levelKey(9, 2n, 13n)));
  const { header } = decodeChangeset(await bytesOf(store, top.key), { object: top.key, sha256 });
  assert.equal(top.key, writer.levelKey(2, 2n, 13n));
  const { version, flags, seq, declaredEnd, createdMs } = header;
  assert.deepEqual({ version, flags, seq, declaredEnd, createdMs }, {
    version: 2,
    flags: 0x81,
    seq: 13n,
    declaredEnd: writer.chain,
    createdMs: writer.nowMs,
  });
});

test("mergeRun: large sources are read in ranges, side by side, and give the same as small ones", async () => {
  const store = new MemoryStore();
  const writer = new BucketWriter({ store, pageSize: 65536 });
  await writer.begin();
  await writer.snapshot();
  await writer.delta([2], 120);
  await writer.delta([50], 90);
  await writer.delta([60], 100);
  const largest: number[] = [];
  const ranged = wrapStore(store, {
    get: async (key, options) => {
      if (options?.range !== undefined) largest.push(options.range.end - options.range.start);
      return await store.get(key, options);
    },
  });
  const merged = await merge(ranged, await runOf(writer, 2n, 4n));
  await writer.merge(9, 2n, 4n);
  assert.ok(Buffer.compare(await bytesOf(store, merged.key), await bytesOf(store, writer.levelKey(9, 2n, 4n))) === 0);
  assert.ok(Math.max(...largest) <= 6 * 1024 * 1024);
});

/** Sources that no writer of ours makes, put together by hand; they continue each other. */
async function rawRun(
  store: MemoryStore,
  deltas: { entries: Entry[]; end: number }[],
  pageSize: number = 512,
): Promise<MergeRun> {
  const sources: PoolObject[] = [];
  let prevChecksum = 7n;
  for (const [index, { entries, end }] of deltas.entries()) {
    const seq = BigInt(index + 2);
    const header: ChangesetHeader = {
      version: 1,
      flags: 1,
      pageSize,
      seq,
      prevChecksum,
      pageCount: entries.length + 1,
      createdMs: 1000,
      declaredEnd: null,
    };
    const { bytes, end: { chainEnd } } = encode(header, [...entries, marker(end)]);
    prevChecksum = chainEnd;
    await store.put(`app/0000/${seq.toString(16).padStart(16, "0")}.hadbp`, bytes);
    sources.push({ kind: "delta", lineage: null, level: 0, min: seq, max: seq, size: bytes.length, lastModifiedMs: 0 });
  }
  return { level: 1, min: 2n, max: sources.at(-1)!.max, sources };
}

test("mergeRun: pages that all lie beyond the end leave the marker alone", async () => {
  const store = new MemoryStore();
  const run = await rawRun(store, [{ entries: [page(5)], end: 5 }, { entries: [], end: 4 }]);
  const merged = await merge(store, run);
  assert.equal(merged.key, "app/levels/L1/0000000000000002-0000000000000003.hadbp");
  const { entries } = decodeChangeset(await bytesOf(store, merged.key), { object: merged.key, sha256 });
  assert.deepEqual(entries.map(({ pgno, data }) => [pgno, data.length]), [[5, 0]]);
});

test("mergeRun: a source that grows without its pages is refused, the lock-byte page excepted", async () => {
  const size = 65536;
  const lock = lockBytePage(size);
  const store = new MemoryStore();
  const across = [{ entries: [page(1, size)], end: lock - 1 }, { entries: [page(lock + 1, size)], end: lock + 1 }];
  await merge(store, await rawRun(store, across, size));
  const holes = [{ entries: [page(1)], end: 9 }, { entries: [page(1)], end: 4 }, { entries: [page(9)], end: 9 }];
  const other = new MemoryStore();
  await assert.rejects(merge(other, await rawRun(other, holes)), { code: "growth_without_pages", exitCode: 5 });
  assert.deepEqual((await Array.fromAsync(other.list("app/levels/"))).length, 0);
});

test("mergeRun: a damaged source, one of another chain, or one that is gone merges into nothing", async () => {
  const damage: [string, (bytes: Uint8Array) => Uint8Array | null, object][] = [
    ["a flipped page", (bytes) => Uint8Array.from(bytes, (byte, at) => at === 100 ? byte ^ 1 : byte), { exitCode: 5 }],
    ["another chain", (bytes) => Uint8Array.from(bytes, (byte, at) => at === 21 ? byte ^ 1 : byte), { exitCode: 5 }],
    ["another seq", (bytes) => Uint8Array.from(bytes, (byte, at) => at === 19 ? byte ^ 1 : byte), { exitCode: 5 }],
    ["cut off", (bytes) => bytes.subarray(0, bytes.length - 9), { exitCode: 5 }],
    ["gone", () => null, { code: "NoSuchKey" }],
  ];
  for (const [name, change, expected] of damage) {
    for (const seq of [3n, 4n]) {
      const store = new MemoryStore();
      const writer = new BucketWriter({ store });
      await writer.begin();
      await writer.snapshot();
      await writer.deltas(4);
      const run = await runOf(writer, 2n, 5n);
      const changed = change(await bytesOf(store, writer.key("delta", seq)));
      if (changed === null) await store.deleteMany([writer.key("delta", seq)]);
      else await store.put(writer.key("delta", seq), changed);
      await assert.rejects(merge(store, run), expected, name);
      assert.deepEqual((await Array.fromAsync(store.list(`app/lineages/${writer.lineage}/levels/`))).length, 0, name);
    }
  }
});

test("[S76] mergeRun: a sound delta of the same seq from another database merges into nothing", async () => {
  const store = new MemoryStore();
  const [ours, other] = ["a", "b"].map((digit) => new BucketWriter({ store, lineage: digit.repeat(32) }));
  for (const writer of [ours, other]) {
    await writer.snapshot();
    await writer.deltas(4);
  }
  const run = await runOf(ours, 2n, 5n);
  await store.put(ours.key("delta", 4n), await bytesOf(store, other.key("delta", 4n)));
  await assert.rejects(merge(store, run), { code: "chain_mismatch", exitCode: 5 });
  assert.equal(await store.head(ours.levelKey(1, 2n, 5n)), null);
});

test("[S95] mergeRun: what reads back other than it was sent is removed and reported, the sources stay", async () => {
  for (const at of [9, 19, 25, 33, 41, 60, -3]) {
    const store = new MemoryStore();
    const writer = new BucketWriter({ store });
    await writer.begin();
    await writer.snapshot();
    await writer.deltas(4);
    const rotting = wrapStore(store, {
      putStream: async (key, chunks, options) => {
        const done = await store.putStream(key, chunks, options);
        const bytes = await bytesOf(store, key);
        bytes[at < 0 ? bytes.length + at : at] ^= 1;
        await store.put(key, bytes);
        return done;
      },
    });
    await assert.rejects(
      merge(rotting, await runOf(writer, 2n, 5n)),
      { code: "merge_differs", exitCode: 5 },
      `at ${at}`,
    );
    assert.equal(await store.head(writer.levelKey(1, 2n, 5n)), null);
    assert.ok(Buffer.compare(await restoreToMemory(store, root, 5n), writer.images.get(5n)!) === 0);
    await merge(store, await runOf(writer, 2n, 5n));
  }
});

test("mergeRun: a second time it finds its own object; another one under its key is left alone", async () => {
  const store = new MemoryStore();
  const writer = new BucketWriter({ store });
  await writer.begin();
  await writer.snapshot();
  await writer.deltas(4);
  const run = await runOf(writer, 2n, 5n);
  const { key } = await merge(store, run);
  const bytes = await bytesOf(store, key);
  assert.equal((await merge(store, run)).key, key);
  bytes[40] ^= 1;
  await store.put(key, bytes);
  await assert.rejects(merge(store, run), { name: "PreconditionError" });
  assert.deepEqual(await bytesOf(store, key), bytes);
});

function planned(objects: PoolObject[], own: boolean = true): SegmentRetention {
  const of = (kind: PoolObject["kind"]): PoolObject[] => objects.filter((each) => each.kind === kind);
  const segment = {
    lineage: null,
    own,
    document: null,
    from: 0n,
    through: null,
    ignoredKeys: 0,
    bytes: 0,
    warnings: [],
    retention: null,
    deltas: of("delta"),
    snapshots: of("snapshot"),
    levels: of("level"),
  };
  return { segment, keep: objects, remove: [], ranges: [] };
}

function object(
  kind: PoolObject["kind"],
  min: number,
  max: number = min,
  fields: Partial<PoolObject> = {},
): PoolObject {
  const level = kind === "level" ? 1 : 0;
  return { kind, lineage: null, level, min: BigInt(min), max: BigInt(max), size: 1000, lastModifiedMs: 0, ...fields };
}

function chain(min: number, max: number, fields: Partial<PoolObject> = {}): PoolObject[] {
  return Array.from({ length: max - min + 1 }, (_, index) => object("delta", min + index, min + index, fields));
}

const shown = (runs: MergeRun[]): string[] => runs.map(({ level, min, max }) => `L${level} ${min}-${max}`);

test("[S96] planMerges: runs of 60 end at a bridge or before the hole of a snapshot, never beyond", () => {
  const bridge = object("delta", 100, 100, { size: 64 });
  const own = planned([object("snapshot", 1), ...chain(2, 99), bridge, object("snapshot", 100), ...chain(101, 400)]);
  assert.deepEqual(shown(planMerges(own, { through: 100n, beforeMs: 1 })), ["L1 2-61", "L1 62-100"]);
  assert.deepEqual(shown(planMerges(own, { through: 1000n, beforeMs: 1 })).slice(0, 3), [
    "L1 2-61",
    "L1 62-100",
    "L1 101-160",
  ]);
  const lost = planned([object("snapshot", 1), ...chain(2, 99), bridge, ...chain(101, 400)]);
  assert.deepEqual(shown(planMerges(lost, { through: 150n, beforeMs: 1 })), ["L1 2-61", "L1 62-100"], "by its size");
  const foreign = planned([object("snapshot", 1), ...chain(2, 99), object("snapshot", 100), ...chain(101, 103)], false);
  assert.deepEqual(shown(planMerges(foreign, { through: 100n, beforeMs: 1 })), ["L1 2-61", "L1 62-99"]);
});

test("planMerges: nothing behind the newest snapshot, nothing young, and no short run that may still grow", () => {
  const young = { lastModifiedMs: 50 };
  const old = [object("snapshot", 1), ...chain(2, 70), ...chain(71, 130, young), object("snapshot", 200)];
  assert.deepEqual(shown(planMerges(planned(old), { through: 200n, beforeMs: 50 })), ["L1 2-61"]);
  assert.deepEqual(shown(planMerges(planned(old), { through: 40n, beforeMs: 50 })), []);
  assert.deepEqual(shown(planMerges(planned(old), { through: 200n, beforeMs: 51 })), [
    "L1 2-61",
    "L1 62-121",
    "L1 122-130",
  ]);
  assert.deepEqual(
    shown(planMerges(planned([object("snapshot", 1), object("delta", 2)]), { through: 9n, beforeMs: 1 })),
    [],
  );
});

test("planMerges: 24 of level 1 into level 2, and what is merged already is not merged again", () => {
  const tens = Array.from({ length: 30 }, (_, index) => object("level", 2 + 10 * index, 11 + 10 * index));
  const bridge = object("delta", 301, 301, { size: 64 });
  const options = { through: 1000n, beforeMs: 1 };
  const proven = { ranges: [{ min: 2n, max: 400n, reason: "merge" as const, level: 1, markedMs: 0 }] };
  const withMarks = (plan: SegmentRetention): SegmentRetention => ({
    ...plan,
    segment: { ...plan.segment, retention: proven },
  });
  const plan = withMarks(planned([object("snapshot", 1), ...chain(2, 300), bridge, ...tens, object("snapshot", 500)]));
  assert.deepEqual(shown(planMerges(plan, options)), ["L2 2-241", "L2 242-301"]);
  const open = withMarks(planned([object("snapshot", 1), ...tens, object("snapshot", 500)]));
  assert.deepEqual(shown(planMerges(open, options)), ["L2 2-241"], "more may come behind the last");
});

test("planMerges: a merged object whose proof was cut short is merged again in ours, and left alone in what others wrote", () => {
  const all = [object("snapshot", 1), ...chain(2, 20), object("level", 2, 11), object("snapshot", 30)];
  const options = { through: 30n, beforeMs: 1 };
  assert.deepEqual(shown(planMerges(planned(all), options)), ["L1 2-11", "L1 12-20"]);
  assert.deepEqual(shown(planMerges(planned(all, false), options)), ["L1 12-20"]);
  const gone = all.filter(({ kind, min }) => kind !== "delta" || min !== 5n);
  assert.deepEqual(shown(planMerges(planned(gone), options)), ["L1 12-20"], "its sources are not all there");
});

test("canary: the model of the writer tells a wrong merge from a right one", async () => {
  const store = new MemoryStore();
  const writer = new BucketWriter({ store });
  await writer.begin();
  await writer.snapshot();
  await writer.deltas(6);
  const run = await runOf(writer, 2n, 5n);
  const wrong = await merge(store, { ...run, max: 4n, sources: run.sources.slice(0, 3) });
  await writer.merge(9, 2n, 5n, { keep: true });
  assert.ok(Buffer.compare(await bytesOf(store, wrong.key), await bytesOf(store, writer.levelKey(9, 2n, 5n))) !== 0);
});
