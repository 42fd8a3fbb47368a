/**
 * The writer of the demo: an ordinary application in a process of its own. It commits numbered rows with a checksum
 * column until it is killed, and notes in a log when each commit began and when SQLite acknowledged it.
 */
import type { OpenFile } from "../runtime/types.ts";
import { openDatabase } from "../runtime/system_database.ts";
import type { CommandCall, CommandContext } from "./context.ts";

const schema = `
  PRAGMA journal_mode = WAL;
  PRAGMA synchronous = NORMAL;
  PRAGMA busy_timeout = 5000;
  CREATE TABLE events (id INTEGER PRIMARY KEY, commit_no INTEGER NOT NULL, payload TEXT NOT NULL, sum INTEGER NOT NULL);
  CREATE INDEX events_by_commit ON events (commit_no);
  CREATE TABLE totals (only_row INTEGER PRIMARY KEY CHECK (only_row = 1), commits INTEGER NOT NULL, rows INTEGER NOT NULL);
  INSERT INTO totals VALUES (1, 0, 0);
`;

/** Rows that commit `number` inserts, so that both sides know without asking each other. */
export function rowsOfCommit(number: number): number {
  return 1 + number % 4;
}

/** FNV-1a over id, commit and payload, 32 bits: what the `sum` column holds. */
export function rowSum(id: number, commit: number, payload: string): number {
  let hash = 0x811c9dc5;
  for (const char of `${id}:${commit}:${payload}`) {
    hash = Math.imul(hash ^ char.charCodeAt(0), 0x01000193) >>> 0;
  }
  return hash;
}

/** Text of 20 to 419 characters that depends on the row alone. */
export function rowPayload(id: number): string {
  return `event ${id} `.repeat(60).slice(0, 20 + (id * 7919) % 400);
}

/** One line of the log. */
export interface CommitTimes {
  readonly commit: number;
  readonly beganMs: number;
  /** `null`: SQLite had not acknowledged it when the writer was killed. */
  readonly acknowledgedMs: number | null;
}

/** Reads the writer's log; a last line cut off by the kill does not count. */
export function parseWriterLog(text: string): CommitTimes[] {
  const commits: { commit: number; beganMs: number; acknowledgedMs: number | null }[] = [];
  for (const line of text.slice(0, text.lastIndexOf("\n") + 1).split("\n")) {
    const [mark, number, time] = line.split(" ");
    if (mark === "begin") commits.push({ commit: Number(number), beganMs: Number(time), acknowledgedMs: null });
    else if (mark === "done") commits[commits.length - 1].acknowledgedMs = Number(time);
  }
  return commits;
}

/** Writes until it is stopped, or until the demo is gone. */
export async function run({ runtime, process, signal }: CommandContext, call: CommandCall): Promise<number> {
  const parent = process.parentPid;
  const [[databasePath], [logPath]] = call.positionals;
  const database = openDatabase(databasePath);
  database.exec(schema);
  const insert = database.prepare("INSERT INTO events VALUES (?, ?, ?, ?)");
  const total = database.prepare("UPDATE totals SET commits = commits + 1, rows = rows + ?");
  const log = runtime.files.open(logPath, "create");
  let position = 0;
  let id = 0;
  for (let commit = 1; !signal.aborted && process.parentPid === parent; commit++) {
    position = note(log, position, `begin ${commit} ${runtime.clock.now()}\n`);
    database.exec("BEGIN IMMEDIATE");
    const rows = rowsOfCommit(commit);
    for (let i = 0; i < rows; i++) {
      id++;
      const payload = rowPayload(id);
      insert.run(id, commit, payload, rowSum(id, commit, payload));
    }
    total.run(rows);
    database.exec("COMMIT");
    position = note(log, position, `done ${commit} ${runtime.clock.now()}\n`);
    // A pause like that of a busy application: some hundred commits a second.
    await runtime.clock.sleep(2);
  }
  database.close();
  log.close();
  return 0;
}

function note(log: OpenFile, position: number, line: string): number {
  const bytes = new TextEncoder().encode(line);
  // No fsync: SIGKILL does not lose what the kernel has.
  log.write(bytes, position);
  return position + bytes.length;
}
