/** Runs every command block of README.md: once with a directory as the bucket, once with a real S3 server. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import test from "node:test";
import { openDatabase } from "../src/runtime/system_database.ts";
import { systemRuntime } from "../src/runtime/system.ts";
import { projectDirectory, walrustCommand } from "./support/runtime.ts";
import { needS3Server, startS3Server } from "./support/s3_server.ts";
import { temporaryDirectory } from "./support/temporary_directory.ts";

const readme = readFileSync(`${projectDirectory}/README.md`, "utf8");
const blocks = [...readme.matchAll(/^```(\w*)\n([^]*?)^```$/gm)].map(([, language, text]) => ({ language, text }));
const shellBlocks = blocks.filter(({ language }) => language === "sh").map(({ text }) => text);
const { clock } = systemRuntime();

/** Sorts the blocks by how they must be run; what fits nowhere fails the first test. */
const isDemo = (text: string): boolean => text === "npm ci && npx walrust demo\n";
const isGate = (text: string): boolean => text === "npm ci && npm run gate\n";
const isWatch = (text: string): boolean => /^walrust watch app\.db/m.test(text);
const isConfigured = (text: string): boolean => /^walrust watch$/m.test(text);
const isHelp = (text: string): boolean => text.trimEnd().split("\n").every((line) => line.endsWith(" --help"));
const isBucket = (text: string): boolean => !isWatch(text) && text.includes("s3://my-bucket/backups");

/** A folder with a program `walrust` on its own, as an installation would give. */
function workspace(name: string): { folder: string; environment: Record<string, string | undefined> } {
  const folder = temporaryDirectory(`readme-${name}`);
  const programs = join(folder, "programs");
  mkdirSync(programs);
  const words = walrustCommand().map((word) => `'${word}'`).join(" ");
  writeFileSync(join(programs, "walrust"), `#!/bin/sh\nexec ${words} "$@"\n`);
  chmodSync(join(programs, "walrust"), 0o755);
  return { folder, environment: { ...process.env, PATH: `${programs}:${process.env.PATH}`, WALRUST_LOG: "" } };
}

interface Running {
  child: ChildProcess;
  output: string;
  ended: Promise<number | null>;
}

function start(script: string, folder: string, environment: Record<string, string | undefined>): Running {
  // `exec` for the last line, so that a signal reaches the program and not the shell.
  const lines = script.trimEnd().split("\n");
  if (lines[lines.length - 1].startsWith("walrust ")) lines.push(`exec ${lines.pop()}`);
  const child = spawn("sh", ["-e", "-c", lines.join("\n")], { cwd: folder, env: environment });
  const running: Running = { child, output: "", ended: Promise.resolve(null) };
  child.stdout.setEncoding("utf8").on("data", (text: string) => running.output += text);
  child.stderr.setEncoding("utf8").on("data", (text: string) => running.output += text);
  running.ended = new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  return running;
}

async function runBlock(
  script: string,
  folder: string,
  environment: Record<string, string | undefined>,
): Promise<string> {
  const running = start(script, folder, environment);
  assert.equal(await running.ended, 0, `${script}\n${running.output}`);
  return running.output;
}

test("README: two commands for a fresh clone, and every block of commands is run by a test of this file", () => {
  const kinds = [isDemo, isGate, isWatch, isConfigured, isHelp, isBucket];
  for (const text of shellBlocks) {
    assert.equal(kinds.filter((kind) => kind(text)).length, 1, `this block is run by no test, or by two:\n${text}`);
  }
  for (const kind of kinds) assert.ok(shellBlocks.some(kind), kind.toString());
  assert.ok(isDemo(shellBlocks[0]) && isGate(shellBlocks[1]));
});

test("README: no command hides in a block of another language", () => {
  for (const { language, text } of blocks.filter((block) => block.language !== "sh")) {
    assert.doesNotMatch(text, /^\s*(\$ |npm |npx |walrust [a-z]+ [^◄]*$)/m, language);
  }
});

test("README: the demo of a fresh clone", { timeout: 120_000 }, async () => {
  const { folder, environment } = workspace("demo");
  // Installing would replace what this test runs on: the block's second half counts here.
  const script = shellBlocks.filter(isDemo)[0].replace("npm ci && npx walrust", "walrust");
  const output = await runBlock(script, folder, { ...environment, TMPDIR: folder });
  assert.match(output, /proven: both restores are exact/);
  const manifest = JSON.parse(readFileSync(`${projectDirectory}/package.json`, "utf8"));
  assert.equal(typeof manifest.bin.walrust, "string");
});

test("README: the gate is a script of package.json (and runs this test)", () => {
  const manifest = JSON.parse(readFileSync(`${projectDirectory}/package.json`, "utf8"));
  assert.equal(typeof manifest.scripts.gate, "string");
});

test("README: the help of every command", { timeout: 120_000 }, async () => {
  const { folder, environment } = workspace("help");
  for (const text of shellBlocks.filter(isHelp)) {
    assert.match(await runBlock(text, folder, environment), /Usage: walrust/);
  }
});

/** Runs the quick start with a writer beside it; `change` puts in what the reader would put in. */
async function quickStart(
  name: string,
  change: (text: string) => string,
  more: Record<string, string> = {},
): Promise<void> {
  const { folder, environment } = workspace(name);
  Object.assign(environment, more);
  const database = openDatabase(join(folder, "app.db"));
  database.exec("PRAGMA journal_mode = WAL; PRAGMA busy_timeout = 5000; CREATE TABLE t (n INTEGER PRIMARY KEY)");
  const insert = database.prepare("INSERT INTO t (n) VALUES (NULL)");
  for (let i = 0; i < 100; i++) insert.run();
  const watch = start(change(shellBlocks.filter(isWatch)[0]), folder, environment);
  try {
    await until(() => watch.output.includes("snapshot ("), watch);
    const beganMs = clock.now();
    const seen = watch.output.length;
    // One transaction, so that one sync has all of it.
    database.exec("BEGIN");
    for (let i = 0; i < 100; i++) insert.run();
    database.exec("COMMIT");
    await until(() => watch.output.slice(seen).includes("WAL sync") || clock.now() > beganMs + 3000, watch);
    // Something that the reader's clock says and that exists: the present.
    const time = new Date(clock.now()).toISOString();
    for (const text of shellBlocks.filter(isBucket)) {
      const output = await runBlock(change(text).replace("2026-01-15T10:30:00Z", time), folder, environment);
      assert.match(output, /1 database in /);
      assert.match(output, /app → newest\.db/);
      assert.match(output, /✓ snapshot seq/);
    }
    send(watch, "SIGTERM");
    assert.equal(await watch.ended, 0, watch.output);
    assert.match(watch.output, /stopped at seq/);
    for (const file of ["newest.db", "then.db"]) {
      const restored = openDatabase(join(folder, file));
      assert.deepEqual({ ...restored.prepare("SELECT count(*) AS n FROM t").all()[0] as object }, { n: 200 }, file);
      restored.close();
    }
  } finally {
    send(watch, "SIGKILL");
    await watch.ended;
    database.close();
  }
}

/** Not `child.kill`: after it Deno says the exit code is null, whatever it was. */
function send(running: Running, signal: "SIGTERM" | "SIGINT" | "SIGKILL"): void {
  if (running.child.exitCode === null && running.child.pid !== undefined) process.kill(running.child.pid, signal);
}

async function until(isDone: () => boolean, running: Running): Promise<void> {
  const endMs = clock.monotonic() + 60_000;
  while (!isDone()) {
    assert.equal(running.child.exitCode, null, running.output);
    assert.ok(clock.monotonic() < endMs, `nothing came:\n${running.output}`);
    await clock.sleep(20);
  }
}

test("README: the configuration file, with a directory as the bucket", { timeout: 120_000 }, async () => {
  const { folder, environment } = workspace("configured");
  const bucket = temporaryDirectory("readme-bucket");
  const [configuration, ...others] = blocks.filter(({ language }) => language === "toml");
  assert.deepEqual(others, [], "each of them needs a test");
  const text = configuration.text.replace("s3://my-bucket/backups", `file://${bucket}`);
  writeFileSync(join(folder, "walrust.toml"), text);
  environment.STAGE = "test";
  mkdirSync(join(folder, "data"));
  for (const name of ["app", "orders"]) {
    const database = openDatabase(join(folder, `data/${name}.db`));
    database.exec(`PRAGMA journal_mode = WAL; CREATE TABLE t (name); INSERT INTO t VALUES ('${name}')`);
    database.close();
  }
  const watch = start(shellBlocks.filter(isConfigured)[0], folder, environment);
  try {
    await until(() => watch.output.split("snapshot (").length === 3, watch);
    assert.match(watch.output, /snapshot_interval +86400 s +walrust\.toml:5:21\n/);
    assert.match(
      watch.output,
      /data\/orders\.db → file:.*\/orders-test\/ .*\n +wal_sync_interval +0\.2 s +walrust\.toml:\d+:21\n/,
    );
    assert.match(await runBlock("walrust list", folder, environment), /2 databases in /);
    send(watch, "SIGTERM");
    assert.equal(await watch.ended, 0, watch.output);
  } finally {
    send(watch, "SIGKILL");
    await watch.ended;
  }
  for (const [name, stored] of [["app", "app"], ["orders", "orders-test"]]) {
    await runBlock(`walrust restore ${stored} -o ${name}.restored`, folder, environment);
    const restored = openDatabase(join(folder, `${name}.restored`));
    assert.deepEqual({ ...restored.prepare("SELECT name FROM t").all()[0] as object }, { name });
    restored.close();
  }
});

test("README: the quick start, with a directory as the bucket", { timeout: 180_000 }, async () => {
  const bucket = temporaryDirectory("readme-bucket");
  await quickStart("file", (text) => text.replaceAll("s3://my-bucket/backups", `file://${bucket}`));
});

test(
  "README: the quick start, with an S3 server",
  { skip: needS3Server("versitygw"), timeout: 180_000 },
  async () => {
    const server = await startS3Server("versitygw");
    try {
      await server.createBucket("my-bucket");
      const change = (text: string): string =>
        text.replace("your-key", server.accessKeyId).replace("your-secret", server.secretAccessKey)
          .replace("https://s3.example.com", server.endpoint);
      // The second terminal of the README has the same variables.
      await quickStart("s3", change, {
        AWS_ACCESS_KEY_ID: server.accessKeyId,
        AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
        AWS_ENDPOINT_URL_S3: server.endpoint,
      });
    } finally {
      await server.stop();
    }
  },
);
