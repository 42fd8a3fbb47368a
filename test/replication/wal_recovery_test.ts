/**
 * A watch begins on a database whose log was cut or damaged while nobody had it open: what it publishes is what SQLite
 * recovers from the same files. Real files, the runtime's SQLite, a bucket in memory; SQLite is asked as in
 * ../format/wal_recovery.ts.
 */
import assert from "node:assert/strict";
import { cpSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { before, test } from "node:test";
import { DatabaseEngine } from "../../src/replication/engine.ts";
import { restore } from "../../src/replication/restore.ts";
import type { Files } from "../../src/runtime/types.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { getBytes, type ObjectStore } from "../../src/storage/object_store.ts";
import { recover, scan } from "../format/wal_files.ts";
import {
  commitsOf,
  type Damage,
  damaged,
  frameFields,
  frameOffsets,
  hashOf,
  type Log,
  RecoveredLogs,
  textOf,
} from "../format/wal_recovery.ts";
import { SeededRandom } from "../simulation/random.ts";
import { need } from "../support/need.ts";
import { testSeed } from "../support/seed.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { engineOptions, root, SkippingClock, system, turn } from "./engine_scene.ts";

const skip = need("python3");
const skipCommand = skip || need("sqlite3");
const timeout = 120_000;
const logs = new RecoveredLogs();
const randomCases = 24;

before(() => {
  if (skip === false) logs.make([512, 4096]);
  if (skipCommand === false) logs.makeByCommand("command");
});

/** The machine's files without waiting for its disk: no power fails here. */
const files: Files = {
  ...system.files,
  syncDirectory() {},
  open: (path, mode) => Object.assign(system.files.open(path, mode), { sync() {} }),
};

/** A database on disk and what is published of it. */
class Place {
  readonly directory: string;
  readonly path: string;
  readonly store: MemoryStore;

  constructor(directory: string, store: MemoryStore = new MemoryStore()) {
    this.directory = directory;
    this.path = `${directory}/app.db`;
    this.store = store;
    mkdirSync(directory, { recursive: true });
  }

  /** Puts files in place, as a machine leaves them that lost its power: no wal-index. */
  write(database: Uint8Array, wal: Uint8Array): void {
    writeFileSync(this.path, database);
    writeFileSync(`${this.path}-wal`, wal);
    rmSync(`${this.path}-shm`, { force: true });
  }

  /** Watches until all is published, and stops. */
  async watch(): Promise<void> {
    const clock = new SkippingClock();
    const engine = new DatabaseEngine({
      path: this.path,
      root,
      directory: `${this.directory}/state`,
      store: this.store,
      runtime: { ...system, clock, files },
      options: engineOptions,
      emit: () => {},
    });
    for (let steps = 0; !engine.atRest; steps++) {
      assert.ok(steps < 1000, "the engine does not come to rest");
      await engine.step();
      await turn();
    }
    assert.equal(await engine.stop(5000), null);
  }

  async restored(seq?: bigint): Promise<Uint8Array> {
    const outputPath = `${this.directory}/restored.db`;
    const target = seq === undefined ? { kind: "latest" as const } : { kind: "seq" as const, seq };
    await restore({
      store: this.store,
      root,
      target,
      outputPath,
      runtime: { ...system, files },
      integrityCheck: "none",
    });
    const bytes = readFileSync(outputPath);
    rmSync(outputPath);
    return bytes;
  }
}

async function copyOf(store: ObjectStore): Promise<MemoryStore> {
  const copy = new MemoryStore();
  for await (const { key, size } of store.list("")) await copy.put(key, (await getBytes(store, key, size)).bytes);
  return copy;
}

/** Where transactions end in the file. */
function commitEnds(log: Log): number[] {
  const size = 24 + log.pageSize;
  return scan(log.wal).visits.filter(({ commit }) => commit !== 0).map(({ frame }) => 32 + (frame + 1) * size);
}

/** Around each of these places, and at the ends of the header and the file. */
function cutsAround(log: Log, places: readonly number[]): Damage[] {
  const cuts = [0, 1, 31, 32, 33, log.wal.length - 1, log.wal.length];
  for (const place of places) cuts.push(place - 1, place, place + 1);
  return [...new Set(cuts)].filter((cut) => cut >= 0 && cut <= log.wal.length).map((cut) => ({ cut }));
}

/** What in a header makes it none of SQLite's, or one that is being written. */
const headerBytes = [0, 3, 8, 11, 4, 7, 12, 15, 16, 19, 20, 23, 24, 27, 28, 31];

/** Cuts anywhere, and flips in all fields. */
function randomDamages(log: Log, random: SeededRandom): Damage[] {
  return Array.from({ length: randomCases }, (_, index): Damage => {
    if (index % 2 === 0) return { cut: random.integer(log.wal.length + 1) };
    const inFrame = random.pick(frameOffsets(log)) + random.pick(frameFields(log.pageSize));
    const flip = random.chance(0.1) ? random.pick(headerBytes) : inFrame;
    return { flip, mask: 1 << random.integer(8) };
  });
}

interface Case {
  readonly log: Log;
  readonly damage: Damage;
}

function casesOf(log: Log, damages: readonly Damage[]): Case[] {
  return damages.map((damage) => ({ log, damage }));
}

/** Around each frame of one log, around each commit of the others, and a random sample of all. */
function allCases(random: SeededRandom): Case[] {
  const small = logs.read("512", 512);
  const others = [logs.other(small), logs.read("4096", 4096)];
  if (skipCommand === false) others.push(logs.read("command", 512));
  const cases = casesOf(small, [...cutsAround(small, frameOffsets(small)), ...randomDamages(small, random)]);
  for (const log of others) {
    cases.push(...casesOf(log, [...cutsAround(log, commitEnds(log)), ...randomDamages(log, random)]));
  }
  return cases;
}

function explained(one: Case, what: string): string {
  return `${what}: ${textOf(one.log, one.damage)}; replay with WALRUST_SEED=${testSeed}`;
}

test("[S19] DatabaseEngine: begun on a damaged log, it publishes what SQLite recovers", { skip, timeout }, async () => {
  const cases = allCases(new SeededRandom(testSeed));
  const answers = logs.answers(cases);
  const directory = temporaryDirectory("fresh");
  const contents = new Set<string>();
  for (const [index, one] of cases.entries()) {
    const place = new Place(`${directory}/${index}`);
    place.write(one.log.database, damaged(one.log, one.damage));
    await place.watch();
    const published = hashOf(await place.restored());
    assert.equal(published, answers[index], explained(one, "published"));
    contents.add(published);
    rmSync(place.directory, { recursive: true });
  }
  assert.ok(contents.size > 3 * 4, `${contents.size} contents`);
});

test("[S3] [S6] DatabaseEngine: a file that is no log is an empty one, as it is to SQLite, and never parsed on", {
  skip,
  timeout,
}, async () => {
  const log = logs.read("512", 512);
  const wholes = [new Uint8Array(4152), ...[0, 3, 8, 11].map((flip) => damaged(log, { flip, mask: 0x12 }))];
  for (const wal of wholes) {
    const place = new Place(temporaryDirectory("no-log"));
    place.write(log.database, wal);
    await place.watch();
    assert.equal(hashOf(await place.restored()), hashOf(recover(log.database, wal)));
    assert.equal(hashOf(await place.restored()), hashOf(log.database), "nothing of it was taken");
  }
});

/** Something published before the damage: the log as it was at one of its commits. */
interface Base {
  readonly place: Place;
  readonly content: string;
}

async function baseOf(log: Log, end: number, directory: string): Promise<Base> {
  const place = new Place(`${directory}/base-${log.name}-${end}`);
  place.write(log.database, log.wal.subarray(0, end));
  await place.watch();
  cpSync(`${place.directory}/state`, `${place.directory}/saved`, { recursive: true });
  return { place, content: hashOf(recover(log.database, log.wal.subarray(0, end))) };
}

test("[S19] [S112] DatabaseEngine: resumed after any commit on a damaged log, its head is what SQLite recovers", {
  skip,
  timeout,
}, async () => {
  const random = new SeededRandom(testSeed);
  const cases = allCases(random);
  const answers = logs.answers(cases);
  const directory = temporaryDirectory("resumed");
  const bases = new Map<string, Base>();
  let reverted = 0;
  for (const [index, one] of cases.entries()) {
    const { log, damage } = one;
    const end = random.pick([32, ...commitEnds(log)]);
    const name = `${log.name} ${end}`;
    const base = bases.get(name) ?? await baseOf(log, end, directory);
    bases.set(name, base);
    const place = new Place(base.place.directory, await copyOf(base.place.store));
    rmSync(`${place.directory}/state`, { recursive: true });
    cpSync(`${place.directory}/saved`, `${place.directory}/state`, { recursive: true });
    // A file of its own is another file than the published one; written over, it is the same.
    if (random.chance(0.3)) rmSync(place.path);
    place.write(log.database, damaged(log, damage));
    await place.watch();
    const what = explained(one, `published up to byte ${end}, then`);
    assert.equal(hashOf(await place.restored()), answers[index], what);
    assert.equal(hashOf(await place.restored(1n)), base.content, `the first point of ${what}`);
    if ("cut" in damage && damage.cut < end) reverted++;
  }
  assert.ok(bases.size > 12 && reverted > cases.length / 8, `${bases.size} bases, ${reverted} reverted`);
});

test("canary: a damage that SQLite does not know of is noticed", { skip, timeout }, async () => {
  const log = logs.read("512", 512);
  const ends = commitEnds(log);
  assert.equal(ends.length, commitsOf(log).length);
  const [before, last] = ends.slice(-2);
  const [expected] = logs.answers([{ log, damage: { cut: last } }]);
  const place = new Place(temporaryDirectory("canary"));
  for (const [wal, same] of [[log.wal.subarray(0, last), true], [log.wal.subarray(0, before), false]] as const) {
    place.write(log.database, wal);
    await place.watch();
    assert.equal(hashOf(await place.restored()) === expected, same);
  }
});
