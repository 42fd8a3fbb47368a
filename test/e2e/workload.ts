/**
 * What every writer of the end-to-end tests commits, as a function of (seed, n): the checker computes the exact content of any
 * prefix of the commits from it. `writer.py` holds the same rules in Python and is checked against this file by a test.
 *
 * Commit n inserts item n, deletes item n - 100 unless (n - 100) % 4 = 0, replaces hot slot n % 64 and sets the counter. Every
 * `cycle` commits there is one large transaction (bulk rows), one that deletes nearly everything, and a VACUUM.
 */
import { createHash } from "node:crypto";

/** The parameters that, with n, decide the content. */
export interface Workload {
  readonly seed: string;
  /** Commits between two large transactions; a multiple of four. */
  readonly cycle: number;
  /** Rows of a large transaction, some 700 bytes each. */
  readonly bulk: number;
}

/** Slots that are replaced in turn. */
export const hotSlots = 64;
const keptCommits = 100;
const wipeMargin = 50;

/** The tables; the counter starts at commit 0. */
export const schema: readonly string[] = [
  "CREATE TABLE counter(one INTEGER PRIMARY KEY CHECK (one = 1), n INTEGER NOT NULL, session INTEGER NOT NULL)",
  "CREATE TABLE session(id INTEGER PRIMARY KEY, origin INTEGER NOT NULL)",
  "CREATE TABLE item(id INTEGER PRIMARY KEY, session INTEGER NOT NULL, payload TEXT NOT NULL, sum TEXT NOT NULL)",
  "CREATE INDEX item_sum ON item(sum)",
  "CREATE TABLE hot(slot INTEGER PRIMARY KEY, n INTEGER NOT NULL, payload TEXT NOT NULL, sum TEXT NOT NULL)",
  "CREATE TABLE bulk(id INTEGER PRIMARY KEY, payload TEXT NOT NULL, sum TEXT NOT NULL)",
  "INSERT INTO counter(one, n, session) VALUES (1, 0, 0)",
];

function hex(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}

/** The checksum column over id and payload. */
export function sumOf(id: number, payload: string): string {
  return hex(`${id}:${payload}`).slice(0, 16);
}

function stretch(text: string, length: number): string {
  const unit = hex(text);
  return unit.repeat(Math.ceil(length / unit.length)).slice(0, length);
}

/** Every fiftieth item needs overflow pages at every page size up to 8192. */
export function itemPayload(workload: Workload, id: number): string {
  return stretch(`${workload.seed}:item:${id}`, id % 50 === 0 ? 13_000 : 40 + (id * 37) % 300);
}

/** Payload of the hot slot that commit n replaces. */
export function hotPayload(workload: Workload, n: number): string {
  return stretch(`${workload.seed}:hot:${n}`, 60 + (n * 13) % 200);
}

/** Payload of a bulk row. */
export function bulkPayload(workload: Workload, id: number): string {
  return stretch(`${workload.seed}:bulk:${id}`, 700);
}

/** True when commit n inserts the bulk rows. */
export function isBulk(workload: Workload, n: number): boolean {
  return n % workload.cycle === workload.cycle / 4;
}

/** True when commit n deletes nearly everything; the writer runs VACUUM after the next one. */
export function isWipe(workload: Workload, n: number): boolean {
  return n % workload.cycle === workload.cycle / 2;
}

/** True when a VACUUM follows commit n. */
export function isVacuum(workload: Workload, n: number): boolean {
  return n > 1 && isWipe(workload, n - 1);
}

/** The ids of the bulk rows of commit n. */
export function bulkIds(workload: Workload, n: number): number[] {
  return Array.from({ length: workload.bulk }, (_, k) => n * 10_000 + k);
}

/** One statement with its values. */
export interface Statement {
  readonly sql: string;
  readonly values: readonly (string | number)[];
}

/** The statements of commit n, between BEGIN and COMMIT. */
export function* statements(workload: Workload, n: number, session: number): Generator<Statement> {
  const payload = itemPayload(workload, n);
  yield {
    sql: "INSERT INTO item(id, session, payload, sum) VALUES (?, ?, ?, ?)",
    values: [n, session, payload, sumOf(n, payload)],
  };
  if (n > keptCommits && (n - keptCommits) % 4 !== 0) {
    yield { sql: "DELETE FROM item WHERE id = ?", values: [n - keptCommits] };
  }
  const hot = hotPayload(workload, n);
  yield {
    sql: "INSERT OR REPLACE INTO hot(slot, n, payload, sum) VALUES (?, ?, ?, ?)",
    values: [n % hotSlots, n, hot, sumOf(n, hot)],
  };
  if (isBulk(workload, n)) {
    for (const id of bulkIds(workload, n)) {
      const row = bulkPayload(workload, id);
      yield { sql: "INSERT INTO bulk(id, payload, sum) VALUES (?, ?, ?)", values: [id, row, sumOf(id, row)] };
    }
  }
  if (isWipe(workload, n)) {
    yield { sql: "DELETE FROM bulk", values: [] };
    yield { sql: "DELETE FROM item WHERE id < ?", values: [n - wipeMargin] };
  }
  yield { sql: "UPDATE counter SET n = ?, session = ?", values: [n, session] };
}

/** The commit of the last wipe up to n, or 0. */
function lastWipe(workload: Workload, n: number): number {
  const phase = workload.cycle / 2;
  return n < phase ? 0 : n - (n - phase) % workload.cycle;
}

/** The ids of the items that exist after commit n, ascending. */
export function* liveItems(workload: Workload, n: number): Generator<number> {
  const wipe = lastWipe(workload, n);
  for (let id = Math.max(1, wipe - wipeMargin); id <= n; id++) {
    if (id % 4 === 0 || id + keptCommits > n) yield id;
  }
}

/** The ids of the bulk rows that exist after commit n, ascending. */
export function liveBulk(workload: Workload, n: number): number[] {
  const phase = workload.cycle / 4;
  if (n < phase) return [];
  const inserted = n - (n - phase) % workload.cycle;
  return lastWipe(workload, n) > inserted ? [] : bulkIds(workload, inserted);
}

/** The commit that last replaced a slot up to n, or 0. */
export function hotCommit(n: number, slot: number): number {
  const commit = n - ((n - slot) % hotSlots + hotSlots) % hotSlots;
  return commit < 1 ? 0 : commit;
}
