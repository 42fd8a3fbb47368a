/** SIGKILL in the first start of watch, before there is anything to resume, and in restore. */
import assert from "node:assert/strict";
import { existsSync, readdirSync } from "node:fs";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { runtimeCommand } from "../support/runtime.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { vectorsDirectory } from "../support/vectors.ts";
import { goldenTargets } from "../replication/golden.ts";
import { verifyBucket } from "./bucket.ts";
import { assertSameFile, checkpointSource, fileHash } from "./checker.ts";
import { agePointerLock } from "./kill_campaign.ts";
import { type KillStep, paceFlags, restoreSteps, startSteps } from "./kill_steps.ts";
import { insertRows, openWithRows } from "./rows_table.ts";
import { inScene, Running, type Scene } from "./watch_process.ts";

const script = fileURLToPath(new URL("killable.ts", import.meta.url));

/** Most of what a start costs on Node; those who end in peace leave it for the others. */
const compiled = { NODE_COMPILE_CACHE: temporaryDirectory("compiled") };

function planOf({ moments }: KillStep): Record<string, string> {
  return { ...compiled, WALRUST_KILL: JSON.stringify({ moments }) };
}

function assertKilled({ ending, stderr }: Running): void {
  assert.ok(ending?.signal === "SIGKILL" || ending?.code === 137, `${JSON.stringify(ending)} ${stderr}`);
}

for (const step of startSteps) {
  test(`[C: mid snapshot] watch: killed in its first start, ${step.name}; the next start needs no help`, () =>
    inScene(async (scene) => {
      const application = await openWithRows(scene, 100);
      const first = scene.watch(paceFlags.deltas, planOf(step), script);
      await first.ended;
      assertKilled(first);
      await application.run(insertRows(5));
      agePointerLock(scene.bucket);
      const second = scene.watch(paceFlags.deltas, compiled, script);
      await second.event("snapshot");
      await application.run(insertRows(5));
      await application.quit();
      await second.stop();
      checkpointSource(scene.db);
      assertSameFile(await scene.restore("latest.db"), scene.db, "restored latest");
      // What was active is the parent; what was only claimed never was a history.
      const lineages = verifyBucket(scene.bucket);
      const own = lineages.find(({ lineage }) => lineage === second.of("started")[0].lineage)!;
      const killed = lineages.find((lineage) => lineage !== own);
      const wasActive = /journal/.test(step.name);
      assert.equal(own.points[0].seq, wasActive ? killed!.points.at(-1)!.seq + 1n : 1n);
    }));
}

const golden = "owned-lineage";
const latest = goldenTargets(golden).at(-1)!;

/** Restores the newest point of a golden bucket; dies where `env` says so. */
async function restore(scene: Scene, env: Record<string, string>): Promise<Running> {
  const bucket = `file://${vectorsDirectory}/${golden}/bucket/backups`;
  const words = ["restore", "app", "-o", scene.path("out.db"), "-b", bucket];
  const run = scene.start(new Running([...runtimeCommand(script), ...words], env));
  await run.ended;
  return run;
}

for (const step of restoreSteps) {
  test(`[C: mid restore] restore: killed twice, ${step.name}; no half file, and it works again`, () =>
    inScene(async (scene) => {
      const output = scene.path("out.db");
      for (let round = 0; round < 2; round++) {
        const killed = await restore(scene, planOf(step));
        if (existsSync(output)) break;
        assertKilled(killed);
      }
      const isNamed = step.moments[0].startsWith("^after link");
      assert.equal(existsSync(output), isNamed, "a file with its name is whole");
      const again = await restore(scene, compiled);
      if (isNamed) {
        assert.equal(again.ending?.code, 6, again.stderr);
        assert.match(again.stderr, /exists already/);
      } else assert.equal(again.ending?.code, 0, again.stderr);
      assert.equal(fileHash(output), latest.sha256);
      assert.deepEqual(readdirSync(scene.directory).filter((name) => name.startsWith("out.db-")), [], "no sidecars");
    }));
}
