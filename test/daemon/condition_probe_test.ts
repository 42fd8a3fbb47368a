import assert from "node:assert/strict";
import { test } from "node:test";
import { watch, type WatchEvent } from "../../src/daemon/watch.ts";
import { parseLineage } from "../../src/format/documents.ts";
import type { PutOptions } from "../../src/storage/object_store.ts";
import { getBytes } from "../../src/storage/object_store.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { Scene, system, turn, watchOptionsOf } from "../replication/engine_scene.ts";

/** A store that takes every write, whatever its conditions, where they are of these kinds. */
class CarelessStore extends MemoryStore {
  readonly #ignored: readonly (keyof PutOptions)[];

  constructor(ignored: readonly (keyof PutOptions)[]) {
    super();
    this.#ignored = ignored;
  }

  override put(key: string, body: Uint8Array, options: PutOptions = {}): Promise<{ etag: string }> {
    const kept = { ...options };
    for (const name of this.#ignored) delete kept[name];
    return super.put(key, body, kept);
  }
}

test("[S63] watch: a bucket that ignores the conditions of writes is found at the start, and told once", {
  timeout: 30_000,
}, async () => {
  for (
    const [ignored, told] of [
      [[], []],
      [["ifAbsent"], ["If-None-Match"]],
      [["ifMatch"], ["If-Match"]],
      [["ifAbsent", "ifMatch"], ["If-None-Match", "If-Match"]],
    ] as const
  ) {
    const scenes = [new Scene(), new Scene()];
    const store = new CarelessStore(ignored);
    const stop = new AbortController();
    const events: WatchEvent[] = [];
    const watching = watch({
      // Once, also where each database has options of its own.
      databases: scenes.map((scene, i) => ({ path: scene.path, prefix: `app${i}`, options: watchOptionsOf(scene) })),
      store,
      prefix: "",
      runtime: { ...system, clock: scenes[0].clock },
      options: watchOptionsOf(scenes[0]),
      onEvent: (event) => void events.push(event),
      signal: stop.signal,
    });
    const of = (kind: string): WatchEvent[] => events.filter((event) => event.kind === kind);
    while (of("snapshot").length < 2 || of("conditions_ignored").length < Math.min(1, told.length)) await turn(5);
    stop.abort();
    assert.deepEqual((await watching).failures, []);
    assert.deepEqual(
      of("conditions_ignored").map((event) => event.kind === "conditions_ignored" && event.ignored),
      told.length === 0 ? [] : [told],
    );
    for (const [i, scene] of scenes.entries()) {
      const [lineage] = await store.listDirectories(`app${i}/lineages/`);
      const key = `app${i}/lineages/${lineage.replace(/\/$/, "").split("/").at(-1)}/lineage.json`;
      const { bytes } = await getBytes(store, key, 4096);
      assert.equal(parseLineage(bytes, key).pageSize, 4096, "the document is what it was");
      scene.app.close();
    }
  }
});
