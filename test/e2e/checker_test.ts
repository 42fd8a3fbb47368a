/** The judges of the end-to-end tests judged: what they accept, and every kind of damage that they must report. */
import assert from "node:assert/strict";
import { copyFileSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { type ChangesetHeader, encodeChangeset, type Entry } from "../../src/format/hadbp.ts";
import { need } from "../support/need.ts";
import { assertImmutable, newSha256, objectHashes, verifyBucket } from "./bucket.ts";
import { assertSameFile, checkPointInTime, checkpointSource, checkPrefix, PrefixError, readLog } from "./checker.ts";
import { inScene, type Scene, type WriterKind } from "./watch_process.ts";

const short = ["--commits", "680", "--cycle", "200", "--bulk", "60", "--autocheckpoint", "100"];

async function writtenWhole(scene: Scene, kind: WriterKind = "runtime"): Promise<void> {
  const writer = scene.writer(kind, short);
  const { code } = await writer.ended;
  assert.equal(code, 0, `writer ${kind}: ${writer.stderr}`);
}

const kinds: readonly [WriterKind, string | false][] = [
  ["runtime", false],
  ["python", need("python3")],
  ["sqlite3", need("sqlite3")],
];
for (const [kind, skip] of kinds) {
  test(
    `checkPrefix: accepts what the ${kind} writer committed, through bulk, wipe and VACUUM`,
    { skip },
    () =>
      inScene(async (scene) => {
        await writtenWhole(scene, kind);
        assert.deepEqual(checkPrefix(scene.db, readLog(scene.log)), { n: 680, session: 1 });
      }),
  );
}

test("checkPrefix: accepts a consistent copy taken beside the writer, and a second session", () =>
  inScene(async (scene) => {
    const writer = scene.writer("runtime", ["--cycle", "200", "--bulk", "60", "--pace-ms", "1"]);
    await writer.started();
    const application = scene.application();
    await application.run(`VACUUM INTO '${scene.path("copy.db")}'`);
    await application.quit();
    await writer.finish();
    const copied = checkPrefix(scene.path("copy.db"), readLog(scene.log));
    assert.ok(copied.n > 0);
    await writtenWhole(scene);
    const log = readLog(scene.log);
    assert.deepEqual(checkPrefix(scene.db, log), { n: log.last, session: 2 });
  }));

const damages: readonly [string, string][] = [
  ["a row of the past is gone", "DELETE FROM item WHERE id = 640"],
  ["a deleted row is back", "INSERT INTO item SELECT 555, session, payload, sum FROM item WHERE id = 640"],
  ["a payload is another", "UPDATE item SET payload = payload || 'x' WHERE id = 670"],
  ["a checksum column is another", "UPDATE item SET sum = 'no' WHERE id = 670"],
  ["the last commit is half there", "DELETE FROM item WHERE id = 680"],
  ["the counter is behind its rows", "UPDATE counter SET n = 679"],
  ["the counter is beyond what was begun", "UPDATE counter SET n = 681"],
  ["a hot slot is of an older commit", "UPDATE hot SET n = n - 64 WHERE slot = 7"],
  ["a bulk row is gone", "DELETE FROM bulk WHERE id = (SELECT max(id) FROM bulk)"],
];

test("checkPrefix: canary, every kind of damaged content is reported", () =>
  inScene(async (scene) => {
    await writtenWhole(scene);
    const log = readLog(scene.log);
    for (const [what, sql] of damages) {
      const damaged = scene.path("damaged.db");
      copyFileSync(scene.db, damaged);
      const db = new DatabaseSync(damaged);
      assert.ok(Number(db.prepare(sql).run().changes) > 0, what);
      db.close();
      assert.throws(() => checkPrefix(damaged, log), PrefixError, what);
    }
  }));

test("checkPrefix: canary, a dropped page and a page of another commit are reported", () =>
  inScene(async (scene) => {
    await writtenWhole(scene);
    const log = readLog(scene.log);
    const bytes = readFileSync(scene.db);
    let reported = 0;
    const pages = bytes.length / 4096;
    for (let page = 1; page < pages; page++) {
      const damaged = Buffer.from(bytes);
      damaged.fill(0, page * 4096, (page + 1) * 4096);
      if (damaged.equals(bytes)) continue;
      writeFileSync(scene.path("damaged.db"), damaged);
      try {
        checkPrefix(scene.path("damaged.db"), log);
      } catch (error) {
        assert.ok(error instanceof PrefixError);
        reported++;
      }
    }
    // Pages of the free list hold nothing that a reader sees: those only the comparison with the source finds.
    const db = new DatabaseSync(scene.db);
    const { freelist_count: free } = db.prepare("PRAGMA freelist_count").get() as { freelist_count: number };
    db.close();
    assert.ok(reported >= pages - 1 - free, `${reported} of ${pages} pages, ${free} free`);
  }));

test("checkPrefix: canary, a commit that no later session found is a phantom", () =>
  inScene(async (scene) => {
    await writtenWhole(scene);
    const text = readFileSync(scene.log, "utf8");
    assert.equal(checkPrefix(scene.db, readLog(scene.log)).n, 680);
    writeFileSync(scene.log, `${text}s 2 679 1\n`);
    assert.throws(() => checkPrefix(scene.db, readLog(scene.log)), PrefixError);
    writeFileSync(scene.log, `${text}s 2 680 1\n`);
    assert.equal(checkPrefix(scene.db, readLog(scene.log)).n, 680);
  }));

test("checkPointInTime: accepts the right prefix; canary, one too late and one too early are reported", () =>
  inScene(async (scene) => {
    await writtenWhole(scene);
    const log = readLog(scene.log);
    const end = log.acks.get(680)!.ms;
    const points = [{ seq: 1n, createdMs: end + 10 }, { seq: 2n, createdMs: end + 20 }];
    assert.equal(checkPointInTime(scene.db, log, points, end + 25).n, 680);
    const early = [{ seq: 1n, createdMs: 1 }, { seq: 2n, createdMs: log.begins.get(680)! - 1 }];
    assert.throws(() => checkPointInTime(scene.db, log, early, end), PrefixError, "begun after the point");
    log.acks.set(681, { ms: end + 5, session: 1 });
    assert.throws(() => checkPointInTime(scene.db, log, points, end + 25), PrefixError, "acknowledged, not in it");
  }));

test("assertSameFile: canary, one flipped bit and one missing page are reported", () =>
  inScene(async (scene) => {
    await writtenWhole(scene);
    checkpointSource(scene.db);
    const other = scene.path("other.db");
    copyFileSync(scene.db, other);
    assertSameFile(other, scene.db, "copy");
    const bytes = readFileSync(other);
    bytes[5000] ^= 1;
    writeFileSync(other, bytes);
    assert.throws(() => assertSameFile(other, scene.db, "flip"), /1 pages differ \(2…/);
    writeFileSync(other, readFileSync(scene.db).subarray(0, -4096));
    assert.throws(() => assertSameFile(other, scene.db, "cut"), /1 pages differ/);
  }));

const lineage = "0123456789abcdef0123456789abcdef";
const pageSize = 512;

function page(pgno: number, fill: number): Entry {
  return { pgno, data: new Uint8Array(pageSize).fill(fill) };
}

function marker(end: number): Entry {
  return { pgno: end + 1, data: new Uint8Array(0) };
}

function put(directory: string, pool: string, header: Partial<ChangesetHeader>, entries: Entry[]): bigint {
  const whole: ChangesetHeader = {
    ...{ version: 1, flags: 1, pageSize, seq: 1n, prevChecksum: 0n, createdMs: Number(header.seq) * 1000 },
    ...{ declaredEnd: null, pageCount: entries.length, ...header },
  };
  const chunks: Uint8Array[] = [];
  const encoder = encodeChangeset(whole, entries, { sha256: newSha256, chunkSize: 4096 });
  let step = encoder.next();
  for (; !step.done; step = encoder.next()) chunks.push(step.value.slice());
  const path = join(directory, "app/lineages", lineage, pool, `${whole.seq.toString(16).padStart(16, "0")}.hadbp`);
  mkdirSync(dirname(path), { recursive: true });
  writeFileSync(path, Buffer.concat(chunks));
  return step.value.chainEnd;
}

function rawHash(...entries: Entry[]): bigint {
  const hash = newSha256();
  for (const { data } of entries) hash.update(data);
  return new DataView(hash.digest().buffer).getBigUint64(0);
}

/** Snapshot 1, delta 2, delta 3, bridge and snapshot 4, delta 5; one thing may be done wrong. */
function build(directory: string, defect = ""): void {
  rmSync(directory, { recursive: true, force: true });
  const first = [page(1, 1), page(2, 2)];
  put(directory, "0001", { seq: 1n, flags: 0 }, first);
  const two = put(directory, "0000", { seq: 2n, prevChecksum: rawHash(...first) }, [page(2, 3), marker(2)]);
  const grown = defect === "grown without its page" ? [page(1, 4)] : [page(1, 4), page(3, 5)];
  const prev = defect === "chain" ? 7n : two;
  const three = put(directory, "0000", { seq: 3n, prevChecksum: prev }, [...grown, marker(3)]);
  const image = [page(1, 4), page(2, 3), page(3, 5)];
  const end = defect === "bridge hash" ? 9n : rawHash(...image);
  const bridge = { seq: 4n, version: 2 as const, flags: 0x81, prevChecksum: three, declaredEnd: end };
  if (defect !== "hole") put(directory, "0000", bridge, [marker(3)]);
  const shown = defect === "snapshot of another point" ? [image[0], image[1], page(3, 6)] : image;
  put(directory, "0001", { seq: 4n, flags: 0, prevChecksum: three }, shown);
  const createdMs = defect === "time" ? 1 : 5000;
  put(directory, "0000", { seq: 5n, prevChecksum: end, createdMs }, [page(1, 8), marker(1)]);
  if (defect === "both delta and snapshot") put(directory, "0001", { seq: 5n, flags: 0 }, [page(1, 8)]);
}

test("verifyBucket: accepts a lineage with a bridge and shows the image of every point", () =>
  inScene((scene) => {
    build(scene.bucket);
    const sizes: string[] = [];
    const [found] = verifyBucket(scene.bucket, "app", ({ seq, kind }, image) => {
      sizes.push(`${seq} ${kind} ${image.length / pageSize}`);
    });
    assert.deepEqual(sizes, ["1 snapshot 2", "2 delta 2", "3 delta 3", "4 bridge 3", "5 delta 1"]);
    assert.deepEqual([...found.image], [...page(1, 8).data]);
    return Promise.resolve();
  }));

const defects = [
  ...["grown without its page", "chain", "bridge hash", "hole", "snapshot of another point", "time"],
  ...["both delta and snapshot"],
];
for (const defect of defects) {
  test(`verifyBucket: canary, ${defect}`, () =>
    inScene((scene) => {
      build(scene.bucket, defect);
      assert.throws(() => verifyBucket(scene.bucket));
      return Promise.resolve();
    }));
}

test("verifyBucket, assertImmutable: canary, a flipped bit in any object", () =>
  inScene((scene) => {
    build(scene.bucket);
    const before = objectHashes(scene.bucket);
    assertImmutable(before, objectHashes(scene.bucket));
    for (const key of before.keys()) {
      build(scene.bucket);
      const path = join(scene.bucket, key);
      const bytes = readFileSync(path);
      bytes[bytes.length - 20] ^= 1;
      writeFileSync(path, bytes);
      assert.throws(() => verifyBucket(scene.bucket), key);
      assert.throws(() => assertImmutable(before, objectHashes(scene.bucket)), key);
    }
    return Promise.resolve();
  }));
