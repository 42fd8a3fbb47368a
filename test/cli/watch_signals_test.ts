import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { mkdirSync } from "node:fs";
import { connect, createServer, type Socket } from "node:net";
import { join } from "node:path";
import process from "node:process";
import test from "node:test";
import { openDatabase, type SqlDatabase } from "../../src/runtime/system_database.ts";
import { systemRuntime } from "../../src/runtime/system.ts";
import { walrustCommand } from "../support/runtime.ts";
import { needS3Server, startS3Server } from "../support/s3_server.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";

const folder = temporaryDirectory("watch-signals");
const { clock } = systemRuntime();

interface Watch {
  child: ChildProcess;
  stdout: string;
  stderr: string;
  ended: Promise<number | null>;
}

function start(words: string[], environment: Record<string, string> = {}): Watch {
  const [program, ...args] = [...walrustCommand(), ...words];
  const child = spawn(program, args, { stdio: ["ignore", "pipe", "pipe"], env: { ...process.env, ...environment } });
  const watch: Watch = { child, stdout: "", stderr: "", ended: Promise.resolve(null) };
  child.stdout.setEncoding("utf8").on("data", (text: string) => watch.stdout += text);
  child.stderr.setEncoding("utf8").on("data", (text: string) => watch.stderr += text);
  watch.ended = new Promise((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  return watch;
}

/** Not `child.kill`: after it Deno says the exit code is null, whatever it was. */
function send(watch: Watch, signal: "SIGTERM" | "SIGINT" | "SIGKILL"): void {
  if (watch.child.exitCode === null && watch.child.pid !== undefined) process.kill(watch.child.pid, signal);
}

async function until(watch: Watch, isDone: () => boolean): Promise<void> {
  const endMs = clock.monotonic() + 60_000;
  while (!isDone()) {
    assert.ok(watch.child.exitCode === null && clock.monotonic() < endMs, `${watch.stdout}${watch.stderr}`);
    await clock.sleep(20);
  }
}

function prepare(name: string): { path: string; bucket: string; database: SqlDatabase } {
  const bucket = join(folder, `${name}-bucket`);
  mkdirSync(bucket);
  const path = join(folder, `${name}.db`);
  const database = openDatabase(path);
  database.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (n INTEGER PRIMARY KEY); INSERT INTO t VALUES (1)");
  return { path, bucket: `file://${bucket}`, database };
}

test("[SC] watch: SIGTERM and SIGINT end with a final sync and exit code 0", { timeout: 120_000 }, async () => {
  for (const signal of ["SIGTERM", "SIGINT"] as const) {
    const { path, bucket, database } = prepare(signal);
    // An interval that never comes: what is published after the start is published by the final sync.
    const watch = start(["watch", path, "-b", bucket, "--json", "--wal-sync-interval", "3600"]);
    await until(watch, () => watch.stdout.includes('"kind":"started"'));
    await clock.sleep(300);
    database.exec("INSERT INTO t VALUES (2)");
    send(watch, signal);
    assert.equal(await watch.ended, 0, watch.stderr);
    const events = watch.stdout.trimEnd().split("\n").map((line) => JSON.parse(line));
    assert.equal(events.at(-1).kind, "stopped");
    database.close();
    const output = join(folder, `${signal}-restored.db`);
    const restore = start(["restore", signal, "-b", bucket, "-o", output]);
    assert.equal(await restore.ended, 0, restore.stderr);
    const restored = openDatabase(output);
    assert.equal(restored.prepare("SELECT n FROM t").all().length, 2);
    restored.close();
  }
});

/** Passes bytes between a client and a server, until it is frozen: then nobody hears from the other side any more. */
async function relay(port: number): Promise<{ port: number; frozen: boolean; close(): Promise<void> }> {
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const onward = connect(port, "127.0.0.1");
    for (const [from, to] of [[client, onward], [onward, client]]) {
      sockets.add(from);
      from.on("data", (bytes) => state.frozen || to.write(bytes));
      from.on("error", () => to.destroy());
      from.on("close", () => to.destroy());
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const state = {
    port: (server.address() as { port: number }).port,
    frozen: false,
    close: async () => {
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
  return state;
}

test("[SC] watch: a bucket that falls silent holds up no stop for long, and the second signal none at all", {
  timeout: 100_000,
  skip: needS3Server("versitygw"),
}, async () => {
  const server = await startS3Server("versitygw");
  await server.createBucket("silent");
  const way = await relay(Number(new URL(server.endpoint).port));
  const { path, database } = prepare("silent");
  const environment = {
    AWS_ACCESS_KEY_ID: server.accessKeyId,
    AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
    AWS_REGION: "us-east-1",
  };
  const words = ["watch", path, "-b", "s3://silent", "--endpoint", `http://127.0.0.1:${way.port}`];
  try {
    for (const [signal, code] of [["SIGTERM", 143], ["SIGINT", 130]] as const) {
      way.frozen = false;
      const watch = start(words, environment);
      await until(watch, () => watch.stdout.includes("watching →"));
      way.frozen = true;
      database.exec("INSERT INTO t (n) SELECT max(n) + 1 FROM t");
      send(watch, signal);
      await clock.sleep(500);
      assert.equal(watch.child.exitCode, null, "the final sync has its time");
      send(watch, signal);
      assert.equal(await watch.ended, code, watch.stderr);
    }
    // Nothing replicated yet: there is nothing to wait for.
    const early = start(words, environment);
    await until(early, () => early.stdout.includes("watching 1 database"));
    await clock.sleep(500);
    send(early, "SIGTERM");
    assert.equal(await early.ended, 0, early.stderr);
  } finally {
    database.close();
    await way.close();
    await server.stop();
  }
});

test("watch: one failing database does not stop the others, the exit code says so", { timeout: 120_000 }, async () => {
  const { path, bucket, database } = prepare("good");
  const watch = start(["watch", join(folder, "absent.db"), path, "-b", bucket]);
  await until(watch, () => watch.stdout.includes("good.db: snapshot (") && watch.stderr.includes("absent.db"));
  send(watch, "SIGTERM");
  assert.equal(await watch.ended, 3, watch.stderr);
  assert.match(watch.stdout, /good\.db: stopped at seq/);
  assert.match(watch.stdout, /^watching 2 databases → file:/);
  assert.match(watch.stdout, /^\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] good\.db: /m);
  assert.match(watch.stderr, /error: .*absent\.db does not exist\nhint: /);
  database.close();
});

test(
  "watch: a second walrust on the same database is refused and names the holder [S64]",
  { timeout: 120_000 },
  async () => {
    const { path, bucket, database } = prepare("held");
    const first = start(["watch", path, "-b", bucket]);
    await until(first, () => first.stdout.includes("watching →"));
    const second = start(["watch", path, "-b", bucket]);
    assert.equal(await second.ended, 3);
    assert.match(second.stderr, new RegExp(`process ${first.child.pid}\\b`));
    send(first, "SIGTERM");
    assert.equal(await first.ended, 0);
    database.close();
  },
);

test("snapshot: alone and beside a running watch, prints seq, size and checksum", { timeout: 120_000 }, async () => {
  const { path, bucket, database } = prepare("snap");
  const alone = start(["snapshot", path, "-b", bucket]);
  assert.equal(await alone.ended, 0, alone.stderr);
  assert.match(alone.stdout, /✓ snapshot seq \d+: [\d.]+ KB in .*\n {2}checksum [0-9a-f]{16}\n/);
  // However rarely it looks at the database: it is asked for a snapshot now.
  const watch = start(["watch", path, "-b", bucket, "--wal-sync-interval", "3600"]);
  await until(watch, () => watch.stdout.includes("watching →"));
  database.exec("INSERT INTO t VALUES (2)");
  const beside = start(["snapshot", path, "-b", bucket, "--json"]);
  assert.equal(await beside.ended, 0, beside.stderr);
  const report = JSON.parse(beside.stdout);
  assert.match(report.checksum, /^[0-9a-f]{16}$/);
  assert.match(report.seq, /^\d+$/);
  send(watch, "SIGTERM");
  assert.equal(await watch.ended, 0, watch.stderr);
  database.close();
});

test("watch: canary, a watch that is killed does not say that it stopped", { timeout: 120_000 }, async () => {
  const { path, bucket, database } = prepare("killed");
  const watch = start(["watch", path, "-b", bucket]);
  await until(watch, () => watch.stdout.includes("watching →"));
  send(watch, "SIGKILL");
  assert.equal(await watch.ended, null);
  assert.doesNotMatch(watch.stdout, /stopped/);
  database.close();
});
