/** The model of SQLite's WAL against SQLite itself: random scripts over several connections must agree. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { after, test } from "node:test";
import { SimulatedDisk } from "./files.ts";
import { SeededRandom } from "./random.ts";
import { createDatabase, randomPages } from "./wal_content.ts";
import { SqliteFailure, WalDatabase } from "./wal_index.ts";
import { type CheckpointMode, drain, ModelConnection } from "./wal_model.ts";

const directory: string = mkdtempSync(join(tmpdir(), "walrust-model-"));
after(() => rmSync(directory, { recursive: true, force: true }));

const pageSize = 1024;
const rows = 24;
const modes: readonly CheckpointMode[] = ["noop", "passive", "passive", "full", "restart", "truncate"];

interface Both {
  real: DatabaseSync;
  model: ModelConnection;
  readOnly: boolean;
  state: "idle" | "reading" | "writing";
  /** What the running transaction wrote, by row; and what of it was spilled. */
  changed: Map<number, bigint>;
  spilled: Map<number, bigint>;
}

const frameSize = 24 + pageSize;
/** Rows are one page each, behind the header and the root. */
const pageOf = (row: number): number => row + 2;

/** What the directory shows of the WAL. */
interface Seen {
  exists: boolean;
  size: number;
  salt1: number;
  sequence: number;
  /** Of each frame its page, its commit size, and whether its salts are the header's. */
  frames: string;
  /** Frames that a recovery would find. */
  recovered: number;
}

function seen(bytes: Uint8Array | null): Seen {
  const nothing = { exists: bytes !== null, size: bytes?.length ?? 0, salt1: 0, sequence: 0, frames: "", recovered: 0 };
  if (bytes === null || bytes.length < 32) return nothing;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const frames: string[] = [];
  for (let at = 32; at + frameSize <= bytes.length; at += frameSize) {
    const isCurrent = view.getBigUint64(at + 8) === view.getBigUint64(16);
    frames.push(`${view.getUint32(at)}:${view.getUint32(at + 4)}${isCurrent ? "" : "-"}`);
  }
  const { frames: state, header } = recoveredFrom(bytes);
  return {
    ...nothing,
    salt1: view.getUint32(16),
    sequence: view.getUint32(12),
    frames: frames.join(" "),
    recovered: header.mxFrame * 1000 + state.length,
  };
}

/** What a recovery makes of a log. */
function recoveredFrom(wal: Uint8Array): ReturnType<WalDatabase["recover"]> {
  const disk = new SimulatedDisk(() => 0n);
  disk.write(disk.inode("/app.db-wal", "create"), wal, 0);
  const random = new SeededRandom(1);
  return new WalDatabase({ disk, path: "/app.db", pageSize, random, synchronous: "normal" }).recover();
}

/** A page of the model that holds the tag of a row. */
function tagged(tag: bigint): Uint8Array {
  const page = new Uint8Array(pageSize);
  new DataView(page.buffer).setBigUint64(0, tag);
  return page;
}

const tagOf = (bytes: Uint8Array): bigint => new DataView(bytes.buffer, bytes.byteOffset, 8).getBigUint64(0);

function realWal(path: string): Uint8Array | null {
  return statSync(`${path}-wal`, { throwIfNoEntry: false }) === undefined ? null : readFileSync(`${path}-wal`);
}

/** Runs one call on both sides; both must fail or neither. */
function both<T>(real: () => T, model: () => T): { real: T | string; model: T | string } {
  const attempt = (run: () => T, failure: (error: Error) => string): T | string => {
    try {
      return run();
    } catch (error) {
      return failure(error as Error);
    }
  };
  return {
    real: attempt(real, (error) => /locked|busy/.test(error.message) ? "blocked" : error.message),
    model: attempt(model, (error) => error instanceof SqliteFailure ? "blocked" : error.message),
  };
}

function open(path: string, model: WalDatabase, readOnly: boolean, cachePages: number): Both {
  const real = new DatabaseSync(path, { readOnly });
  real.exec(`PRAGMA busy_timeout = 0; PRAGMA wal_autocheckpoint = 0; PRAGMA synchronous = OFF;
    PRAGMA cache_size = ${cachePages}`);
  const connection = new ModelConnection(model, "application", readOnly);
  connection.look();
  real.prepare("SELECT count(*) FROM sqlite_schema").get();
  return { real, model: connection, readOnly, state: "idle", changed: new Map(), spilled: new Map() };
}

/** Rows 1..24 fill one leaf page each: changing n rows makes exactly n frames. */
function makeReal(path: string): void {
  const real = new DatabaseSync(path);
  real.exec(
    `PRAGMA synchronous = OFF; PRAGMA page_size = ${pageSize}; PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)`,
  );
  real.exec(`WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < ${rows})
    INSERT INTO t SELECT n, zeroblob(900) FROM c`);
  real.close();
}

/** Runs a statement of a transaction; what SQLite spills by the way, of what was written `before`, the model spills. */
function spilling<T>({ model, changed, spilled }: Both, path: string, run: () => T): T {
  const before = realWal(path) ?? new Uint8Array(0);
  const latest = new Map(changed);
  const result = run();
  // Nobody else writes to the log in the middle of this transaction.
  for (const pgno of changedFrames(before, realWal(path) ?? new Uint8Array(0), model.header.mxFrame)) {
    const tag = latest.get(pgno - 2) ?? changed.get(pgno - 2);
    assert.ok(tag !== undefined, `page ${pgno} was spilled and not written`);
    spills++;
    drain(model.spill(new Map([[pgno, tagged(tag)]])));
    spilled.set(pgno - 2, tag);
  }
  return result;
}

function write(random: SeededRandom, connection: Both, path: string): { real: unknown; model: unknown } {
  const statement = connection.real.prepare("UPDATE t SET v = ? WHERE id = ?");
  const count = random.chance(0.3) ? rows : random.between(1, 6);
  for (let at = 0; at < count; at++) {
    const row = random.between(1, rows);
    const tag = BigInt(random.next());
    const value = new Uint8Array(900);
    new DataView(value.buffer).setBigUint64(0, tag);
    spilling(connection, path, () => statement.run(value, row));
    connection.changed.set(row, tag);
  }
  return { real: null, model: null };
}

/**
 * Pages of the frames in which two states of a log differ, in the order in which they were written: frames behind the
 * first `count` are new, and have salts unless an older one was overwritten before them.
 */
function changedFrames(before: Uint8Array, after: Uint8Array, count: number): number[] {
  const found: { pgno: number; rank: number }[] = [];
  const view = new DataView(after.buffer, after.byteOffset, after.length);
  for (let at = 32, frame = 1; at + frameSize <= after.length; at += frameSize, frame++) {
    const isSame = at + frameSize <= before.length &&
      Buffer.compare(before.subarray(at, at + frameSize), after.subarray(at, at + frameSize)) === 0;
    if (isSame) continue;
    const rank = frame <= count ? 1 : view.getBigUint64(at + 8) !== 0n ? 0 : 2;
    found.push({ pgno: view.getUint32(at), rank });
  }
  return found.sort((a, b) => a.rank - b.rank).map(({ pgno }) => pgno);
}

/** Ends the transaction; pages that were spilled and not changed since are clean. */
function commit({ real, model, changed, spilled }: Both): { real: unknown; model: unknown } {
  const dirty = new Map(
    [...changed].filter(([row, tag]) => spilled.get(row) !== tag).map(([row, tag]) => [pageOf(row), tagged(tag)]),
  );
  // The commit needs a frame, so it takes the first page where all others are clean.
  if (dirty.size === 0 && changed.size > 0) dirty.set(1, new Uint8Array(pageSize));
  return both(() => real.exec("COMMIT"), () => drain(model.commit(dirty, model.pageCount)));
}

/** What both sides see of every row; a connection that was idle reads and ends its transaction again. */
function look({ real, model, state, changed }: Both): { real: unknown; model: unknown } {
  looks++;
  const rowsOf = (): string =>
    real.prepare("SELECT id, v FROM t ORDER BY id").all().map(({ id, v }) => `${id}:${tagOf(v as Uint8Array)}`).join(
      " ",
    );
  return both(rowsOf, () => {
    if (state === "idle") model.beginRead();
    const tags = Array.from({ length: rows }, (_, at) => {
      return `${at + 1}:${changed.get(at + 1) ?? tagOf(model.page(pageOf(at + 1)))}`;
    });
    if (state === "idle") model.rollback();
    return tags.join(" ");
  });
}

function act(random: SeededRandom, connection: Both, path: string): { real: unknown; model: unknown } {
  const { real } = connection;
  const end = (result: { real: unknown; model: unknown }): { real: unknown; model: unknown } => {
    connection.state = "idle";
    connection.changed.clear();
    connection.spilled.clear();
    return result;
  };
  if (random.chance(0.2)) {
    return connection.state === "writing" ? spilling(connection, path, () => look(connection)) : look(connection);
  }
  if (connection.state === "writing") {
    const choice = random.integer(3);
    if (choice === 0) return write(random, connection, path);
    if (choice === 1) return end(commit(connection));
  }
  if (connection.state !== "idle" && random.chance(0.8)) {
    return end(both(() => real.exec("ROLLBACK"), () => connection.model.rollback()));
  }
  if (connection.state === "idle" && random.chance(0.4) && !connection.readOnly) {
    const begun = both(() => {
      real.exec("BEGIN IMMEDIATE");
      return true as boolean | string;
    }, () => connection.model.beginWrite() || "blocked");
    if (begun.real !== true || begun.model !== true) return begun;
    connection.state = "writing";
    write(random, connection, path);
    return random.chance(0.7) ? end(commit(connection)) : begun;
  }
  if (connection.state === "idle" && random.chance(0.4)) {
    connection.state = "reading";
    return both(() => {
      real.exec("BEGIN");
      real.prepare("SELECT count(*) FROM sqlite_schema").get();
    }, () => connection.model.beginRead());
  }
  const mode = connection.readOnly ? "noop" : random.pick(modes);
  return both<Record<string, number>>(
    () => ({ ...real.prepare(`PRAGMA wal_checkpoint(${mode})`).get() }) as Record<string, number>,
    () => {
      const { busy, log, checkpointed } = drain(connection.model.checkpoint(mode));
      return { busy: Number(busy), log, checkpointed };
    },
  );
}

let scripts = 0;
/** Frames that SQLite spilled in the middle of transactions, and comparisons of what a connection sees. */
let spills = 0;
let looks = 0;

/** One script; returns how often the log began anew, so that a run in which nothing happens is noticed. */
function script(seed: number, breakModel: (connection: ModelConnection) => void = () => {}): number {
  const random = new SeededRandom(seed);
  const path = join(directory, `${seed}-${scripts++}.db`);
  makeReal(path);
  const disk = new SimulatedDisk(() => 0n);
  const model = new WalDatabase({ disk, path: "/app.db", pageSize, random: random.fork(), synchronous: "normal" });
  createDatabase(model, rows + 2);
  for (let row = 1; row <= rows; row++) disk.write(model.file, tagged(0n), (pageOf(row) - 1) * pageSize);
  let connections: Both[] = [];
  let before: { real: Seen; model: Seen } = { real: seen(realWal(path)), model: seen(null) };
  let restarts = 0;
  for (let step = 0; step < 60; step++) {
    const roll = random.integer(20);
    let doing = "open";
    if (connections.length === 0 || (roll === 0 && connections.length < 6)) {
      connections.push(open(path, model, random.chance(0.25) && connections.length > 0, random.pick([4, 100])));
      breakModel(connections.at(-1)!.model);
    } else if (roll === 1) {
      doing = "close";
      const [closing] = connections.splice(random.integer(connections.length), 1);
      closing.real.close();
      closing.model.close();
    } else {
      const connection = random.pick(connections);
      doing = `${connection.state} ${connection.readOnly ? "reader" : "writer"}`;
      const result = act(random, connection, path);
      assert.deepEqual(result.model, result.real, `seed ${seed} step ${step}: ${doing}: result`);
    }
    const inode = disk.lookup("/app.db-wal");
    const now = { real: seen(realWal(path)), model: seen(inode && inode.data.subarray(0, inode.size)) };
    const where = `seed ${seed} step ${step}: ${doing}`;
    assert.equal(now.model.exists, now.real.exists, `${where}: WAL exists`);
    assert.equal(now.model.size, now.real.size, `${where}: WAL size`);
    assert.equal(now.model.sequence, now.real.sequence, `${where}: checkpoint sequence`);
    assert.equal(now.model.frames, now.real.frames, `${where}: frames`);
    assert.equal(now.model.recovered, now.real.recovered, `${where}: frames that a recovery finds`);
    const change = (a: Seen, b: Seen): string =>
      a.salt1 === b.salt1 ? "same" : ((b.salt1 - a.salt1) >>> 0) === 1 ? "next" : "new";
    assert.equal(change(before.model, now.model), change(before.real, now.real), `${where}: salt-1`);
    if (change(before.real, now.real) === "next") restarts++;
    before = now;
  }
  for (const { real, model } of connections) {
    real.close();
    model.close();
  }
  connections = [];
  return restarts;
}

const proofs = 600;

test(`WalDatabase: ${proofs} random scripts agree with SQLite on results, contents, frames, salts and files`, {
  timeout: 300_000,
}, () => {
  let restarts = 0;
  for (let seed = 1; seed <= proofs; seed++) restarts += script(seed);
  assert.ok(restarts > proofs / 2, `only ${restarts} restarts of the log`);
  assert.ok(spills > proofs, `only ${spills} frames spilled`);
  assert.ok(looks > proofs * 5, `only ${looks} looks at the content`);
});

/** Breakages of one connection of the model that the scripts must notice. */
const breakages: Record<string, (connection: ModelConnection) => void> = {
  "does not see the frames of the log": (connection) => {
    const page = connection.page.bind(connection);
    connection.page = (pgno) => connection.readLock > 0 && !connection.writing ? page(1).slice() : page(pgno);
  },
  "keeps nothing of a spill": (connection) => {
    connection.spill = function* () {};
  },
  "backfills although somebody reads": (connection) => {
    const checkpoint = connection.checkpoint.bind(connection);
    connection.checkpoint = (mode) => {
      connection.database.readers.forEach((readers) => readers.clear());
      return checkpoint(mode);
    };
  },
  "truncates where it should restart": (connection) => {
    const checkpoint = connection.checkpoint.bind(connection);
    connection.checkpoint = (mode) => checkpoint(mode === "restart" ? "truncate" : mode);
  },
  "leaves the log when it closes last": (connection) => {
    connection.close = () => {
      connection.rollback();
      connection.database.drop(connection);
    };
  },
};

for (const [name, breakModel] of Object.entries(breakages)) {
  test(`WalDatabase: canary: a model that ${name}`, { timeout: 60_000 }, () => {
    assert.throws(() => {
      for (let seed = 1; seed <= 100; seed++) script(seed, breakModel);
    }, assert.AssertionError);
  });
}

test("WalDatabase: canary: a model that forgets read locks is caught", { timeout: 60_000 }, () => {
  assert.throws(() => {
    for (let seed = 1; seed <= 200; seed++) {
      script(seed, (connection) => {
        const begin = connection.beginRead.bind(connection);
        connection.beginRead = (useWal) => {
          begin(useWal);
          for (const readers of connection.database.readers) readers.delete(connection);
        };
      });
    }
  }, assert.AssertionError);
});

test("WalDatabase: SQLite recovers from the model's files exactly what the model says is committed", {
  timeout: 60_000,
}, () => {
  for (let seed = 1; seed <= 60; seed++) {
    const random = new SeededRandom(seed);
    const disk = new SimulatedDisk(() => 0n);
    const size = random.pick([512, 1024, 4096]);
    const model = new WalDatabase({
      disk,
      path: "/app.db",
      pageSize: size,
      random: random.fork(),
      synchronous: random.pick(["normal", "full"]),
    });
    createDatabase(model, random.between(3, 20));
    let connection = new ModelConnection(model, "application", false);
    for (let step = 0; step < 30; step++) {
      if (random.chance(0.2)) drain(connection.checkpoint(random.pick(modes)));
      if (!connection.beginWrite()) continue;
      const spilled = random.chance(0.4) ? randomPages(connection, random, 0.3) : null;
      if (spilled) drain(connection.spill(spilled.pages));
      if (spilled && random.chance(0.3)) {
        connection.rollback();
        continue;
      }
      const { pages, pageCount } = randomPages(connection, random, 0.4);
      const steps = connection.commit(pages, pageCount);
      const dies = random.chance(0.1);
      for (let next = steps.next(); !next.done; next = steps.next()) if (dies && random.chance(0.2)) break;
      if (connection.writing) {
        // Killed in the middle of its commit, with nobody left: recovery decides.
        model.kill("application");
        connection = new ModelConnection(model, "application", false);
      }
    }
    if (random.chance(0.3)) {
      model.powerLoss();
      disk.powerLoss(random);
    } else model.kill("application");
    const path = join(directory, `recover-${seed}.db`);
    const bytes = (name: string): Uint8Array => {
      const inode = disk.lookup(name);
      return inode ? inode.data.slice(0, inode.size) : new Uint8Array(0);
    };
    writeFileSync(path, bytes("/app.db"));
    writeFileSync(`${path}-wal`, bytes("/app.db-wal"));
    const expected = model.content();
    const real = new DatabaseSync(path);
    real.exec("PRAGMA wal_checkpoint(TRUNCATE)");
    real.close();
    assert.ok(readFileSync(path).equals(expected), `seed ${seed}: content`);
  }
});
