import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { cpSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { walrustCommand } from "../support/runtime.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { vectorsDirectory } from "../support/vectors.ts";

const folder = temporaryDirectory("verify-command");

function bucket(name: string): string {
  const path = join(folder, name);
  cpSync(`${vectorsDirectory}/owned-lineage/bucket/backups`, path, { recursive: true });
  return path;
}

function verify(path: string, ...words: string[]): { status: number | null; stdout: string; stderr: string } {
  const [program, ...args] = [...walrustCommand(), "verify", "app", "-b", `file://${path}`, ...words];
  return spawnSync(program, args, { encoding: "utf8" });
}

function objectOf(path: string, pool: string): string {
  const lineage = join(path, "app", "lineages");
  const directory = join(lineage, readdirSync(lineage)[0], pool);
  return join(directory, readdirSync(directory).sort()[2]);
}

test("walrust verify: clean is 0 and says what was proven", () => {
  const path = bucket("clean");
  const full = verify(path);
  assert.equal(full.status, 0, full.stderr);
  assert.match(full.stdout, /^app: 2 snapshots, 14 deltas, 114\.7 KB\n/);
  assert.match(full.stdout, /16 of 16 objects verified byte for byte, chain included, 114\.7 KB read\n/);
  assert.match(full.stdout, /16 points can be restored, seq 5 of 2026-.*Z to seq 20 of 2026-.*Z\n/);
  assert.match(full.stdout, /✓ nothing is missing and nothing is damaged/);
  const drill = verify(path, "--level", "drill", "--scratch", folder);
  assert.equal(drill.status, 0, drill.stderr);
  assert.match(drill.stdout, /rebuilt from seq 5 to seq 13.*integrity check ok/);
});

test("walrust verify: damage is 5, named with what to do, also as JSON", () => {
  const path = bucket("damaged");
  const damaged = objectOf(path, "0000");
  const bytes = readFileSync(damaged);
  bytes[100] ^= 1;
  writeFileSync(damaged, bytes);
  const { status, stdout } = verify(path);
  assert.equal(status, 5);
  assert.match(stdout, /error: app\/lineages\/.*checksum/);
  assert.match(stdout, /error: seqs \d+ to 13 \(after .*, before .*\): cannot be restored/);
  assert.match(stdout, /✗ 2 errors, 0 warnings/);
  const report = JSON.parse(verify(path, "--json").stdout);
  assert.equal(report.exitCode, 5);
  assert.equal(report.findings[0].code, "checksum_mismatch");
  assert.equal(verify(path, "--level", "headers").status, 0, "the header does not show it");
});

test("walrust verify: warnings alone are 1, nothing restorable is 6, a bad level is 2", () => {
  const pointer = bucket("pointer");
  writeFileSync(join(pointer, "app", "state.json"), "{");
  assert.equal(verify(pointer).status, 1);
  const bare = bucket("bare");
  for (const pool of ["0001"]) rmSync(join(objectOf(bare, "0000"), "..", "..", pool), { recursive: true });
  assert.equal(verify(bare).status, 6);
  assert.equal(verify(bare, "--level", "deep").status, 2);
});
