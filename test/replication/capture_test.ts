import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { readFileSync, statSync } from "node:fs";
import { test } from "node:test";
import { walChecksum, walFrameHeaderSize, walFrameOffset } from "../../src/format/wal.ts";
import { Image, type ImageSource, readFrame } from "../../src/replication/image.ts";
import { LiveDatabase } from "../../src/replication/live_database.ts";
import { logEnd, lookAtWal, takeImage } from "../../src/replication/pin_capture.ts";
import {
  type Batch,
  missingGrowth,
  reached,
  readWalHeader,
  sameLog,
  type WalPosition,
} from "../../src/replication/wal_log.ts";
import type { Files } from "../../src/runtime/types.ts";
import { Scene, system } from "./engine_scene.ts";
import { appendPhantom } from "./phantom.ts";

function open(scene: Scene): LiveDatabase {
  return LiveDatabase.open(scene.path, system.files, system.sqlite!);
}

function batchOf(live: LiveDatabase, position: WalPosition | null, sizeMax = Infinity): Batch {
  const look = lookAtWal(live, position, sizeMax);
  assert.equal(look.kind, "batch");
  return (look as { batch: Batch }).batch;
}

function bytesOf(image: ImageSource): Uint8Array {
  const bytes = new Uint8Array(image.pageCount * image.pageSize);
  for (let pgno = 1; pgno <= image.pageCount; pgno++) {
    image.read(pgno, 1, bytes.subarray((pgno - 1) * image.pageSize, pgno * image.pageSize));
  }
  return bytes;
}

/** Applies batches to an image as a restore would. */
function apply(image: Uint8Array, live: LiveDatabase, batch: Batch): Uint8Array {
  const next = new Uint8Array(batch.pageCount * live.pageSize);
  next.set(image.subarray(0, Math.min(image.length, next.length)));
  batch.pgnos.forEach((pgno, i) => {
    readFrame(live, batch.sources[i], next.subarray((pgno - 1) * live.pageSize, pgno * live.pageSize));
  });
  return next;
}

function assertSource(scene: Scene, live: LiveDatabase, bytes: Uint8Array): void {
  live.close();
  scene.app.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  scene.app.close();
  assert.ok(Buffer.compare(readFileSync(scene.path), bytes) === 0, "not the database");
}

test("[S12] [S13] [S15] lookAtWal: batches applied one after another give the database, growing and shrinking", () => {
  for (const sizeMax of [Infinity, 8192]) {
    const scene = new Scene();
    const live = open(scene);
    let position: WalPosition | null = null;
    let bytes: Uint8Array = new Uint8Array(0);
    const look = (): void => {
      for (;;) {
        const found = lookAtWal(live, position, sizeMax);
        if (found.kind === "none") return;
        assert.equal(found.kind, "batch");
        const { batch } = found as { batch: Batch };
        assert.equal(missingGrowth(batch, bytes.length / live.pageSize, live.pageSize), null);
        assert.ok(batch.pgnos.every((pgno, i) => pgno > (i === 0 ? 0 : batch.pgnos[i - 1])), "ascending");
        assert.ok(batch.pgnos.every((pgno) => pgno <= batch.pageCount));
        bytes = apply(bytes, live, batch);
        position = batch.end;
      }
    };
    for (let i = 0; i < 12; i++) {
      scene.commit(i % 4 === 0 ? 60 : 2);
      scene.commit(1);
      if (i % 3 === 0) look();
      if (i % 5 === 4) scene.app.exec("DELETE FROM rows WHERE id % 2 = 0; VACUUM");
    }
    look();
    assert.ok(reached(position, logEnd(live, position)));
    assertSource(scene, live, bytes);
  }
});

test("[S21] reached: a long log before is not past the end of the short one that followed", () => {
  const scene = new Scene();
  const live = open(scene);
  const { end } = batchOf(live, null);
  scene.app.exec("PRAGMA wal_checkpoint(PASSIVE)");
  live.addPin();
  live.releasePin(live.oldestPin);
  scene.commit(1);
  const goal = logEnd(live, end);
  assert.ok(goal.frames > 0 && goal.frames < end.state.frames, "canary: the log began anew and is shorter");
  assert.equal(reached(end, goal), false);
  const next = batchOf(live, end).end;
  assert.equal(reached(next, goal), true);
  assert.equal(reached(next, logEnd(live, next)), true);
  scene.commit(1);
  assert.equal(reached(next, logEnd(live, next)), false);
  assert.equal(reached(null, goal), false);
  assert.equal(reached(next, { at: next, log: null, frames: next.state.frames }), true, "the header was not readable");
  assert.equal(reached(next, { at: null, log: null, frames: next.state.frames + 1 }), false);
  live.close();
});

test("[S10] [S18] lookAtWal: spilled frames of an open transaction are not there until it commits", () => {
  const scene = new Scene();
  const live = open(scene);
  const { end } = batchOf(live, null);
  const before = statSync(`${scene.path}-wal`).size;
  scene.app.exec("PRAGMA cache_size = 5; PRAGMA cache_spill = 1; BEGIN");
  scene.app.exec("INSERT INTO rows (data) SELECT randomblob(1000) FROM rows, rows AS more LIMIT 200");
  assert.ok(statSync(`${scene.path}-wal`).size > before + 100_000, "canary: frames were spilled");
  assert.equal(lookAtWal(live, end, Infinity).kind, "none");
  scene.app.exec("ROLLBACK");
  scene.commit(1);
  const batch = batchOf(live, end);
  assert.ok(batch.frames < 10, "only the small one");
  const taken = takeImage(live)!;
  assertSource(scene, live, bytesOf(taken.image));
});

test("[S117] lookAtWal: a valid commit frame that SQLite does not count is not taken; what overwrites it is", () => {
  const scene = new Scene();
  const live = open(scene);
  const { end } = batchOf(live, null);
  appendPhantom(`${scene.path}-wal`, end.state.frames);
  assert.equal(lookAtWal(live, end, Infinity).kind, "none");
  // Canary: to a reader without the gauge the frame looks like a commit.
  const blind = Object.create(live, {
    gauge: { value: () => ({ busy: false, log: end.state.frames + 1, checkpointed: 0 }) },
  });
  assert.equal(lookAtWal(blind, end, Infinity).kind, "batch");
  scene.commit(1);
  const batch = batchOf(live, end);
  assert.equal(batch.end.state.frames, live.gauge().log);
  assertSource(scene, live, bytesOf(takeImage(live)!.image));
});

test("lookAtWal: frames of ours that changed, and a log restarted twice, are doubts", () => {
  const scene = new Scene();
  scene.app.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  scene.commit(2);
  const live = open(scene);
  const { end } = batchOf(live, null);
  const guard = { frame: end.guard!.frame, bytes: end.guard!.bytes.map((byte) => byte ^ 1) };
  assert.equal(lookAtWal(live, { ...end, guard }, Infinity).kind, "doubt");
  const older = { ...end, header: { ...end.header, salt1: (end.header.salt1 - 2) >>> 0 } };
  assert.equal(lookAtWal(live, older, Infinity).kind, "doubt");
  const previous = { ...end, header: { ...end.header, salt1: (end.header.salt1 - 1) >>> 0 } };
  assert.equal(lookAtWal(live, previous, Infinity).kind, "batch", "one restart is what mark 0 allows");
  live.close();
});

test("[S118] takeImage: on read mark 0 the first commit restarts the WAL under the image; its pages stay", () => {
  const scene = new Scene();
  scene.commit(50);
  scene.app.exec("PRAGMA wal_checkpoint(PASSIVE)");
  const live = open(scene);
  const header = readWalHeader(live.wal)!;
  const taken = takeImage(live)!;
  const all = batchOf(live, null);
  const frames = new Map(Array.from(all.pgnos, (pgno, i) => [pgno, all.sources[i]] as const));
  const stale = new Image(live, taken.image.pageCount, frames);
  const expected = bytesOf(taken.image);
  scene.app.exec("UPDATE rows SET data = randomblob(1000)");
  assert.ok(!sameLog(header, readWalHeader(live.wal)!), "the log was restarted");
  assert.deepEqual(bytesOf(taken.image), expected);
  let same = true;
  try {
    same = Buffer.compare(bytesOf(stale), expected) === 0;
  } catch {
    same = false;
  }
  assert.equal(same, false, "canary: frames of the old log are gone");
  const batch = batchOf(live, taken.end);
  assertSource(scene, live, apply(expected, live, batch));
});

test("[S118] takeImage: a commit at every single moment of it restarts the WAL, and the image is before or after it", () => {
  let moment = 0;
  for (let left = -1, restarts = 0; left < 0; moment++) {
    const scene = new Scene();
    scene.commit(50);
    scene.app.exec("PRAGMA wal_checkpoint(PASSIVE)");
    const { files, sqlite } = scene.life.runtime(scene.clock, system.sqlite);
    const live = LiveDatabase.open(scene.path, files, sqlite!);
    const header = readWalHeader(live.wal)!;
    const before = bytesOf(takeImage(live)!.image);
    left = moment;
    scene.life.onMoment = () => {
      // More frames than the log had: all of it is overwritten.
      if (left-- === 0) scene.app.exec("UPDATE rows SET data = randomblob(1000)");
    };
    const taken = takeImage(live);
    scene.life.onMoment = () => {};
    if (left < 0 && !sameLog(header, readWalHeader(live.wal)!)) restarts++;
    const after = bytesOf(takeImage(live)!.image);
    const bytes = taken === null ? after : bytesOf(taken.image);
    assert.ok([before, after].some((image) => Buffer.compare(image, bytes) === 0), `moment ${moment}`);
    live.close();
    if (left >= 0) assert.ok(moment >= 5 && restarts === moment, `${restarts} restarts at ${moment} moments`);
    else continue;
    break;
  }
});

test("[S16] lookAtWal: a frame beyond 4 GiB of WAL is found and read", () => {
  const scene = new Scene();
  const real = open(scene);
  const header = readWalHeader(real.wal)!;
  const headerBytes = readFileSync(`${scene.path}-wal`).subarray(0, 32);
  real.close();
  scene.app.close();
  const frame = 1_100_000;
  const state = { frames: frame, checksum1: 11, checksum2: 22 };
  const page = new Uint8Array(4096).fill(7);
  const bytes = new Uint8Array(walFrameHeaderSize + page.length);
  const view = new DataView(bytes.buffer);
  [5, 20, header.salt1, header.salt2].forEach((value, i) => view.setUint32(i * 4, value));
  bytes.set(page, walFrameHeaderSize);
  const middle = walChecksum(header.byteOrder, bytes.subarray(0, 8), state.checksum1, state.checksum2);
  walChecksum(header.byteOrder, page, ...middle).forEach((sum, i) => view.setUint32(16 + i * 4, sum));
  // The file is sparse: only the header and this frame take room.
  const wal = system.files.open(`${scene.directory}/large-wal`, "create");
  wal.write(headerBytes, 0);
  wal.write(bytes, walFrameOffset(4096, frame));
  assert.ok(wal.stat().size > 2 ** 32);
  const live = {
    path: scene.path,
    pageSize: 4096,
    wal,
    gauge: () => ({ busy: false, log: frame + 1, checkpointed: 0 }),
  };
  const position = { header, state, guard: null };
  const batch = batchOf(live as unknown as LiveDatabase, position);
  assert.deepEqual([[...batch.pgnos], [...batch.sources], batch.pageCount, batch.frames], [[5], [frame], 20, 1]);
  const content = new Uint8Array(4096);
  readFrame(live as unknown as LiveDatabase, batch.sources[0], content);
  assert.deepEqual(content, page);
  wal.close();
});

test("[S39] capture: one failed read of the WAL is read again, two are an error, and nothing is made of zeros", () => {
  for (const short of [false, true]) {
    const scene = new Scene();
    let failures = 0;
    const files: Files = {
      ...system.files,
      open(path, mode) {
        const file = system.files.open(path, mode);
        if (!path.endsWith("-wal")) return file;
        const read = file.read.bind(file);
        file.read = (into, position) => {
          if (into.length < 4096 || failures-- <= 0) return read(into, position);
          if (short) return read(into.subarray(0, 100), position);
          throw Object.assign(new Error("EIO: i/o error, read"), { code: "EIO" });
        };
        return file;
      },
    };
    const live = LiveDatabase.open(scene.path, files, system.sqlite!);
    failures = 1;
    assert.equal(lookAtWal(live, null, Infinity).kind, "batch");
    failures = 2;
    assert.throws(() => lookAtWal(live, null, Infinity), { code: "short_read", exitCode: 3 });
    failures = 0;
    const bytes = apply(new Uint8Array(0), live, batchOf(live, null));
    failures = 2;
    assert.throws(() => readFrame(live, 0, new Uint8Array(4096)), { code: "short_read" });
    failures = 0;
    assertSource(scene, live, bytes);
  }
});

test("takeImage: only pages behind a known place are candidates; any doubt about it makes it all pages", () => {
  const scene = new Scene();
  const live = open(scene);
  const { end } = batchOf(live, null);
  scene.commit(1);
  const behind = takeImage(live, { since: end })!;
  assert.deepEqual([...behind.changed!].sort(), [...batchOf(live, end).pgnos].sort());
  const wrong = { header: end.header, state: { ...end.state, checksum1: end.state.checksum1 ^ 1 } };
  assert.equal(takeImage(live, { since: wrong })!.changed, null);
  const salts = { header: { salt1: 1, salt2: 2 }, state: end.state };
  assert.equal(takeImage(live, { since: salts })!.changed, null);
  assert.equal(takeImage(live, { limit: live.gauge().log - 1 })?.end?.state.frames === live.gauge().log, false);
  live.close();
  scene.app.close();
});
