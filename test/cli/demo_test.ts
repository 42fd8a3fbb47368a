import assert from "node:assert/strict";
import { exec, spawn } from "node:child_process";
import { copyFileSync, existsSync, readFileSync, rmSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import test from "node:test";
import { promisify } from "node:util";
import { type CommitTimes, parseWriterLog } from "../../src/cli/demo_writer.ts";
import { proveRestored, type PublishedPoint, publishedPoints } from "../../src/cli/demo_proof.ts";
import { shellQuoted } from "../../src/format/bytes.ts";
import { openDatabase } from "../../src/runtime/system_database.ts";
import { systemRuntime } from "../../src/runtime/system.ts";
import { systemProcess } from "../../src/runtime/system_process.ts";
import { DirectoryStore } from "../../src/storage/directory.ts";
import { walrustCommand } from "../support/runtime.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";

const folder = temporaryDirectory("demo");
const directory = join(folder, "demo");
let run: { code: number | null; stdout: string; stderr: string };
let result: {
  proven: boolean;
  commits: number;
  deltas: number;
  killedMs: number;
  restores: { file: string; seq: string; commits: number; findings: { isProven: boolean }[] }[];
};
let points: PublishedPoint[];
let log: CommitTimes[];

/** One demo for all tests; not in `before`, which Bun ends after five seconds. */
let running: Promise<void> | undefined;
const demoRun = (): Promise<void> => running ??= runDemo();

async function runDemo(): Promise<void> {
  const [program, ...args] = [...walrustCommand(), "demo", "--seconds", "7", "--directory", directory, "--json"];
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"] });
  run = { code: null, stdout: "", stderr: "" };
  child.stdout.setEncoding("utf8").on("data", (text: string) => run.stdout += text);
  child.stderr.setEncoding("utf8").on("data", (text: string) => run.stderr += text);
  run.code = await new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  if (run.code !== 0) return;
  result = JSON.parse(run.stdout);
  const runtime = systemRuntime();
  const store = new DirectoryStore({
    directory: join(directory, "bucket"),
    files: runtime.files,
    random: runtime.random,
  });
  points = await publishedPoints(store, "app/");
  log = parseWriterLog(readFileSync(join(directory, "writer.log"), "utf8"));
}

test("demo: both restores are proven, exit code 0", { timeout: 120_000 }, async () => {
  await demoRun();
  assert.equal(run.code, 0, `${run.stdout}${run.stderr}`);
  assert.equal(run.stderr, "");
  assert.equal(result.proven, true);
  assert.equal(result.restores.length, 2);
  const [newest, earlier] = result.restores;
  for (const { file, findings } of result.restores) {
    assert.ok(existsSync(file));
    assert.equal(findings.length, 5);
    assert.ok(findings.every((finding) => finding.isProven));
  }
  assert.ok(earlier.commits < newest.commits && newest.commits <= result.commits);
  assert.ok(earlier.commits > 0 && result.deltas > 2);
});

function provenBy(
  file: string,
  seq: bigint,
  itsPoints: PublishedPoint[] = points,
  itsLog: CommitTimes[] = log,
  askedMs: number | null = null,
): boolean[] {
  return proveRestored({ path: file, seq, askedMs }, itsPoints, itsLog).findings.map((finding) => finding.isProven);
}

test("proveRestored: canaries, a wrong row, a missing row, another point and a lying log are noticed", {
  timeout: 120_000,
}, async () => {
  await demoRun();
  const [newest, earlier] = result.restores;
  const seq = BigInt(newest.seq);
  assert.deepEqual(provenBy(newest.file, seq), [true, true, true, true, true]);

  const tampered = (name: string, sql: string): string => {
    const copy = join(folder, name);
    copyFileSync(newest.file, copy);
    const database = openDatabase(copy);
    database.exec(sql);
    database.close();
    return copy;
  };
  const row = tampered("row.db", "UPDATE events SET payload = payload || '!' WHERE id = 10");
  assert.equal(provenBy(row, seq)[0], false);
  const missing = tampered("missing.db", "DELETE FROM events WHERE id = 10; UPDATE totals SET rows = rows - 1");
  assert.equal(provenBy(missing, seq)[0], false);
  const extra = tampered(
    "extra.db",
    "INSERT INTO events VALUES (99999999, 1, '', 0); UPDATE totals SET rows = rows + 1",
  );
  assert.equal(provenBy(extra, seq)[0], false);

  // An earlier point in place of the newest, and of the newest at a time, although the file is exactly that point.
  const earlierMs = result.killedMs - 5000;
  assert.deepEqual(provenBy(earlier.file, BigInt(earlier.seq), points, log, earlierMs), [true, true, true, true, true]);
  assert.deepEqual(provenBy(earlier.file, BigInt(earlier.seq)), [true, true, true, false, true]);
  assert.equal(provenBy(earlier.file, BigInt(earlier.seq), points, log, result.killedMs)[3], false);
  assert.equal(provenBy(newest.file, seq, points, log, earlierMs)[3], false);

  // The older content in place of the newest: commits acknowledged in time are missing.
  assert.equal(provenBy(earlier.file, seq)[1], false);
  // The newest content in place of the older: commits are there that began later.
  assert.equal(provenBy(newest.file, BigInt(earlier.seq))[2], false);
  assert.deepEqual(provenBy(newest.file, 1n << 60n), [false]);
  assert.equal(provenBy(newest.file, seq, points, log.slice(0, 10))[0], false);
});

test("parseWriterLog: a line cut off by the kill does not count", () => {
  const text = "begin 1 100\ndone 1 101\nbegin 2 102\ndone 2 1";
  assert.deepEqual(parseWriterLog(text), [
    { commit: 1, beganMs: 100, acknowledgedMs: 101 },
    { commit: 2, beganMs: 102, acknowledgedMs: null },
  ]);
});

test("demo: a SIGKILL of it ends writer and watch, the lines it prints can be run", { timeout: 120_000 }, async () => {
  const where = join(folder, "killed");
  const [program, ...args] = [...walrustCommand(), "demo", "--seconds", "60", "--directory", where];
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "inherit"] });
  let stdout = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => stdout += text);
  const ended = new Promise((resolve) => child.on("exit", resolve));
  const { clock } = systemRuntime();
  const self = systemProcess();
  try {
    while (!stdout.includes("snapshot (")) await clock.sleep(50);
  } finally {
    process.kill(child.pid!, "SIGKILL");
    await ended;
  }
  const pids = [...stdout.matchAll(/^(?:writer|watch) +process (\d+)/gm)].map(([, pid]) => Number(pid));
  assert.equal(pids.length, 2, stdout);
  while (pids.some((pid) => self.isAlive(pid))) await clock.sleep(50);

  const { stdout: shown } = await shell([...walrustCommand(), "demo", "--seconds", "6"].map(shellQuoted).join(" "));
  const lines = [...shown.matchAll(/^ {2}again: (.*)$/gm)].map(([, line]) => line);
  assert.equal(lines.length, 2, shown);
  for (const line of lines) assert.match((await shell(line)).stdout, /✓ seq \d+/);
  rmSync(/^folder +(.*)$/m.exec(shown)![1], { recursive: true });
});

function shell(line: string): Promise<{ stdout: string }> {
  return promisify(exec)(line);
}
