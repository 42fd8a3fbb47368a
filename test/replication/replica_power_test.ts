/**
 * Power losses in the middle of updates: a disk that forgets whatever was not forced to it, and a real SQLite that is
 * then asked what the replica is.
 */
import assert from "node:assert/strict";
import { readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import type { FollowEvent } from "../../src/replication/follow_options.ts";
import type { Sqlite, SqliteConnection } from "../../src/runtime/types.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { getBytes } from "../../src/storage/object_store.ts";
import { SimulatedCrash, SimulatedDisk, SimulatedFiles } from "../simulation/files.ts";
import { SeededRandom } from "../simulation/random.ts";
import { testSeed } from "../support/seed.ts";
import { ask, assertAt, catchUp, of, type ReplicaScene, runtime, seqOf, withSource } from "./replica_scene.ts";
import { booking, ledgerSchema, ledgerSum } from "./sqlite_source.ts";

const replicaNames = ["replica.db", "replica.db-replica-lock", "replica.db-replica-state"];

/** Locks that are always free: nobody else is on the simulated machine. */
const freeSqlite: Sqlite = {
  version: [3, 53, 0],
  open(): SqliteConnection {
    const nothing = (): void => {};
    return {
      ...{ beginRead: nothing, rollback: nothing, close: nothing },
      ...{ beginImmediate: () => true, beginExclusive: () => true, journalMode: () => "delete", check: () => [] },
      gauge: () => ({ busy: false, log: -1, checkpointed: -1 }),
      checkpointPassive: () => ({ busy: false, log: -1, checkpointed: -1 }),
    };
  },
};

async function copyOf(store: MemoryStore): Promise<MemoryStore> {
  const copy = new MemoryStore();
  for await (const { key } of store.list("")) await copy.put(key, (await getBytes(store, key, 1e8)).bytes);
  return copy;
}

/** The replica's files on a disk of its own, all forced to it. */
function simulated({ folder }: ReplicaScene): SimulatedDisk {
  const disk = new SimulatedDisk(() => 0n);
  disk.makeDirectory("/r");
  for (const name of replicaNames) {
    const inode = disk.inode(`/r/${name}`, "create");
    disk.write(inode, readFileSync(join(folder, name)), 0);
    disk.sync(inode);
  }
  for (const directory of ["/", "/r"]) disk.syncDirectory(directory);
  return disk;
}

/** Puts what a disk holds in the place of the replica. */
function materialise(disk: SimulatedDisk, { folder }: ReplicaScene): void {
  for (const name of readdirSync(folder).filter((name) => name.startsWith("replica"))) rmSync(join(folder, name));
  for (const { name } of disk.list("/r")) {
    const inode = disk.lookup(`/r/${name}`)!;
    const bytes = new Uint8Array(inode.size);
    disk.read(inode, bytes, 0);
    writeFileSync(join(folder, name), bytes);
  }
}

const changes = new Set(["write", "truncate", "sync", "rename", "remove", "syncDirectory", "open"]);

interface Life {
  /** Calls that change the disk. */
  readonly calls: number;
  /** Newest seq that the follower said was applied. */
  readonly told: bigint;
}

/** Follows one store after the other on the simulated machine, which dies at a call. */
async function live(
  scene: ReplicaScene,
  disk: SimulatedDisk,
  stores: readonly MemoryStore[],
  deadly: number,
  forget: (operation: string, path: string) => boolean,
): Promise<Life> {
  let calls = 0;
  let told = 1n;
  const files = new SimulatedFiles(disk, ({ operation, path }) => {
    if (calls >= deadly) throw new SimulatedCrash();
    if (changes.has(operation) && ++calls >= deadly) throw new SimulatedCrash();
    if (forget(operation, path)) throw new Forgotten();
  });
  const sloppy = forgiving(files);
  const onEvent = (event: FollowEvent): void => {
    for (const { seq } of of([event], "applied")) told = seq;
  };
  try {
    for (const store of stores) {
      const machine = { ...runtime, files: sloppy, sqlite: freeSqlite };
      await catchUp({ ...scene, local: "/r/replica.db" }, { store, runtime: machine, onEvent });
    }
  } catch (error) {
    assert.ok(error instanceof SimulatedCrash, String(error));
  }
  return { calls, told };
}

/** A call that the disk only pretended to do. */
class Forgotten extends Error {}

/** The files with the calls that are to be forgotten answered as if they had been done. */
function forgiving(files: SimulatedFiles): SimulatedFiles {
  const quiet = <T extends (...args: never[]) => unknown>(call: T) => (...args: Parameters<T>): unknown => {
    try {
      return call(...args);
    } catch (error) {
      if (error instanceof Forgotten) return undefined;
      throw error;
    }
  };
  const open = files.open.bind(files);
  files.open = (path, mode) => {
    const file = open(path, mode);
    return { ...file, sync: quiet(() => file.sync()) } as typeof file;
  };
  files.syncDirectory = quiet(files.syncDirectory.bind(files)) as typeof files.syncDirectory;
  return files;
}

/** Lets the power go at every call of three updates once, or with `tries` at so many drawn ones; returns how often. */
async function losePower(
  scene: ReplicaScene,
  tries: number | null,
  forget: (operation: string, path: string) => boolean = () => false,
): Promise<number> {
  const { source, local } = scene;
  const { writer } = source;
  await source.begin(ledgerSchema);
  for (let n = 1; n <= 8; n++) await source.commit(booking(n, 9000));
  await catchUp(scene);
  const origin = simulated(scene);
  const begin = writer.seq;
  const stores: MemoryStore[] = [];
  for (
    const sql of ["UPDATE debit SET note = randomblob(9000)", booking(9, 60_000), "UPDATE debit SET note = 1; VACUUM"]
  ) {
    await source.commit(sql);
    stores.push(await copyOf(writer.store));
  }
  const random = new SeededRandom(testSeed);
  const whole = await live(scene, origin.clone(() => 0n), stores, Infinity, forget);
  const count = tries ?? whole.calls;
  for (let loss = 1; loss <= count; loss++) {
    const deadly = tries === null ? loss : random.between(1, whole.calls);
    const disk = origin.clone(() => 0n);
    const { told } = await live(scene, disk, stores, deadly, forget);
    disk.powerLoss(random);
    materialise(disk, scene);
    const where = `seed ${testSeed}, loss ${loss} at call ${deadly}, told of seq ${told}`;
    assert.deepEqual(ask(local, ledgerSum), { n: 0 }, where);
    const seq = seqOf(writer, local);
    assert.ok(seq !== null, `${where}: no state of the source`);
    assert.ok(seq >= begin && seq >= told, `${where}: back at seq ${seq}`);
    await catchUp(scene);
    assert.equal(seqOf(writer, local), writer.seq, where);
  }
  return count;
}

test("[S101] follow: power lost at every call of three updates; whole, never back before what it told, and it goes on", () =>
  withSource(async (scene) => {
    const losses = await losePower(scene, null);
    assert.ok(losses > 80, `${losses} losses`);
    assertAt(scene.source.writer, scene.local, scene.source.writer.seq);
  }));

const sloppy: [name: string, forget: (operation: string, path: string) => boolean][] = [
  ["the journal's content", (operation, path) => operation === "sync" && path.endsWith("-replica-journal")],
  ["the database", (operation, path) => operation === "sync" && path.endsWith(".db")],
  ["the names", (operation) => operation === "syncDirectory"],
];

for (const [name, forget] of sloppy) {
  test(`losePower: a disk that is not made to keep ${name} is found out (canary)`, () =>
    withSource(async (scene) => {
      await assert.rejects(
        losePower(scene, 1000, forget),
        /seed|malformed|not a database|replica_changed|as walrust left/,
      );
    }));
}
