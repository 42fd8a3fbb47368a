/** The application, not us, killed in the middle of its commits: only what SQLite itself calls committed is published. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { copyFileSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { beginWalScan, parseWalHeader, scanWalFrames } from "../../src/format/wal.ts";
import { readFileSync } from "node:fs";
import { need, skipReason } from "../support/need.ts";
import { readLog } from "./checker.ts";
import { prove } from "./proof.ts";
import { eagerFlags, inScene, type Scene, sleep } from "./watch_process.ts";

const skip = process.platform === "linux" ? need("gcc") : skipReason("LD_PRELOAD is of Linux");
const writerFlags = [
  ...["--synchronous", "FULL", "--cycle", "40", "--bulk", "60", "--autocheckpoint", "100"],
];

/** Compiles the shim into the scene's folder. */
function compileShim(scene: Scene): string {
  const output = scene.path("kill_shim.so");
  const source = fileURLToPath(new URL("kill_shim.c", import.meta.url));
  const run = spawnSync("gcc", ["-O1", "-shared", "-fPIC", "-o", output, source, "-ldl"], { encoding: "utf8" });
  assert.equal(run.status, 0, run.stderr);
  return output;
}

function between(low: number, high: number): number {
  return low + Math.floor(Math.random() * (high - low + 1));
}

/** Runs a writer that kills itself by `plan`, such as `sync:7`. */
async function writeUntilKilled(scene: Scene, shim: string, plan: string): Promise<void> {
  const writer = scene.writer("runtime", [...writerFlags, "--seconds", "20"], {
    LD_PRELOAD: shim,
    WALRUST_SHIM: plan,
  });
  const { signal, code } = await writer.ended;
  assert.ok(signal === "SIGKILL" || code === 137, `${plan}: the writer was not killed (${code}): ${writer.stderr}`);
}

async function killApplications(
  scene: Scene,
  options: { plans: string[]; script?: string },
): Promise<void> {
  const shim = compileShim(scene);
  const first = scene.writer("runtime", [...writerFlags, "--commits", "30"]);
  await first.ended;
  const watch = scene.watch(eagerFlags, {}, options.script);
  await watch.event("started");
  for (const plan of options.plans) {
    await writeUntilKilled(scene, shim, plan);
    // Long enough for two polls to see the commit frame that never became a commit, now and then too short for one.
    await sleep(plan.startsWith("sync") ? between(120, 260) : between(0, 100));
  }
  const last = scene.writer("runtime", [...writerFlags, "--commits", "60", "--pace-ms", "5"]);
  const { code } = await last.ended;
  assert.equal(code, 0, last.stderr);
  await watch.stop();
}

test(
  "[S117] kill_shim: leaves a whole commit frame that SQLite does not call committed",
  { skip },
  () =>
    inScene(async (scene) => {
      const shim = compileShim(scene);
      const holder = scene.application();
      await holder.run("PRAGMA journal_mode = WAL");
      await holder.run("CREATE TABLE keeps_the_index(a)");
      await writeUntilKilled(scene, shim, "sync:9");
      const [{ n }] = await holder.run("SELECT n FROM counter");
      const begun = Math.max(...readLog(scene.log).begins.keys());
      assert.equal(n, begun - 1, "the killed commit is not there");
      // A copy of the WAL alone is safe: SQLite keeps no lock on that file.
      copyFileSync(`${scene.db}-wal`, scene.path("wal"));
      const bytes = new Uint8Array(readFileSync(scene.path("wal")));
      const header = parseWalHeader(bytes);
      assert.ok(typeof header === "object");
      let committed = 0;
      scanWalFrames(header, beginWalScan(header), bytes.subarray(32), (frame, _, commit) => {
        if (commit > 0) committed = frame + 1;
      });
      const [{ log }] = await holder.run("PRAGMA wal_checkpoint(NOOP)");
      assert.ok(committed > Number(log), `${committed} frames end in a commit, SQLite knows ${log}`);
    }),
);

test("[S117] watch: the application killed 50 times in its commits; no phantom is published, byte for byte", {
  skip,
  timeout: 180_000,
}, () =>
  inScene(async (scene) => {
    const plans = Array.from({ length: 50 }, (_, i) => {
      return i % 5 < 3 ? `sync:${between(2, 30)}` : `write:${between(1, 300)}`;
    });
    await killApplications(scene, { plans });
    const { log } = await prove(scene, { logged: true, samples: 100_000 });
    const lost = log!.sessions.filter(({ origin }) => log!.begins.has(origin + 1) && !log!.acks.has(origin));
    assert.ok(log!.sessions.length === 52, `${log!.sessions.length} sessions, ${lost.length} unacknowledged`);
  }));

test("[S117] watch: canary, with the gauge switched off a commit that never was is published", {
  skip,
  timeout: 120_000,
}, () =>
  inScene(async (scene) => {
    const plans = Array.from({ length: 14 }, () => `sync:${between(3, 30)}`);
    await killApplications(scene, { plans, script: fileURLToPath(new URL("watch_without_gauge.ts", import.meta.url)) });
    // For this reason and no other: a point holds a commit that SQLite never called one.
    await assert.rejects(prove(scene, { logged: true, samples: 100_000 }), /never (was|happened)/);
  }));
