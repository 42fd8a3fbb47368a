import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { existsSync, mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { DatabaseError, WalrustError } from "../../src/errors.ts";
import { encodeChangeset } from "../../src/format/hadbp.ts";
import { restore, type RestoreOptions, type RestoreReport } from "../../src/replication/restore.ts";
import { checkWithSqlJs } from "../../src/runtime/sql_js_check.ts";
import { systemRuntime } from "../../src/runtime/system.ts";
import type { Files, OpenFile, Runtime, SqliteConnection } from "../../src/runtime/types.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { getBytes, type GetOptions, type ObjectBody } from "../../src/storage/object_store.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { BucketWriter } from "./bucket_writer.ts";
import { fileSha256, goldenRoot, goldenTargets, uploadGolden } from "./golden.ts";

const runtime = systemRuntime();
let outputs = 0;
const directory = temporaryDirectory("restore");

interface Run {
  report: RestoreReport;
  bytes: Uint8Array;
}

/** Restores into a folder of its own; on refusal nothing may be left there. */
async function run(writer: { store: MemoryStore; root: string }, options: Partial<RestoreOptions> = {}): Promise<Run> {
  const folder = join(directory, String(++outputs));
  mkdirSync(folder);
  const outputPath = join(folder, "out.db");
  const { store, root } = writer;
  const defaults: RestoreOptions = {
    store,
    root,
    target: { kind: "latest" },
    outputPath,
    runtime,
    integrityCheck: "none",
  };
  try {
    const report = await restore({ ...defaults, ...options });
    assert.deepEqual(readdirSync(folder), report.dryRun ? [] : ["out.db"]);
    return { report, bytes: report.dryRun ? new Uint8Array(0) : new Uint8Array(readFileSync(outputPath)) };
  } catch (error) {
    assert.deepEqual(readdirSync(folder), [], "a refused restore leaves nothing");
    throw error;
  }
}

function seqTarget(seq: bigint): Partial<RestoreOptions> {
  return { target: { kind: "seq", seq } };
}

function timeTarget(ms: number): Partial<RestoreOptions> {
  return { target: { kind: "time", ms } };
}

async function assertRestores(
  writer: MemoryWriter,
  seq: bigint,
  options: Partial<RestoreOptions> = {},
): Promise<RestoreReport> {
  const { report, bytes } = await run(writer, { ...seqTarget(seq), ...options });
  assert.ok(Buffer.compare(bytes, writer.images.get(seq)!) === 0, `seq ${seq} has other bytes`);
  assert.equal(report.seq, seq);
  return report;
}

async function refusal(
  writer: { store: MemoryStore; root: string },
  options: Partial<RestoreOptions> = {},
): Promise<WalrustError> {
  try {
    await run(writer, options);
  } catch (error) {
    assert.ok(error instanceof WalrustError, String(error));
    return error;
  }
  assert.fail("was not refused");
}

type MemoryWriter = BucketWriter & { store: MemoryStore };

/** snapshot 1, deltas 2–4, bridge and snapshot 5, deltas 6–8, bridge and snapshot 9, deltas 10–12. */
async function threeSnapshots(options: { bridge?: boolean; lineage?: string | null } = {}): Promise<MemoryWriter> {
  const writer = new BucketWriter({ store: new MemoryStore(), lineage: options.lineage }) as MemoryWriter;
  const { bridge = true } = options;
  if (writer.lineage !== null && bridge) await writer.begin();
  await writer.snapshot({ bridge });
  await writer.deltas(3);
  await writer.snapshot({ bridge });
  await writer.delta([3, 5]);
  await writer.delta([2], 3);
  await writer.delta([2], 6);
  await writer.snapshot({ bridge });
  await writer.deltas(3);
  return writer;
}

async function flip(writer: MemoryWriter, key: string, at: number, mask: number = 1): Promise<void> {
  const { bytes } = await getBytes(writer.store, key, 1e6);
  bytes[at < 0 ? bytes.length + at : at] ^= mask;
  await writer.store.put(key, bytes);
}

test("restore: every point of a lineage with bridges has the model's bytes, growth and shrink included", async () => {
  const writer = await threeSnapshots();
  for (const seq of writer.images.keys()) await assertRestores(writer, seq);
  const report = await assertRestores(writer, 12n);
  assert.equal(report.snapshotSeq, 9n);
  assert.equal(report.changesets, 3);
  assert.equal(report.chain, writer.chain);
  assert.equal(report.createdMs, writer.nowMs);
  assert.deepEqual(report.warnings, []);
});

test("[S107] restore: a snapshot that never arrived is stepped over by its bridge, latest included", async () => {
  const writer = await threeSnapshots();
  await writer.store.deleteMany([writer.key("snapshot", 9n), writer.key("snapshot", 5n)]);
  for (const seq of writer.images.keys()) {
    const report = await assertRestores(writer, seq);
    assert.equal(report.snapshotSeq, 1n);
  }
});

test("[S108] restore: a corrupt newest snapshot is replaced by the one before, with a warning and the same bytes", async () => {
  for (const at of [0, 6, 15, 27, 31, 48, 700, -1]) {
    const writer = await threeSnapshots();
    await flip(writer, writer.key("snapshot", 9n), at);
    const report = await assertRestores(writer, 12n);
    assert.equal(report.snapshotSeq, 5n, `flip at ${at}`);
    assert.match(report.warnings.join("\n"), /0001\/0000000000000009\.hadbp.*older snapshot/);
  }
});

test("[S109] restore: a missing bridge or a tampered declared end is exit 5 and older points are offered", async () => {
  const missing = await threeSnapshots();
  await missing.store.deleteMany([missing.key("snapshot", 9n), missing.key("delta", 9n)]);
  const first = await refusal(missing, seqTarget(12n));
  assert.equal(first.exitCode, 5);
  assert.match(first.message, /seq 9 /);
  assert.match(first.hint!, /--seq 8/);
  await assertRestores(missing, 8n);

  const tampered = await threeSnapshots();
  await tampered.store.deleteMany([tampered.key("snapshot", 9n)]);
  await flip(tampered, tampered.key("delta", 9n), 44);
  const second = await refusal(tampered, seqTarget(12n));
  assert.equal(second.exitCode, 5);
  assert.equal(second.code, "chain_mismatch");
  assert.match(second.hint!, /--seq 9/);
  await assertRestores(tampered, 9n);
});

test("[S72] restore: a flip of any byte of a needed delta is seen, save in created_ms, or changes nothing", async () => {
  const writer = await threeSnapshots();
  const key = writer.key("delta", 11n);
  const { size } = (await writer.store.head(key))!;
  for (let at = 0; at < size; at += at < 60 || at > size - 30 ? 1 : 37) {
    await flip(writer, key, at);
    // created_ms is not under the checksum: only what is no time at all can be seen.
    if (at >= 33 && at < 40) await assertRestores(writer, 12n);
    else {
      const error = await refusal(writer, seqTarget(12n));
      assert.equal(error.exitCode, 5, `flip at ${at}`);
      assert.match(JSON.stringify(error.data), /000000000000000b\.hadbp/, `flip at ${at} names the object`);
      assert.match(error.hint!, /--seq 10/);
    }
    await flip(writer, key, at);
  }
  await assertRestores(writer, 12n);
});

test("[S72] restore: a damaged pointer is named and the lineage is found without it", async () => {
  const writer = await threeSnapshots();
  for (const text of ["{", '{"lineage_id":"zz"}', JSON.stringify({ lineage_id: "b".repeat(32) })]) {
    await writer.store.put("app/state.json", new TextEncoder().encode(text));
    const report = await assertRestores(writer, 12n);
    assert.match(report.warnings.join("\n"), /state\.json/);
  }
});

test("[S50] restore: truncated objects are refused at every length that was tried", async () => {
  const writer = await threeSnapshots();
  const key = writer.key("delta", 10n);
  const { bytes } = await getBytes(writer.store, key, 1e6);
  for (const length of [0, 1, 39, 40, 47, 48, 100, bytes.length - 8, bytes.length - 1]) {
    await writer.store.put(key, bytes.slice(0, length));
    assert.equal((await refusal(writer)).exitCode, 5, `cut at ${length}`);
  }
  await writer.store.put(key, Uint8Array.from([...bytes, 0]));
  assert.equal((await refusal(writer)).exitCode, 5, "one byte more");
});

test("[S73] restore: a header that claims 2³² pages, and a marker that claims terabytes, are refused before allocation", async () => {
  const claims = await threeSnapshots();
  const key = claims.key("delta", 10n);
  const { bytes } = await getBytes(claims.store, key, 1e6);
  new DataView(bytes.buffer).setUint32(28, 0xffff_ffff);
  await claims.store.put(key, bytes);
  assert.equal((await refusal(claims)).exitCode, 5);

  // One page more than there are, and terabytes.
  for (const marker of [8, 0xffff_ffff]) {
    const huge = await threeSnapshots();
    const header = { version: 1, flags: 1, pageSize: 512, seq: 13n, prevChecksum: huge.chain, pageCount: 1 } as const;
    const whole = { ...header, createdMs: huge.nowMs, declaredEnd: null };
    const entries = [{ pgno: marker, data: new Uint8Array(0) }];
    for (const chunk of encodeChangeset(whole, entries, { sha256: runtime.sha256, chunkSize: 4096 })) {
      await huge.store.put(huge.key("delta", 13n), chunk.slice());
    }
    assert.equal((await refusal(huge)).code, "growth_without_pages", `marker ${marker}`);
  }
});

test("[S74] restore: hostile keys are ignored", async () => {
  const writer = await threeSnapshots();
  const base = `app/lineages/${writer.lineage}/`;
  for (
    const tail of ["0000/zz.hadbp", "0000/\u001b[31m.hadbp", `0000/${"9".repeat(900)}`, "0002/000000000000000d.hadbp"]
  ) {
    await writer.store.put(base + tail, new Uint8Array(10)).catch(() => {});
  }
  await assertRestores(writer, 12n);
});

test("[S76] restore: a valid object of another seq, lineage or database is refused", async () => {
  const other = new BucketWriter({ store: new MemoryStore(), lineage: "b".repeat(32) }) as MemoryWriter;
  await other.begin();
  await other.snapshot();
  await other.deltas(14);
  for (const [from, seq] of [[other, 10n], ["self", 11n]] as const) {
    const writer = await threeSnapshots();
    const source = from === "self" ? writer : from;
    const { bytes } = await getBytes(source.store, source.key("delta", seq), 1e6);
    await writer.store.put(writer.key("delta", 10n), bytes);
    const error = await refusal(writer, seqTarget(12n));
    assert.equal(error.exitCode, 5);
    assert.ok(["seq_mismatch", "chain_mismatch"].includes(error.code), error.code);
  }
});

test("[S78] restore: overlapping ranges: the provable path is taken, a corrupt merge is gone around", async () => {
  const writer = await threeSnapshots();
  await writer.merge(1, 2n, 4n, { keep: true });
  await writer.merge(1, 3n, 7n, { keep: true });
  await writer.merge(2, 2n, 6n, { keep: true });
  await writer.store.deleteMany([writer.key("snapshot", 5n), writer.key("snapshot", 9n)]);
  for (const seq of writer.images.keys()) await assertRestores(writer, seq);
  // A longest-first path 2–6, 7 is there; without 7 only 2, 3–7 leads on.
  await writer.remove(7n);
  await assertRestores(writer, 8n);
  await flip(writer, writer.levelKey(2, 2n, 6n), 100);
  const report = await assertRestores(writer, 6n);
  assert.match(report.warnings.join("\n"), /levels\/L2/);
});

test("[S78] restore: a missing delta is exit 5 naming the seqs, for every kind of target, unless a snapshot lies after it", async () => {
  const writer = await threeSnapshots();
  await writer.remove(10n, 11n);
  for (const target of [{}, seqTarget(12n), seqTarget(10n), timeTarget(writer.times.get(10n)!)]) {
    const error = await refusal(writer, target);
    assert.equal(error.exitCode, 5);
    assert.match(error.message, /seqs? 10/);
  }
  await assertRestores(writer, 9n);
  await writer.remove(6n);
  await assertRestores(writer, 9n);
  assert.equal((await refusal(writer, seqTarget(7n))).exitCode, 5);
});

test("[S93] restore: inside a merged range a time takes the nearest earlier point and says so, a seq is refused", async () => {
  const writer = await threeSnapshots();
  await writer.merge(1, 10n, 12n);
  await writer.retention([{ min: 10n, max: 12n, reason: "merge" }]);
  await writer.deltas(2);
  const error = await refusal(writer, seqTarget(11n));
  assert.equal(error.exitCode, 6);
  assert.match(error.message, /seq 9 and seq 12/);
  const { report, bytes } = await run(writer, timeTarget(writer.times.get(11n)!));
  assert.equal(report.seq, 9n);
  assert.match(report.warnings.join("\n"), /seqs 10 to 11 were merged/);
  assert.ok(Buffer.compare(bytes, writer.images.get(9n)!) === 0);
  await assertRestores(writer, 12n);
  await assertRestores(writer, 14n);
});

test("[S93] restore: in a range that retention removed, a time takes the nearest earlier point, a seq is refused", async () => {
  const writer = await threeSnapshots();
  await writer.remove(6n, 8n);
  await writer.retention([{ min: 6n, max: 8n, reason: "retention" }]);
  const { report } = await run(writer, timeTarget(writer.times.get(7n)!));
  assert.equal(report.seq, 5n);
  assert.match(report.warnings.join("\n"), /removed by retention/);
  assert.equal((await refusal(writer, seqTarget(7n))).exitCode, 6);
  await assertRestores(writer, 12n);
});

test("[S92] restore: before the first point, beyond the last seq and in the future: exit 6 and the range", async () => {
  const writer = await threeSnapshots();
  const range = /from seq 1 of 2023-.* to seq 12 of 2023-/;
  for (const target of [seqTarget(0n), seqTarget(13n), timeTarget(writer.times.get(1n)! - 1), timeTarget(9e15)]) {
    const error = await refusal(writer, target);
    assert.equal(error.exitCode, 6);
    assert.match(error.message, range);
  }
  const { report } = await run(writer, timeTarget(writer.nowMs + 3_600_000));
  assert.equal(report.seq, 12n, "nothing was committed after the last changeset");
  assert.match(report.warnings.join("\n"), /the last point is seq 12/);
});

test("restore: every time finds the newest changeset not later than it, in few requests", async () => {
  const writer = await threeSnapshots();
  await writer.deltas(60);
  for (const [seq, time] of writer.times) {
    for (const ms of [time, time + 999]) {
      const { report } = await run(writer, timeTarget(ms));
      assert.equal(report.seq, seq);
    }
  }
});

test("[S70] restore: of equal times the highest seq counts", async () => {
  const writer = await threeSnapshots();
  writer.stepMs = 0;
  await writer.deltas(3);
  const { report } = await run(writer, timeTarget(writer.nowMs));
  assert.equal(report.seq, 15n);
});

test("restore: a foreign merge stamped with the time of merging does not hide the points around it", async () => {
  const writer = await threeSnapshots({ bridge: false, lineage: null });
  await writer.merge(1, 6n, 8n, { createdMs: writer.nowMs + 1e6 });
  const seqAt = async (ms: number): Promise<bigint> => (await run(writer, timeTarget(ms))).report.seq;
  assert.equal(await seqAt(writer.times.get(7n)!), 5n);
  assert.equal(await seqAt(writer.times.get(9n)!), 9n);
  assert.equal(await seqAt(writer.times.get(11n)!), 11n);
});

test("restore: without bridges the hole at a snapshot is crossed only by proof of the image's hash", async () => {
  const writer = await threeSnapshots({ bridge: false, lineage: null });
  for (const seq of writer.images.keys()) await assertRestores(writer, seq);
  await flip(writer, writer.key("snapshot", 9n), 100);
  const report = await assertRestores(writer, 12n);
  assert.equal(report.snapshotSeq, 5n);
  // Nothing after it proves what a corrupt snapshot held.
  assert.equal((await refusal(writer, seqTarget(9n))).exitCode, 5);
});

test("[S80] restore: an empty bucket or a wrong prefix is exit 6, a bucket without a snapshot too", async () => {
  assert.equal((await refusal({ store: new MemoryStore(), root: "app/" })).code, "nothing_stored");
  const writer = await threeSnapshots();
  assert.equal((await refusal({ store: writer.store, root: "other/" })).exitCode, 6);
  await writer.store.deleteMany([1n, 5n, 9n].map((seq) => writer.key("snapshot", seq)));
  const error = await refusal(writer);
  assert.equal(error.code, "no_snapshot");
  assert.equal(error.exitCode, 6);
});

test("[S91] restore: existing output or a stale sidecar is refused; force moves them aside and says how to undo", async () => {
  const writer = await threeSnapshots();
  for (const suffix of ["", "-wal", "-shm", "-journal"]) {
    const folder = join(directory, `existing${suffix}`);
    mkdirSync(folder);
    const outputPath = join(folder, "out.db");
    writeFileSync(outputPath + suffix, "old");
    const options: RestoreOptions = {
      store: writer.store,
      root: writer.root,
      target: { kind: "latest" },
      outputPath,
      runtime,
      integrityCheck: "none",
    };
    await assert.rejects(restore(options), { code: "output_exists", exitCode: 6 });
    assert.deepEqual(readdirSync(folder), [`out.db${suffix}`]);
    const report = await restore({ ...options, force: true });
    const moved = readdirSync(folder).filter((name) => name.includes(".bak-"));
    assert.equal(moved.length, 1);
    assert.deepEqual(report.movedAside, [join(folder, moved[0])]);
    assert.equal(readFileSync(join(folder, moved[0]), "utf8"), "old");
    assert.ok(Buffer.compare(readFileSync(outputPath), writer.images.get(12n)!) === 0);
  }
});

test("restore: dry run plans and writes nothing", async () => {
  const writer = await threeSnapshots();
  const { report } = await run(writer, { dryRun: true });
  assert.equal(report.seq, 12n);
  assert.equal(report.objects, 4);
  assert.equal(report.requests, 4);
  assert.ok(report.bytes > 0);
  assert.equal(report.createdMs, writer.times.get(12n));
  assert.deepEqual(report.plan!.map(({ kind, min, max }) => [kind, min, max]), [
    ["snapshot", 9n, 9n],
    ["delta", 10n, 10n],
    ["delta", 11n, 11n],
    ["delta", 12n, 12n],
  ]);
  assert.equal(report.plan!.reduce((sum, { bytes }) => sum + bytes, 0), report.bytes);
  await flip(writer, writer.key("delta", 12n), 0);
  const unread = await run(writer, { dryRun: true });
  assert.equal(unread.report.createdMs, null);
  assert.match(unread.report.warnings.join(), /000000000000000c\.hadbp/);
});

test("restore: history goes on in the parent up to the fork, and a fenced writer's changesets beyond it do not count", async () => {
  const store = new MemoryStore();
  const parent = new BucketWriter({ store, lineage: "a".repeat(32) }) as MemoryWriter;
  await parent.begin();
  await parent.snapshot();
  await parent.deltas(5);
  const child = new BucketWriter({ store, lineage: "c".repeat(32), seq: 4n }) as MemoryWriter;
  child.continueFrom(parent, 4n);
  await child.begin({ parent: parent.lineage, parentSeq: 4n, state: false });
  await child.point({ lineageId: parent.lineage, claim: child.lineage });
  const claimed = await run(child);
  assert.equal(claimed.report.seq, 4n);
  assert.equal(claimed.report.lineage, parent.lineage);
  assert.match(claimed.report.warnings.join("\n"), /no complete snapshot yet/);

  await child.snapshot();
  await child.deltas(3);
  await child.point({ lineageId: child.lineage, claim: null });
  for (const seq of [5n, 6n, 8n]) await assertRestores(child, seq);
  for (const seq of [1n, 3n, 4n]) await assertRestores(parent, seq);
  const { report } = await run(child, timeTarget(parent.times.get(3n)!));
  assert.equal(report.seq, 3n);
  await store.deleteMany(["app/state.json"]);
  await assertRestores(child, 8n);
});

/** Wraps a file so that writing fails with a system error once `limit` bytes are in. */
function failingFiles(files: Files, code: string, limit: number): Files {
  const open: Files["open"] = (path, mode) => {
    const file = files.open(path, mode);
    if (!path.includes(".tmp-")) return file;
    let written = 0;
    const write: OpenFile["write"] = (bytes, position) => {
      written += bytes.length;
      if (written > limit) throw Object.assign(new Error(`${code}: write`), { code });
      file.write(bytes, position);
    };
    return {
      path,
      read: (into, position) => file.read(into, position),
      write,
      truncate: (size) => file.truncate(size),
      sync: () => file.sync(),
      stat: () => file.stat(),
      close: () => file.close(),
    };
  };
  return { ...bound(files), open };
}

function bound(files: Files): Files {
  return {
    uid: files.uid,
    stat: (path) => files.stat(path),
    open: (path, mode) => files.open(path, mode),
    rename: (from, to) => files.rename(from, to),
    link: (from, to) => files.link(from, to),
    remove: (path) => files.remove(path),
    makeDirectory: (path) => files.makeDirectory(path),
    removeDirectory: (path) => files.removeDirectory(path),
    list: (path) => files.list(path),
    syncDirectory: (path) => files.syncDirectory(path),
    freeBytes: (path) => files.freeBytes(path),
    realPath: (path) => files.realPath(path),
  };
}

function withFiles(files: Files): Runtime {
  const { clock, random, sha256, fetch } = runtime;
  return { clock, random, sha256, fetch, sqlite: null, files };
}

test("[S38] restore: a disk that is too small is refused before, one that fills up leaves no file", async () => {
  const writer = await threeSnapshots();
  const small = { ...bound(runtime.files), freeBytes: () => 1000 };
  const before = await refusal(writer, { runtime: withFiles(small) });
  assert.equal(before.code, "no_space");
  assert.equal(before.data.free, 1000);
  const during = await refusal(writer, { runtime: withFiles(failingFiles(runtime.files, "ENOSPC", 2000)) });
  assert.equal(during.code, "no_space");
});

test("[S39] restore: an I/O error or a short file is a failure, never a zero-filled page", async () => {
  const writer = await threeSnapshots();
  const failed = await refusal(writer, { runtime: withFiles(failingFiles(runtime.files, "EIO", 2000)) });
  assert.equal(failed.code, "output_failed");
  const files = bound(runtime.files);
  const open: Files["open"] = (path, mode) => {
    const file = files.open(path, mode);
    const wrapped: OpenFile = {
      path,
      read: () => 0,
      write: (bytes, position) => file.write(bytes, position),
      truncate: (size) => file.truncate(size),
      sync: () => file.sync(),
      stat: () => file.stat(),
      close: () => file.close(),
    };
    return wrapped;
  };
  assert.equal((await refusal(writer, { runtime: withFiles({ ...files, open }) })).code, "output_short");
});

/** Every body of a changeset breaks off after `most` bytes; documents and headers are left alone. */
class BreakingStore extends MemoryStore {
  most = 1000;
  breaks = 0;
  override async get(key: string, options?: GetOptions): Promise<ObjectBody> {
    const got = await super.get(key, options);
    const { most } = this;
    const range = options?.range;
    if (!key.endsWith(".hadbp") || (range !== undefined && range.end - range.start <= 48)) return got;
    const broken = async function* (this: BreakingStore): AsyncGenerator<Uint8Array> {
      let sent = 0;
      for await (const chunk of got.body) {
        if (sent + chunk.length > most) {
          yield chunk.subarray(0, most - sent);
          this.breaks++;
          if (this.breaks % 2 === 0) return;
          throw new TypeError("terminated");
        }
        sent += chunk.length;
        yield chunk;
      }
    };
    return { ...got, body: broken.call(this) };
  }
}

test("[S47] restore: bodies that break off or end early are resumed where they stopped", async () => {
  const store = new BreakingStore();
  const writer = new BucketWriter({ store, pageSize: 4096 }) as MemoryWriter;
  await writer.begin();
  await writer.snapshot();
  await writer.delta([2], 40);
  await writer.deltas(3);
  const report = await assertRestores(writer, 5n);
  assert.ok(store.breaks > 100);
  assert.ok(report.requests > 100);
  store.most = 0;
  assert.equal((await refusal(writer)).exitCode, 4, "no progress at all ends as a storage error");
});

test("restore: objects larger than a range are fetched in ranges, side by side, and come out whole", async () => {
  const writer = new BucketWriter({ store: new MemoryStore(), pageSize: 65536 }) as MemoryWriter;
  await writer.begin();
  await writer.snapshot();
  await writer.delta([2], 300);
  await writer.snapshot();
  await writer.deltas(2);
  await assertRestores(writer, 2n);
  const report = await assertRestores(writer, 5n);
  assert.ok(report.requests >= 3 + 2);
});

/** Objects vanish when first asked for. */
class SweptStore extends MemoryStore {
  swept: string[] = [];
  override async get(key: string, options?: GetOptions): Promise<ObjectBody> {
    if (this.swept.includes(key)) await this.deleteMany([key]);
    return await super.get(key, options);
  }
}

test("[S94] restore: an object swept while restoring is planned around", async () => {
  const store = new SweptStore();
  const writer = new BucketWriter({ store }) as MemoryWriter;
  await writer.begin();
  await writer.snapshot();
  await writer.deltas(3);
  await writer.snapshot();
  await writer.deltas(3);
  store.swept = [writer.key("snapshot", 5n)];
  const report = await assertRestores(writer, 8n);
  assert.equal(report.snapshotSeq, 1n);
  assert.match(report.warnings.join("\n"), /vanished/);
});

test("restore: an abort in the middle leaves nothing", async () => {
  const writer = await threeSnapshots();
  const abort = new AbortController();
  const options = { signal: abort.signal, onProgress: () => abort.abort(new Error("stopped")) };
  await assert.rejects(run(writer, options), /stopped/);
});

test("restore: the integrity check leaves the proven bytes and no sidecars, with built-in SQLite and with sql.js", async () => {
  const store = new MemoryStore();
  await uploadGolden(store, "owned-lineage");
  const golden = goldenTargets("owned-lineage").at(-1)!.sha256;
  for (const level of ["quick", "full"] as const) {
    for (const sqlite of [true, false]) {
      const folder = temporaryDirectory("check");
      const outputPath = join(folder, "out.db");
      const which = systemRuntime({ sqlite });
      const target = { kind: "latest" } as const;
      const common = { store, root: goldenRoot, target, outputPath, runtime: which, check: checkWithSqlJs };
      const report = await restore({ ...common, integrityCheck: level });
      assert.equal(report.integrity, "ok");
      assert.equal(fileSha256(outputPath), golden);
      assert.deepEqual(readdirSync(folder), ["out.db"]);
    }
  }
});

test("restore: sql.js refuses what built-in SQLite refuses, and without either it is said", async () => {
  const store = new MemoryStore();
  await uploadGolden(store, "owned-renumbered");
  const golden = { store, root: goldenRoot };
  const without = systemRuntime({ sqlite: false });
  const common = { ...seqTarget(4n), runtime: without };
  const error = await refusal(golden, { ...common, integrityCheck: "full", check: checkWithSqlJs });
  assert.equal(error.exitCode, 5);
  assert.equal(error.code, "image_unsound");
  const sound = await run(golden, { ...seqTarget(2n), runtime: without, integrityCheck: "full" });
  assert.equal(sound.report.integrity, "skipped");
  assert.match(sound.report.warnings.join("\n"), /no SQLite/);
});

test("restore: a file that SQLite cannot open is no finding about its content, a corrupt one is", async () => {
  const writer = await threeSnapshots();
  const closed: string[] = [];
  const sqlite = (code: string, from: "open" | "check"): Runtime["sqlite"] => {
    const fail = (path: string): never => {
      throw new DatabaseError(code, `${path}: ${code}`);
    };
    const open = (path: string): SqliteConnection => {
      const connection = systemRuntime().sqlite!.open(path, { readOnly: true });
      return Object.assign(Object.create(connection), {
        check: () => fail(path),
        close: () => {
          closed.push(path);
          connection.close();
        },
      });
    };
    return { version: [3, 53, 0], open: from === "open" ? fail : open };
  };
  for (
    const [code, from, kind] of [
      ["sqlite_cantopen", "open", "database"],
      ["sqlite_error", "open", "database"],
      ["sqlite_ioerr", "check", "database"],
      ["sqlite_notadb", "check", "integrity"],
      ["sqlite_corrupt", "check", "integrity"],
      ["sqlite_error", "check", "integrity"],
    ] as const
  ) {
    const { clock, random, sha256, fetch, files } = runtime;
    const which = { clock, random, sha256, fetch, files, sqlite: sqlite(code, from) };
    const error = await refusal(writer, { runtime: which, integrityCheck: "quick" });
    assert.equal(error.kind, kind, `${code} from ${from}`);
    assert.ok(error.message.includes(code), error.message);
    if (kind === "database") assert.match(error.hint!, /--integrity-check none/);
  }
  assert.equal(closed.length, 4);
});

test("restore: what killed restores to the same output left behind is removed, and nothing else", async () => {
  const writer = await threeSnapshots();
  const folder = join(directory, "leftovers");
  mkdirSync(folder);
  const outputPath = join(folder, "out.db");
  const [mine, fresh] = ["0123456789abcdef", "fedcba9876543210"];
  const gone = [`out.db.tmp-${mine}`, `out.db.tmp-${mine}-wal`, `out.db.tmp-${mine}-journal`];
  const old = [
    ...gone,
    "out.db.tmp-0123456789abcde",
    "out.db.tmp-0123456789abcdef0",
    "out.db.tmp-0123456789ABCDEF",
    `out.db.tmp-${mine}.txt`,
    `xout.db.tmp-${mine}`,
    `out.db2.tmp-${mine}`,
    "out.db.bak-01234567",
  ];
  const young = [`out.db.tmp-${fresh}`, `out.db.tmp-${fresh}-shm`];
  mkdirSync(join(folder, `out.db.tmp-${"d".repeat(16)}`));
  for (const name of [...old, ...young]) writeFileSync(join(folder, name), "x");
  const twoHoursAgo = Date.now() / 1000 - 7200;
  for (const name of [...old, `out.db.tmp-${"d".repeat(16)}`]) utimesSync(join(folder, name), twoHoursAgo, twoHoursAgo);
  const before = readdirSync(folder).sort();
  const { store, root } = writer;
  const target = { kind: "latest" } as const;
  const options: RestoreOptions = { store, root, target, outputPath, runtime, integrityCheck: "none" };
  await restore({ ...options, dryRun: true });
  assert.deepEqual(readdirSync(folder).sort(), before, "a dry run removes nothing");
  const report = await restore(options);
  assert.deepEqual(readdirSync(folder).sort(), [...before, "out.db"].filter((name) => !gone.includes(name)).sort());
  for (const name of gone) assert.ok(report.warnings.some((text) => text.includes(`${name},`)), name);
});

test("canary: assertRestores fails when the model differs", async () => {
  const writer = await threeSnapshots();
  writer.images.get(12n)![777] ^= 1;
  await assert.rejects(assertRestores(writer, 12n), /other bytes/);
  assert.ok(!existsSync(join(directory, "nothing")));
});
