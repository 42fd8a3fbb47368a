import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { before, test } from "node:test";
import { parseWalHeader, walFrameOffset } from "../../src/format/wal.ts";
import { need } from "../support/need.ts";
import { projectDirectory } from "../support/runtime.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { sha256 } from "../support/vectors.ts";
import { recover, resum, scan } from "./wal_files.ts";

const skip = need("python3");
const skipCommand = skip || need("sqlite3");
const script = `${projectDirectory}/test/format/wal_recovery.py`;
const pageSizes = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536];
const timeout = 120_000;
let directory = "";

function python(...args: string[]): void {
  const result = spawnSync("python3", [script, ...args], { encoding: "utf8" });
  assert.equal(result.status, 0, result.stderr);
}

/** What SQLite recovers after each command. By files: Deno's spawnSync hangs when input and output both fill a pipe. */
function ask(commands: string[]): string[] {
  writeFileSync(`${directory}/commands`, commands.join("\n"));
  python("check", directory);
  const answers = readFileSync(`${directory}/answers`, "utf8").split("\n");
  assert.equal(answers.length, commands.length);
  return answers;
}

before(() => {
  if (skip !== false) return;
  directory = temporaryDirectory("wal-recovery");
  python("make", directory, ...pageSizes.map(String));
});

/** A log as SQLite left it. */
interface Log {
  name: string;
  pageSize: number;
  database: Uint8Array;
  wal: Uint8Array<ArrayBuffer>;
}

function read(name: string, pageSize: number): Log {
  const path = `${directory}/${name}.db`;
  return {
    name,
    pageSize,
    database: new Uint8Array(readFileSync(path)),
    wal: new Uint8Array(readFileSync(`${path}-wal`)),
  };
}

/** The log with its checksums in the other byte order, put beside the first one; both orders thus occur. */
function other(log: Log): Log {
  const header = parseWalHeader(log.wal);
  assert.ok(typeof header !== "string");
  const order = header.byteOrder === "little" ? "big" : "little";
  const name = `${log.name}-${order}`;
  const path = `${directory}/${name}.db`;
  // Stale frames keep their old salts, so they stay invalid with right checksums too.
  const wal = resum(log.wal, log.pageSize, order);
  writeFileSync(path, log.database);
  writeFileSync(`${path}-wal`, wal);
  return { ...log, name, wal };
}

/** One damage: everything from `cut` on is gone, or the byte at `flip` has some bits the other way. */
type Damage = { cut: number } | { flip: number; mask: number };

function hashOf(bytes: Uint8Array): string {
  const hash = sha256();
  hash.update(bytes);
  return [...hash.digest()].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Says how many distinct contents came out; throws where SQLite recovers another one than our scan. */
function compare(log: Log, damages: Damage[]): number {
  const lines = damages.map((damage) =>
    "cut" in damage ? `${log.name} cut ${damage.cut}` : `${log.name} flip ${damage.flip} ${damage.mask}`
  );
  const answers = ask(lines);
  const contents = new Set<string>();
  damages.forEach((damage, index) => {
    const wal = "cut" in damage ? log.wal.subarray(0, damage.cut) : log.wal.slice();
    if ("flip" in damage) wal[damage.flip] ^= damage.mask;
    const expected = hashOf(recover(log.database, wal));
    assert.equal(answers[index], expected, lines[index]);
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
  for (let frame = 0; walFrameOffset(pageSize, frame) < log.wal.length; frame++) {
    const at = walFrameOffset(pageSize, frame);
    for (let byte = 0; byte <= 24; byte++) cuts.push(at + byte);
    cuts.push(at + 25, at + 24 + pageSize / 2 + frame, at + 24 + pageSize - 1);
  }
  return [...cuts, log.wal.length].map((cut) => ({ cut }));
}

/** How often a log commits: the contents that cutting it can leave, besides the database without it. */
function commitsOf(log: Log): number[] {
  return scan(log.wal).visits.filter(({ commit }) => commit !== 0).map(({ commit }) => commit);
}

test("[S19] scanWalFrames: the logs cut here hold what the comparison is about", { skip, timeout }, () => {
  for (const pageSize of pageSizes) {
    const log = read(String(pageSize), pageSize);
    const { visits, end } = scan(log.wal);
    const commits = commitsOf(log);
    assert.ok(commits.length >= 4 && commits.some((commit, index) => commit < commits[index - 1]), "a shrink");
    assert.ok(new Set(visits.map(({ pgno }) => pgno)).size < visits.length, "repeated pages");
    assert.equal(visits[visits.length - 1].commit, 0, "open frames");
    assert.equal(end, "salt", "a stale tail");
  }
});

test("[S4] [S19] scanWalFrames: both orders, cut at every byte, give what SQLite recovers", { skip, timeout }, () => {
  const log = read("512", 512);
  for (const one of [log, other(log)]) assert.equal(compare(one, everyByte(one)), commitsOf(log).length + 1);
});

test("[S9] [S19] scanWalFrames: a flip in any frame gives what SQLite recovers", { skip, timeout }, () => {
  for (const log of [read("512", 512), other(read("512", 512))]) {
    const flips: Damage[] = [];
    for (let flip = 32; flip < log.wal.length; flip += flip % 536 < 60 ? 1 : 37) {
      flips.push({ flip, mask: 1 << (flip % 8) });
    }
    assert.ok(compare(log, flips) >= 4);
  }
});

test("[S7] parseWalHeader: a flip in the header gives what SQLite recovers", { skip, timeout }, () => {
  for (const log of [read("1024", 1024), other(read("1024", 1024))]) {
    // Without a usable header nothing is recovered, so there is one content.
    assert.equal(compare(log, Array.from({ length: 32 }, (_, flip) => ({ flip, mask: 0x11 }))), 1);
  }
});

for (const pageSize of pageSizes.slice(1)) {
  test(`[S6] [S19] scanWalFrames: page size ${pageSize}, cut at every byte of the headers`, { skip, timeout }, () => {
    const log = read(String(pageSize), pageSize);
    assert.equal(compare(log, everyField(log)), commitsOf(log).length + 1);
    // The other order differs in nothing but the sums: a few cuts in each frame.
    assert.equal(compare(other(log), everyField(log).filter((_, n) => n % 4 === 0)), commitsOf(log).length + 1);
  });
}

test("[S19] scanWalFrames: a log of the sqlite3 command, cut at every byte", { skip: skipCommand, timeout }, () => {
  const path = `${directory}/command.db`;
  const sql = [
    "PRAGMA page_size=512;",
    "PRAGMA journal_mode=WAL;",
    "PRAGMA wal_autocheckpoint=0;",
    "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);",
    "INSERT INTO t(v) SELECT hex(randomblob(150)) FROM (VALUES (1), (2));",
    "DELETE FROM t WHERE id > 1;",
    "VACUUM;",
    `.shell cp ${directory}/source.db ${path}`,
    `.shell cp ${directory}/source.db-wal ${path}-wal`,
  ].join("\n");
  const result = spawnSync("sqlite3", [`${directory}/source.db`], { input: `${sql}\n`, encoding: "utf8" });
  assert.equal(result.status, 0, result.stderr);
  const log = read("command", 512);
  assert.ok(commitsOf(log).length >= 4, String(commitsOf(log)));
  assert.equal(compare(log, everyByte(log)), commitsOf(log).length + 1);
  assert.equal(compare(other(log), everyField(log)), commitsOf(log).length + 1);
});

test("canary: the comparison notices a scan that disagrees", { skip, timeout }, () => {
  const log = read("512", 512);
  // The same log without its last committed frame's checksum: SQLite stops there, a scan of the sound file does not.
  const last = scan(log.wal).visits.findLast(({ commit }) => commit !== 0);
  assert.ok(last !== undefined);
  const flip = walFrameOffset(512, last.frame) + 16;
  const [answer] = ask([`512 flip ${flip} 1`]);
  assert.notEqual(answer, hashOf(recover(log.database, log.wal)));
  assert.notEqual(answer, "error");
});
