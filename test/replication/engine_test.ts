import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { existsSync, readdirSync, renameSync, rmSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { DatabaseError, StorageError } from "../../src/errors.ts";
import { seqHex } from "../../src/format/keys.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";
import { objectInMemoryMax } from "../../src/replication/sealed.ts";
import { wrapStore } from "../../src/storage/wrap.ts";
import { Scene, turn } from "./engine_scene.ts";
import { appendPhantom } from "./phantom.ts";

const timeout = 30_000;

const outage = (): StorageError => new StorageError("ServiceUnavailable", "503", { retryable: true });

test(
  "DatabaseEngine: commits become deltas, rollovers restart the WAL, latest is the source",
  { timeout },
  async () => {
    const scene = new Scene({ minCheckpointPages: 20, checkpointIntervalMs: 1000 });
    scene.start();
    for (let i = 0; i < 30; i++) {
      scene.commit(10);
      if (i % 7 === 3) scene.app.exec("DELETE FROM rows WHERE id % 3 = 0");
      await scene.sync();
    }
    scene.app.exec("VACUUM");
    await scene.sync();
    assert.ok(scene.of("rollover").length > 5, "rollovers happened");
    assert.equal((await scene.lineages()).length, 1);
    await scene.prove();
  },
);

test("DatabaseEngine: canary, a byte changed on its way to the bucket is noticed", { timeout }, async () => {
  const scene = new Scene();
  scene.start((store) =>
    wrapStore(store, {
      put: (key, body, options) => {
        const sent = body.slice();
        if (key.endsWith(".hadbp") && sent.length > 4096) sent[2000] ^= 1;
        return store.put(key, sent, options);
      },
    })
  );
  await scene.sync();
  scene.commit(5);
  await scene.sync();
  await assert.rejects(scene.prove());
});

test("[S36] [S121] DatabaseEngine: idle holds and asks for nothing; a visit between two polls is noticed", {
  timeout,
}, async () => {
  const scene = new Scene();
  const requests: string[] = [];
  scene.start();
  for (let i = 0; i < 5; i++) await scene.sync();
  assert.equal(scene.life.openHandles, 1, "nothing but the page index is open");
  scene.life.onOperation = (name, target) => requests.push(`${name} ${target}`);
  for (let i = 0; i < 20; i++) await scene.sync();
  assert.deepEqual(requests, []);
  scene.clock.skip(120_000);
  await scene.sync();
  assert.deepEqual(
    requests.filter((text) => /^(put|get|list|head|write|sync) /.test(text)),
    [],
    "a full look changes nothing",
  );
  await turn(20);
  scene.connect();
  scene.commit(3);
  scene.app.close();
  await scene.sync();
  assert.equal(scene.of("difference").length, 1);
  scene.connect();
  scene.commit();
  await scene.prove();
});

test("[S32] DatabaseEngine: a replaced file goes on in the same lineage, another page size begins a new one", {
  timeout,
}, async () => {
  for (
    const [pageSize, lineages, idle] of [[4096, 1, false], [4096, 1, true], [8192, 2, false], [8192, 2, true]] as const
  ) {
    const scene = new Scene();
    scene.start();
    for (let i = 0; i < (idle ? 5 : 1); i++) await scene.sync();
    if (!idle) scene.commit(1);
    if (!idle) await scene.sync();
    const other = `${scene.directory}/other.db`;
    const copy = new DatabaseSync(other);
    copy.exec(
      `PRAGMA page_size = ${pageSize}; PRAGMA journal_mode = WAL; CREATE TABLE rows (id INTEGER PRIMARY KEY, data BLOB);
      INSERT INTO rows (data) VALUES (randomblob(90000))`,
    );
    copy.close();
    scene.app.close();
    for (const suffix of ["-wal", "-shm"]) rmSync(scene.path + suffix, { force: true });
    renameSync(other, scene.path);
    for (let i = 0; i < 3; i++) await scene.sync();
    scene.connect();
    scene.commit(2);
    await scene.sync();
    assert.equal(scene.of("database_replaced").length, pageSize === 4096 || !idle ? 1 : 0, "said so");
    assert.equal((await scene.lineages()).length, lineages);
    await scene.prove();
  }
});

test("[S31] DatabaseEngine: journal_mode DELETE while idle is waited out, then a difference", { timeout }, async () => {
  const scene = new Scene();
  scene.start();
  for (let i = 0; i < 5; i++) await scene.sync();
  scene.app.exec("PRAGMA journal_mode = DELETE");
  scene.commit(5);
  await scene.sync();
  await scene.sync();
  assert.equal(scene.of("waiting").length, 1, "said once");
  scene.app.exec("PRAGMA journal_mode = WAL");
  scene.commit(5);
  await scene.sync();
  assert.equal(scene.of("difference").length, 1);
  await scene.prove();
});

test("DatabaseEngine: asked to wait it waits for WAL mode and for a lock, and says for what", { timeout }, async () => {
  const scene = new Scene({ waitForDatabase: true });
  scene.app.exec("PRAGMA journal_mode = DELETE");
  scene.start();
  await scene.sync();
  await scene.sync();
  scene.app.exec("PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = WAL");
  scene.commit();
  await scene.sync();
  assert.deepEqual(scene.of("waiting").map(({ reason, trouble }) => [reason.replace(/^.*app\.db is /, ""), trouble]), [
    ["not in WAL mode (it uses a rollback journal)", false],
    ["locked by another process", false],
  ]);
  scene.connect();
  scene.commit();
  await scene.sync();
  assert.equal(scene.of("started").length, 1);
  await scene.prove();
});

test("[S120] DatabaseEngine: as another user it waits for the application to make the WAL, and never makes it", {
  timeout,
}, async () => {
  const scene = new Scene();
  scene.app.close();
  assert.equal(existsSync(`${scene.path}-wal`), false);
  scene.start(undefined, { uid: 12345 });
  for (let i = 0; i < 3; i++) await scene.sync();
  assert.equal(scene.of("waiting").length, 1, "said once");
  assert.equal(existsSync(`${scene.path}-wal`), false, "left to the application");
  scene.connect();
  scene.commit(2);
  await scene.sync();
  scene.commit(2);
  await scene.sync();
  assert.equal(scene.of("snapshot").length, 1);
  await scene.prove();
});

test("[S42] DatabaseEngine: where a pin is asked for, without the right to write, it says whose right is needed", {
  timeout,
}, async () => {
  const scene = new Scene({ mode: "pin" });
  scene.start();
  scene.life.onOperation = (name, target) => {
    if (name === "open" && target === scene.path) throw Object.assign(new Error("EACCES"), { code: "EACCES" });
  };
  await assert.rejects(scene.engine.step(), (error) => {
    assert.ok(error instanceof DatabaseError);
    assert.equal(error.code, "not_writable");
    assert.match(error.hint ?? "", /as the user that owns the database/);
    return true;
  });
  assert.equal(scene.life.openHandles, 0);
});

test(
  "[S26] [S27] DatabaseEngine: a foreign reader stops rollovers, not deltas, and makes no hot loop",
  { timeout },
  async () => {
    const scene = new Scene({ minCheckpointPages: 5, checkpointIntervalMs: 1000, walTruncateThresholdPages: 60 });
    scene.start();
    await scene.sync();
    const reader = new DatabaseSync(scene.path, { readOnly: true });
    reader.exec("BEGIN");
    reader.prepare("SELECT count(*) FROM rows").get();
    let connects = 0;
    for (let i = 0; i < 40; i++) {
      scene.commit(5);
      scene.life.onOperation = (name) => connects += name === "connect" ? 1 : 0;
      await scene.sync();
    }
    assert.ok(connects <= 40 * 6, `${connects} connections for 40 intervals`);
    assert.equal(scene.of("rollover").length, 0);
    assert.ok(scene.of("delta").length >= 39);
    assert.equal(scene.of("wal_size_exceeded").length, 1);
    reader.close();
    for (let i = 0; i < 25; i++) {
      scene.commit(1);
      await scene.sync();
    }
    assert.ok(scene.of("rollover").length > 0, "rollovers come back");
    await scene.prove();
  },
);

test("[S24] DatabaseEngine: a commit at every single moment of a rollover is never lost", { timeout }, async () => {
  for (const [barrier, checkpoints] of [[false, false], [false, true], [true, false], [true, true]]) {
    // Beyond 16 × the barrier is due; below it a rollover waits for its interval.
    const scene = new Scene({ minCheckpointPages: barrier ? 1 : 4, checkpointIntervalMs: 1000 });
    scene.app.exec("PRAGMA busy_timeout = 0");
    scene.commit(4000);
    // By the wall clock the files are never old enough to be let go of: that would end in a difference that repairs all.
    scene.clock.now = () => Date.now();
    scene.start();
    await scene.sync();
    const ofKind = (): number => scene.of("rollover").filter((event) => event.barrier === barrier).length;
    let [moment, refused, row] = [0, 0, 0];
    const slipIn = (): void => {
      // A page that nobody writes again: its loss is not made good by a later commit.
      row += 8;
      const update = `UPDATE rows SET data = randomblob(1000) WHERE id =`;
      try {
        scene.app.exec(`${update} ${row}`);
        // Were nothing pinned, all of the log would be in the file now, and the next commit would overwrite it.
        if (checkpoints) scene.app.exec(`PRAGMA wal_checkpoint(PASSIVE); ${update} ${row + 4}`);
      } catch (error) {
        assert.match(String(error), /locked/);
        refused++;
      }
    };
    for (let left = -1; left < 0; moment++) {
      const before = ofKind();
      scene.commit(barrier ? 80 : 15);
      left = moment;
      // A writer that commits beside the first checkpoint makes the barrier necessary.
      let hurried = !barrier;
      let restarted = false;
      scene.life.onMoment = (call) => {
        scene.clock.skip(1);
        if (left-- === 0) slipIn();
        else if (!hurried && call === "checkpointPassive") {
          hurried = true;
          slipIn();
        } else if (!restarted && ofKind() > before) {
          // The next commit restarts the WAL: what is not taken by now would be overwritten.
          restarted = true;
          slipIn();
        }
      };
      for (let i = 0; i < 6 && ofKind() === before; i++) await scene.sync();
      assert.ok(ofKind() > before, `no rollover after a commit at moment ${moment}`);
      scene.life.onMoment = () => {};
    }
    assert.ok(moment > 20 && row < 4000, `${moment} moments`);
    assert.equal(refused > 0, barrier, `${refused} commits met the barrier`);
    assert.equal(scene.of("difference").length, 0, "nothing had to be repaired");
    await scene.prove();
  }
});

test(
  "[S118] [S121] DatabaseEngine: a commit at every single moment of a wake-up is never lost",
  { timeout },
  async () => {
    let moment = 0;
    for (let left = -1; left < 0; moment++) {
      const scene = new Scene();
      scene.start();
      for (let i = 0; i < 5; i++) await scene.sync();
      assert.equal(scene.life.openHandles, 1, "nothing but the page index is open");
      // All of the log is in the file: the next commit may restart it and overwrite what nobody has taken yet.
      scene.app.exec("UPDATE rows SET data = randomblob(1000) WHERE id = 3; PRAGMA wal_checkpoint(PASSIVE)");
      left = moment;
      scene.life.onMoment = () => {
        if (left-- === 0) scene.app.exec("UPDATE rows SET data = randomblob(1000) WHERE id = 17");
      };
      await scene.sync();
      scene.life.onMoment = () => {};
      await scene.sync();
      await scene.prove().catch((error) => assert.fail(`a commit at moment ${moment}: ${error}`));
    }
    assert.ok(moment > 10, `${moment} moments`);
  },
);

test("[S22] DatabaseEngine: a log restarted behind an idle database and just as long as before is another log", {
  timeout,
}, async () => {
  const scene = new Scene();
  const update = (id: number): void => scene.app.exec(`UPDATE rows SET data = randomblob(1000) WHERE id = ${id}`);
  scene.app.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  update(1);
  scene.start();
  for (let i = 0; i < 5; i++) await scene.sync();
  assert.equal(scene.life.openHandles, 1, "nothing but the page index is open");
  update(3);
  scene.app.exec("PRAGMA wal_checkpoint(PASSIVE)");
  update(17);
  const { log } = scene.app.prepare("PRAGMA wal_checkpoint(NOOP)").get() as { log: number };
  assert.equal(log, 1, "one frame, as when it was let go of");
  await scene.sync();
  await scene.prove();
});

test("[S107] DatabaseEngine: while a snapshot's upload hangs, and after it failed, every point restores", {
  timeout,
}, async () => {
  const scene = new Scene({ snapshotIntervalMs: 1000 });
  let held = 0;
  let fail: (error: Error) => void = () => {};
  scene.start((store) =>
    wrapStore(store, {
      async putStream(key, chunks, options) {
        if (scene.of("snapshot").length === 0) return await store.putStream(key, chunks, options);
        held++;
        return await new Promise((_, reject) => {
          fail = reject;
          options?.signal?.addEventListener("abort", () => reject(outage()));
        });
      },
    })
  );
  const rowsOf = (database: DatabaseSync): string =>
    JSON.stringify(database.prepare("SELECT id, hex(data) AS data FROM rows ORDER BY id").all());
  const expected = new Map<bigint, string>();
  const go = async (): Promise<void> => {
    scene.commit(2);
    scene.clock.skip(1000);
    const before = scene.of("delta").length;
    // A snapshot that hangs keeps the engine busy.
    for (let i = 0; i < 8 || scene.of("delta").length === before; i++) {
      await scene.engine.step();
      await turn();
    }
    expected.set(scene.of("delta").at(-1)!.seq, rowsOf(scene.app));
  };
  const proveAll = async (): Promise<void> => {
    for (const [seq, rows] of [...expected, [undefined, rowsOf(scene.app)] as const]) {
      const path = `${scene.directory}/point.db`;
      writeFileSync(path, await scene.restored(seq));
      const point = new DatabaseSync(path, { readOnly: true });
      assert.equal(rowsOf(point), rows, `seq ${seq ?? "latest"}`);
      point.close();
    }
  };
  await scene.sync();
  for (let i = 0; i < 6; i++) await go();
  assert.equal(held, 1, "one snapshot hangs");
  assert.ok(scene.of("bridge").length === 1 && expected.size === 6, "deltas flow on behind its bridge");
  await proveAll();
  fail(outage());
  await turn();
  for (let i = 0; i < 3; i++) await go();
  assert.equal(scene.of("sync_failed").length, 1);
  await proveAll();
  await scene.prove();
});

test("[S29] DatabaseEngine: a slow snapshot beside commits and checkpoints is exactly its seq", {
  timeout: 120_000,
}, async () => {
  const scene = new Scene({ minCheckpointPages: 10, snapshotIntervalMs: 1000 });
  // Too large to be copied: it is read from file and WAL while the application goes on.
  scene.commit(17_000, 4000);
  let parts = 0;
  scene.start((store) =>
    wrapStore(store, {
      putStream: (key, chunks, options) => {
        async function* slowly(): AsyncGenerator<Uint8Array> {
          for await (const chunk of chunks) {
            yield chunk;
            if (scene.of("snapshot").length !== 1) continue;
            parts++;
            scene.app.exec("UPDATE rows SET data = randomblob(4000) WHERE id % 500 = 7");
            scene.app.exec("PRAGMA wal_checkpoint(PASSIVE)");
            await scene.engine.step();
          }
        }
        return store.putStream(key, slowly(), options);
      },
    })
  );
  await scene.sync();
  scene.commit(5);
  for (let i = 0; i < 3 && scene.of("snapshot").length < 2; i++) await scene.sync();
  assert.ok(parts >= 4, `${parts} parts`);
  const { seq } = scene.of("snapshot")[1];
  await scene.engine.stop(5000);
  const fromSnapshot = await scene.restored(seq);
  const key = (await scene.objects()).find((name) => name.includes(seqHex(seq)) && !name.includes("/0000/"))!;
  await scene.store.deleteMany([key]);
  const fromDeltas = await scene.restored(seq);
  assert.ok(Buffer.compare(fromSnapshot, fromDeltas) === 0, "the snapshot is not what its deltas bring");
});

test(
  "[S17] [S114] DatabaseEngine: one transaction beyond the limits is one streamed object; small ones are cut at commits",
  {
    timeout,
  },
  async () => {
    const scene = new Scene({ batchSizeMax: 64 * 1024 });
    // By the wall clock the files are never old enough to be let go of: what comes then is a difference, uncut.
    scene.clock.now = () => Date.now();
    const chunks: number[] = [];
    scene.start((store) =>
      wrapStore(store, {
        async putStream(key, body, options) {
          async function* counted(): AsyncGenerator<Uint8Array> {
            for await (const chunk of body) {
              if (key.includes("/0000/")) chunks.push(chunk.length);
              yield chunk;
            }
          }
          return await store.putStream(key, counted(), options);
        },
      })
    );
    await scene.sync();
    scene.commit(6000, 4000);
    await scene.sync();
    const [large] = scene.of("delta");
    assert.ok(large.bytes > 24_000_000, "one object");
    assert.equal(chunks.reduce((sum, length) => sum + length, 0), large.bytes);
    assert.ok(Math.max(...chunks) <= objectInMemoryMax, "never whole in memory");
    for (let i = 0; i < 30; i++) scene.commit(10, 3000);
    for (let i = 0; i < 30; i++) await scene.sync();
    const deltas = scene.of("delta").slice(1);
    assert.ok(deltas.length > 3, "cut");
    assert.ok(deltas.every(({ bytes }) => bytes < 64 * 1024 + 30 * 4096));
    await scene.prove();
  },
);

test("[S17] DatabaseEngine: a large object waits for the bucket in the WAL, which is not rolled over under it", {
  timeout,
}, async () => {
  const scene = new Scene({ minCheckpointPages: 1000, checkpointIntervalMs: 1000 });
  let down = false;
  scene.start((store) =>
    wrapStore(store, {
      putStream: (key, chunks, options) => down ? Promise.reject(outage()) : store.putStream(key, chunks, options),
    })
  );
  await scene.sync();
  down = true;
  scene.commit(3000, 4000);
  for (let i = 0; i < 4; i++) {
    scene.clock.skip(60_000);
    await scene.engine.step();
    await turn();
  }
  // Had the pin moved, these would overwrite the frames that are still to be sent.
  scene.app.exec("PRAGMA wal_checkpoint(PASSIVE); UPDATE rows SET data = randomblob(3000) WHERE id % 3 = 0");
  down = false;
  scene.clock.skip(60_000);
  for (let i = 0; i < 3; i++) await scene.sync();
  assert.ok(scene.of("sync_failed").length > 0 && scene.of("delta")[0].bytes > 8 * 1024 * 1024);
  await scene.prove();
});

test("[S119] DatabaseEngine: no barrier beside a snapshot's pin, given up at the threshold, then rolled over", {
  timeout,
}, async () => {
  const scene = new Scene({ minCheckpointPages: 10, walTruncateThresholdPages: 400, snapshotIntervalMs: 1000 });
  // Too large to be copied: its pin holds it.
  scene.commit(17_000, 4000);
  scene.app.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  let slow = false;
  scene.start((store) =>
    wrapStore(store, {
      putStream: async (key, chunks, options) => {
        while (slow && !options?.signal?.aborted) await turn(2);
        return await store.putStream(key, chunks, options);
      },
    })
  );
  await scene.sync();
  slow = true;
  for (let i = 0; i < 60 && scene.of("snapshot_abandoned").length === 0; i++) {
    scene.commit(15, 3000);
    scene.clock.skip(1000);
    for (let n = 0; n < 4; n++) {
      await scene.engine.step();
      await turn();
    }
    if (scene.of("bridge").length > 0 && scene.of("snapshot_abandoned").length === 0) {
      assert.equal(scene.of("rollover").length, 0, "no barrier while the snapshot reads");
    }
  }
  assert.equal(scene.of("snapshot_abandoned").length, 1);
  slow = false;
  scene.clock.skip(1000);
  await scene.engine.step();
  await turn(5);
  await scene.engine.step();
  assert.ok(scene.of("rollover").length >= 1, "the WAL comes first, then the next snapshot");
  scene.commit(3);
  await scene.prove();
});

test(
  "DatabaseEngine: a first snapshot that fails is tried again; deltas wait behind nothing",
  { timeout },
  async () => {
    const scene = new Scene();
    let failures = 3;
    scene.start((store) =>
      wrapStore(store, {
        putStream: (key, chunks, options) =>
          key.includes("/snapshot") || failures > 0
            ? failures-- > 0 ? Promise.reject(outage()) : store.putStream(key, chunks, options)
            : store.putStream(key, chunks, options),
      })
    );
    for (let i = 0; i < 4 && failures >= 0; i++) {
      scene.commit(2);
      scene.clock.skip(60_000);
      for (let n = 0; n < 20; n++) {
        await scene.engine.step();
        await turn(1);
      }
    }
    await scene.sync();
    assert.equal(scene.of("snapshot").length, 1);
    assert.equal(scene.of("sync_failed").length, 3);
    assert.equal((await scene.lineages()).length, 1);
    await scene.prove();
  },
);

for (const full of ["limit", "disk"] as const) {
  test(
    `[S37] [S60] DatabaseEngine: a spool that is full (${full}) is said once; the WAL keeps the rest, then all arrives`,
    {
      timeout,
    },
    async () => {
      const limits = full === "limit" ? { spoolSizeMax: 1_500_000 } : { freeSpaceMin: 1000 };
      const scene = new Scene({ minCheckpointPages: 10, checkpointIntervalMs: 1000, ...limits });
      let [down, free] = [false, 1e9];
      scene.start(
        (store) =>
          wrapStore(store, {
            put: (key, body, options) => down ? Promise.reject(outage()) : store.put(key, body, options),
          }),
        { freeBytes: () => free },
      );
      await scene.sync();
      down = true;
      const spool = `${scene.state}/spool`;
      for (let i = 0; i < 90; i++) {
        scene.commit(100);
        if (i === 45 && full === "disk") free = 0;
        scene.clock.skip(1000);
        for (let step = 0; step < 4; step++) await scene.engine.step();
      }
      assert.equal(scene.of("spool_full").length, 1);
      assert.equal(scene.of("spool_full")[0].reason, full);
      const kept = readdirSync(spool);
      assert.ok(kept.length > 0, "the spool was used");
      scene.commit(200);
      scene.clock.skip(1000);
      for (let step = 0; step < 4; step++) await scene.engine.step();
      assert.deepEqual(readdirSync(spool), kept, "and takes nothing more");
      [down, free] = [false, 1e9];
      scene.clock.skip(60_000);
      await scene.sync();
      scene.clock.skip(2000);
      await scene.sync();
      assert.deepEqual(readdirSync(spool), []);
      assert.equal((await scene.lineages()).length, 1);
      await scene.prove();
    },
  );
}

test(
  "[S51] [S60] DatabaseEngine: an outage of the bucket is waited out; stop does not wait for it",
  { timeout },
  async () => {
    const scene = new Scene({ minCheckpointPages: 5, walTruncateThresholdPages: 50, snapshotIntervalMs: 5000 });
    let down = false;
    const unreachable = (store: ObjectStore): ObjectStore =>
      wrapStore(store, {
        put: (key, body, options) => down ? Promise.reject(outage()) : store.put(key, body, options),
        get: (key, options) => down ? Promise.reject(outage()) : store.get(key, options),
      });
    scene.start(unreachable);
    await scene.sync();
    down = true;
    for (let i = 0; i < 40; i++) {
      scene.commit(8);
      scene.clock.skip(1000);
      for (let n = 0; n < 3; n++) {
        await scene.engine.step();
        await turn();
      }
    }
    assert.ok(
      scene.of("rollover").some(({ barrier }) => barrier) || scene.of("rollover").length > 0,
      "the spool took over",
    );
    await scene.engine.stop(50);
    assert.equal(scene.life.openHandles, 0);
    down = false;
    scene.start(unreachable);
    await scene.sync();
    assert.equal((await scene.lineages()).length, 1, "the spool continues the lineage");
    await scene.prove();
  },
);

test("DatabaseEngine.stop: ends while a snapshot waits for a bridge that cannot be sent", { timeout }, async () => {
  const scene = new Scene();
  let down = false;
  scene.start((store) =>
    wrapStore(store, { put: (key, body, options) => down ? Promise.reject(outage()) : store.put(key, body, options) })
  );
  await scene.sync();
  down = true;
  const asked = scene.engine.requestSnapshot();
  const rejected = assert.rejects(asked, /stopped/);
  for (let i = 0; i < 5; i++) {
    await scene.engine.step();
    await turn(1);
  }
  await scene.engine.stop(20);
  await rejected;
  await assert.rejects(scene.engine.requestSnapshot(), /stopped/);
  assert.equal(scene.life.openHandles, 0);
});

test("DatabaseEngine.stop: a writer that never pauses does not hold it up, what came before is published", {
  timeout,
}, async () => {
  const scene = new Scene();
  scene.start((store) =>
    wrapStore(store, {
      put: (key, body, options) => {
        // Whatever is sent, the application commits meanwhile.
        if (key.endsWith(".hadbp")) scene.commit();
        return store.put(key, body, options);
      },
    })
  );
  await scene.sync();
  scene.commit(3);
  const before = scene.of("delta").length;
  assert.equal(await scene.engine.stop(5000), null);
  assert.equal(scene.of("delta").length, before + 1);
});

test("DatabaseEngine.stop: what was committed to a log restarted while a PUT was in flight is published", {
  timeout,
}, async () => {
  const scene = new Scene({ minCheckpointPages: 4, checkpointIntervalMs: 0 });
  let release: () => void = () => {};
  let hold = false;
  scene.start((store) =>
    wrapStore(store, {
      async put(key, body, options) {
        if (hold) await new Promise<void>((resolve) => release = resolve);
        return await store.put(key, body, options);
      },
    })
  );
  await scene.sync();
  scene.commit(10);
  await scene.sync();
  await scene.sync();
  assert.equal(scene.of("rollover").at(-1)?.barrier, false);
  const { log: before } = scene.app.prepare("PRAGMA wal_checkpoint(NOOP)").get() as { log: number };
  hold = true;
  scene.engine.requestSnapshot().catch(() => undefined);
  for (let i = 0; i < 5; i++) await scene.engine.step();
  scene.commit(1);
  const { log } = scene.app.prepare("PRAGMA wal_checkpoint(NOOP)").get() as { log: number };
  assert.ok(log < before, "canary: the log began anew and is shorter");
  const stopping = scene.engine.stop(5000);
  await turn();
  hold = false;
  release();
  assert.equal(await stopping, null);
  assert.ok(Buffer.compare(await scene.restored(), scene.source()) === 0);
});

test("[S45] DatabaseEngine.stop: what no stat shows of an idle database is looked for", { timeout }, async () => {
  const scene = new Scene();
  const update = (id: number): void => scene.app.exec(`UPDATE rows SET data = randomblob(1000) WHERE id = ${id}`);
  const past = (): void => [scene.path, `${scene.path}-wal`].forEach((path) => utimesSync(path, 1000, 1000));
  scene.app.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  update(1);
  past();
  scene.start();
  for (let i = 0; i < 5; i++) await scene.sync();
  assert.equal(scene.life.openHandles, 1, "nothing but the page index is open");
  scene.app.exec("PRAGMA wal_checkpoint(PASSIVE)");
  update(17);
  past();
  assert.equal(await scene.engine.stop(0), null);
  assert.ok(Buffer.compare(await scene.restored(), scene.source()) === 0);
});

test("DatabaseEngine.stop: says what is not in the bucket, and where it is kept", { timeout }, async () => {
  const scene = new Scene();
  let down = false;
  const unreachable = (store: ObjectStore): ObjectStore =>
    wrapStore(store, { put: (key, body, options) => down ? Promise.reject(outage()) : store.put(key, body, options) });
  scene.start(unreachable);
  await scene.sync();
  down = true;
  scene.commit(1);
  await scene.sync().catch(() => undefined);
  scene.commit(1);
  const left = await scene.engine.stop(20);
  assert.equal(left?.exitCode, 4);
  assert.match(left?.message ?? "", /ends at seq 1: 1 changeset kept in .*\/spool; commits kept in the database/);
  assert.equal(existsSync(`${scene.state}/spool/${seqHex(2n)}.hadbp`), true);
  down = false;
  scene.start(unreachable);
  await scene.sync();
  assert.equal(await scene.engine.stop(5000), null);
  // Quiet and let go of: then SQLite allows the switch.
  scene.start(unreachable);
  for (let i = 0; i < 5; i++) await scene.sync();
  scene.app.exec("PRAGMA journal_mode = DELETE");
  scene.commit(1);
  const unseen = await scene.engine.stop(20);
  assert.equal(unseen?.exitCode, 3);
  assert.match(unseen?.message ?? "", /not in WAL mode.*in the database only/);
});

test("DatabaseEngine.requestSnapshot: answered by a snapshot that began after it", { timeout }, async () => {
  const scene = new Scene();
  let release: () => void = () => {};
  let hold = true;
  scene.start((store) =>
    wrapStore(store, {
      putStream: async (key, chunks, options) => {
        if (hold) await new Promise<void>((resolve) => release = resolve);
        return await store.putStream(key, chunks, options);
      },
    })
  );
  await scene.engine.step();
  scene.commit(4);
  const asked = scene.engine.requestSnapshot();
  hold = false;
  release();
  await scene.sync();
  const { seq } = await asked;
  assert.equal(scene.of("snapshot").length, 2);
  assert.equal(seq, scene.of("snapshot")[1].seq);
  await scene.prove();
});

test(
  "[S37] DatabaseEngine: a full disk stops rollovers, not deltas, and passes without a restart",
  { timeout },
  async () => {
    const scene = new Scene({ minCheckpointPages: 2, checkpointIntervalMs: 1000 });
    scene.start();
    await scene.sync();
    let full = true;
    scene.life.onOperation = (name, target) => {
      const needsRoom = name === "write" || (name === "open" && target.endsWith(".tmp"));
      if (full && needsRoom && !target.endsWith("pages.idx")) {
        throw Object.assign(new Error("ENOSPC: no space left on device"), { code: "ENOSPC" });
      }
    };
    for (let i = 0; i < 40; i++) {
      scene.commit(20);
      await scene.sync();
    }
    // Quiet, it would be let go of, were there room for its journal.
    for (let i = 0; i < 5; i++) await scene.sync();
    assert.equal(scene.of("started").length, 1, "nothing was opened again");
    assert.ok(scene.of("sync_failed").length > 0, "said so");
    assert.equal(scene.of("delta").length, 40);
    full = false;
    scene.clock.skip(60_000);
    scene.commit(5);
    await scene.sync();
    await scene.prove();
  },
);

test("[S121] DatabaseEngine: while the log goes on behind the last commit it is held open: that may be a slow commit", {
  timeout,
}, async () => {
  const scene = new Scene();
  scene.start();
  await scene.sync();
  scene.commit();
  await scene.sync();
  appendPhantom(`${scene.path}-wal`, Math.floor((statSync(`${scene.path}-wal`).size - 32) / (4096 + 24)));
  for (let i = 0; i < 8; i++) await scene.sync();
  assert.ok(scene.life.openHandles > 1, "held");
  scene.clock.skip(70_000);
  for (let i = 0; i < 3; i++) await scene.sync();
  assert.equal(scene.life.openHandles, 1, "after a minute it is looked at as often as an idle one anyway");
  scene.commit();
  await scene.prove();
});

test(
  "DatabaseEngine: a bucket gets no lineage as long as the disk has no room for its index",
  { timeout },
  async () => {
    const scene = new Scene();
    for (let i = 0; i < 3; i++) {
      scene.start((store) => store, { freeBytes: () => 1000 });
      await assert.rejects(scene.engine.step(), { code: "no_room", exitCode: 3 });
    }
    assert.deepEqual(await scene.lineages(), []);
    scene.start();
    await scene.sync();
    await scene.prove();
  },
);
