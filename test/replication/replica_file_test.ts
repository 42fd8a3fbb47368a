/** The update of a replica: killed at every step, beside readers and foreign writers. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { test } from "node:test";
import { DatabaseError, WalrustError } from "../../src/errors.ts";
import type { FollowEvent, FollowOptions } from "../../src/replication/follow_options.ts";
import type { Clock } from "../../src/runtime/types.ts";
import { need } from "../support/need.ts";
import { Died, MortalRuntime } from "./mortal_runtime.ts";
import { ask, assertAt, catchUp, of, type ReplicaScene, runtime, seqOf, withSource } from "./replica_scene.ts";
import { booking, ledgerSchema, ledgerSum } from "./sqlite_source.ts";

/** Follows on a machine that dies at a step; returns that machine, its locks free. */
async function followAndDie(scene: ReplicaScene, deadly: number, options: Partial<FollowOptions> = {}) {
  const mortal = new MortalRuntime(runtime, deadly);
  try {
    await catchUp(scene, { runtime: mortal.runtime, ...options });
  } catch (error) {
    assert.ok(error instanceof Died, String(error));
  } finally {
    mortal.bury();
  }
  return mortal;
}

interface Saved {
  readonly names: string[];
  restore(): void;
}

/** The replica's files as they are now, to be put back before each death. */
function save({ folder, local }: ReplicaScene): Saved {
  const own = (): string[] => readdirSync(folder).filter((name) => join(folder, name).startsWith(local));
  const files = own().map((name) => [join(folder, name), readFileSync(join(folder, name))] as const);
  return {
    names: own(),
    restore() {
      for (const name of own()) rmSync(join(folder, name));
      for (const [path, bytes] of files) writeFileSync(path, bytes);
    },
  };
}

/** Kills one catching up at each of its steps, and proves that a reader and then the next run find all in order. */
async function dieEverywhere(
  scene: ReplicaScene,
  between: (deadly: number) => void = () => {},
): Promise<{ steps: string[]; seen: Map<bigint | null, number> }> {
  const { source, local } = scene;
  const saved = save(scene);
  const seen = new Map<bigint | null, number>();
  const head = source.writer.seq;
  for (let deadly = 1;; deadly++) {
    saved.restore();
    const mortal = await followAndDie(scene, deadly);
    if (mortal.steps < deadly) return { steps: mortal.names, seen };
    const where = mortal.names.at(-1);
    between(deadly);
    if (existsSync(local)) {
      assert.deepEqual(ask(local, ledgerSum), { n: 0 }, where);
      assert.deepEqual(ask(local, "PRAGMA integrity_check"), { integrity_check: "ok" }, where);
      assert.ok(!existsSync(`${local}-journal`), `${where}: the reader rolled back`);
      const seq = seqOf(source.writer, local);
      assert.ok(seq !== null, `${where}: neither the old state nor the new one`);
      seen.set(seq, (seen.get(seq) ?? 0) + 1);
    } else seen.set(null, (seen.get(null) ?? 0) + 1);
    await catchUp(scene);
    assertAt(source.writer, local, head);
    const expected = ["replica.db", "replica.db-replica-lock", "replica.db-replica-state"];
    assert.deepEqual(readdirSync(scene.folder).filter((name) => name.startsWith("replica")).sort(), expected, where);
  }
}

test("[C: mid replica update] [S101] ReplicaFile: killed at every step of an update, readers see the old state or the new one", () =>
  withSource(async (scene) => {
    const { source } = scene;
    await source.begin(ledgerSchema);
    for (let n = 1; n <= 10; n++) await source.commit(booking(n, 9000));
    await catchUp(scene);
    // Changes, growth and a changed schema in one update.
    await source.commit("UPDATE debit SET note = zeroblob(3000) WHERE id < 5; CREATE TABLE more(x)");
    await source.commit(booking(77, 100_000));
    const { steps, seen } = await dieEverywhere(scene);
    assert.deepEqual([...seen.keys()].sort(), [11n, 13n], "both states were met");
    for (
      const step of [
        "sync replica.db-replica-journal",
        "rename replica.db-replica-state",
        "beginExclusive",
        "rename replica.db-journal",
        "write replica.db",
        "sync replica.db",
        "remove replica.db-journal",
      ]
    ) assert.ok(steps.includes(step), `${step} in ${steps.join(", ")}`);
  }));

test("[C: mid replica update] [S123] ReplicaFile: a shrink killed at every step; what it cuts off is journaled too", () =>
  withSource(async (scene) => {
    const { source } = scene;
    await source.begin(ledgerSchema);
    for (let n = 1; n <= 15; n++) await source.commit(booking(n, 12_000));
    await catchUp(scene);
    await source.commit(
      "DELETE FROM debit WHERE id > 3 AND id < 13; UPDATE debit SET amount = " +
        "amount - (SELECT sum(amount) FROM debit) - (SELECT sum(amount) FROM credit) WHERE id = 1; VACUUM",
    );
    const { steps, seen } = await dieEverywhere(scene);
    assert.ok(steps.includes("truncate replica.db"));
    assert.deepEqual([...seen.keys()].sort(), [16n, 17n]);
  }));

test("[C: mid replica update] follow: killed at every step of the first restore, the next run needs no help", () =>
  withSource(async (scene) => {
    await scene.source.begin(ledgerSchema);
    await scene.source.commit(booking(5, 5000));
    const { seen } = await dieEverywhere(scene);
    assert.deepEqual(new Set(seen.keys()), new Set([null, 2n]), "no file, or the whole one");
  }));

test("dieEverywhere: an update without its journal is found out (canary)", () =>
  withSource(async (scene) => {
    await scene.source.begin(ledgerSchema);
    for (let n = 1; n <= 10; n++) await scene.source.commit(booking(n, 9000));
    await catchUp(scene);
    await scene.source.commit(
      "UPDATE debit SET note = zeroblob(3000), amount = amount + 1; " +
        "UPDATE credit SET amount = amount - 1; VACUUM",
    );
    const lost = dieEverywhere(scene, () => rmSync(`${scene.local}-journal`, { force: true }));
    await assert.rejects(lost, /(write|sync|truncate) replica\.db\b|malformed|syncDirectory/);
  }));

test("[S100] ReplicaFile: a reader in a transaction keeps its state, and the update waits for it", () =>
  withSource(async (scene) => {
    const { source, local } = scene;
    await source.begin(ledgerSchema);
    await catchUp(scene);
    const reader = new DatabaseSync(local);
    const count = reader.prepare("SELECT count(*) AS n FROM credit");
    reader.exec("BEGIN");
    assert.deepEqual({ ...count.get() }, { n: 1 });
    await source.commit(booking(1));
    const events: FollowEvent[] = [];
    const onEvent = (event: FollowEvent): void => {
      events.push(event);
      if (event.kind !== "readers_busy") return;
      assert.deepEqual({ ...count.get() }, { n: 1 }, "the transaction's own state");
      reader.exec("COMMIT");
    };
    await catchUp(scene, { onEvent });
    assert.equal(of(events, "readers_busy").length, 1);
    assert.deepEqual({ ...count.get() }, { n: 2 }, "without reopening");
    reader.close();
    assertAt(source.writer, local, 2n);
  }));

test("[S105] ReplicaFile: an open reader sees VACUUM and a new schema without reopening", () =>
  withSource(async (scene) => {
    const { source, local } = scene;
    await source.begin(ledgerSchema);
    for (let n = 1; n <= 20; n++) await source.commit(booking(n, 3000));
    await catchUp(scene);
    const reader = new DatabaseSync(local, { readOnly: true });
    const sum = reader.prepare(ledgerSum);
    assert.deepEqual({ ...sum.get() }, { n: 0 });
    await source.commit("CREATE TABLE later(x); INSERT INTO later VALUES (42); DROP INDEX debit_amount; VACUUM");
    await catchUp(scene);
    assert.deepEqual({ ...reader.prepare("SELECT x FROM later").get() }, { x: 42 });
    assert.deepEqual({ ...sum.get() }, { n: 0 });
    reader.close();
  }));

async function refusal(run: Promise<unknown>): Promise<WalrustError> {
  const error: unknown = await run.then(() => assert.fail("was not refused"), (error) => error);
  assert.ok(error instanceof WalrustError, String(error));
  return error;
}

test("[S104] follow: while it runs a write is SQLITE_BUSY, also between two updates", () =>
  withSource(async (scene) => {
    const { source, local } = scene;
    await source.begin(ledgerSchema);
    const stop = new AbortController();
    let tried = 0;
    const onEvent = ({ kind }: FollowEvent): void => {
      if (kind === "stopped" || tried > 2) return stop.abort();
      // After the events of a step, when the follower waits for its next look.
      setTimeout(() => {
        const writer = new DatabaseSync(local, { timeout: 50 });
        assert.throws(() => writer.exec("INSERT INTO credit VALUES (99, 99)"), /database is locked/);
        assert.throws(() => writer.exec("PRAGMA journal_mode = WAL; INSERT INTO credit VALUES (99, 99)"), /locked/);
        writer.close();
        tried++;
        void source.commit(booking(tried));
      }, 5);
    };
    await catchUp(scene, { once: false, intervalMs: 20, signal: stop.signal, onEvent });
    assert.ok(tried > 2);
    assertAt(source.writer, local, seqOf(source.writer, local)!);
  }));

test("[S104] follow: what others wrote while it did not run is refused, and --rebootstrap keeps it aside", async () => {
  const deeds: Record<string, (local: string) => void> = {
    "a row": (local) => write(local, "INSERT INTO credit VALUES (99, 99)"),
    "WAL mode": (local) => write(local, "PRAGMA journal_mode = WAL"),
    "VACUUM": (local) => write(local, "VACUUM"),
    "another file": (local) => {
      copyFileSync(local, `${local}.copy`);
      write(`${local}.copy`, "DELETE FROM credit");
      runtime.files.rename(`${local}.copy`, local);
    },
    "no database": (local) => writeFileSync(local, "not a database, but something that a person put here"),
  };
  for (const [name, deed] of Object.entries(deeds)) {
    await withSource(async (scene) => {
      const { source, local, folder } = scene;
      await source.begin(ledgerSchema);
      await catchUp(scene);
      deed(local);
      const damaged = readFileSync(local);
      await source.commit(booking(1));
      const error = await refusal(catchUp(scene));
      assert.ok(
        error instanceof DatabaseError && ["replica_changed", "sqlite_notadb"].includes(error.code),
        `${name}: ${error}`,
      );
      assert.ok(readFileSync(local).equals(damaged), `${name}: left as it is`);
      const [made] = of(await catchUp(scene, { rebootstrap: true }), "bootstrapped");
      assertAt(source.writer, local, 2n);
      assert.match(made.undo!, /^test -e/);
      const aside = readdirSync(folder).find((file) => /\.bak-[0-9a-f]{8}$/.test(file))!;
      assert.ok(readFileSync(join(folder, aside)).equals(damaged), `${name}: kept aside`);
      await source.commit(booking(2));
      await catchUp(scene);
      assertAt(source.writer, local, 3n);
    });
  }
});

function write(path: string, sql: string): void {
  const writer = new DatabaseSync(path);
  writer.exec(sql);
  writer.close();
}

test("[S104] ReplicaFile: a writer that comes between two locks is found before anything is written", () =>
  withSource(async (scene) => {
    const { source, local } = scene;
    await source.begin(ledgerSchema);
    await catchUp(scene);
    await source.commit(booking(1));
    const sqlite = runtime.sqlite!;
    let slipped = false;
    const open: typeof sqlite.open = (path, options) => {
      const connection = sqlite.open(path, options);
      const begin = connection.beginExclusive.bind(connection);
      connection.beginExclusive = () => {
        write(local, "INSERT INTO credit VALUES (99, 99)");
        slipped = true;
        return begin();
      };
      return connection;
    };
    const error = await refusal(catchUp(scene, { runtime: { ...runtime, sqlite: { ...sqlite, open } } }));
    assert.ok(slipped);
    assert.equal(error.code, "replica_changed");
    assert.deepEqual(ask(local, "SELECT max(id) AS id FROM credit"), { id: 99 }, "the writer's row is there");
    assert.deepEqual(ask(local, "PRAGMA integrity_check"), { integrity_check: "ok" });
  }));

test("[S104] ReplicaFile: where a lock stands in the way after an update, writers are held off as soon as it is gone", () =>
  withSource(async (scene) => {
    const { source, local } = scene;
    await source.begin(ledgerSchema);
    await catchUp(scene);
    await source.commit(booking(1));
    const sqlite = runtime.sqlite!;
    const writer = new DatabaseSync(local, { timeout: 0 });
    const stop = new AbortController();
    const open: typeof sqlite.open = (path, options) => {
      const connection = sqlite.open(path, options);
      const rollback = connection.rollback.bind(connection);
      let isExclusive = false;
      const begin = connection.beginExclusive.bind(connection);
      connection.beginExclusive = () => isExclusive = begin();
      connection.rollback = () => {
        rollback();
        // Another's exclusive lock, which writes nothing, in the moment between two of ours.
        if (isExclusive) writer.exec("BEGIN EXCLUSIVE");
        isExclusive = false;
      };
      return connection;
    };
    let looks = 0;
    const clock: Clock = {
      ...runtime.clock,
      async sleep(_ms, signal) {
        if (++looks === 1) writer.exec("ROLLBACK");
        else assert.throws(() => writer.exec("INSERT INTO credit VALUES (99, 99)"), /locked/);
        if (looks === 3) stop.abort();
        await runtime.clock.sleep(0, signal);
      },
    };
    const machine = { ...runtime, clock, sqlite: { ...sqlite, open } };
    await catchUp(scene, { once: false, runtime: machine, signal: stop.signal });
    writer.close();
    assert.equal(looks, 3);
    assertAt(source.writer, local, 2n);
  }));

test("[S101] follow: behind a symbolic link the journal lies beside the file itself, where SQLite looks for it", () =>
  withSource(async (scene) => {
    const { source, local, folder } = scene;
    await source.begin(ledgerSchema);
    for (let n = 1; n <= 10; n++) await source.commit(booking(n, 3000));
    await catchUp(scene);
    mkdirSync(`${folder}/links`);
    const link = `${folder}/links/other-name.db`;
    symlinkSync(local, link);
    const linked = { ...scene, local: link };
    await source.commit("DELETE FROM debit WHERE id > 3; DELETE FROM credit WHERE id > 3; VACUUM");
    const saved = save(scene);
    const { names } = await followAndDie(linked, Infinity);
    saved.restore();
    await followAndDie(linked, names.lastIndexOf("remove replica.db-journal") + 1);
    assert.deepEqual(readdirSync(`${folder}/links`), ["other-name.db"]);
    assert.ok(existsSync(`${local}-journal`));
    assert.deepEqual(ask(link, ledgerSum), { n: 0 });
    assertAt(source.writer, local, 11n);
    await catchUp(linked);
    assertAt(source.writer, local, 12n);
  }));

test("follow: in a process that reads the replica itself, its end takes no lock from that reader", {
  skip: need("sqlite3"),
}, () =>
  withSource(async (scene) => {
    const { source, local } = scene;
    await source.begin(ledgerSchema);
    await catchUp(scene, { ownProcess: false });
    const reader = new DatabaseSync(local);
    const count = reader.prepare("SELECT count(*) AS n FROM credit");
    reader.exec("BEGIN");
    count.get();
    await catchUp(scene, { ownProcess: false });
    const input = "BEGIN EXCLUSIVE;";
    const busy = spawnSync("sqlite3", [local], { input, encoding: "utf8" });
    assert.match(busy.stderr, /database is locked/, "the reader's lock is still there");
    reader.exec("COMMIT");
    assert.equal(spawnSync("sqlite3", [local], { input, encoding: "utf8" }).stderr, "");
    await source.commit(booking(1));
    await catchUp(scene, { ownProcess: false });
    assert.deepEqual({ ...count.get() }, { n: 2 });
    reader.close();
  }));

test("[S123] ReplicaFile: a reader that may not write cannot heal a hot journal; the next run does", () =>
  withSource(async (scene) => {
    const { source, local } = scene;
    await source.begin(ledgerSchema);
    for (let n = 1; n <= 10; n++) await source.commit(booking(n, 3000));
    await catchUp(scene);
    await source.commit(booking(11, 30_000));
    const saved = save(scene);
    const { names } = await followAndDie(scene, Infinity);
    saved.restore();
    await followAndDie(scene, names.lastIndexOf("sync replica.db") + 1);
    assert.ok(existsSync(`${local}-journal`));
    const reader = new DatabaseSync(local, { readOnly: true });
    assert.throws(() => reader.prepare(ledgerSum).get(), "SQLITE_READONLY_ROLLBACK");
    reader.close();
    await catchUp(scene);
    assert.deepEqual(ask(local, ledgerSum), { n: 0 });
    assertAt(source.writer, local, 12n);
  }));
