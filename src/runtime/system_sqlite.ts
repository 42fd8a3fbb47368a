/**
 * The runtime's built-in SQLite (`node:sqlite`, which Node, Bun and Deno have) behind our interface.
 *
 * Quirks met here: Deno forces a busy timeout of 5000 ms on read-only connections, so it is always set;
 * Deno's `exec()` errors and its errors on opening carry no `errcode`, so every statement is prepared.
 */
import fs from "node:fs";
import process from "node:process";
import type { DatabaseSync, StatementSync } from "node:sqlite";
import { DatabaseError } from "../errors.ts";
import { isAtFileLimit, tooManyFiles } from "./open_files.ts";
import type { CheckpointResult, Sqlite, SqliteConnection, SqliteOpenOptions } from "./types.ts";

type SqliteModule = { DatabaseSync: typeof DatabaseSync };

/** A collected connection loses its locks, and with them the pin: every open one is held here until its `close`. */
const openDatabases: Set<DatabaseSync> = new Set();

/** Names of SQLite's primary result codes that a caller may want to tell apart. */
const resultNames: Record<number, string> = {
  5: "sqlite_busy",
  6: "sqlite_locked",
  8: "sqlite_readonly",
  10: "sqlite_ioerr",
  11: "sqlite_corrupt",
  13: "sqlite_full",
  14: "sqlite_cantopen",
  23: "sqlite_auth",
  26: "sqlite_notadb",
};

const busy = 5;

/** What SQLite says when it may open no more files: that it can only read, has trouble, or cannot open. */
const limitCodes = [8, 10, 14];

/** SQLite's result code, extended or not; 14 where Deno says it in words only; undefined when it is not SQLite's error. */
function resultCode(error: unknown): number | undefined {
  const { errcode, message } = error as { errcode?: number; message?: string };
  if (typeof errcode === "number") return errcode;
  return message?.startsWith("unable to open database file") ? 14 : undefined;
}

function wrap(error: unknown, path: string, doing: string): DatabaseError {
  if (error instanceof DatabaseError) return error;
  const code = resultCode(error);
  if (limitCodes.includes((code ?? 0) & 0xff) && isAtFileLimit()) return tooManyFiles(path, error);
  const name = resultNames[(code ?? 1) & 0xff] ?? "sqlite_error";
  const message = error instanceof Error ? error.message : String(error);
  return new DatabaseError(name, `${path}: ${doing}: ${message}`, {
    data: { path, sqlite: code ?? null },
    cause: error,
  });
}

class SystemConnection implements SqliteConnection {
  readonly #path: string;
  readonly #database: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();

  constructor(module: SqliteModule, path: string, options: SqliteOpenOptions) {
    const { readOnly, busyTimeoutMs = 0, pageSize } = options;
    this.#path = path;
    try {
      this.#database = new module.DatabaseSync(path, { readOnly, timeout: busyTimeoutMs });
    } catch (error) {
      throw wrap(error, path, "open");
    }
    openDatabases.add(this.#database);
    this.#get(`PRAGMA busy_timeout = ${Math.max(0, Math.trunc(busyTimeoutMs))}`, "busy_timeout");
    if (pageSize !== undefined) this.#run(`PRAGMA page_size = ${pageSize}`, "page_size");
  }

  journalMode(): string {
    const row = this.#get("PRAGMA journal_mode", "journal mode");
    return String(row?.journal_mode ?? "").toLowerCase();
  }

  beginRead(): void {
    this.#run("BEGIN", "begin");
    try {
      // BEGIN alone takes no snapshot; the first read does.
      this.#get("SELECT 1 FROM sqlite_schema LIMIT 1", "begin");
    } catch (error) {
      this.rollback();
      throw error;
    }
  }

  beginImmediate(): boolean {
    return this.#lock("IMMEDIATE");
  }

  beginExclusive(): boolean {
    return this.#lock("EXCLUSIVE");
  }

  rollback(): void {
    if (this.#database.isTransaction) this.#run("ROLLBACK", "rollback");
  }

  gauge(): CheckpointResult {
    return this.#checkpoint("NOOP");
  }

  checkpointPassive(): CheckpointResult {
    return this.#checkpoint("PASSIVE");
  }

  check(level: "quick" | "full"): string[] {
    const pragma = level === "quick" ? "quick_check" : "integrity_check";
    const rows = this.#guard(pragma, () => this.#prepare(`PRAGMA ${pragma}`).all());
    const findings = rows.map((row) => String(row[pragma] ?? Object.values(row)[0]));
    return findings.length === 1 && findings[0] === "ok" ? [] : findings;
  }

  close(): void {
    this.#statements.clear();
    if (!openDatabases.delete(this.#database)) return;
    this.#guard("close", () => this.#database.close());
  }

  #lock(kind: "IMMEDIATE" | "EXCLUSIVE"): boolean {
    try {
      this.#run(`BEGIN ${kind}`, `begin ${kind.toLowerCase()}`);
      return true;
    } catch (error) {
      if (error instanceof DatabaseError && (Number(error.data.sqlite) & 0xff) === busy) return false;
      throw error;
    }
  }

  #checkpoint(mode: "NOOP" | "PASSIVE"): CheckpointResult {
    try {
      const row = this.#get(`PRAGMA wal_checkpoint(${mode})`, "checkpoint");
      return { busy: row?.busy !== 0, log: Number(row?.log ?? -1), checkpointed: Number(row?.checkpointed ?? -1) };
    } catch (error) {
      // Where another connection holds the exclusive lock the statement fails instead of answering.
      if (mode === "PASSIVE" && error instanceof DatabaseError && error.code === "sqlite_busy") {
        return { busy: true, log: -1, checkpointed: -1 };
      }
      throw error;
    }
  }

  #prepare(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (statement === undefined) {
      statement = this.#database.prepare(sql);
      this.#statements.set(sql, statement);
    }
    return statement;
  }

  #get(sql: string, doing: string): Record<string, unknown> | undefined {
    return this.#guard(doing, () => this.#prepare(sql).get() as Record<string, unknown> | undefined);
  }

  #run(sql: string, doing: string): void {
    this.#guard(doing, () => this.#prepare(sql).run());
  }

  #guard<T>(doing: string, work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw wrap(error, this.#path, doing);
    }
  }
}

/** Loads `node:sqlite` without the warning that Node 22 prints; null where the runtime has none. */
function loadModule(): SqliteModule | null {
  const warn = process.emitWarning;
  process.emitWarning = () => {};
  try {
    return (process.getBuiltinModule?.("node:sqlite") as SqliteModule | undefined) ?? null;
  } catch {
    return null;
  } finally {
    process.emitWarning = warn;
  }
}

function readVersion(module: SqliteModule): [number, number, number] {
  const database = new module.DatabaseSync(":memory:");
  try {
    const row = database.prepare("SELECT sqlite_version() AS version").get() as { version: string };
    const [major = 0, minor = 0, patch = 0] = row.version.split(".").map(Number);
    return [major, minor, patch];
  } finally {
    database.close();
  }
}

/** Such as better-sqlite3's, node-sqlite3's or the system's library. */
const libraryPattern = /\/((?:better_sqlite3|node_sqlite3|libsqlite3|libsqlcipher)[^/\s]*\.(?:node|so[.\d]*))$/;

/** Only Linux tells which files a process has loaded; a Node may itself be built to use the system's library. */
function otherCopies(): string[] {
  const { node_shared_sqlite: isShared } = (process.config?.variables ?? {}) as { node_shared_sqlite?: unknown };
  const found = new Set<string>();
  for (const line of readMaps().split("\n")) {
    const path = line.slice(line.indexOf("/"));
    const name = libraryPattern.exec(line)?.[1];
    if (name !== undefined && !(isShared === true && name.startsWith("libsqlite3"))) found.add(path);
  }
  return [...found];
}

function readMaps(): string {
  try {
    return fs.readFileSync("/proc/self/maps", "utf8");
  } catch {
    return "";
  }
}

let loaded: Sqlite | null | undefined;

/** The built-in SQLite, loaded at the first call; null where the runtime has none. */
export function systemSqlite(): Sqlite | null {
  if (loaded !== undefined) return loaded;
  const module = loadModule();
  loaded = module === null ? null : {
    version: readVersion(module),
    open: (path, options) => new SystemConnection(module, path, options),
    otherCopies,
  };
  return loaded;
}
