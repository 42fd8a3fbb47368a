import assert from "node:assert/strict";
import { before, test } from "node:test";
import { parseSqliteHeader } from "../../src/format/sqlite_header.ts";
import { parseWalHeader, walFrameOffset } from "../../src/format/wal.ts";
import { need } from "../support/need.ts";
import { recover, resum, scan } from "./wal_files.ts";
import {
  commitsOf,
  type Damage,
  damaged,
  frameFields,
  frameOffsets,
  hashOf,
  type Log,
  RecoveredLogs,
  textOf,
} from "./wal_recovery.ts";

const skip = need("python3");
const skipCommand = skip || need("sqlite3");
const pageSizes = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];
const timeout = 120_000;
const logs = new RecoveredLogs();

before(() => {
  if (skip === false) logs.make(pageSizes);
});

function read(pageSize: number): Log {
  return logs.read(String(pageSize), pageSize);
}

/** Says how many distinct contents came out; throws where SQLite recovers another one than our scan. */
function compare(log: Log, damages: Damage[]): number {
  const answers = logs.answers(damages.map((damage) => ({ log, damage })));
  const contents = new Set<string>();
  damages.forEach((damage, index) => {
    const expected = hashOf(recover(log.database, damaged(log, damage)));
    assert.equal(answers[index], expected, textOf(log, damage));
    contents.add(expected);
  });
  return contents.size;
}

/** Cuts after every byte. */
function everyByte(log: Log): Damage[] {
  return Array.from({ length: log.wal.length + 1 }, (_, cut) => ({ cut }));
}

/** Cuts after every byte of the header and of each frame's, and a few within each page. */
function everyField(log: Log): Damage[] {
  const { pageSize } = log;
  const cuts: number[] = [];
  for (let byte = 0; byte < 32; byte++) cuts.push(byte);
  for (const at of frameOffsets(log)) {
    for (let byte = 0; byte <= 24; byte++) cuts.push(at + byte);
    cuts.push(at + 25, at + 24 + pageSize / 2, at + 24 + pageSize - 1);
  }
  return [...cuts, log.wal.length].map((cut) => ({ cut }));
}

test("[S19] scanWalFrames: the logs cut here hold what the comparison is about", { skip, timeout }, () => {
  for (const pageSize of pageSizes) {
    const log = read(pageSize);
    const { visits, end } = scan(log.wal);
    const commits = commitsOf(log);
    assert.ok(commits.length >= 4 && commits.some((commit, index) => commit < commits[index - 1]), "a shrink");
    assert.ok(new Set(visits.map(({ pgno }) => pgno)).size < visits.length, "repeated pages");
    assert.equal(visits[visits.length - 1].commit, 0, "open frames");
    assert.equal(end, "salt", "a stale tail");
  }
});

test("[S4] [S19] scanWalFrames: both orders, cut at every byte, give what SQLite recovers", { skip, timeout }, () => {
  const log = read(512);
  for (const one of [log, logs.other(log)]) assert.equal(compare(one, everyByte(one)), commitsOf(log).length + 1);
});

test("[S9] [S19] scanWalFrames: a flip in any frame gives what SQLite recovers", { skip, timeout }, () => {
  for (const log of [read(512), logs.other(read(512))]) {
    const flips: Damage[] = [];
    for (let flip = 32; flip < log.wal.length; flip += flip % 536 < 60 ? 1 : 37) {
      flips.push({ flip, mask: 1 << (flip % 8) });
    }
    assert.ok(compare(log, flips) >= 4);
  }
});

test("[S7] parseWalHeader: a flip in the header gives what SQLite recovers", { skip, timeout }, () => {
  for (const log of [read(1024), logs.other(read(1024))]) {
    // Without a usable header nothing is recovered, so there is one content.
    assert.equal(compare(log, Array.from({ length: 32 }, (_, flip) => ({ flip, mask: 0x11 }))), 1);
  }
});

for (const pageSize of pageSizes.slice(1)) {
  test(`[S6] [S19] scanWalFrames: page size ${pageSize}, cut at every byte of the headers`, { skip, timeout }, () => {
    const log = read(pageSize);
    assert.equal(compare(log, everyField(log)), commitsOf(log).length + 1);
    // The other order differs in nothing but the sums: a few cuts in each frame.
    assert.equal(compare(logs.other(log), everyField(log).filter((_, n) => n % 4 === 0)), commitsOf(log).length + 1);
  });
}

test("[S19] scanWalFrames: a log of the sqlite3 command, cut at every byte", { skip: skipCommand, timeout }, () => {
  const log = logs.makeByCommand("command");
  assert.ok(commitsOf(log).length >= 4, String(commitsOf(log)));
  assert.equal(compare(log, everyByte(log)), commitsOf(log).length + 1);
  assert.equal(compare(logs.other(log), everyField(log)), commitsOf(log).length + 1);
});

for (const pageSize of pageSizes) {
  test(`[S9] [S19] scanWalFrames: page size ${pageSize}, each field of each frame damaged once`, {
    skip,
    timeout,
  }, () => {
    for (const log of [read(pageSize), logs.other(read(pageSize))]) {
      const flips = frameOffsets(log).flatMap((at, frame) =>
        frameFields(pageSize).map((field) => ({ flip: at + field, mask: 1 << (frame % 8) }))
      );
      assert.equal(compare(log, flips), commitsOf(log).length + 1);
    }
  });
}

/** The log with one number changed and all its checksums right, as a damage below the file would never be. */
function changed(log: Log, offset: number, value: number): Log {
  const header = parseWalHeader(log.wal);
  assert.ok(typeof header !== "string");
  const wal = log.wal.slice();
  new DataView(wal.buffer).setUint32(offset, value);
  return logs.add(log, `${log.name}-${offset}-${value}`, resum(wal, log.pageSize, header.byteOrder));
}

/** As `compare`, of whole logs; where page 1 is no beginning of a database of this size, SQLite recovers nothing. */
function compareWhole(variants: readonly Log[]): void {
  const answers = logs.answers(variants.map((log) => ({ log, damage: { cut: log.wal.length } })));
  variants.forEach(({ name, pageSize, database, wal }, index) => {
    const content = recover(database, wal);
    const header = parseSqliteHeader(content);
    const isDatabase = typeof header !== "string" && header.pageSize === pageSize &&
      header.pageCount * pageSize <= content.length;
    assert.equal(answers[index], isDatabase ? hashOf(content) : "error", name);
  });
}

test("[S15] scanWalFrames: page numbers and commits that no writer meant, in logs with right checksums", {
  skip,
  timeout,
}, () => {
  for (const log of [read(512), logs.other(read(512))]) {
    const variants = scan(log.wal).visits.flatMap(({ frame, commit }) => {
      const at = walFrameOffset(log.pageSize, frame);
      const pages = [0, 1, 2, 3, 1000, 0xffff_ffff].map((pgno) => changed(log, at, pgno));
      return [...pages, ...[0, 1, 2, commit + 3].map((size) => changed(log, at + 4, size))];
    });
    assert.ok(variants.length > 100);
    compareWhole(variants);
  }
});

test("[S5] [S6] parseWalHeader: numbers that no writer meant, in headers with right checksums", {
  skip,
  timeout,
}, () => {
  const log = read(512);
  const header = parseWalHeader(log.wal);
  assert.ok(typeof header !== "string");
  const { salt1, salt2, checkpointSequence } = header;
  compareWhole([
    ...[0, 256, 511, 1024, 4096, 65536, 131072, 0xffff_fe00].map((size) => changed(log, 8, size)),
    ...[checkpointSequence + 1, 0xffff_ffff].map((sequence) => changed(log, 12, sequence)),
    changed(log, 16, (salt1 + 1) >>> 0),
    changed(log, 20, (salt2 ^ 1) >>> 0),
  ]);
  // Another version is refused, not taken for an empty log.
  const newer = changed(log, 4, 3007001);
  assert.equal(parseWalHeader(newer.wal), "version");
  assert.deepEqual(logs.answers([{ log: newer, damage: { cut: newer.wal.length } }]), ["error"]);
});

test("canary: the comparison notices a scan that disagrees", { skip, timeout }, () => {
  const log = read(512);
  // The same log without its last committed frame's checksum: SQLite stops there, a scan of the sound file does not.
  const last = scan(log.wal).visits.findLast(({ commit }) => commit !== 0);
  assert.ok(last !== undefined);
  const flip = walFrameOffset(512, last.frame) + 16;
  const [answer] = logs.answers([{ log, damage: { flip, mask: 1 } }]);
  assert.notEqual(answer, hashOf(recover(log.database, log.wal)));
  assert.notEqual(answer, "error");
});
