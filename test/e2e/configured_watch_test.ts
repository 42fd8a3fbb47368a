/** `walrust watch` without a word: everything is in walrust.toml. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import test from "node:test";
import { openDatabase } from "../../src/runtime/system_database.ts";
import { systemRuntime } from "../../src/runtime/system.ts";
import { walrustCommand } from "../support/runtime.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";

const { clock } = systemRuntime();

interface Running {
  readonly child: ChildProcess;
  output: string;
  readonly ended: Promise<number | null>;
}

function start(words: string[], cwd: string, environment: Record<string, string> = {}): Running {
  const [program, ...args] = [...walrustCommand(), ...words];
  const child = spawn(program, args, { cwd, env: { ...process.env, WALRUST_LOG: "", ...environment } });
  const ended = new Promise<number | null>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", resolve);
  });
  const running: Running = { child, output: "", ended };
  child.stdout!.setEncoding("utf8").on("data", (text: string) => running.output += text);
  child.stderr!.setEncoding("utf8").on("data", (text: string) => running.output += text);
  return running;
}

async function run(words: string[], cwd: string, environment: Record<string, string> = {}): Promise<string> {
  const running = start(words, cwd, environment);
  assert.equal(await running.ended, 0, running.output);
  return running.output;
}

async function until(isDone: () => boolean, running: Running): Promise<void> {
  const endMs = clock.monotonic() + 60_000;
  while (!isDone()) {
    assert.equal(running.child.exitCode, null, running.output);
    assert.ok(clock.monotonic() < endMs, `nothing came:\n${running.output}`);
    await clock.sleep(20);
  }
}

test(
  "watch: the databases, prefixes and intervals of walrust.toml; restore, list and snapshot find the bucket there [S82]",
  {
    timeout: 180_000,
  },
  async () => {
    const folder = temporaryDirectory("configured");
    mkdirSync(join(folder, "data"));
    const paths = ["quick", "slow", "named"].map((name) => join(folder, `data/${name}.db`));
    const databases = paths.map((path) => {
      const database = openDatabase(path);
      database.exec(
        "PRAGMA journal_mode = WAL; PRAGMA busy_timeout = 5000; CREATE TABLE t (n); INSERT INTO t VALUES (1)",
      );
      return database;
    });
    writeFileSync(
      join(folder, "walrust.toml"),
      `[s3]\nbucket = "file://${folder}/\${BUCKET}"\n[sync]\nwal_sync_interval = 0.05\nsnapshot_interval = 0\n` +
        '[[databases]]\npath = "data/*.db"\n' +
        '[[databases]]\npath = "data/slow.db"\nwal_sync_interval = 86400\n' +
        '[[databases]]\npath = "data/named.db"\nprefix = "tenants/one"\n',
    );
    const environment = { BUCKET: "bucket" };
    const watch = start(["watch", "--json"], folder, environment);
    try {
      const events = (): Record<string, unknown>[] =>
        watch.output.split("\n").filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
      const of = (kind: string): string[] =>
        events().filter((event) => event.kind === kind).map(({ path }) => String(path)).sort();
      const all = ["data/named.db", "data/quick.db", "data/slow.db"];
      await until(() => new Set(of("snapshot")).size === 3, watch);
      assert.deepEqual(of("started"), all);
      const head = { quick: of("delta").length, slow: of("delta").filter((path) => path === "data/slow.db").length };
      for (const database of databases) database.exec("INSERT INTO t VALUES (2)");
      // The one with an interval of a day is still asleep when the others have shipped what was committed after it.
      await until(() => new Set(of("delta").filter((path) => path !== "data/slow.db")).size === 2, watch);
      assert.equal(of("delta").filter((path) => path === "data/slow.db").length, head.slow);
      // The name under which the running watch stores it counts: a request for another place would be refused.
      assert.match(await run(["snapshot", paths[2]], folder, environment), /✓ snapshot seq \d+/);
      process.kill(watch.child.pid!, "SIGTERM");
      assert.equal(await watch.ended, 0, watch.output);
      assert.deepEqual(of("stopped"), all);
    } finally {
      if (watch.child.exitCode === null) watch.child.kill("SIGKILL");
      await watch.ended;
      for (const database of databases) database.close();
    }
    assert.deepEqual(readdirSync(join(folder, "bucket")).filter((name) => !name.startsWith(".")).sort(), [
      "quick",
      "slow",
      "tenants",
    ]);
    for (const name of ["quick", "slow", "tenants/one"]) {
      const output = join(folder, `${name.replace("/", "-")}.restored`);
      await run(["restore", name, "-o", output], folder, environment);
      const restored = openDatabase(output);
      assert.deepEqual(restored.prepare("SELECT n FROM t").all().map((row) => ({ ...row as object })), [{ n: 1 }, {
        n: 2,
      }], name);
      restored.close();
    }
    const list = await run(["list", "-v"], folder, environment);
    assert.match(list, /2 databases in file:.*\/bucket\n/);
    assert.match(list, /quick\n[^]*slow\n/);
    const other = await run(["list", "-b", `file://${folder}/other`], folder, environment);
    assert.match(other, /nothing in file:.*\/other/);
    assert.ok(!existsSync(join(folder, "other")), "a list makes nothing");
  },
);
