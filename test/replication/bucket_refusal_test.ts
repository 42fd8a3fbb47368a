import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { test } from "node:test";
import { StorageError } from "../../src/errors.ts";
import { wrapStore } from "../../src/storage/wrap.ts";
import { Scene, turn } from "./engine_scene.ts";

test("[S51] DatabaseEngine: a bucket that refuses us or is gone mid-run is told apart, and the spool takes over", {
  timeout: 60_000,
}, async () => {
  for (const [code, status] of [["AccessDenied", 403], ["NoSuchBucket", 404]] as const) {
    const scene = new Scene({ minCheckpointPages: 5, walTruncateThresholdPages: 50 });
    let refuses = false;
    const answer = (): Promise<never> => Promise.reject(new StorageError(code, `${status} ${code}`, { status }));
    scene.start((store) =>
      wrapStore(store, {
        put: (key, body, options) => refuses ? answer() : store.put(key, body, options),
        get: (key, options) => refuses ? answer() : store.get(key, options),
      })
    );
    await scene.sync();
    refuses = true;
    for (let i = 0; i < 40; i++) {
      scene.commit(8);
      scene.clock.skip(1000);
      for (let n = 0; n < 3; n++) {
        await scene.engine.step();
        await turn();
      }
    }
    const [{ error }] = scene.of("sync_failed");
    assert.equal((error as StorageError).code, code);
    assert.ok(scene.of("rollover").length > 0, "the WAL is rolled over");
    assert.ok(readdirSync(`${scene.state}/spool`).length > 2, "what was sealed is on disk");
    assert.equal(scene.of("delta").length, 0);
    refuses = false;
    scene.clock.skip(60_000);
    for (let i = 0; i < 3; i++) await scene.sync();
    assert.ok(scene.of("delta").length > 2, "caught up");
    assert.equal((await scene.lineages()).length, 1);
    await scene.prove();
  }
});
