/** Databases with names that a URI, a shell or a bucket would read as something else. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { databaseName } from "../../src/format/keys.ts";
import { walrustCommand } from "../support/runtime.ts";
import { assertSameFile, checkpointSource } from "./checker.ts";
import { insertRows, openWithRows } from "./rows_table.ts";
import { eagerFlags, inScene, WatchProcess } from "./watch_process.ts";

const names = [
  "with space.db",
  "100%.db",
  "50%25.db",
  "what?.db",
  "mode=ro?mode=rwc&.db",
  "a#b.db",
  "a+b&c=d.db",
  "naïve 日本 🦭.db",
  "no_extension",
  "data.sqlite",
  "v1.2.db",
  "file:odd.db",
  "'quoted' \"twice\".db",
  "-dash.db",
];

test(
  "[S90] watch, restore: odd names are names, and the WAL beside them is <file>-wal",
  { timeout: 120_000 },
  () =>
    inScene(async (scene) => {
      const paths = names.map((name) => scene.path(name));
      const applications = [];
      for (const path of paths) applications.push(await openWithRows(scene, 3, path));
      const words = ["watch", ...paths, "-b", scene.bucketUrl, "--json", ...eagerFlags];
      const watch = scene.start(new WatchProcess([...walrustCommand(), ...words]));
      await watch.alive("every first snapshot", () => watch.of("snapshot").length === names.length);
      for (const [i, application] of applications.entries()) {
        await application.run(insertRows(i + 2));
        await application.quit();
      }
      await watch.alive("every delta", () => new Set(watch.of("delta").map(({ path }) => path)).size === names.length);
      await watch.stop();
      assert.deepEqual(watch.of("failed"), []);
      for (const [i, path] of paths.entries()) {
        checkpointSource(path);
        // By the name in the bucket and by the file's, in turns.
        const given = i % 2 === 0 ? databaseName(path) : names[i];
        const output = scene.path(`restored ${i}`);
        const run = await scene.walrust("restore", "-o", output, "-b", scene.bucketUrl, "--", given);
        assert.equal(run.ending?.code, 0, `${given}: ${run.stderr}`);
        assertSameFile(output, path, given);
      }
    }),
);
