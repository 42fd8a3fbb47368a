import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { mkdirSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { WalrustError } from "../../src/errors.ts";
import { encodeChangeset } from "../../src/format/hadbp.ts";
import { renderState } from "../../src/format/documents.ts";
import { renderKey } from "../../src/format/keys.ts";
import { restore, type RestoreProgress } from "../../src/replication/restore.ts";
import {
  verify,
  verifyExitCode,
  type VerifyLevel,
  type VerifyOptions,
  type VerifyReport,
} from "../../src/replication/verify.ts";
import { systemRuntime } from "../../src/runtime/system.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { getBytes, type ObjectStore } from "../../src/storage/object_store.ts";
import { wrapStore } from "../../src/storage/wrap.ts";
import { SeededRandom } from "../simulation/random.ts";
import { sparseFiles, sparseStore } from "../support/sparse.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { BucketWriter } from "./bucket_writer.ts";
import { goldenBuckets, goldenRoot, uploadGolden } from "./golden.ts";

const runtime = systemRuntime();
const directory = temporaryDirectory("verify");
const timeout = 60_000;
const levels: readonly VerifyLevel[] = ["list", "headers", "full", "drill"];

async function look(store: ObjectStore, options: Partial<VerifyOptions> = {}): Promise<VerifyReport> {
  const scratchPath = join(directory, "scratch");
  return await verify({ store, root: "app/", level: "full", runtime, scratchPath, ...options });
}

function codes({ findings }: VerifyReport): string[] {
  return findings.filter(({ severity }) => severity === "error").map(({ code }) => code);
}

/** Lineage: 1 snapshot, 2–4, 5 snapshot and bridge, 6–8 (grown, shrunk), 9 snapshot and bridge, 10–12. */
async function lineage(store: MemoryStore, options: { bridge?: boolean } = {}): Promise<BucketWriter> {
  const { bridge = true } = options;
  const writer = new BucketWriter({ store, lineage: bridge ? undefined : null });
  if (bridge) await writer.begin({ state: false });
  await writer.snapshot({ bridge });
  await writer.deltas(3);
  await writer.snapshot({ bridge });
  await writer.delta([3, 5]);
  await writer.delta([2], 3);
  await writer.delta([2], 6);
  await writer.snapshot({ bridge });
  if (bridge) await writer.point({ lineageId: writer.lineage, claim: null });
  await writer.deltas(3);
  return writer;
}

/** A lineage and one that continues it from seq 11 on. */
async function forked(store: MemoryStore): Promise<BucketWriter[]> {
  const parent = await lineage(store);
  const child = new BucketWriter({ store, lineage: "b".repeat(32), seq: 11n });
  child.continueFrom(parent, 11n);
  await child.begin({ parent: parent.lineage, parentSeq: 11n, state: false });
  await child.snapshot();
  await child.point({ lineageId: child.lineage, claim: null });
  await child.deltas(4);
  return [child, parent];
}

/** The seqs that a restore really gives, each compared with the model. */
async function restorableSeqs(store: ObjectStore, writers: readonly BucketWriter[]): Promise<bigint[]> {
  const seqs: bigint[] = [];
  const last = writers[0].seq;
  for (let seq = 1n; seq <= last; seq++) {
    const outputPath = join(directory, "out.db");
    rmSync(outputPath, { force: true });
    try {
      const target = { kind: "seq", seq } as const;
      await restore({ store, root: "app/", target, outputPath, runtime, integrityCheck: "none" });
    } catch (error) {
      assert.ok(error instanceof WalrustError && ["integrity", "restore"].includes(error.kind), String(error));
      continue;
    }
    const image = writers.find((writer) => writer.images.has(seq) && seq > firstOf(writer))!.images.get(seq)!;
    assert.ok(Buffer.compare(readFileSync(outputPath), image) === 0, `seq ${seq}`);
    seqs.push(seq);
  }
  return seqs;
}

function firstOf({ images }: BucketWriter): bigint {
  return [...images.keys()].reduce((first, seq) => seq < first ? seq : first) - 1n;
}

function lostSeqs({ findings }: VerifyReport): bigint[] {
  const seqs = new Set<bigint>();
  for (const { code, seqs: range } of findings) {
    if (!["points_lost", "head_lost"].includes(code) || range === null) continue;
    for (let seq = range.min; seq <= range.max; seq++) seqs.add(seq);
  }
  return [...seqs].sort((a, b) => a < b ? -1 : 1);
}

async function keysOf(store: ObjectStore): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list("")) keys.push(key);
  return keys;
}

test("verify: sound buckets are clean on every level, with forks, merged ranges and retention, and Rust's own", {
  timeout,
}, async () => {
  const buckets: [store: MemoryStore, root: string, points: number][] = [];
  const plain = new MemoryStore();
  await lineage(plain);
  buckets.push([plain, "app/", 12]);
  const fork = new MemoryStore();
  await forked(fork);
  buckets.push([fork, "app/", 16]);
  const merged = new MemoryStore();
  const writer = await lineage(merged);
  await writer.merge(1, 2n, 5n);
  await writer.merge(1, 6n, 8n, { keep: true });
  await writer.retention([{ min: 2n, max: 5n, reason: "merge" }]);
  buckets.push([merged, "app/", 9]);
  const thinned = new MemoryStore();
  const thin = await lineage(thinned);
  await thin.remove(2n, 4n);
  await thin.remove(6n, 8n);
  await thin.retention([{ min: 2n, max: 4n, reason: "retention" }, { min: 6n, max: 8n, reason: "retention" }]);
  buckets.push([thinned, "app/", 6]);
  const foreign = new MemoryStore();
  await lineage(foreign, { bridge: false });
  buckets.push([foreign, "app/", 12]);
  for (const bucket of goldenBuckets) {
    const store = new MemoryStore();
    await uploadGolden(store, bucket);
    buckets.push([store, goldenRoot, bucket === "owned-leveled" ? 10 : 16]);
  }
  for (const [at, [store, root, points]] of buckets.entries()) {
    for (const level of levels) {
      const isGolden = root === goldenRoot;
      // The pages of the model are noise: no SQLite would call them sound.
      const sqlite = isGolden ? runtime.sqlite : null;
      const report = await look(store, {
        level,
        root,
        runtime: { ...runtime, sqlite },
        check: () => Promise.resolve([]),
      });
      assert.deepEqual(report.findings, [], `bucket ${at}, ${level}`);
      assert.equal(verifyExitCode(report), 0);
      assert.equal(report.restorable?.points, points, `bucket ${at}, ${level}`);
      assert.equal(report.soundObjects, report.snapshots + report.deltas + report.levels);
      assert.equal(report.drilled.length > 0, level === "drill");
    }
  }
  assert.deepEqual(readdirSync(directory).filter((name) => name.startsWith("scratch")), [], "no scratch file is left");
});

test("[S59] [S61] verify: whatever object vanishes, what is called lost is exactly what no restore gives", {
  timeout: 120_000,
}, async () => {
  const sample = new MemoryStore();
  await forked(sample);
  const random = new SeededRandom(59);
  const objects = (await keysOf(sample)).filter((key) => key.endsWith(".hadbp"));
  const cases = [
    ...objects.map((key) => [key]),
    ...Array.from({ length: 12 }, () => objects.filter(() => random.number() < 0.2)),
  ];
  let found = 0;
  for (const gone of cases) {
    const store = new MemoryStore();
    const writers = await forked(store);
    await store.deleteMany(gone);
    const restorable = await restorableSeqs(store, writers);
    const all = Array.from({ length: Number(writers[0].seq) }, (_, i) => BigInt(i + 1));
    const lost = all.filter((seq) => !restorable.includes(seq));
    for (const level of ["list", "full"] as const) {
      const report = await look(store, { level });
      // The tail of the newest lineage is known to its writer alone.
      const known = lost.filter((seq) => seq <= (report.restorable?.last.seq ?? 0n) || lostSeqs(report).includes(seq));
      assert.deepEqual(lostSeqs(report), known, `${level} without ${gone.join(", ")}`);
      const tail = lost.filter((seq) => !known.includes(seq));
      assert.ok(tail.every((seq) => seq > 12n), `${level} without ${gone.join(", ")}: ${tail} is not named`);
      assert.equal(report.restorable?.points ?? 0, restorable.length);
      found += known.length;
    }
  }
  assert.ok(found > 100, `${found} lost points`);
});

test("[S59] verify: names the window lost by seq and time, and what stands in the way", { timeout }, async () => {
  const store = new MemoryStore();
  const writer = await lineage(store);
  await writer.remove(6n, 7n);
  const time = (seq: bigint): string => new Date(writer.times.get(seq)!).toISOString();
  for (const level of levels.slice(0, 3)) {
    const report = await look(store, { level });
    const [finding] = report.findings;
    assert.equal(
      finding.message,
      `seqs 6 to 8 (after ${time(5n)}, before ${time(9n)}): ` +
        "cannot be restored, because seqs 6 to 7 is missing, and with it what follows up to seq 8",
    );
    assert.equal(verifyExitCode(report), 5);
  }
  await writer.remove(12n);
  await store.deleteMany([writer.key("snapshot", 9n)]);
  const end = await look(store);
  assert.deepEqual(codes(end), ["head_lost"]);
  assert.match(end.findings[0].hint!, /walrust snapshot/);
  // A new snapshot makes the newest state good again, and says nothing of what is lost.
  await writer.snapshot();
  assert.deepEqual(codes(await look(store)), ["points_lost"]);
});

test(
  "[S59] verify: a merged range that vanished is lost, although its sources were removed on purpose",
  { timeout },
  async () => {
    const store = new MemoryStore();
    const writer = await lineage(store);
    await writer.merge(1, 2n, 4n);
    await writer.retention([{ min: 2n, max: 4n, reason: "merge" }]);
    assert.deepEqual(codes(await look(store)), []);
    await store.deleteMany([writer.levelKey(1, 2n, 4n)]);
    const report = await look(store);
    assert.deepEqual(codes(report), ["points_lost"]);
    assert.deepEqual(lostSeqs(report), [2n, 3n, 4n]);
  },
);

test("[S72] verify: where any byte is flipped, either it is named or every point restores as before", {
  timeout: 120_000,
}, async () => {
  const sample = new MemoryStore();
  await forked(sample);
  const random = new SeededRandom(72);
  const objects = (await keysOf(sample)).filter((key) => key.endsWith(".hadbp"));
  let named = 0;
  for (let i = 0; i < 60; i++) {
    const store = new MemoryStore();
    const writers = await forked(store);
    const key = objects[Math.floor(random.number() * objects.length)];
    const { bytes } = await getBytes(store, key, 1e6);
    // Half of them in the header, which no checksum covers.
    const at = Math.floor(random.number() * (i % 2 === 0 ? 48 : bytes.length));
    bytes[at] ^= 1 << Math.floor(random.number() * 8);
    await store.put(key, bytes);
    const restorable = await restorableSeqs(store, writers);
    const report = await look(store);
    assert.equal(report.restorable?.points, restorable.length, `${key} at ${at}`);
    if (report.findings.length > 0) named++;
    // A time between those of its neighbours is the one thing that nothing contradicts.
    // Nor does anybody read what a writer published beyond the fork.
    else assert.ok((at >= 32 && at < 40) || key === writers[1].key("delta", 12n), `${key} at ${at} goes unseen`);
  }
  assert.ok(named > 40, `${named} named`);
});

test("[S76] verify: a valid object of another lineage, and a bridge that declares another end, are named", {
  timeout,
}, async () => {
  const store = new MemoryStore();
  const [child, parent] = await forked(store);
  const other = await getBytes(store, parent.key("delta", 12n), 1e6);
  await store.put(child.key("delta", 13n), other.bytes);
  assert.ok(codes(await look(store)).includes("seq_mismatch"));

  const bridged = new MemoryStore();
  const writer = await lineage(bridged);
  const key = writer.key("delta", 5n);
  const { bytes } = await getBytes(bridged, key, 64);
  bytes[47] ^= 1;
  await bridged.put(key, bytes);
  for (const level of ["headers", "full"] as const) {
    const report = await look(bridged, { level });
    assert.deepEqual(report.findings.map(({ object }) => object), [key], level);
    assert.equal(report.restorable?.points, 12, "the snapshot leads on without its bridge");
  }
});

test("verify: a writer that forgot a page is found by a drill alone, where the chain declares the whole image", {
  timeout,
}, async () => {
  const store = new MemoryStore();
  const writer = new BucketWriter({ store });
  await writer.begin();
  await writer.snapshot();
  await writer.delta([2, 3]);
  await writer.delta([2, 3], 3, 3);
  await writer.snapshot();
  await writer.deltas(2);
  assert.deepEqual(codes(await look(store)), []);
  const report = await look(store, { level: "drill" });
  assert.deepEqual(codes(report), ["image_mismatch"]);
  assert.match(report.findings[0].message, /0000\/0000000000000004\.hadbp/);
  assert.equal(verifyExitCode(report), 5);
});

test("verify: SQLite has the last word in a drill", { timeout }, async () => {
  const store = new MemoryStore();
  await lineage(store);
  const bad = await look(store, {
    level: "drill",
    runtime: { ...runtime, sqlite: null },
    check: () => Promise.resolve(["row 1 missing from index"]),
  });
  assert.deepEqual(codes(bad), ["image_unsound"]);
  const unknown = await look(store, { level: "drill", runtime: { ...runtime, sqlite: null } });
  assert.deepEqual(unknown.findings.map(({ code }) => code), ["not_checked"]);
  assert.equal(verifyExitCode(unknown), 1);
  const { files } = runtime;
  const full = { ...runtime, files: { ...files, freeBytes: () => 100 } };
  await assert.rejects(look(store, { level: "drill", runtime: full }), { code: "no_room", kind: "config" });
});

test(
  "[S80] verify: an empty bucket, a wrong prefix and a bucket without a snapshot are exit 6",
  { timeout },
  async () => {
    const empty = await look(new MemoryStore());
    assert.deepEqual(codes(empty), ["nothing_stored"]);
    assert.equal(verifyExitCode(empty), 6);
    const store = new MemoryStore();
    const writer = await lineage(store);
    await store.deleteMany([1n, 5n, 9n].map((seq) => writer.key("snapshot", seq)));
    const report = await look(store);
    assert.equal(verifyExitCode(report), 6);
    assert.ok(codes(report).includes("nothing_restorable"));
    const older = new MemoryStore();
    await older.put("app/generations/0123456789abcdef/snapshots/00000000.snapshot.lz4", new Uint8Array(10));
    await assert.rejects(look(older), { code: "foreign_layout", exitCode: 6 });
  },
);

test("[S79] verify: a pointer beyond what is stored, and one whose snapshot is gone", { timeout }, async () => {
  const store = new MemoryStore();
  const writer = await lineage(store);
  await store.deleteMany([writer.key("snapshot", 9n)]);
  const gone = await look(store);
  assert.deepEqual(gone.findings.map(({ code, severity }) => [severity, code]), [["warning", "snapshot_missing"]]);
  assert.equal(gone.restorable?.points, 12);
  const state = { lineageId: writer.lineage, claim: null, currentSeq: 40n, dbChecksum: 1n, lastSnapshot: null };
  await store.put(renderKey("app/", { kind: "state" }), renderState(state));
  assert.deepEqual(codes(await look(store)), ["head_lost"]);
});

test("[S68] verify: times out of order and in the future are warnings", { timeout }, async () => {
  const store = new MemoryStore();
  const writer = await lineage(store);
  writer.nowMs -= 3_600_000;
  await writer.delta();
  writer.nowMs = Date.now() + 10 * 365 * 24 * 3_600_000;
  await writer.delta();
  const report = await look(store);
  assert.deepEqual(report.findings.map(({ code }) => code), ["time_order", "clock"]);
  assert.equal(verifyExitCode(report), 1);
});

test("verify --fix: removes lineages that were given up before their first snapshot, and nothing else", {
  timeout,
}, async () => {
  const store = new MemoryStore();
  await forked(store);
  const abandon = async (name: string, ageMs: number, snapshot: boolean): Promise<BucketWriter> => {
    const writer = new BucketWriter({ store, lineage: name.repeat(32), seq: 3n });
    writer.nowMs = Date.now() - ageMs;
    await writer.begin({ parent: "a".repeat(32), parentSeq: 3n, state: false });
    if (snapshot) await writer.snapshot();
    return writer;
  };
  const day = 24 * 3_600_000;
  await abandon("c", 2 * day, false);
  await abandon("d", 1000, false);
  await abandon("e", 2 * day, true);
  const before = await keysOf(store);
  const report = await look(store);
  assert.deepEqual(report.findings.map(({ severity, code }) => [severity, code]), [
    ["warning", "orphan"],
    ["info", "other_lineage"],
  ]);
  assert.deepEqual(await keysOf(store), before, "nothing goes without being asked");
  const fixed = await look(store, { fix: true });
  assert.deepEqual(fixed.removed, [`app/lineages/${"c".repeat(32)}/lineage.json`]);
  assert.deepEqual(await keysOf(store), before.filter((key) => !fixed.removed.includes(key)));
  assert.equal(verifyExitCode(await look(store)), 0);
});

test("verify: a bucket that is written to and swept while it is read is not damaged", { timeout }, async () => {
  const store = new MemoryStore();
  const writer = await lineage(store);
  let [isGrown, isSwept] = [false, false];
  const busy = wrapStore(store, {
    async *list(prefix, options) {
      for await (const info of store.list(prefix, options)) {
        // Deltas and a snapshot come behind the last delta that was listed.
        if (info.key.includes("/0001/") && !isGrown) {
          isGrown = true;
          await writer.deltas(2);
          await writer.snapshot();
        }
        yield info;
      }
    },
    async get(key, options) {
      if (key.endsWith("0000000000000003.hadbp") && !isSwept) {
        isSwept = true;
        await writer.retention([{ min: 2n, max: 4n, reason: "retention" }]);
        await writer.remove(2n, 4n);
      }
      return await store.get(key, options);
    },
  });
  const report = await look(busy);
  assert.ok(isGrown && isSwept, "canary");
  assert.deepEqual(codes(report), []);
});

test("verify: an unreachable bucket is an error, not a finding; an abort ends it", { timeout }, async () => {
  const store = new MemoryStore();
  await lineage(store);
  const down = wrapStore(store, { get: () => Promise.reject(new Error("connection refused")) });
  await assert.rejects(look(down), /connection refused/);
  const abort = new AbortController();
  const onProgress = (): void => abort.abort(new Error("stopped"));
  await assert.rejects(look(store, { signal: abort.signal, onProgress }), /stopped/);
});

test("[S98] verify, restore: a database of a gigabyte in flat memory", { timeout: 120_000 }, async () => {
  const pageSize = 65536;
  const pageCount = 16_384;
  const store = sparseStore();
  const page = new Uint8Array(pageSize);
  const first = new Uint8Array(pageSize);
  first.set(new TextEncoder().encode("SQLite format 3\0"));
  new DataView(first.buffer).setUint16(16, 1);
  new DataView(first.buffer).setUint32(28, pageCount);
  function* entries(): Generator<{ pgno: number; data: Uint8Array }> {
    for (let pgno = 1; pgno <= pageCount; pgno++) yield { pgno, data: pgno === 1 ? first : page };
  }
  const header = { version: 1, flags: 0, pageSize, seq: 1n, prevChecksum: 0n, pageCount } as const;
  const whole = { ...header, createdMs: 1, declaredEnd: null };
  async function* chunks(): AsyncGenerator<Uint8Array> {
    yield* encodeChangeset(whole, entries(), { sha256: runtime.sha256, chunkSize: 1024 * 1024 });
  }
  await store.putStream("app/0001/0000000000000001.hadbp", chunks());
  // What grows with the database shows in the second half of it.
  const most = [0, 0];
  const measure = (bytes: number, bytesTotal: number): void => {
    const half = bytes * 2 < bytesTotal ? 0 : 1;
    most[half] = Math.max(most[half], process.memoryUsage().rss);
  };
  const report = await look(store, { onProgress: measure });
  assert.deepEqual(report.findings, []);
  assert.ok(report.readBytes > 2 ** 30);
  mkdirSync(join(directory, "large"));
  const options = { store, root: "app/", target: { kind: "latest" }, integrityCheck: "none" } as const;
  const files = sparseFiles(runtime.files);
  const outputPath = join(directory, "large", "out.db");
  const onProgress = (progress: RestoreProgress): void => measure(progress.bytes, progress.bytesTotal);
  await restore({ ...options, outputPath, runtime: { ...runtime, files }, onProgress });
  rmSync(outputPath);
  const grownMb = Math.round((most[1] - most[0]) / 1024 / 1024);
  assert.ok(grownMb < 64, `${grownMb} MB more in the second half`);
});
