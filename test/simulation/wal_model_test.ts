/** The model of SQLite's WAL against SQLite itself: random scripts over several connections must agree. */
import assert from "node:assert/strict";
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
  changed: Set<number>;
}

/** What the directory shows of the WAL. */
interface Seen {
  exists: boolean;
  size: number;
  salt1: number;
  sequence: number;
}

function seen(bytes: Uint8Array | null): Seen {
  if (bytes === null) return { exists: false, size: 0, salt1: 0, sequence: 0 };
  if (bytes.length < 32) return { exists: true, size: bytes.length, salt1: 0, sequence: 0 };
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return { exists: true, size: bytes.length, salt1: view.getUint32(16), sequence: view.getUint32(12) };
}

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

function open(path: string, model: WalDatabase, readOnly: boolean): Both {
  const real = new DatabaseSync(path, { readOnly });
  real.exec("PRAGMA busy_timeout = 0; PRAGMA wal_autocheckpoint = 0; PRAGMA synchronous = NORMAL");
  const connection = new ModelConnection(model, "application", readOnly);
  connection.look();
  real.prepare("SELECT count(*) FROM sqlite_schema").get();
  return { real, model: connection, readOnly, state: "idle", changed: new Set() };
}

/** Rows 1..24 fill one leaf page each: changing n rows makes exactly n frames. */
function makeReal(path: string): void {
  const real = new DatabaseSync(path);
  real.exec(
    `PRAGMA page_size = ${pageSize}; PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)`,
  );
  real.exec(`WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < ${rows})
    INSERT INTO t SELECT n, randomblob(900) FROM c`);
  real.close();
}

function act(random: SeededRandom, connection: Both): { real: unknown; model: unknown } {
  const { real } = connection;
  const write = (): { real: unknown; model: unknown } => {
    const ids = new Set(Array.from({ length: random.between(1, 6) }, () => random.between(1, rows)));
    for (const id of ids) connection.changed.add(id);
    const statement = real.prepare("UPDATE t SET v = randomblob(900) WHERE id = ?");
    return both(() => ids.forEach((id) => statement.run(id)), () => {});
  };
  const finish = (): { real: unknown; model: unknown } => {
    const pages = new Map([...connection.changed].map((id) => [id + 2, random.bytes(pageSize)]));
    connection.changed.clear();
    connection.state = "idle";
    return both(() => real.exec("COMMIT"), () => drain(connection.model.commit(pages, connection.model.pageCount)));
  };
  if (connection.state === "writing") {
    const choice = random.integer(3);
    if (choice === 0) return write();
    if (choice === 1) return finish();
  }
  if (connection.state !== "idle" && random.chance(0.8)) {
    connection.state = "idle";
    connection.changed.clear();
    return both(() => real.exec("ROLLBACK"), () => connection.model.rollback());
  }
  if (connection.state === "idle" && random.chance(0.4) && !connection.readOnly) {
    const begun = both(() => {
      real.exec("BEGIN IMMEDIATE");
      return true as boolean | string;
    }, () => connection.model.beginWrite() || "blocked");
    if (begun.real !== true || begun.model !== true) return begun;
    connection.state = "writing";
    write();
    return random.chance(0.7) ? finish() : begun;
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

/** One script; returns how often the log began anew, so that a run in which nothing happens is noticed. */
function script(seed: number, breakModel: (connection: ModelConnection) => void = () => {}): number {
  const random = new SeededRandom(seed);
  const path = join(directory, `${seed}-${scripts++}.db`);
  makeReal(path);
  const disk = new SimulatedDisk(() => 0n);
  const model = new WalDatabase({ disk, path: "/app.db", pageSize, random: random.fork(), synchronous: "normal" });
  createDatabase(model, rows + 2);
  let connections: Both[] = [];
  let before: { real: Seen; model: Seen } = { real: seen(realWal(path)), model: seen(null) };
  let restarts = 0;
  for (let step = 0; step < 60; step++) {
    const roll = random.integer(20);
    let doing = "open";
    if (connections.length === 0 || (roll === 0 && connections.length < 6)) {
      connections.push(open(path, model, random.chance(0.25) && connections.length > 0));
      breakModel(connections.at(-1)!.model);
    } else if (roll === 1) {
      doing = "close";
      const [closing] = connections.splice(random.integer(connections.length), 1);
      closing.real.close();
      closing.model.close();
    } else {
      const connection = random.pick(connections);
      doing = `${connection.state} ${connection.readOnly ? "reader" : "writer"}`;
      const result = act(random, connection);
      assert.deepEqual(result.model, result.real, `seed ${seed} step ${step}: ${doing}: result`);
    }
    const inode = disk.lookup("/app.db-wal");
    const now = { real: seen(realWal(path)), model: seen(inode && inode.data.subarray(0, inode.size)) };
    const where = `seed ${seed} step ${step}: ${doing}`;
    assert.equal(now.model.exists, now.real.exists, `${where}: WAL exists`);
    assert.equal(now.model.size, now.real.size, `${where}: WAL size`);
    assert.equal(now.model.sequence, now.real.sequence, `${where}: checkpoint sequence`);
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

test(
  "WalDatabase: 200 random scripts agree with SQLite on checkpoints, salts, sizes and files",
  { timeout: 60_000 },
  () => {
    let restarts = 0;
    for (let seed = 1; seed <= 200; seed++) restarts += script(seed);
    assert.ok(restarts > 100, `only ${restarts} restarts of the log`);
  },
);

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
