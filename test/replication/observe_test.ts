import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { readdirSync, renameSync, statSync, writeFileSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { DatabaseError } from "../../src/errors.ts";
import type { EngineOptions } from "../../src/replication/options.ts";
import { verify } from "../../src/replication/verify.ts";
import type { OpenFile } from "../../src/runtime/types.ts";
import { SeededRandom } from "../simulation/random.ts";
import { Crash, root, Scene, system } from "./engine_scene.ts";
import { appendPhantom } from "./phantom.ts";

const timeout = 60_000;

/** A scene whose walrust may only look: whatever else it tries fails the test. */
function observed(options: Partial<EngineOptions> = {}, mtimeStepMs: number = 0): Scene {
  const scene = new Scene({ mode: "observe", ...options });
  scene.app.exec("PRAGMA wal_autocheckpoint = 0");
  startWatching(scene, mtimeStepMs);
  return scene;
}

/**
 * What is asked of the database file counts as a moment too; with `mtimeStepMs` its file system knows times no finer;
 * `disturb` answers how much of what was read comes, or throws.
 */
function startWatching(
  scene: Scene,
  mtimeStepMs: number = 0,
  disturb: (path: string, length: number) => number = (_, length) => length,
): void {
  scene.start((store) => store, {
    open: (path, mode) => {
      assert.ok(mode === "read" || path.startsWith(scene.state), `${mode} ${path}`);
      assert.ok(!path.endsWith("-shm"), path);
      const file = scene.life.files.open(path, mode);
      if (!path.startsWith(scene.path)) return file;
      const { read } = file;
      const watched: OpenFile["read"] = (into, position) => {
        if (path === scene.path) scene.life.onMoment("read database");
        const length = disturb(path, read.call(file, into, position));
        into.fill(0, length);
        return length;
      };
      return Object.assign(file, { read: watched });
    },
    stat: (path) => {
      if (path === scene.path) scene.life.onMoment("stat database");
      const stat = scene.life.files.stat(path);
      if (stat === null || mtimeStepMs === 0) return stat;
      return { ...stat, mtimeNs: stat.mtimeNs - stat.mtimeNs % BigInt(mtimeStepMs * 1_000_000) };
    },
  });
  scene.life.onOperation = (name, target) => assert.ok(name !== "connect", `${name} ${target}`);
}

/** What the application sees. */
function content(database: DatabaseSync): string {
  const hash = createHash("sha256");
  for (const row of database.prepare("SELECT id, data FROM rows ORDER BY id").all()) {
    hash.update(`${row.id} ${Buffer.from(row.data as Uint8Array).toString("base64")}\n`);
  }
  return hash.digest("hex");
}

async function contentAt(scene: Scene, seq: bigint): Promise<string> {
  const path = `${scene.directory}/at-${seq}.db`;
  writeFileSync(path, await scene.restored(seq));
  const database = new DatabaseSync(path);
  try {
    return content(database);
  } finally {
    database.close();
  }
}

/** Every published point is a commit, in the order of the commits. */
async function provePoints(scene: Scene, commits: readonly string[]): Promise<void> {
  let last = 0;
  const points = new Set((await scene.objects()).map((key) => BigInt(`0x${key.slice(-22, -6)}`)));
  for (const seq of [...points].sort((a, b) => Number(a - b))) {
    const at = commits.indexOf(await contentAt(scene, seq), last);
    assert.ok(at >= last, `seq ${seq} is not a commit after the one before`);
    last = at;
  }
  await proveChain(scene);
}

/** From every older snapshot too: each bridge declares what the deltas before it make. */
async function proveChain(scene: Scene): Promise<void> {
  const runtime = { ...system, clock: scene.clock };
  const scratchPath = `${scene.directory}/scratch`;
  const { findings } = await verify({ store: scene.store, root, level: "drill", runtime, scratchPath });
  assert.deepEqual(findings.filter(({ severity }) => severity === "error"), []);
}

test("ObserveCapture: commits become deltas without a lock, a connection or a written byte", { timeout }, async () => {
  const scene = observed();
  for (let i = 0; i < 20; i++) {
    scene.commit(10);
    if (i % 7 === 3) scene.app.exec("DELETE FROM rows WHERE id % 3 = 0");
    await scene.sync();
  }
  assert.equal(scene.of("observing")[0].reason, "asked for");
  assert.equal(scene.of("delta").length, 19, "the first commits are in the snapshot");
  assert.deepEqual(scene.of("difference"), []);
  const snapshot = scene.engine.requestSnapshot();
  for (let i = 0; i < 3; i++) await scene.sync();
  assert.ok((await snapshot).seq > 20n);
  scene.commit();
  await scene.sync();
  await scene.prove();
});

test("[S20] ObserveCapture: a log restarted between two looks is salvaged, nothing is lost", { timeout }, async () => {
  const scene = observed();
  await scene.sync();
  for (let i = 0; i < 5; i++) {
    scene.commit(100);
    await scene.sync();
    const before = scene.of("delta").length;
    scene.commit(60);
    const old = content(scene.app);
    scene.app.exec("PRAGMA wal_checkpoint(RESTART)");
    scene.commit(3);
    await scene.sync();
    await scene.sync();
    const [salvaged] = scene.of("delta").slice(before);
    assert.ok(salvaged.frames > 0);
    assert.equal(await contentAt(scene, salvaged.seq), old, "the point before the restart");
  }
  assert.deepEqual(scene.of("wal_gap"), []);
  await scene.prove();
});

test("[S20] [S22] ObserveCapture: a log that was overwritten unseen is a gap that is said, then a difference", {
  timeout,
}, async () => {
  const scene = observed();
  await scene.sync();
  scene.commit(20);
  await scene.sync();
  const { seq } = scene.of("delta").at(-1)!;
  scene.commit(5);
  scene.app.exec("PRAGMA wal_checkpoint(RESTART)");
  for (let i = 0; i < 10; i++) scene.commit(20);
  await scene.sync();
  const [gap] = scene.of("wal_gap");
  assert.equal(gap.seq, seq);
  assert.match(gap.reason, /overwritten before it was read/);
  assert.equal(scene.of("wal_gap").length, 1);
  await scene.prove();
});

test("[S10] [S18] ObserveCapture: what a transaction spilled behind a restart is neither content nor candidate", {
  timeout,
}, async () => {
  const scene = observed();
  await scene.sync();
  scene.commit(400);
  await scene.sync();
  scene.app.exec("PRAGMA wal_checkpoint(RESTART)");
  scene.commit(3);
  const committed = content(scene.app);
  scene.app.exec(
    "PRAGMA cache_size = 5; PRAGMA cache_spill = 1; BEGIN; UPDATE rows SET data = zeroblob(999) WHERE id < 200",
  );
  assert.ok(statSync(`${scene.path}-wal`).size > 0);
  for (let i = 0; i < 3; i++) await scene.sync();
  const [followed] = scene.of("difference");
  assert.equal(followed.reason, "the WAL was restarted");
  assert.ok(followed.pages < 10, `${followed.pages} pages: only what was committed`);
  assert.equal(await contentAt(scene, followed.seq), committed);
  scene.app.exec("ROLLBACK");
  scene.commit();
  await scene.prove();
});

test("[S23] ObserveCapture: an unlinked log is read to its end; short-lived writers lose nothing but points in time", {
  timeout,
}, async () => {
  const scene = observed();
  await scene.sync();
  scene.commit(5);
  await scene.sync();
  const before = scene.of("delta").length;
  scene.commit(7);
  const last = content(scene.app);
  scene.app.close();
  assert.deepEqual(readdirSync(scene.directory).filter((name) => name.endsWith("-wal")), []);
  await scene.sync();
  assert.equal(await contentAt(scene, scene.of("delta")[before].seq), last);
  assert.deepEqual(scene.of("wal_gap"), []);
  for (let i = 0; i < 5; i++) {
    scene.connect();
    scene.commit(3);
    scene.app.close();
    scene.connect();
    scene.commit(3);
    scene.app.close();
    await scene.sync();
    await scene.sync();
  }
  assert.ok(scene.of("wal_gap").length > 0, "logs came and went between two looks");
  scene.connect();
  scene.commit();
  await scene.prove();
});

test("[S117] ObserveCapture: a commit that SQLite did not accept is taken back, whatever overwrites it", {
  timeout,
}, async () => {
  for (const restart of [false, true]) {
    const scene = observed();
    await scene.sync();
    scene.commit(30);
    await scene.sync();
    const frames = Math.floor((statSync(`${scene.path}-wal`).size - 32) / (4096 + 24));
    appendPhantom(`${scene.path}-wal`, frames);
    await scene.sync();
    assert.equal(scene.of("delta").at(-1)!.pages, 1, "it looks like a commit");
    if (restart) scene.app.exec("PRAGMA wal_checkpoint(RESTART)");
    scene.commit(1);
    await scene.sync();
    await scene.sync();
    assert.ok(scene.of("difference").some(({ pages }) => pages > 0));
    await scene.prove();
  }
});

test("[S117] ObserveCapture: what takes the place of such a commit is not lost when the log restarts behind it", {
  timeout,
}, async () => {
  // The new log ends before the place of that commit, or in it.
  for (const rows of [1, 100]) {
    const scene = observed();
    scene.commit(200);
    await scene.sync();
    scene.commit(30);
    await scene.sync();
    const frames = Math.floor((statSync(`${scene.path}-wal`).size - 32) / (4096 + 24));
    appendPhantom(`${scene.path}-wal`, frames, 60);
    await scene.sync();
    assert.equal(scene.of("delta").at(-1)!.pages, 60, "it looks like a commit");
    // Fewer pages, and others: the end of that commit stays as it was.
    scene.app.exec("UPDATE rows SET data = randomblob(999) WHERE id = (SELECT max(id) FROM rows)");
    scene.app.exec("PRAGMA wal_checkpoint(RESTART)");
    scene.app.exec(`UPDATE rows SET data = randomblob(998) WHERE id <= ${rows}`);
    await scene.sync();
    await scene.sync();
    await scene.prove();
  }
});

test("[S117] ObserveCapture: such a commit is replaced at every moment of a snapshot: the chain continues", {
  timeout,
}, async () => {
  const scene = observed();
  scene.commit(40);
  await scene.sync();
  let moments = 0;
  for (let isOver = false; !isOver; moments++) {
    scene.commit(2);
    await scene.sync();
    const frames = Math.floor((statSync(`${scene.path}-wal`).size - 32) / (4096 + 24));
    appendPhantom(`${scene.path}-wal`, frames, 4);
    await scene.sync();
    let left = moments;
    scene.life.onMoment = () => {
      if (left-- === 0) scene.app.exec("UPDATE rows SET data = randomblob(999) WHERE id = (SELECT max(id) FROM rows)");
    };
    const done = scene.engine.requestSnapshot();
    await scene.sync();
    scene.life.onMoment = () => {};
    isOver = left >= 0;
    scene.app.exec("UPDATE rows SET data = randomblob(998) WHERE id = 1");
    scene.app.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    for (let tries = 0; tries < 3; tries++) await scene.sync();
    await done;
    await proveChain(scene);
  }
  assert.ok(moments >= 10, `${moments} moments`);
  await scene.prove();
});

for (const seed of [2, 4, 5, 7]) {
  test(`ObserveCapture: any application, seed ${seed}: every point is a commit, the newest one the database`, {
    timeout,
  }, async () => {
    const random = new SeededRandom(seed);
    const scene = observed({ batchSizeMax: random.chance(0.5) ? 20_000 : undefined });
    const commits = [content(scene.app)];
    await scene.sync();
    const rows = (): number => 1 + random.integer(40);
    const pragma = (): string =>
      `PRAGMA wal_checkpoint(${["PASSIVE", "FULL", "RESTART", "TRUNCATE"][random.integer(4)]})`;
    for (let step = 0; step < 60; step++) {
      const choice = random.integer(10);
      if (choice < 4) scene.commit(rows());
      else if (choice === 4) scene.app.exec(`DELETE FROM rows WHERE id % ${2 + random.integer(8)} = 0`);
      else if (choice === 5) scene.app.exec(pragma());
      else if (choice === 6 && random.chance(0.4)) scene.app.exec("VACUUM");
      else if (choice === 7 && random.chance(0.5)) scene.connect();
      else if (choice === 8) scene.app.exec("UPDATE rows SET data = randomblob(500) WHERE id % 5 = 0");
      commits.push(content(scene.app));
      if (random.chance(0.4)) await scene.sync();
    }
    await scene.sync();
    await scene.engine.stop(5000);
    await provePoints(scene, commits);
    await scene.prove();
  });
}

test("ObserveCapture: canary, a point that is no commit is noticed", { timeout }, async () => {
  const scene = observed();
  await scene.sync();
  await assert.rejects(provePoints(scene, ["something else"]), /not a commit/);
});

/** Before what is to be captured, and at the moment itself. */
const acts: Readonly<Record<string, { before?: (scene: Scene) => void; at: (scene: Scene) => void }>> = {
  commit: { at: () => {} },
  restart: { at: ({ app }) => app.exec("PRAGMA wal_checkpoint(RESTART)") },
  // Near the start of a log that is followed: what comes next is written over it.
  overwrite: {
    before: ({ app }) => app.exec("PRAGMA wal_checkpoint(TRUNCATE)"),
    at: (scene) => {
      scene.app.exec("PRAGMA wal_checkpoint(RESTART)");
      scene.commit(60);
    },
  },
  truncate: { at: ({ app }) => app.exec("PRAGMA wal_checkpoint(TRUNCATE)") },
  replace: { at: (scene) => scene.connect() },
};

for (const mtimeStepMs of [0, 2000]) {
  const name = mtimeStepMs === 0 ? "[S20]" : "[S20] [S45]";
  const clock = mtimeStepMs === 0 ? "" : ", file times in steps of two seconds";
  test(`${name} ObserveCapture: commits, checkpoints and restarts at every single read${clock}`, {
    timeout,
  }, async () => {
    for (const [act, { before, at }] of Object.entries(acts)) {
      const scene = observed({}, mtimeStepMs);
      scene.clock.now = () => Date.now();
      const commits = [content(scene.app)];
      const commit = (count: number): void => {
        // Growth alone would be found by the size of the file.
        if (commits.length % 3 === 0) scene.commit(count);
        else scene.app.exec(`UPDATE rows SET data = randomblob(999) WHERE id % 9 = ${commits.length % 9}`);
        commits.push(content(scene.app));
      };
      await scene.sync();
      let moments = 0;
      for (let left = -1; left < 0; moments++) {
        if (before !== undefined) {
          before(scene);
          commit(1);
          await scene.sync();
        }
        commit(8);
        left = moments;
        scene.life.onMoment = () => {
          if (left-- !== 0) return;
          at(scene);
          commits.push(content(scene.app));
          commit(2);
        };
        if (moments % 5 === 4) void scene.engine.requestSnapshot().catch(() => undefined);
        await scene.sync();
        await scene.sync();
        scene.life.onMoment = () => {};
      }
      assert.ok(moments >= 6, `${act}: ${moments} moments`);
      await scene.engine.stop(5000);
      await provePoints(scene, commits);
      await scene.prove();
    }
  });
}

for (const mtimeStepMs of [0, 2000]) {
  test(`[S20] ObserveCapture: a database without a log is written to while it is copied, times by ${mtimeStepMs} ms`, {
    timeout,
  }, async () => {
    const scene = observed({}, mtimeStepMs);
    scene.clock.now = () => Date.now();
    // A copy takes more than one read.
    scene.commit(1500);
    const commits = [content(scene.app)];
    const commit = (): void => {
      scene.app.exec("UPDATE rows SET data = randomblob(1000) WHERE id IN (1, (SELECT max(id) FROM rows))");
      scene.app.exec("PRAGMA wal_checkpoint(TRUNCATE)");
      commits.push(content(scene.app));
    };
    await scene.sync();
    let reads = 0;
    for (let left = -1; left < 0; reads++) {
      // A log that is emptied is compared at once, however new the file is.
      scene.commit();
      commits.push(content(scene.app));
      await scene.sync();
      commit();
      left = reads;
      scene.life.onMoment = (call) => {
        if (call === "read database" && left-- === 0) commit();
      };
      await scene.sync();
      await scene.sync();
      scene.life.onMoment = () => {};
    }
    assert.ok(reads >= 3, `${reads} reads`);
    await scene.engine.stop(5000);
    await provePoints(scene, commits);
    await scene.prove();
  });
}

test("[S20] ObserveCapture: a commit whose log is gone again, at every moment of a snapshot: the chain continues", {
  timeout,
}, async () => {
  const scene = observed();
  scene.clock.now = () => Date.now();
  const commits = [content(scene.app)];
  const commit = (): void => {
    scene.commit();
    scene.app.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    commits.push(content(scene.app));
  };
  commit();
  await scene.sync();
  let moments = 0;
  for (let isOver = false; !isOver; moments++) {
    let left = moments;
    scene.life.onMoment = () => {
      if (left-- === 0) commit();
    };
    const done = scene.engine.requestSnapshot();
    await scene.sync();
    scene.life.onMoment = () => {};
    isOver = left >= 0;
    for (let tries = 0; tries < 3; tries++) await scene.sync();
    await done;
  }
  assert.ok(moments >= 6, `${moments} moments`);
  await scene.engine.stop(5000);
  await provePoints(scene, commits);
  await scene.prove();
});

test("[S39] ObserveCapture: a read that comes up short or fails is tried again, then said; never zeros", {
  timeout,
}, async () => {
  for (const isWal of [false, true]) {
    for (const failure of ["short once", "short", "EIO"]) {
      const scene = observed();
      scene.clock.now = () => Date.now();
      let fails = 0;
      startWatching(scene, 0, (path, length) => {
        if (path.endsWith("-wal") !== isWal || length < 4096 || fails === 0) return length;
        fails--;
        if (failure === "EIO") throw Object.assign(new Error("EIO: i/o error, read"), { code: "EIO" });
        return Math.floor(length / 2);
      });
      const commits = [content(scene.app)];
      await scene.sync();
      const commit = (): void => {
        scene.app.exec("UPDATE rows SET data = randomblob(1000) WHERE id % 3 = 0");
        commits.push(content(scene.app));
      };
      for (let round = 0; round < 8; round++) {
        if (round === 2 || round === 6) void scene.engine.requestSnapshot().catch(() => undefined);
        commit();
        // So that now and then pages of the file are compared, be it all or some.
        if (round % 2 === 1) scene.app.exec(`PRAGMA wal_checkpoint(${round % 4 === 1 ? "RESTART" : "TRUNCATE"})`);
        if (round % 4 === 1) commit();
        fails = failure === "short once" ? 1 : round === 5 ? 20 : 2;
        await scene.sync();
      }
      fails = 0;
      scene.clock.skip(60_000);
      await scene.sync();
      const errors = scene.of("sync_failed").map(({ error }) => (error as Error).message);
      assert.equal(errors.length > 0, failure !== "short once", errors.join());
      for (const error of errors) assert.match(error, /cannot be read/);
      await scene.engine.stop(5000);
      await provePoints(scene, commits);
      await scene.prove();
    }
  }
});

test("[S118] ObserveCapture: killed at every operation, checkpoints while it is down: no fork, no loss", {
  timeout: 120_000,
}, async () => {
  const scene = observed();
  await scene.sync();
  let kills = 0;
  for (let at = 1; at < 400; at++) {
    scene.commit(4);
    let operations = 0;
    scene.life.onOperation = () => {
      if (++operations === at) scene.life.crash();
    };
    void scene.engine.requestSnapshot().catch(() => undefined);
    try {
      await scene.sync();
      if (operations < at) break;
    } catch (error) {
      if (!(error instanceof Crash)) throw error;
      kills++;
    }
    if (at % 3 === 0) scene.app.exec("PRAGMA wal_checkpoint(RESTART)");
    if (!scene.life.alive) startWatching(scene);
    scene.life.onOperation = () => {};
    await scene.sync();
  }
  scene.life.onOperation = () => {};
  assert.ok(kills > 15, `${kills} kills`);
  assert.equal((await scene.lineages()).length, 1);
  await scene.prove();
});

test("[S42] [S120] DatabaseEngine: without the right to write it observes, and says whose right it lacks", {
  timeout,
}, async () => {
  const scene = new Scene();
  for (const code of ["EACCES", "EROFS"]) {
    scene.start((store) => store, {
      open: (path, mode) => {
        if (path === scene.path && mode !== "read") throw Object.assign(new Error(code), { code });
        return scene.life.files.open(path, mode);
      },
    });
    scene.commit(3);
    await scene.sync();
    const { reason } = scene.of("observing").at(-1)!;
    const what = code === "EROFS" ? "mount the place" : "as the user that owns the database";
    assert.match(reason, new RegExp(`app\\.db cannot be opened for writing by .*${code}.*${what}`));
    scene.commit(3);
    await scene.sync();
    await scene.engine.stop(5000);
  }
  assert.equal(scene.of("observing").length, 2);
  await scene.prove();
});

test("DatabaseEngine: a runtime without a SQLite that can hold a pin observes, or refuses where a pin is asked for", {
  timeout,
}, async () => {
  for (const sqlite of [null, { ...system.sqlite!, version: [3, 50, 4] as const }]) {
    const scene = new Scene();
    scene.start((store) => store, {}, sqlite);
    await scene.sync();
    scene.commit();
    await scene.sync();
    assert.match(scene.of("observing")[0].reason, /no built-in SQLite of version 3\.51/);
    await scene.prove();
    const asked = new Scene({ mode: "pin" });
    assert.throws(() => asked.start((store) => store, {}, sqlite), (error) => {
      assert.ok(error instanceof DatabaseError && error.code === "no_sqlite");
      return true;
    });
  }
});

test("[S31] ObserveCapture: a database that leaves WAL mode is waited for, then compared", { timeout }, async () => {
  const scene = observed();
  await scene.sync();
  scene.commit(3);
  await scene.sync();
  scene.app.exec("PRAGMA journal_mode = DELETE");
  scene.commit(3);
  await scene.sync();
  scene.clock.skip(60_000);
  await scene.sync();
  assert.match(String(scene.of("sync_failed").at(-1)!.error), /not in WAL mode/);
  scene.connect();
  scene.commit(3);
  scene.clock.skip(60_000);
  await scene.sync();
  await scene.sync();
  await scene.prove();
});

test("[S32] ObserveCapture: a replaced file goes on in the same lineage", { timeout }, async () => {
  const [scene, other] = [observed(), new Scene()];
  await scene.sync();
  other.commit(40);
  other.app.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  other.app.close();
  scene.app.close();
  renameSync(other.path, scene.path);
  scene.connect();
  scene.commit();
  await scene.sync();
  await scene.sync();
  assert.equal(scene.of("database_replaced").length, 1);
  assert.equal((await scene.lineages()).length, 1);
  await scene.prove();
});

test("[S37] ObserveCapture: without room for a copy it says how much is needed and where, and goes on when there is", {
  timeout,
}, async () => {
  const scene = new Scene({ mode: "observe" });
  let free = 2e6;
  scene.start((store) => store, { freeBytes: () => free });
  await assert.rejects(scene.engine.step(), (error) => {
    assert.ok(error instanceof DatabaseError && error.code === "no_room" && error.exitCode === 3);
    assert.match(error.message, /needs room for a copy of its \d+ bytes, 2000000 are free/);
    assert.match(error.hint!, /--state-dir/);
    return true;
  });
  free = 1e12;
  scene.start((store) => store, { freeBytes: () => free });
  await scene.sync();
  scene.app.exec("PRAGMA wal_checkpoint(TRUNCATE)");
  free = 2e6;
  scene.commit(3);
  await scene.sync();
  assert.match(String(scene.of("sync_failed").at(-1)!.error), /needs room/);
  free = 1e12;
  scene.clock.skip(60_000);
  await scene.sync();
  await scene.prove();
});
