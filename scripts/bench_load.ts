/**
 * The load of the benchmarks, a process of its own: `create FILE BYTES`, `writer FILE SECONDS RATE` (0 = flat out) or
 * `many SECONDS FILE…` (one commit a second each). Prints what it measured as one line of JSON.
 */
import process from "node:process";
import { DatabaseSync } from "node:sqlite";

const rowSize = 400;

function create(path: string, bytes: number): void {
  const database = new DatabaseSync(path);
  database.exec("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; CREATE TABLE filler (data BLOB) STRICT");
  const rows = Math.max(1, Math.floor(bytes / 4096));
  database.exec("BEGIN");
  // One row of 4,040 bytes fills a page of 4,096.
  const insert = database.prepare("INSERT INTO filler VALUES (randomblob(4040))");
  for (let i = 0; i < rows; i++) insert.run();
  database.exec("COMMIT");
  openTable(database);
  database.close();
  console.log("{}");
}

function openTable(database: DatabaseSync): void {
  database.exec(
    "PRAGMA busy_timeout = 5000; PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; " +
      "CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY, time INTEGER, data BLOB)",
  );
}

async function sleep(ms: number): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, ms));
}

async function writer(path: string, seconds: number, rate: number): Promise<void> {
  const database = new DatabaseSync(path);
  openTable(database);
  const insert = database.prepare(`INSERT INTO rows (time, data) VALUES (?, randomblob(${rowSize}))`);
  const latencies: number[] = [];
  const begun = performance.now();
  for (let n = 0; performance.now() - begun < seconds * 1000; n++) {
    if (rate > 0) {
      const ahead = n * 1000 / rate - (performance.now() - begun);
      if (ahead > 0) await sleep(ahead);
    }
    const before = performance.now();
    insert.run(Date.now());
    latencies.push(performance.now() - before);
  }
  const spentMs = performance.now() - begun;
  latencies.sort((a, b) => a - b);
  const at = (p: number): number => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * p))];
  const figures = { p50: at(0.5), p99: at(0.99), p999: at(0.999), max: at(1) };
  console.log(JSON.stringify({ commits: latencies.length, perSecond: latencies.length * 1000 / spentMs, ...figures }));
  // Without this the last connection would checkpoint and remove the WAL whose size is asked for.
  process.exit(0);
}

async function many(seconds: number, paths: string[]): Promise<void> {
  const databases = paths.map((path) => {
    const database = new DatabaseSync(path);
    openTable(database);
    return {
      path,
      insert: database.prepare(`INSERT INTO rows (time, data) VALUES (?, randomblob(${rowSize}))`),
      database,
    };
  });
  const acknowledged: [path: string, ms: number][] = [];
  const begun = performance.now();
  await Promise.all(databases.map(async ({ path, insert }, i) => {
    for (let n = 0; n < seconds; n++) {
      await sleep(Math.max(0, (n + i / databases.length) * 1000 - (performance.now() - begun)));
      insert.run(Date.now());
      acknowledged.push([path, Date.now()]);
    }
  }));
  console.log(JSON.stringify({ acknowledged }));
  process.exit(0);
}

const [mode, ...rest] = process.argv.slice(2);
if (mode === "create") create(rest[0], Number(rest[1]));
else if (mode === "writer") await writer(rest[0], Number(rest[1]), Number(rest[2] ?? 0));
else if (mode === "many") await many(Number(rest[0]), rest.slice(1));
else throw new TypeError("bench_load.ts create|writer|many …");
