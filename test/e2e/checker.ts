/** Decides from a database and the writer's log whether the content is exactly commits 1..n, and of a time that it is the right n. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { copyFileSync, readFileSync, statSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import { bulkPayload, hotCommit, hotPayload, hotSlots, itemPayload, liveBulk, liveItems, sumOf } from "./workload.ts";
import type { Workload } from "./workload.ts";

/** What a writer's log says; see writer.ts for its lines. */
export interface WriterLog {
  readonly workload: Workload;
  /** Earliest begin of commit n, milliseconds. */
  readonly begins: Map<number, number>;
  /** When commit n was acknowledged, and in which session. */
  readonly acks: Map<number, { ms: number; session: number }>;
  /** Each start of the writer; `origin` is the commit that it found. */
  readonly sessions: { id: number; origin: number; ms: number }[];
  /** SQLITE_BUSY seen by the application. */
  readonly busy: { ms: number; text: string }[];
  /** The highest n acknowledged. */
  readonly last: number;
}

/** Parses a writer's log; a torn last line is ignored. */
export function readLog(path: string): WriterLog {
  const text = readFileSync(path, "utf8");
  let workload: Workload | null = null;
  const begins = new Map<number, number>();
  const acks = new Map<number, { ms: number; session: number }>();
  const sessions: WriterLog["sessions"] = [];
  const busy: WriterLog["busy"] = [];
  let last = 0;
  for (const line of text.slice(0, text.lastIndexOf("\n") + 1).split("\n")) {
    const [kind, first, second, third] = line.split(" ");
    if (kind === "b") {
      if (!begins.has(Number(first))) begins.set(Number(first), Number(third));
    } else if (kind === "a") {
      acks.set(Number(first), { session: Number(second), ms: Number(third) });
      last = Math.max(last, Number(first));
    } else if (kind === "w") workload = { seed: first, cycle: Number(second), bulk: Number(third) };
    else if (kind === "s") sessions.push({ id: Number(first), origin: Number(second), ms: Number(third) });
    else if (kind === "e") busy.push({ ms: Number(first), text: line });
  }
  assert.ok(workload !== null, `${path}: no workload line`);
  return { workload, begins, acks, sessions, busy, last };
}

/** Thrown when the content is not an exact prefix of the commits; the message says what is wrong. */
export class PrefixError extends Error {}

function refuse(condition: boolean, message: () => string): void {
  if (!condition) throw new PrefixError(message());
}

/** True when commit n of this session is history: no later session found an earlier commit. A phantom is not. */
function happened(log: WriterLog, n: number, session: number): boolean {
  return log.sessions.every(({ id, origin }) => id <= session || origin >= n);
}

function checkItems(db: DatabaseSync, log: WriterLog, n: number): void {
  const expected = liveItems(log.workload, n);
  for (const row of db.prepare("SELECT id, session, payload, sum FROM item ORDER BY id").iterate()) {
    const { id, session, payload, sum } = row as { id: number; session: number; payload: string; sum: string };
    const next = expected.next();
    refuse(!next.done && next.value === id, () => `item ${id} after commit ${n}, expected ${next.value}`);
    refuse(sum === sumOf(id, payload), () => `item ${id} does not match its checksum column`);
    refuse(payload === itemPayload(log.workload, id), () => `item ${id} is not what was written`);
    refuse(happened(log, id, session), () => `item ${id} was written by a commit of session ${session} that never was`);
  }
  const missing = expected.next();
  refuse(missing.done === true, () => `item ${missing.value} is missing after commit ${n}`);
}

function checkOthers(db: DatabaseSync, { workload }: WriterLog, n: number): void {
  const hot = new Map<number, { n: number; payload: string; sum: string }>();
  for (const row of db.prepare("SELECT slot, n, payload, sum FROM hot").all()) {
    const { slot, ...rest } = row as { slot: number; n: number; payload: string; sum: string };
    hot.set(slot, rest);
  }
  for (let slot = 0; slot < hotSlots; slot++) {
    const commit = hotCommit(n, slot);
    const row = hot.get(slot);
    refuse((row?.n ?? 0) === commit, () => `hot slot ${slot} is of commit ${row?.n}, expected ${commit} after ${n}`);
    if (row === undefined) continue;
    refuse(row.payload === hotPayload(workload, commit), () => `hot slot ${slot} is not what commit ${commit} wrote`);
    refuse(row.sum === sumOf(commit, row.payload), () => `hot slot ${slot} does not match its checksum column`);
  }
  const bulk = liveBulk(workload, n);
  const rows = db.prepare("SELECT id, payload, sum FROM bulk ORDER BY id").all() as {
    id: number;
    payload: string;
    sum: string;
  }[];
  refuse(rows.length === bulk.length, () => `${rows.length} bulk rows after commit ${n}, expected ${bulk.length}`);
  rows.forEach((row, i) => {
    const payload = bulkPayload(workload, bulk[i]);
    const matches = row.id === bulk[i] && row.payload === payload && row.sum === sumOf(bulk[i], payload);
    refuse(matches, () => `bulk row ${row.id} is not what was written`);
  });
}

/** What a prefix check found. */
export interface Prefix {
  readonly n: number;
  readonly session: number;
}

/**
 * Proves that the database holds exactly commits 1..n and returns n; throws {@linkcode PrefixError} otherwise.
 * The file is copied to `<path>.check` first: opening a WAL-mode database would put sidecars beside it.
 */
export function checkPrefix(path: string, log: WriterLog): Prefix {
  const scratch = `${path}.check`;
  assert.ok((statSync(`${path}-wal`, { throwIfNoEntry: false })?.size ?? 0) === 0, `${path} still has a WAL`);
  copyFileSync(path, scratch);
  const db = new DatabaseSync(scratch);
  try {
    const findings = db.prepare("PRAGMA integrity_check").all() as { integrity_check: string }[];
    refuse(findings[0]?.integrity_check === "ok", () => `integrity_check: ${JSON.stringify(findings.slice(0, 3))}`);
    const isEmpty = db.prepare("SELECT 1 FROM sqlite_master WHERE name = 'counter'").get() === undefined;
    if (isEmpty) return { n: 0, session: 0 };
    const { n, session } = db.prepare("SELECT n, session FROM counter").get() as { n: number; session: number };
    refuse(n === 0 || log.begins.has(n), () => `commit ${n} was never begun`);
    refuse(happened(log, n, session), () => `commit ${n} of session ${session} never happened`);
    checkItems(db, log, n);
    checkOthers(db, log, n);
    return { n, session };
  } catch (error) {
    // A wrong page may break SQLite itself before a rule of ours sees it.
    if (error instanceof PrefixError) throw error;
    throw new PrefixError(`SQLite could not read it: ${(error as Error).message}`);
  } finally {
    db.close();
  }
}

/** A point of the history: a sealed changeset. */
export interface Point {
  readonly seq: bigint;
  readonly createdMs: number;
  /** A bridge brings no commits: it is the changeset before it once more. */
  readonly kind?: string;
}

/** The changeset before the content of `points[index]`, which for a bridge is that of the changeset before it. */
export function previousOf(points: readonly Point[], index: number): Point | null {
  while (points[index].kind === "bridge") index--;
  return points[index - 1] ?? null;
}

/** The newest of `points` (ascending seq) created at or before `timeMs`, and the one before it. */
export function pointAt(points: readonly Point[], timeMs: number): { chosen: Point; previous: Point | null } {
  let index = -1;
  while (index + 1 < points.length && points[index + 1].createdMs <= timeMs) index++;
  assert.ok(index >= 0, `no point at or before ${timeMs}`);
  return { chosen: points[index], previous: previousOf(points, index) };
}

/**
 * Proves that what was restored for `timeMs` is the right prefix: all commits acknowledged before the previous changeset
 * was created are in it, none begun after the chosen one was created.
 */
export function checkPointInTime(path: string, log: WriterLog, points: readonly Point[], timeMs: number): Prefix {
  const { chosen, previous } = pointAt(points, timeMs);
  return checkPoint(path, log, chosen, previous);
}

/** The same for the content of a point known by its seq; `previous` is null for the first one. */
export function checkPoint(path: string, log: WriterLog, chosen: Point, previous: Point | null): Prefix {
  const prefix = checkPrefix(path, log);
  const begun = log.begins.get(prefix.n) ?? 0;
  refuse(
    begun <= chosen.createdMs,
    () => `commit ${prefix.n} began at ${begun}, after seq ${chosen.seq} (${chosen.createdMs})`,
  );
  const next = log.acks.get(prefix.n + 1);
  if (previous !== null && next !== undefined) {
    refuse(
      next.ms >= previous.createdMs,
      () =>
        `commit ${
          prefix.n + 1
        } was acknowledged at ${next.ms}, before seq ${previous.seq}, and is not in ${chosen.seq}`,
    );
  }
  return prefix;
}

/** SHA-256 of a file, lowercase hex. Never of a live database: closing the descriptor would drop SQLite's locks. */
export function fileHash(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

/** Moves everything from the WAL into the file; only after watch and writer ended. */
export function checkpointSource(path: string): void {
  const db = new DatabaseSync(path);
  try {
    db.exec("PRAGMA busy_timeout = 5000");
    const result = db.prepare("PRAGMA wal_checkpoint(TRUNCATE)").get() as { busy: number };
    assert.equal(result.busy, 0, "somebody still reads the source");
  } finally {
    db.close();
  }
}

/** Asserts that two database files are the same, and says which pages differ when they are not. */
export function assertSameFile(actualPath: string, expectedPath: string, what: string): void {
  const actual = readFileSync(actualPath);
  const expected = readFileSync(expectedPath);
  if (actual.equals(expected)) return;
  const pageSize = expected.readUInt16BE(16) === 1 ? 65536 : expected.readUInt16BE(16);
  const pages: number[] = [];
  for (let at = 0; at < Math.max(actual.length, expected.length); at += pageSize) {
    const same = actual.subarray(at, at + pageSize).equals(expected.subarray(at, at + pageSize));
    if (!same) pages.push(at / pageSize + 1);
  }
  assert.fail(
    `${what}: ${pages.length} pages differ (${pages.slice(0, 10).join(", ")}…), ` +
      `${actual.length / pageSize} pages against ${expected.length / pageSize}`,
  );
}
