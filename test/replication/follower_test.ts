/** What a replica follows: deltas, levels, snapshots, lineages, in a bucket that is pruned and damaged meanwhile. */
import assert from "node:assert/strict";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import fc from "fast-check";
import { StorageError, WalrustError } from "../../src/errors.ts";
import { follow } from "../../src/replication/follower.ts";
import type { FollowEvent } from "../../src/replication/follow_options.ts";
import { restore } from "../../src/replication/restore.ts";
import type { Clock } from "../../src/runtime/types.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { getBytes, type ObjectStore } from "../../src/storage/object_store.ts";
import { checkAsyncProperty } from "../support/property.ts";
import type { BucketWriter } from "./bucket_writer.ts";
import { goldenRoot, uploadGolden } from "./golden.ts";
import { Died, MortalRuntime } from "./mortal_runtime.ts";
import { ask, assertAt, catchUp, of, type ReplicaScene, runtime, seqOf, withSource } from "./replica_scene.ts";
import { booking, ledgerSchema, ledgerSum, SqliteSource } from "./sqlite_source.ts";

async function refusal(run: Promise<unknown>): Promise<WalrustError> {
  const error: unknown = await run.then(() => assert.fail("was not refused"), (error) => error);
  assert.ok(error instanceof WalrustError, String(error));
  return error;
}

/** A source with a ledger and its replica at seq 1. */
async function begun({ source, local }: ReplicaScene): Promise<void> {
  await source.begin(ledgerSchema);
  await catchUp({ source, local });
  assertAt(source.writer, local, 1n);
}

async function bookings({ source }: ReplicaScene, count: number, bytes?: number): Promise<void> {
  for (let n = 0; n < count; n++) await source.commit(booking(n + 1, bytes));
}

async function flip(store: ObjectStore, key: string, at: number): Promise<void> {
  const { bytes } = await getBytes(store, key, 1e7);
  bytes[at < 0 ? bytes.length + at : at] ^= 1;
  await store.put(key, bytes);
}

test("follow: every seq of the source in turn, byte for byte but for the counters, bridges and page sizes included", async () => {
  for (const pageSize of [512, 4096, 65536]) {
    await withSource(async (scene) => {
      const { source, local } = scene;
      await begun(scene);
      for (let n = 1; n <= 6; n++) {
        await source.commit(booking(n, 2000));
        if (n % 3 === 0) await source.writer.snapshot();
        await catchUp(scene);
        assertAt(source.writer, local, source.writer.seq);
      }
      await source.commit("DELETE FROM debit WHERE id > 2; DELETE FROM credit WHERE id > 2; VACUUM");
      const [applied] = of(await catchUp(scene), "applied");
      assert.equal(applied.changesets, 1);
      assertAt(source.writer, local, source.writer.seq);
    }, { pageSize });
  }
});

test("follow: a snapshot that changes no page moves the seq and leaves the file alone", () =>
  withSource(async (scene) => {
    const { source, local } = scene;
    await begun(scene);
    const before = readFileSync(local);
    await source.writer.snapshot();
    const [applied] = of(await catchUp(scene), "applied");
    assert.deepEqual([applied.changesets, applied.pages, applied.seq, applied.heldMs], [0, 0, 2n, 0]);
    assert.ok(readFileSync(local).equals(before));
    await source.commit(booking(1));
    await catchUp(scene);
    assertAt(source.writer, local, 3n);
  }));

test("[S102] follow: deltas that were merged or swept before it caught up are bridged by levels and snapshots", () =>
  withSource(async (scene) => {
    const { source, local } = scene;
    const { writer } = source;
    await begun(scene);
    await bookings(scene, 4);
    // seqs 2 to 5 are one object now.
    await writer.merge(1, 2n, 5n);
    await bookings(scene, 1);
    const merged = await catchUp(scene);
    assert.deepEqual(of(merged, "bridged"), []);
    assertAt(writer, local, 6n);
    // 7 to 9 are gone, but snapshot 10 has all of it.
    await bookings(scene, 3);
    await writer.snapshot();
    await bookings(scene, 2);
    await writer.remove(7n, 10n);
    await writer.retention([{ min: 7n, max: 10n, reason: "retention" }]);
    const events = await catchUp(scene);
    const [{ from, snapshotSeq, seq, reason }] = of(events, "bridged");
    assert.deepEqual([from, snapshotSeq, seq], [6n, 10n, 12n]);
    assert.match(reason, /seq 7 cannot be had by itself/);
    assert.ok(of(events, "applied")[0].pages < 20, "only what differs is written");
    assertAt(writer, local, 12n);
    // A level that begins before the replica: an older snapshot leads to its end.
    await bookings(scene, 4);
    await writer.snapshot();
    await bookings(scene, 1);
    await writer.merge(1, 11n, 16n);
    await writer.store.deleteMany([writer.key("snapshot", 17n)]);
    const again = await catchUp(scene);
    assert.deepEqual(of(again, "bridged").map(({ snapshotSeq }) => snapshotSeq), [10n]);
    assertAt(writer, local, 18n);
  }));

test("[S102] follow: a hole without a way round is damage; what leads up to it is applied, a snapshot beyond heals", () =>
  withSource(async (scene) => {
    const { source, local } = scene;
    const { writer } = source;
    await begun(scene);
    await bookings(scene, 5);
    await writer.remove(4n);
    const error = await refusal(catchUp(scene));
    assert.equal(error.code, "missing_changesets");
    assert.equal(error.exitCode, 5);
    assertAt(writer, local, 3n);
    await writer.snapshot();
    await bookings(scene, 1);
    await catchUp(scene);
    assertAt(writer, local, 8n);
  }));

test("[S72] follow: a damaged delta is never applied, not even half; the replica stays at the last sound seq", () =>
  withSource(async (scene) => {
    const { source, local } = scene;
    const { writer } = source;
    await begun(scene);
    await bookings(scene, 4);
    for (const at of [15, 27, 60, 2000, -1]) {
      await flip(writer.store, writer.key("delta", 4n), at);
      const events: FollowEvent[] = [];
      const error = await refusal(catchUp(scene, { onEvent: (event) => void events.push(event) }));
      assert.equal(error.exitCode, 5, `byte ${at}: ${error}`);
      assert.match(error.message, /0000000000000004|seq 4/, `byte ${at}`);
      assert.match(of(events, "warning")[0].message, /0000000000000004\.hadbp is left out/);
      assertAt(writer, local, 3n);
      await flip(writer.store, writer.key("delta", 4n), at);
    }
    await catchUp(scene);
    assertAt(writer, local, 5n);
  }));

test("[S76] follow: a bucket whose deltas belong to another history is refused", () =>
  withSource(async (scene) => {
    const { source, local } = scene;
    const { writer } = source;
    await begun(scene);
    await bookings(scene, 2);
    await catchUp(scene);
    const other = new SqliteSource(new MemoryStore(), `${scene.folder}/other.db`);
    await other.begin(ledgerSchema);
    for (let n = 0; n < 4; n++) await other.commit(booking(n));
    const foreign = await getBytes(other.writer.store, other.writer.key("delta", 4n), 1e7);
    other.close();
    await writer.store.put(writer.key("delta", 4n), foreign.bytes);
    assert.equal((await refusal(catchUp(scene))).code, "chain_mismatch");
    assertAt(writer, local, 3n);
  }));

test("follow: a bucket that ends before the replica is not followed backwards; --rebootstrap is", () =>
  withSource(async (scene) => {
    const { source, local } = scene;
    const { writer } = source;
    await begun(scene);
    await bookings(scene, 3);
    await catchUp(scene);
    await writer.remove(3n, 4n);
    const error = await refusal(catchUp(scene));
    assert.deepEqual([error.code, error.exitCode], ["source_behind", 5]);
    assertAt(writer, local, 4n);
    await catchUp(scene, { rebootstrap: true });
    assertAt(writer, local, 2n);
  }));

/** The lineage that goes on from `seq` of another, active as soon as it has its snapshot. */
async function fork(scene: ReplicaScene, seq: bigint, options: { lineage?: string; pageSize?: number } = {}) {
  const { lineage = "b".repeat(32), pageSize = 4096 } = options;
  const parent = scene.source.writer;
  const path = `${scene.folder}/fork-${lineage[0]}.db`;
  writeFileSync(path, parent.images.get(seq)!);
  const next = new SqliteSource(parent.store, path, pageSize, { lineage });
  next.writer.seq = seq;
  next.writer.nowMs = parent.times.get(seq)! + 1;
  next.database.exec("PRAGMA journal_mode = DELETE; VACUUM; PRAGMA journal_mode = WAL");
  await next.writer.begin({ parent: parent.lineage, parentSeq: seq, state: false });
  await next.writer.point({ lineageId: parent.lineage, claim: lineage });
  return {
    source: next,
    async activate() {
      next.writer.load(next.image());
      await next.writer.snapshot();
      await next.writer.point({ lineageId: lineage, claim: null });
    },
  };
}

test("[S103] follow: a new lineage is followed when that was asked for, else the replica stops at the fork and says so", () =>
  withSource(async (scene) => {
    const { source, local } = scene;
    await begun(scene);
    await bookings(scene, 5);
    await catchUp(scene);
    const next = await fork(scene, source.writer.seq);
    try {
      const claimed = await catchUp(scene);
      assert.deepEqual(claimed.map(({ kind }) => kind), ["resumed", "stopped"], "a claim alone changes nothing");
      await next.activate();
      await next.source.commit(booking(50));
      const error = await refusal(catchUp(scene));
      assert.deepEqual([error.code, error.exitCode], ["new_lineage", 5]);
      assert.match(error.hint!, /--follow-lineage/);
      assertAt(source.writer, local, 6n);
      const [{ reason, lineage }] = of(await catchUp(scene, { followLineage: true }), "bridged");
      assert.match(reason, /lineage b{32} has replaced a{32}$/);
      assert.equal(lineage, next.source.writer.lineage);
      assertAt(next.source.writer, local, 8n);
      await next.source.commit(booking(51));
      await catchUp(scene);
      assertAt(next.source.writer, local, 9n);
      await source.writer.point({ lineageId: source.writer.lineage, claim: null });
      for (const followLineage of [false, true]) {
        assert.equal((await refusal(catchUp(scene, { followLineage }))).code, "source_turned_back");
      }
      assertAt(next.source.writer, local, 9n);
    } finally {
      next.source.close();
    }
  }));

test("[S103] follow: behind the fork it takes the parent's rest first; beyond the fork it says what it gives up", () =>
  withSource(async (scene) => {
    const { source, local } = scene;
    await begun(scene);
    await bookings(scene, 4);
    const next = await fork(scene, 5n);
    try {
      await next.activate();
      const stops = catchUp(scene);
      assert.equal((await refusal(stops)).code, "new_lineage");
      assertAt(source.writer, local, 5n);
      // A frozen writer published once more in the old lineage, and the replica had it before it knew.
      await source.writer.point({ lineageId: source.writer.lineage, claim: null });
      await bookings(scene, 2);
      await catchUp(scene);
      assertAt(source.writer, local, 7n);
      await next.source.writer.point({ lineageId: next.source.writer.lineage, claim: null });
      const [{ reason, from, seq }] = of(await catchUp(scene, { followLineage: true }), "bridged");
      assert.match(reason, /what the replica had after seq 5 is no part of its history/);
      assert.deepEqual([from, seq], [7n, 6n]);
      assertAt(next.source.writer, local, 6n);
    } finally {
      next.source.close();
    }
  }));

test("[S103] [S105] follow: a lineage of another page size comes in place; killed at every step it is one or the other", () =>
  withSource(async (scene) => {
    const { source, local, folder } = scene;
    await begun(scene);
    await bookings(scene, 8, 3000);
    await catchUp(scene);
    const next = await fork(scene, source.writer.seq, { pageSize: 1024 });
    try {
      next.source.database.exec(
        "PRAGMA journal_mode = DELETE; PRAGMA page_size = 1024; VACUUM; PRAGMA journal_mode = WAL",
      );
      await next.activate();
      const saved = ["", "-replica-state"].map((suffix) => [local + suffix, readFileSync(local + suffix)] as const);
      const seen = new Set<bigint | null>();
      for (let deadly = 1;; deadly++) {
        for (const [path, bytes] of saved) writeFileSync(path, bytes);
        const mortal = new MortalRuntime(runtime, deadly);
        await catchUp(scene, { runtime: mortal.runtime, followLineage: true }).catch((error) => {
          assert.ok(error instanceof Died, String(error));
        });
        mortal.bury();
        assert.deepEqual(ask(local, ledgerSum), { n: 0 }, mortal.names.at(-1));
        const seq = seqOf(source.writer, local) ?? seqOf(next.source.writer, local);
        assert.ok(seq !== null, `${mortal.names.at(-1)}: neither the old state nor the new one`);
        seen.add(seq);
        if (mortal.steps < deadly) break;
      }
      assert.deepEqual(seen, new Set([9n, 10n]));
      assertAt(next.source.writer, local, 10n);
      assert.deepEqual(ask(local, "PRAGMA page_size"), { page_size: 1024 });
      assert.ok(existsSync(folder));
    } finally {
      next.source.close();
    }
  }));

test("[S106] follow: thousands of deltas behind, it catches up in few updates", () =>
  withSource(async (scene) => {
    const { source, local } = scene;
    await begun(scene);
    // Beyond what one listing takes, with content that real commits made.
    const deltas = 4500;
    source.database.exec("PRAGMA wal_autocheckpoint = 0");
    for (let n = 0; n < deltas; n++) {
      await source.commit(`UPDATE debit SET amount = ${n + 1}; UPDATE credit SET amount = ${-n - 1}`);
    }
    const events = await catchUp(scene);
    const applied = of(events, "applied");
    assert.equal(applied.reduce((sum, { changesets }) => sum + changesets, 0), deltas);
    assert.ok(applied.length >= 5 && applied.length <= 10, `${applied.length} updates`);
    assertAt(source.writer, local, source.writer.seq);
  }));

/** A clock whose sleeps take no time; `asleep` runs in each of them. */
function quickClock(asleep: (ms: number) => void | Promise<void>): Clock {
  return {
    ...runtime.clock,
    async sleep(ms, signal) {
      await asleep(ms);
      await runtime.clock.sleep(0, signal);
    },
  };
}

test("follow: an idle look is one listing after the known seq; state.json is read now and then", () =>
  withSource(async (scene) => {
    const { source } = scene;
    await begun(scene);
    const calls: string[] = [];
    const { store } = source.writer;
    const watched = new Proxy(store, {
      get(target, name) {
        const value = Reflect.get(target, name);
        if (typeof value !== "function") return value;
        return (...args: unknown[]) => {
          calls.push(`${String(name)} ${args[0]}`);
          return value.apply(target, args);
        };
      },
    });
    const stop = new AbortController();
    let looks = 0;
    const clock = quickClock(() => {
      if (++looks === 1) calls.length = 0;
      if (looks === 40) stop.abort();
    });
    await catchUp(scene, { once: false, store: watched, runtime: { ...runtime, clock }, signal: stop.signal });
    assert.equal(looks, 40);
    const lists = calls.filter((call) => call.startsWith("list "));
    assert.equal(lists.length, 39, calls.join("\n"));
    assert.ok(lists.every((call) => call.endsWith("/0000/")));
    assert.ok(calls.length - lists.length <= 1, calls.join("\n"));
  }));

test("[S46] follow: while the bucket fails it waits longer and longer, then goes on; with --once it fails", () =>
  withSource(async (scene) => {
    const { source, local } = scene;
    await begun(scene);
    await source.commit(booking(1));
    let failures = 6;
    const { store, root } = source.writer;
    const failing = new Proxy(store, {
      get(target, name) {
        const value = Reflect.get(target, name);
        if (name !== "list") return typeof value === "function" ? value.bind(target) : value;
        return (...args: Parameters<ObjectStore["list"]>) => {
          if (failures-- > 0) throw new StorageError("SlowDown", "slow down", { retryable: true });
          return target.list(...args);
        };
      },
    });
    const stop = new AbortController();
    const events: FollowEvent[] = [];
    const waits: number[] = [];
    const clock = quickClock((ms) => {
      waits.push(ms);
      if (of(events, "applied").length > 0) stop.abort();
    });
    const shared = { store: failing, root, localPath: local, runtime: { ...runtime, clock } };
    await follow({ ...shared, signal: stop.signal, onEvent: (event) => void events.push(event) });
    assert.equal(of(events, "poll_failed").length, 6);
    for (const [index, wait] of waits.slice(0, 6).entries()) {
      assert.ok(wait >= 250 * 2 ** index && wait <= 500 * 2 ** index, `${waits}`);
    }
    assertAt(source.writer, local, 2n);
    failures = 1;
    assert.equal((await refusal(follow({ ...shared, once: true }))).code, "SlowDown");
  }));

test("follow: files that are no replica, other sources, a second walrust and a runtime without SQLite are refused", () =>
  withSource(async (scene) => {
    const { source, local, folder } = scene;
    await source.begin(ledgerSchema);
    const database = new SqliteSource(new MemoryStore(), local);
    database.database.exec("CREATE TABLE mine(x)");
    database.close();
    const mine = readFileSync(local);
    const notOurs = await refusal(catchUp(scene));
    assert.deepEqual([notOurs.code, notOurs.exitCode], ["not_a_replica", 3]);
    assert.ok(readFileSync(local).equals(mine));

    const other = { ...scene, local: `${folder}/second.db` };
    await catchUp(other);
    const elsewhere = new MemoryStore();
    assert.equal((await refusal(catchUp(other, { root: "other/" }))).code, "other_source");
    assert.equal(
      (await refusal(catchUp({ ...scene, local: `${folder}/third.db` }, { store: elsewhere }))).code,
      "nothing_stored",
    );
    assert.equal((await refusal(catchUp({ ...scene, local: `${folder}/none/x.db` }))).exitCode, 2);
    writeFileSync(`${folder}/fourth.db-journal`, "stale");
    assert.equal((await refusal(catchUp({ ...scene, local: `${folder}/fourth.db` }))).code, "output_exists");
    writeFileSync(`${other.local}-replica-state`, "{}");
    assert.match((await refusal(catchUp(other))).message, /is no replica: damaged is .*-replica-state/);

    const stop = new AbortController();
    const running = catchUp({ ...scene, local: `${folder}/fifth.db` }, { once: false, signal: stop.signal });
    await runtime.clock.sleep(50);
    assert.equal((await refusal(catchUp({ ...scene, local: `${folder}/fifth.db` }))).code, "locked_by_walrust");
    stop.abort();
    await running;
    await catchUp({ ...scene, local: `${folder}/fifth.db` });
  }));

test("follow: buckets of the Rust library, begun at each of their snapshots and followed to their ends", async () => {
  for (const bucket of ["owned-lineage", "owned-bare", "owned-leveled"]) {
    const whole = new MemoryStore();
    await uploadGolden(whole, bucket);
    const keys: string[] = [];
    for await (const { key } of whole.list(goldenRoot)) keys.push(key);
    const seqOfKey = (key: string): bigint => BigInt(`0x${/([0-9a-f]{16})\.hadbp$/.exec(key)?.[1] ?? 0}`);
    const snapshots = keys.filter((key) => /\/0001\//.test(key)).map(seqOfKey);
    await withSource(async ({ folder, source }) => {
      const target = `${folder}/restored.db`;
      await restore({
        ...{ store: whole, root: goldenRoot, outputPath: target, runtime, integrityCheck: "full" },
        target: { kind: "latest" },
      });
      const expected = readFileSync(target);
      for (const begin of snapshots) {
        const part = new MemoryStore();
        const copy = async (wanted: (key: string) => boolean): Promise<void> => {
          for (const key of keys.filter(wanted)) await part.put(key, (await getBytes(whole, key, 1e8)).bytes);
        };
        await copy((key) => seqOfKey(key) <= begin);
        const local = `${folder}/${bucket}-${begin}.db`;
        const options = { store: part, root: goldenRoot };
        await catchUp({ source, local }, options);
        await copy((key) => seqOfKey(key) > begin);
        await catchUp({ source, local }, options);
        const bytes = readFileSync(local);
        assert.equal(bytes.length, expected.length, `${bucket} from ${begin}`);
        assert.ok(bytes.subarray(100).equals(expected.subarray(100)), `${bucket} from ${begin}`);
      }
    });
  }
});

test("assertAt: one byte that differs is found (canary)", () =>
  withSource(async (scene) => {
    const { source, local } = scene;
    await begun(scene);
    await bookings(scene, 1);
    await catchUp(scene);
    const bytes = readFileSync(local);
    for (const at of [40, 100, bytes.length - 1]) {
      const wrong = Uint8Array.from(bytes);
      wrong[at] ^= 1;
      writeFileSync(local, wrong);
      assert.throws(() => assertAt(source.writer, local, 2n), `byte ${at}`);
    }
    writeFileSync(local, bytes);
    assertAt(source.writer, local, 2n);
  }));

test("follow: random histories, sweeps and deaths; every reader always finds a whole state, and the end is the head", async () => {
  const deed = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({ kind: fc.constant("book" as const), bytes: fc.integer({ min: 0, max: 20_000 }) }),
    },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("shrink" as const) }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant("snapshot" as const), upload: fc.boolean() }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant("sweep" as const) }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant("follow" as const) }) },
    { weight: 4, arbitrary: fc.record({ kind: fc.constant("die" as const), step: fc.integer({ min: 1, max: 50 }) }) },
  );
  await checkAsyncProperty(fc.asyncProperty(fc.array(deed, { minLength: 4, maxLength: 14 }), live), 12);

  async function live(deeds: readonly { kind: string; bytes?: number; upload?: boolean; step?: number }[]) {
    await withSource(async (scene) => {
      const { source, local } = scene;
      const { writer } = source;
      await begun(scene);
      for (const { kind, bytes, upload, step } of deeds) {
        if (kind === "book") await source.commit(booking(3, bytes));
        if (kind === "shrink") await source.commit("UPDATE debit SET note = NULL; VACUUM");
        if (kind === "snapshot") await writer.snapshot({ upload });
        if (kind === "sweep") await sweep(writer);
        if (kind === "follow") await catchUp(scene);
        if (kind === "die") {
          const mortal = new MortalRuntime(runtime, step);
          await catchUp(scene, { runtime: mortal.runtime }).catch((error) => {
            assert.ok(error instanceof Died, String(error));
          });
          mortal.bury();
        }
        assert.deepEqual(ask(local, ledgerSum), { n: 0 });
        assert.ok(seqOf(writer, local) !== null);
      }
      await catchUp(scene);
      assertAt(writer, local, writer.seq);
    });
  }
});

/** Retention: what lies before the newest snapshot that was uploaded goes, the first snapshot too. */
async function sweep(writer: BucketWriter): Promise<void> {
  const snapshots: bigint[] = [];
  for (const seq of writer.images.keys()) if (await writer.store.head(writer.key("snapshot", seq))) snapshots.push(seq);
  const newest = snapshots.at(-1)!;
  await writer.remove(2n, newest);
  await writer.store.deleteMany(snapshots.slice(0, -1).map((seq) => writer.key("snapshot", seq)));
  await writer.retention([{ min: 1n, max: newest, reason: "retention" }]);
}
