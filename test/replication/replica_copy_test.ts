/** Replicas where the runtime has no SQLite: a new file for each update, whole at every moment. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, writeFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import type { WalrustError } from "../../src/errors.ts";
import type { Runtime } from "../../src/runtime/types.ts";
import { Died, MortalRuntime } from "./mortal_runtime.ts";
import { ask, assertAt, catchUp, of, type ReplicaScene, runtime, seqOf, withSource } from "./replica_scene.ts";
import { booking, ledgerSchema, ledgerSum } from "./sqlite_source.ts";

const bare: Runtime = { ...runtime, sqlite: null };

async function begun({ source, local }: ReplicaScene): Promise<void> {
  await source.begin(ledgerSchema);
  await catchUp({ source, local }, { runtime: bare });
}

test("ReplicaCopy: every seq of the source in turn, with growth, shrink and a schema change; the start says how", async () => {
  // Without `clone` the file is copied by hand.
  for (const files of [bare.files, { ...bare.files, clone: undefined }]) {
    await withSource(async (scene) => {
      const { source, local } = scene;
      await begun(scene);
      const changes = [
        booking(1, 50_000),
        booking(2),
        "DELETE FROM debit WHERE id > 1; DELETE FROM credit WHERE id > 1; VACUUM",
        "CREATE TABLE more (id INTEGER PRIMARY KEY)",
        booking(3, 9000),
      ];
      for (const sql of changes) {
        await source.commit(sql);
        const events = await catchUp(scene, { runtime: { ...bare, files } });
        assert.match(of(events, "warning")[0].message, /no SQLite: each update is a new file/);
        assert.equal(of(events, "applied").length, 1);
        assertAt(source.writer, local, source.writer.seq);
      }
    });
  }
});

test("ReplicaCopy: who has the file open goes on seeing one whole state, and the new one when it opens it again", async () => {
  await withSource(async (scene) => {
    await begun(scene);
    const reader = new DatabaseSync(scene.local);
    const rows = (database: DatabaseSync): unknown => database.prepare("SELECT count(*) AS n FROM debit").get()!.n;
    for (let n = 1; n <= 5; n++) {
      await scene.source.commit(booking(n, 5000));
      await catchUp(scene, { runtime: bare });
      assert.equal(rows(reader), 1);
      assert.equal(reader.prepare(ledgerSum).get()!.n, 0);
      assert.equal(ask(scene.local, "SELECT count(*) AS n FROM debit").n, n + 1);
    }
    reader.close();
  });
});

test("ReplicaCopy: killed at every step the file is whole, at a point of the source, and the next run goes on", async () => {
  let deaths = 0;
  await withSource(async (scene) => {
    await begun(scene);
    for (let deadly = 1, isAlive = false; !isAlive; deadly++) {
      await scene.source.commit(booking(deadly, 3000));
      const before = seqOf(scene.source.writer, scene.local);
      const mortal = new MortalRuntime(bare, deadly);
      isAlive = await catchUp(scene, { runtime: mortal.runtime }).then(() => true, (error) => {
        if (!(error instanceof Died)) throw error;
        return false;
      });
      mortal.bury();
      if (isAlive) continue;
      deaths++;
      const after = seqOf(scene.source.writer, scene.local);
      assert.ok(after !== null && after >= before!, `step ${deadly}: ${mortal.names.at(-1)}`);
      await catchUp(scene, { runtime: bare });
      assertAt(scene.source.writer, scene.local, scene.source.writer.seq);
    }
    assert.ok(deaths >= 8, `${deaths} deaths`);
    const left = readdirSync(scene.folder).filter((name) => /replica-(next|staged)/.test(name));
    assert.deepEqual(left, [], "nothing is left behind");
  });
});

test("ReplicaCopy: what others wrote is refused, and with SQLite the same replica is gone on with", async () => {
  await withSource(async (scene) => {
    await begun(scene);
    await scene.source.commit(booking(1));
    writeFileSync(`${scene.local}-journal`, "of a program that was killed");
    const refusal = async (): Promise<string> =>
      await catchUp(scene, { runtime: bare }).then(() => "", (error) => (error as WalrustError).code);
    assert.equal(await refusal(), "replica_changed");
    writeFileSync(`${scene.local}-journal`, "");
    assert.ok(existsSync(`${scene.local}-journal`));
    runtime.files.remove(`${scene.local}-journal`);
    await catchUp(scene);
    assertAt(scene.source.writer, scene.local, scene.source.writer.seq);
    const writer = new DatabaseSync(scene.local);
    writer.exec("INSERT INTO credit(amount) VALUES (1)");
    writer.close();
    await scene.source.commit(booking(2));
    assert.equal(await refusal(), "replica_changed");
  });
});
