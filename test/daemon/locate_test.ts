import assert from "node:assert/strict";
import { linkSync, symlinkSync } from "node:fs";
import { test } from "node:test";
import { locateDatabase, namesOf } from "../../src/daemon/locate.ts";
import { watch, type WatchEvent } from "../../src/daemon/watch.ts";
import type { Files } from "../../src/runtime/types.ts";
import { Scene, system, turn, watchOptionsOf } from "../replication/engine_scene.ts";

const how = { mode: "auto", isShared: false } as const;

test("locateDatabase: a file that is worked on is refused by any name, and not opened", () => {
  const scene = new Scene();
  const [hard, soft] = [`${scene.directory}/hard.db`, `${scene.directory}/soft.db`];
  linkSync(scene.path, hard);
  symlinkSync(scene.path, soft);
  const opened: string[] = [];
  const files: Files = {
    ...system.files,
    open: (path, mode) => {
      opened.push(path);
      return system.files.open(path, mode);
    },
  };
  const taken = new Set(namesOf(files, scene.path));
  for (const path of [scene.path, hard, soft]) {
    assert.throws(() => locateDatabase(files, path, { ...how, taken }), { code: "same_database", exitCode: 2 }, path);
  }
  assert.deepEqual(opened, [], "whoever closes a descriptor drops the locks of the file");
  scene.app.close();
  assert.equal(locateDatabase(files, hard, how).real, hard, "canary: without somebody who works on it, it is opened");
  assert.deepEqual(opened, [hard]);
});

test("watch: of two hard links to one database the second is refused, the first goes on", {
  timeout: 30_000,
}, async () => {
  const scene = new Scene();
  const hard = `${scene.directory}/hard.db`;
  linkSync(scene.path, hard);
  const stop = new AbortController();
  const events: WatchEvent[] = [];
  const watching = watch({
    databases: [{ path: scene.path }, { path: hard }],
    store: scene.store,
    prefix: "",
    runtime: { ...system, clock: scene.clock },
    options: watchOptionsOf(scene),
    onEvent: (event) => void events.push(event),
    signal: stop.signal,
  });
  while (!events.some(({ kind }) => kind === "snapshot")) await turn(5);
  stop.abort();
  const { failures } = await watching;
  assert.deepEqual(failures.map(({ path, error }) => [path, (error as { code: string }).code]), [[
    hard,
    "same_database",
  ]]);
  scene.app.close();
});
