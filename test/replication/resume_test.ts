import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { copyFileSync, existsSync, readdirSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { StorageError } from "../../src/errors.ts";
import { PageIndex } from "../../src/replication/page_index.ts";
import type { Files } from "../../src/runtime/types.ts";
import { getBytes, type ObjectStore } from "../../src/storage/object_store.ts";
import { wrapStore } from "../../src/storage/wrap.ts";
import { Crash, Scene, system } from "./engine_scene.ts";

const timeout = 60_000;

function busyScene(): Scene {
  return new Scene({
    minCheckpointPages: 5,
    checkpointIntervalMs: 1000,
    walTruncateThresholdPages: 120,
    snapshotIntervalMs: 4000,
  });
}

/** Commits, rollovers, barriers and snapshots, until done or killed. */
async function work(scene: Scene): Promise<void> {
  try {
    for (let i = 0; i < 7; i++) {
      scene.commit(i === 4 ? 90 : 6);
      if (i === 5) scene.app.exec("DELETE FROM rows WHERE id % 2 = 0; VACUUM");
      await scene.sync();
    }
    await scene.engine.stop(5000);
  } catch (error) {
    if (scene.life.alive && !(error instanceof Crash)) throw error;
  }
}

test(
  "[SC] [S110] [S111] DatabaseEngine: killed at every kind of step, with checkpoints while down, resumes in its lineage",
  {
    timeout,
  },
  async () => {
    const whole = busyScene();
    let operations = 0;
    whole.start();
    whole.life.onOperation = () => operations++;
    await work(whole);
    const killedAt = new Set<string>();
    for (let kill = 1; kill <= operations; kill++) {
      const scene = busyScene();
      scene.start();
      const { life } = scene;
      let count = 0;
      life.onOperation = (name, target) => {
        if (++count !== kill) return;
        killedAt.add(`${name} ${target.replace(/^.*\//, "").replace(/[0-9a-f]{16,}/g, "…")}`);
        life.crash();
      };
      await work(scene);
      if (life.alive) continue;
      const objects = new Map<string, Uint8Array>();
      for (const key of await scene.objects()) objects.set(key, await bytesOf(scene.store, key));
      // Before the first journal there is nothing to resume from.
      const complete = existsSync(`${scene.engine.directory}/journal`);
      if (kill % 2 === 1) scene.app.exec("PRAGMA wal_checkpoint(TRUNCATE)");
      scene.commit(3);
      scene.start();
      const note = `killed at operation ${kill}`;
      await scene.sync();
      scene.commit(2);
      await scene.sync();
      if (complete) assert.equal((await scene.lineages()).length, 1, note);
      for (const [key, bytes] of objects) {
        assert.ok(Buffer.compare(await bytesOf(scene.store, key), bytes) === 0, `${note}: ${key} changed`);
      }
      await scene.prove().catch((error) => assert.fail(`${note}: ${error}`));
    }
    assert.ok(killedAt.size > 20, [...killedAt].join("\n"));
  },
);

async function bytesOf(store: ObjectStore, key: string): Promise<Uint8Array> {
  return (await getBytes(store, key, 1 << 26)).bytes;
}

/** Kills walrust while its first delta is on its way; the answer lets it arrive after all. */
async function crashInFlight(scene: Scene): Promise<() => Promise<unknown>> {
  let land: (() => Promise<unknown>) | null = null;
  scene.start((store) =>
    wrapStore(store, {
      put(key, body, options) {
        if (!key.includes("/0000/")) return store.put(key, body, options);
        const sent = body.slice();
        land = () => scene.store.put(key, sent, { ifAbsent: true });
        return new Promise(() => {});
      },
    })
  );
  await scene.sync();
  scene.commit(3);
  scene.clock.skip(1000);
  await scene.engine.step();
  scene.life.crash();
  return land ?? assert.fail("no delta was sent");
}

test(
  "[S113] DatabaseEngine: a PUT in flight at the crash lands after the restart's LIST; no fork",
  { timeout },
  async () => {
    const scene = new Scene();
    const land = await crashInFlight(scene);
    scene.commit(3);
    let landed = 0;
    scene.start((store) =>
      wrapStore(store, {
        async put(key, body, options) {
          if (key.endsWith(".hadbp") && landed++ === 0) await land();
          return await store.put(key, body, options);
        },
      })
    );
    await scene.sync();
    scene.clock.skip(10_000);
    await scene.sync();
    assert.ok(landed >= 2, "the first PUT met it, the second came after the difference");
    assert.equal((await scene.lineages()).length, 1);
    await scene.prove();
  },
);

test("[S113] DatabaseEngine: a PUT of an earlier process lands after its place was sealed again and spooled", {
  timeout,
}, async () => {
  for (const checkpoint of [false, true]) {
    const scene = new Scene();
    const land = await crashInFlight(scene);
    const failing = (store: ObjectStore): ObjectStore =>
      wrapStore(store, {
        put: () => Promise.reject(new StorageError("ServiceUnavailable", "503", { retryable: true })),
      });
    scene.app.exec("UPDATE rows SET data = randomblob(1000) WHERE id = 7");
    scene.start(failing);
    for (let i = 0; i < 3; i++) await scene.engine.step();
    await scene.engine.stop(0);
    const spooled = (): number => readdirSync(`${scene.engine.directory}/spool`).length;
    assert.equal(spooled(), 1, "what could not be sent is in the spool");
    if (checkpoint) scene.app.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    scene.start(failing);
    for (let i = 0; i < 3; i++) await scene.engine.step();
    scene.life.crash();

    await land();
    scene.start();
    await scene.sync();
    assert.match(scene.of("difference").at(-1)!.reason, /took the place of 1 sealed before/);
    assert.equal(spooled(), 0);
    assert.equal((await scene.lineages()).length, 1);
    await scene.prove();
  }
});

test(
  "DatabaseEngine: a restart lists only what is behind its journal, however long the history",
  { timeout },
  async () => {
    const scene = new Scene();
    scene.start();
    for (let i = 0; i < 6; i++) {
      scene.commit();
      await scene.sync();
    }
    await scene.engine.stop(5000);
    const listed: string[] = [];
    scene.start((store) =>
      wrapStore(store, {
        async *list(prefix, options) {
          for await (const info of store.list(prefix, options)) {
            if (info.key.endsWith(".hadbp")) listed.push(info.key);
            yield info;
          }
        },
      })
    );
    await scene.sync();
    const last = (await scene.objects()).filter((key) => key.includes("/0000/")).at(-1);
    assert.deepEqual(listed, [last], "the head itself is looked at: is it what we published?");
    await scene.prove();
  },
);

test("[S65] DatabaseEngine: other bytes under our next seq end it as fenced", { timeout }, async () => {
  const scene = new Scene();
  scene.start();
  await scene.sync();
  scene.commit();
  await scene.sync();
  const last = (await scene.objects()).filter((key) => key.includes("/0000/")).at(-1)!;
  const next = last.replace(
    /[0-9a-f]{16}(?=\.hadbp$)/,
    (hex) => (BigInt(`0x${hex}`) + 1n).toString(16).padStart(16, "0"),
  );
  await scene.store.put(next, new Uint8Array(200));
  scene.commit();
  await assert.rejects(async () => {
    await scene.sync();
    await scene.sync();
  }, { code: "fenced", exitCode: 5 });
  assert.equal(scene.life.openHandles, 0);
});

test("[S25] [S112] DatabaseEngine: a database that went back behind what was published is what is restored", {
  timeout,
}, async () => {
  const scene = new Scene();
  scene.start();
  await scene.sync();
  await scene.engine.stop(5000);
  scene.app.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  scene.app.close();
  copyFileSync(scene.path, `${scene.directory}/before`);
  scene.connect();
  scene.start();
  scene.commit(30);
  await scene.sync();
  await scene.engine.stop(5000);
  scene.app.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  scene.app.close();
  for (const suffix of ["-wal", "-shm"]) rmSync(scene.path + suffix, { force: true });
  writeFileSync(scene.path, readFileSync(`${scene.directory}/before`));
  scene.connect();
  scene.start();
  await scene.sync();
  assert.equal((await scene.lineages()).length, 1);
  await scene.prove();
});

/** The same files, where the machine calls itself by another name. */
function onAnotherMachine({ directory, life }: Scene): Partial<Files> {
  const name = `${directory}/machine-id`;
  writeFileSync(name, "another\n");
  const seen = (path: string): string => path === "/etc/machine-id" ? name : path;
  return {
    stat: (path) => life.files.stat(seen(path)),
    open: (path, mode) => life.files.open(seen(path), mode),
  };
}

test("[S43] [S44] DatabaseEngine: journal garbage, index lost, other machine: a new lineage, never our old seqs", {
  timeout,
}, async () => {
  const damages: ((directory: string) => void)[] = [
    (directory) => truncateSync(`${directory}/journal`, 40),
    (directory) => writeFileSync(`${directory}/journal`, "garbage"),
    (directory) => rmSync(`${directory}/journal`),
    (directory) => rmSync(`${directory}/pages.idx`),
    (directory) => truncateSync(`${directory}/pages.idx`, 10),
    (directory) => rmSync(directory, { recursive: true }),
    () => {},
  ];
  for (const damage of damages) {
    const scene = new Scene();
    scene.start();
    await scene.sync();
    scene.commit(2);
    await scene.sync();
    await scene.engine.stop(5000);
    damage(scene.engine.directory);
    scene.commit(2);
    scene.start(undefined, damage === damages.at(-1) ? onAnotherMachine(scene) : {});
    await scene.sync();
    assert.equal((await scene.lineages()).length, 2, String(damage));
    await scene.prove();
  }
});

test("[S61] resumeLineage: an object that vanishes between its listing and its reading begins a new lineage", {
  timeout,
}, async () => {
  const scene = new Scene();
  scene.start();
  await scene.sync();
  for (let i = 0; i < 3; i++) {
    scene.commit(2);
    await scene.sync();
  }
  // Killed before the journal knew of the deltas: the next start reads them.
  scene.life.crash();
  const gone = (await scene.objects()).filter((key) => key.includes("/0000/")).at(-1)!;
  scene.start((store) =>
    wrapStore(store, {
      async get(key, options) {
        if (key === gone) await store.deleteMany([key]);
        return await store.get(key, options);
      },
    })
  );
  await scene.sync();
  assert.match(scene.of("new_lineage").at(-1)!.reason, /vanished from the bucket while it was read/);
  assert.equal((await scene.lineages()).length, 2);
  await scene.prove();
});

/** A crash after some deltas; `saved` is the index as it was when the journal was last written. */
async function crashedBehind(): Promise<{ scene: Scene; index: string; saved: Uint8Array }> {
  const scene = new Scene();
  scene.start();
  await scene.sync();
  const index = `${scene.engine.directory}/pages.idx`;
  const saved = readFileSync(index);
  for (let i = 0; i < 4; i++) {
    scene.commit(10);
    await scene.sync();
  }
  scene.life.crash();
  return { scene, index, saved };
}

test("[S111] resumeLineage: an index whose unsynced entries were lost or torn skips no page", { timeout }, async () => {
  for (const cut of [0, 3, 60, 100]) {
    const { scene, index, saved } = await crashedBehind();
    writeFileSync(index, saved);
    if (cut > 0) writeFileSync(index, readFileSync(index).subarray(0, saved.length - (cut % 8)));
    scene.app.exec("DELETE FROM rows WHERE id % 4 = 0");
    scene.start();
    await scene.sync();
    assert.equal((await scene.lineages()).length, 1);
    await scene.prove();
  }
});

test("[S111] resumeLineage: canary, an index ahead of what is published loses pages, and the proof sees it", {
  timeout,
}, async () => {
  const { scene, index } = await crashedBehind();
  scene.app.exec("UPDATE rows SET data = randomblob(900) WHERE id % 3 = 0; PRAGMA wal_checkpoint(TRUNCATE)");
  const { lineage } = scene.of("started")[0];
  const ahead = PageIndex.open(system.files, index, lineage, system.sha256)!;
  scene.app.close();
  const file = readFileSync(scene.path);
  const entry = new Uint8Array(8);
  for (let page = 0; page < file.length / 4096; page++) {
    ahead.hashPage(file.subarray(page * 4096, (page + 1) * 4096), entry, 0);
    ahead.writeRun(page + 1, entry);
  }
  ahead.close();
  scene.connect();
  scene.start();
  await scene.sync();
  await assert.rejects(scene.prove());
});
