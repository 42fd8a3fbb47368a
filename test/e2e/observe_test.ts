/** `--mode observe`: beside real applications that checkpoint as they like, and on a place that nobody may write to. */
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import { need } from "../support/need.ts";
import { prove } from "./proof.ts";
import { eagerFlags, inScene, type Scene, sleep, type WatchProcess } from "./watch_process.ts";

async function observe(scene: Scene): Promise<WatchProcess> {
  const watch = scene.watch([...eagerFlags, "--mode", "observe", "--state-dir", scene.path("state")]);
  await watch.event("observing");
  await watch.event("snapshot");
  return watch;
}

for (
  const [kind, program, args] of [
    ["runtime", null, ["--pause-every", "200", "--pause-ms", "300"]],
    ["python", "python3", []],
    ["sqlite3", "sqlite3", ["--cycle", "500", "--bulk", "200"]],
  ] as const
) {
  test(`[S20] watch --mode observe: beside ${kind} every point is a prefix of its commits, the last one all of them`, {
    skip: program === null ? false : need(program),
    timeout: 90_000,
  }, () =>
    inScene(async (scene) => {
      const writer = scene.writer(kind, [...args]);
      await writer.started();
      const watch = await observe(scene);
      await sleep(4000);
      await writer.finish();
      await watch.stop();
      assert.deepEqual(watch.of("rollover"), [], "nothing is ever checkpointed");
      await prove(scene, { logged: true, samples: 30 });
    }));
}

test("[S42] watch --mode observe: where no application runs, neither log nor wal-index is made", {
  timeout: 60_000,
}, () =>
  inScene(async (scene) => {
    const writer = scene.writer("runtime", ["--commits", "20"]);
    await writer.ended;
    const watch = await observe(scene);
    await watch.stop();
    assert.deepEqual(readdirSync(scene.directory).filter((name) => name.startsWith("app.db")), ["app.db"]);
    await prove(scene, { logged: true });
  }));
