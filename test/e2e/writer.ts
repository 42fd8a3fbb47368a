/**
 * An application of its own process on the runtime's built-in SQLite: commits numbered rows, flat out or paced, and logs when
 * each commit was begun and acknowledged. `writer.py` and `writer_cli.ts` take the same flags and write the same log.
 *
 * Log lines (one write each, so a killed writer leaves whole lines): `w seed cycle bulk`; `s session origin ms` session
 * started after commit `origin`; `b n session ms` before BEGIN; `a n session ms` after COMMIT; `e ms text` SQLITE_BUSY seen.
 */
import { closeSync, existsSync, openSync, renameSync, writeSync } from "node:fs";
import process from "node:process";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { parseArgs } from "node:util";
import { isVacuum, schema, statements, type Workload } from "./workload.ts";

const { values: flags } = parseArgs({
  options: {
    db: { type: "string" },
    log: { type: "string" },
    seconds: { type: "string", default: "3600" },
    commits: { type: "string", default: "1000000000" },
    "pace-ms": { type: "string", default: "0" },
    "pause-every": { type: "string", default: "0" },
    "pause-ms": { type: "string", default: "0" },
    autocheckpoint: { type: "string", default: "1000" },
    "busy-timeout": { type: "string", default: "5000" },
    synchronous: { type: "string", default: "NORMAL" },
    "page-size": { type: "string", default: "4096" },
    seed: { type: "string", default: "walrust" },
    cycle: { type: "string", default: "2000" },
    bulk: { type: "string", default: "1000" },
  },
});
const path = flags.db!;
const workload: Workload = { seed: flags.seed!, cycle: Number(flags.cycle), bulk: Number(flags.bulk) };
const logFile = openSync(flags.log!, "a");
const stopFile = `${flags.log}.stop`;
const pauseFile = `${flags.log}.pause`;
const pausedFile = `${flags.log}.paused`;
const waitCell = new Int32Array(new SharedArrayBuffer(4));
let busyCount = 0;
let vacuums = 0;
let slowestMs = 0;

function log(line: string): void {
  writeSync(logFile, `${line}\n`);
}

function pause(ms: number): void {
  if (ms > 0) Atomics.wait(waitCell, 0, 0, ms);
}

/** Stands still between two commits for as long as a file asks for it, whose new name says that it does. */
function rest(): void {
  if (!existsSync(pauseFile)) return;
  renameSync(pauseFile, pausedFile);
  while (existsSync(pausedFile) && !existsSync(stopFile)) pause(5);
}

const db = new DatabaseSync(path);
db.exec(`PRAGMA busy_timeout = ${Number(flags["busy-timeout"])}`);

/** Runs `work` until no lock stands in its way; the work is a whole transaction. */
function insist(work: () => void): void {
  for (;;) {
    try {
      return work();
    } catch (error) {
      const text = String((error as Error).message);
      try {
        db.exec("ROLLBACK");
      } catch {
        // There was no transaction: BEGIN itself was refused.
      }
      if (!/locked|busy/i.test(text)) throw error;
      busyCount++;
      log(`e ${Date.now()} ${text}`);
      pause(1);
    }
  }
}

const prepared = new Map<string, StatementSync>();

function run(sql: string, values: readonly (string | number)[]): void {
  let statement = prepared.get(sql);
  if (statement === undefined) prepared.set(sql, statement = db.prepare(sql));
  statement.run(...values);
}

function open(): { n: number; session: number } {
  insist(() => {
    db.exec(`PRAGMA page_size = ${Number(flags["page-size"])}`);
    db.exec("PRAGMA journal_mode = WAL");
    db.exec(`PRAGMA synchronous = ${flags.synchronous}`);
    db.exec(`PRAGMA wal_autocheckpoint = ${Number(flags.autocheckpoint)}`);
  });
  insist(() => {
    db.exec("BEGIN IMMEDIATE");
    const exists = db.prepare("SELECT 1 FROM sqlite_schema WHERE name = 'counter'").get();
    if (exists === undefined) { for (const sql of schema) db.exec(sql); }
    db.exec("COMMIT");
  });
  const n = Number((db.prepare("SELECT n FROM counter").get() as { n: number }).n);
  const row = db.prepare("SELECT coalesce(max(id), 0) + 1 AS id FROM session").get() as { id: number };
  const session = Number(row.id);
  log(`w ${workload.seed} ${workload.cycle} ${workload.bulk}`);
  log(`s ${session} ${n} ${Date.now()}`);
  insist(() => {
    db.exec("BEGIN IMMEDIATE");
    db.prepare("INSERT INTO session(id, origin) VALUES (?, ?)").run(session, n);
    db.exec("COMMIT");
  });
  return { n, session };
}

function commit(n: number, session: number): void {
  const beganMs = Date.now();
  log(`b ${n} ${session} ${beganMs}`);
  insist(() => {
    db.exec("BEGIN IMMEDIATE");
    for (const { sql, values } of statements(workload, n, session)) run(sql, values);
    db.exec("COMMIT");
  });
  const ackedMs = Date.now();
  log(`a ${n} ${session} ${ackedMs}`);
  slowestMs = Math.max(slowestMs, ackedMs - beganMs);
  if (isVacuum(workload, n)) {
    insist(() => db.exec("VACUUM"));
    vacuums++;
  }
}

const { n: origin, session } = open();
const endMs = Date.now() + Number(flags.seconds) * 1000;
const last = origin + Number(flags.commits);
const paceMs = Number(flags["pace-ms"]);
const pauseEvery = Number(flags["pause-every"]);
let n = origin;
while (n < last && Date.now() < endMs) {
  commit(++n, session);
  pause(paceMs);
  if (pauseEvery > 0 && n % pauseEvery === 0) pause(Number(flags["pause-ms"]));
  if (n % 16 !== 0 && paceMs === 0) continue;
  rest();
  if (existsSync(stopFile)) break;
}
db.close();
closeSync(logFile);
process.stdout.write(`${JSON.stringify({ n, session, commits: n - origin, busy: busyCount, vacuums, slowestMs })}\n`);
