import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { type Journal, readJournal, writeJournal } from "../../src/replication/journal.ts";
import type { Files } from "../../src/runtime/types.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { system } from "./engine_scene.ts";

const journal: Journal = {
  destination: "s3://bucket/app/",
  lineage: "0123456789abcdef0123456789abcdef",
  seq: 0xfedcba9876543210n,
  chain: 0xffffffffffffffffn,
  createdMs: 1_768_000_000_123,
  pageSize: 4096,
  pageCount: 7,
  device: 9_007_199_254_740_993n,
  inode: 3n,
  machine: "m",
  position: { salt1: 1, salt2: 0xffffffff, frames: 12, checksum1: 3, checksum2: 4 },
  snapshotMs: 5,
  snapshotSeq: 6n,
};

test("readJournal: what was written, 64-bit numbers included", () => {
  const directory = temporaryDirectory("journal");
  // A machine may have a name that looks like one of our numbers; inodes above 2^63 come as negative numbers.
  for (const changes of [{}, { position: null }, { machine: "5n" }, { inode: -3n }]) {
    const written = { ...journal, ...changes };
    writeJournal(system.files, directory, written, system.sha256);
    assert.deepEqual(readJournal(system.files, directory, system.sha256), written);
  }
  assert.deepEqual(readdirSync(directory), ["journal"]);
});

test("[S44] readJournal: cut at every byte or with any byte changed it is lost, never another journal", () => {
  const directory = temporaryDirectory("journal");
  writeJournal(system.files, directory, journal, system.sha256);
  const path = `${directory}/journal`;
  const whole = readFileSync(path);
  for (let at = 0; at < whole.length; at++) {
    writeFileSync(path, whole.subarray(0, at));
    assert.equal(readJournal(system.files, directory, system.sha256), null, `cut at ${at}`);
    const flipped = Uint8Array.from(whole);
    flipped[at] ^= 1;
    writeFileSync(path, flipped);
    assert.equal(readJournal(system.files, directory, system.sha256), null, `changed at ${at}`);
  }
  writeFileSync(path, whole);
  assert.notEqual(readJournal(system.files, directory, system.sha256), null, "canary: the whole one is read");
});

test("[S44] readJournal: a first line that is no journal is lost, whatever its digest says", () => {
  const directory = temporaryDirectory("journal");
  const read = (line: string): Journal | null => {
    const digest = createHash("sha256").update(line).digest("hex");
    writeFileSync(`${directory}/journal`, `${line}\n${digest}\n`);
    return readJournal(system.files, directory, system.sha256);
  };
  writeJournal(system.files, directory, journal, system.sha256);
  const line = readFileSync(`${directory}/journal`, "utf8").split("\n")[0];
  assert.notEqual(read(line), null, "canary: the sound line is read");
  const changes: [string, string][] = [
    ['"version":1', '"version":2'],
    ['"lineage":', '"other":'],
    ['"18364758544493064720n"', '"18446744073709551616n"'],
    ['"18364758544493064720n"', '"-1n"'],
    ['"18364758544493064720n"', "7"],
    ['"pageSize":4096', '"pageSize":"4096"'],
    ['"pageCount":7', '"pageCount":1e99'],
    ['"salt1":1', '"salt1":null'],
    ['"position":{', '"position":[{'],
    ['"machine":"m"', '"machine":5'],
  ];
  for (const [from, to] of changes) {
    assert.ok(line.includes(from), from);
    assert.equal(read(line.replace(from, to)), null, `${from} → ${to}`);
  }
  for (const other of ["", "null", "{}", "[]", "1", '"text"', "no JSON", '{"version":1}']) {
    assert.equal(read(other), null, other);
  }
});

test("[S39] readJournal: a read that comes up short is tried again, then it is an error, not a lost journal", () => {
  const directory = temporaryDirectory("journal");
  writeJournal(system.files, directory, journal, system.sha256);
  for (const failures of [1, 2]) {
    let left = failures;
    const open: Files["open"] = (path, mode) => {
      const file = system.files.open(path, mode);
      const { read } = file;
      file.read = (into, position) => left-- > 0 ? 1 : read.call(file, into, position);
      return file;
    };
    const again = (): Journal | null => readJournal({ ...system.files, open }, directory, system.sha256);
    if (failures === 1) assert.deepEqual(again(), journal);
    else assert.throws(again, { code: "short_read" });
  }
});
