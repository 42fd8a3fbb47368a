import assert from "node:assert/strict";
import { test } from "node:test";
import { watch, type WatchEvent } from "../../src/daemon/watch.ts";
import { exitCodeOf } from "../../src/errors.ts";
import type { Runtime } from "../../src/runtime/types.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { Scene, system, turn, watchOptionsOf } from "../replication/engine_scene.ts";

/** A bucket that stops answering, as a firewall that drops packets. */
class SilentStore extends MemoryStore {
  silent = false;

  override put(...[key, body, options]: Parameters<MemoryStore["put"]>): Promise<{ etag: string }> {
    if (!this.silent) return super.put(key, body, options);
    return new Promise((_, reject) => {
      options!.signal!.addEventListener("abort", () => reject(options!.signal!.reason), { once: true });
    });
  }
}

test("watch: a final sync that cannot be finished ends after its limit, what is left waits in the WAL", {
  timeout: 30_000,
}, async () => {
  const scene = new Scene();
  const store = new SilentStore();
  const runtime: Runtime = { ...system, clock: scene.clock };
  const stop = new AbortController();
  const events: WatchEvent[] = [];
  const call = {
    databases: [{ path: scene.path }],
    store,
    prefix: "",
    runtime,
    options: watchOptionsOf(scene),
    onEvent: (event: WatchEvent) => void events.push(event),
  };
  const watching = watch({ ...call, signal: stop.signal });
  while (!events.some(({ kind }) => kind === "snapshot")) await turn(5);
  store.silent = true;
  scene.commit(3);
  stop.abort();
  await turn(100);
  assert.equal(events.at(-1)!.kind === "stopped", false, "it has its time");
  scene.clock.skip(30_000);
  const { failures } = await watching;
  assert.equal(exitCodeOf(failures[0]?.error), 4);
  assert.match(String(failures[0]?.error), /ends at seq \d+: 1 changeset kept in .*\.walrust-app\.db\/spool/);
  assert.deepEqual(events.slice(-2).map(({ kind }) => kind), ["stopped", "failed"]);
  store.silent = false;
  const again = new AbortController();
  const resuming = watch({ ...call, signal: again.signal });
  const head = events.length;
  while (!events.slice(head).some(({ kind }) => kind === "difference" || kind === "delta")) await turn(5);
  again.abort();
  await resuming;
  assert.equal(events.filter(({ kind }) => kind === "new_lineage").length, 0, "the lineage goes on");
  scene.app.close();
});

test("watch: options of one database count for it alone", { timeout: 30_000 }, async () => {
  const scene = new Scene();
  const stop = new AbortController();
  const events: WatchEvent[] = [];
  const options = watchOptionsOf(scene);
  const absent = (name: string): string => `${scene.directory}/${name}.db`;
  const watching = watch({
    databases: [
      { path: absent("refused") },
      { path: absent("awaited"), options: { ...options, waitForDatabase: true } },
      { path: scene.path, options: { ...options, stateDirectory: `${scene.directory}/elsewhere` } },
    ],
    store: scene.store,
    prefix: "",
    runtime: { ...system, clock: scene.clock },
    options,
    onEvent: (event) => void events.push(event),
    signal: stop.signal,
  });
  const of = (kind: string): string[] => events.filter((event) => event.kind === kind).map(({ path }) => path);
  while (of("snapshot").length < 1 || of("waiting").length < 1) await turn(5);
  stop.abort();
  const { failures } = await watching;
  assert.deepEqual(failures.map(({ path }) => path), [absent("refused")]);
  assert.deepEqual(of("waiting"), [absent("awaited")]);
  assert.deepEqual(of("stopped"), [scene.path]);
  const names = system.files.list(`${scene.directory}/elsewhere`).map(({ name }) => name);
  assert.match(names.join(), /^app\.db-[0-9a-f]{12}$/);
  assert.equal(system.files.stat(`${scene.state}/journal`), null);
  scene.app.close();
});
