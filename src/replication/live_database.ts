/**
 * The one place that opens a live database's files, with the lock rules of SQLite on POSIX:
 * locks belong to the process, so the descriptor on the database is opened before the first connection and closed
 * after the last, `-shm` is never opened, and the pin is a read-only connection that we keep a reference to.
 */
import { DatabaseError } from "../errors.ts";
import { shellQuoted } from "../format/bytes.ts";
import { parseSqliteHeader, type SqliteHeader } from "../format/sqlite_header.ts";
import type { CheckpointResult, Files, FileStat, OpenFile, Sqlite, SqliteConnection } from "../runtime/types.ts";
import { type DatabaseFileOptions, openDatabaseFile } from "./database_file.ts";
import { readThere } from "./image.ts";
import { userOf } from "./state_directory.ts";

/** How gauge and pins are opened: they neither checkpoint nor delete the WAL. */
const reader = { readOnly: true, busyTimeoutMs: 200 } as const;

/** What the names of a database lead to. */
export interface FilesSeen {
  readonly database: FileStat | null;
  readonly wal: FileStat | null;
}

/** The regular file at `path`; throws `DatabaseError` where there is none. */
export function statDatabase(path: string, files: Pick<Files, "stat">): FileStat {
  const stat = files.stat(path);
  if (stat === null) {
    throw new DatabaseError("missing", `${path} does not exist`, {
      hint: "check the path, or pass --wait to wait until the application creates it",
      data: { path },
    });
  }
  if (stat.type === "file") return stat;
  throw new DatabaseError("not_a_file", `${path} is not a file but a ${stat.type === "other" ? "device" : stat.type}`, {
    hint: "give the path of the database file itself, such as data/app.db",
    data: { path },
  });
}

/**
 * Throws `DatabaseError` for what cannot be replicated, without SQLite. Only for a file of which this process has no
 * connection: the descriptor opened here takes their locks with it when it is closed.
 */
export function inspectDatabase(path: string, files: Files, options: DatabaseFileOptions): void {
  statDatabase(path, files);
  const file = options.mode === "read" ? openDatabaseFile(path, files, options) : openToWrite(path, files, options);
  try {
    readHeader(path, file);
  } finally {
    file.close();
  }
}

/** True for what an application may still change by itself: that file can be waited for. */
export function isAbsence(error: unknown): error is DatabaseError {
  return error instanceof DatabaseError && ["missing", "empty", "not_wal", "locked", "no_wal"].includes(error.code);
}

/** Looks at both files without opening them. */
export function seeFiles(path: string, files: Files): FilesSeen {
  return { database: files.stat(path), wal: files.stat(`${path}-wal`) };
}

/** True when nothing was written between the two. */
export function sameStat(a: FileStat | null, b: FileStat | null): boolean {
  if (a === null || b === null) return a === b;
  return a.size === b.size && a.mtimeNs === b.mtimeNs && a.inode === b.inode && a.device === b.device;
}

/** True when nothing was written to either between the two looks. */
export function sameFiles(a: FilesSeen, b: FilesSeen): boolean {
  return sameStat(a.database, b.database) && sameStat(a.wal, b.wal);
}

/** Files and connections of one pinned database. */
export class LiveDatabase {
  readonly path: string;
  /** Bytes. */
  readonly pageSize: number;
  /** Version of the SQLite that wrote page 1 last, such as 3051003. */
  readonly sqliteVersion: number;
  /** Device and inode of what we opened. */
  readonly identity: FileStat;
  readonly file: OpenFile;
  readonly wal: OpenFile;
  readonly #walInode: bigint;
  readonly #sqlite: Sqlite;
  readonly #gauge: SqliteConnection;
  #pins: SqliteConnection[] = [];
  /** Connections that may become pins. */
  #spares: SqliteConnection[] = [];

  private constructor(
    parts: {
      path: string;
      header: SqliteHeader;
      file: OpenFile;
      wal: OpenFile;
      gauge: SqliteConnection;
      pin: SqliteConnection;
    },
    sqlite: Sqlite,
  ) {
    this.path = parts.path;
    this.pageSize = parts.header.pageSize;
    this.sqliteVersion = parts.header.sqliteVersion;
    this.file = parts.file;
    this.identity = parts.file.stat();
    this.wal = parts.wal;
    this.#walInode = parts.wal.stat().inode;
    this.#gauge = parts.gauge;
    this.#pins = [parts.pin];
    this.#sqlite = sqlite;
  }

  /**
   * Opens and pins. Throws `DatabaseError` for what is missing, not SQLite, not in WAL mode, locked away or not ours to
   * write, `no_wal` where a pin would create the WAL in our name and lock its owner out, and, where the process
   * `isShared` as {@linkcode DatabaseFileOptions} says, `second_sqlite` for another copy of SQLite in it.
   */
  static open(path: string, files: Files, sqlite: Sqlite, isShared: boolean = false): LiveDatabase {
    const stat = statDatabase(path, files);
    if (isShared) assertOnlyCopy(path, sqlite);
    const file = openToWrite(path, files, { mode: "update", isShared });
    const connections: SqliteConnection[] = [];
    try {
      const header = readHeader(path, file);
      assertOwnWal(path, stat, files);
      const gauge = sqlite.open(path, reader);
      connections.push(gauge);
      assertWalMode(path, gauge);
      const pin = sqlite.open(path, reader);
      connections.push(pin);
      pin.beginRead();
      const wal = files.open(`${path}-wal`, "read");
      return new LiveDatabase({ path, header, file, wal, gauge, pin }, sqlite);
    } catch (error) {
      for (const connection of connections.reverse()) connection.close();
      file.close();
      throw explainLock(path, error);
    }
  }

  /** Committed and backfilled frames as SQLite itself counts them. */
  gauge(): CheckpointResult {
    return this.#gauge.gauge();
  }

  /** Takes one more pin beside those that are held. */
  addPin(): SqliteConnection {
    const pin = this.#spares.pop() ?? this.#openReader();
    try {
      pin.beginRead();
    } catch (error) {
      pin.close();
      throw error;
    }
    this.#pins.push(pin);
    return pin;
  }

  /** Opens connections for the next pins now, where opening them later would keep a writer waiting. */
  preparePins(count: number): void {
    while (this.#spares.length < count) {
      const spare = this.#openReader();
      this.#spares.push(spare);
      spare.beginRead();
      spare.rollback();
    }
  }

  /** Closes what {@linkcode preparePins} opened and nobody used. */
  dropPreparedPins(): void {
    for (const spare of this.#spares.splice(0)) spare.close();
  }

  #openReader(): SqliteConnection {
    return this.#sqlite.open(this.path, reader);
  }

  /** Releases one pin; another one must be held. */
  releasePin(pin: SqliteConnection): void {
    this.#pins = this.#pins.filter((held) => held !== pin);
    pin.close();
  }

  /** The oldest pin held. */
  get oldestPin(): SqliteConnection {
    return this.#pins[0];
  }

  /** Opens a connection that may take the write lock or checkpoint; the caller closes it before any pin. */
  openWritable(): SqliteConnection {
    return this.#sqlite.open(this.path, { readOnly: false });
  }

  /** Whether the names still lead to the files that we hold; `seen` is what they lead to now. */
  inPlace(seen: FilesSeen): "same" | "database" | "wal" {
    const { database, wal } = seen;
    if (
      database === null || database.inode !== this.identity.inode || database.device !== this.identity.device
    ) return "database";
    return wal?.inode === this.#walInode ? "same" : "wal";
  }

  /** Connections first, then descriptors. */
  close(): void {
    this.dropPreparedPins();
    for (const pin of this.#pins.splice(0)) pin.close();
    this.#gauge.close();
    this.wal.close();
    this.file.close();
  }
}

function openToWrite(path: string, files: Files, options: DatabaseFileOptions): OpenFile {
  try {
    // Nothing is written to it, but checkpoints need the right, and without it SQLite's write lock is none.
    return openDatabaseFile(path, files, options);
  } catch (error) {
    if (error instanceof DatabaseError) throw error;
    throw new DatabaseError(
      "not_writable",
      `${path} cannot be opened for writing by ${userOf(files)}: ${(error as Error).message}`,
      {
        hint: (error as { code?: string }).code === "EROFS"
          ? "mount the place for writing: checkpoints need it"
          : "run walrust as the user that owns the database: its checkpoints need the right to write",
        data: { path, user: files.uid },
        cause: error,
      },
    );
  }
}

/** The header of a database in WAL mode; throws `DatabaseError` for anything else. */
export function readHeader(path: string, file: OpenFile): SqliteHeader {
  const bytes = new Uint8Array(100);
  const header = parseSqliteHeader(bytes.subarray(0, readThere(file, bytes, 0)));
  if (header === "empty") {
    throw new DatabaseError("empty", `${path} is empty: no application has created a table yet`, {
      hint: "start the application first, or pass --wait",
      data: { path },
    });
  }
  if (typeof header === "string") {
    throw new DatabaseError("not_sqlite", `${path} is not an SQLite database (${header})`, {
      hint: "encrypted databases and other files cannot be replicated",
      data: { path },
    });
  }
  if (header.readVersion !== 2) throw notWal(path, "a rollback journal");
  return header;
}

/** Two copies of SQLite in one process do not see each other's locks, and each drops those of the other. */
function assertOnlyCopy(path: string, sqlite: Sqlite): void {
  const copies = sqlite.otherCopies?.() ?? [];
  if (copies.length === 0) return;
  throw new DatabaseError("second_sqlite", `this process has loaded another SQLite too (${copies.join(", ")})`, {
    hint: `replicate from a process of its own: start \`walrust watch ${shellQuoted(path)} -b … --with-parent\``,
    data: { path, copies },
  });
}

function assertOwnWal(path: string, database: FileStat, files: Files): void {
  const isOurs = files.uid === null || files.uid === 0 || files.uid === database.uid;
  if (isOurs || files.stat(`${path}-wal`) !== null) return;
  throw new DatabaseError("no_wal", `${path} has no WAL yet, and one made by walrust would lock its owner out`, {
    hint: "start the application, or run walrust as the user that owns the database",
    data: { path, owner: database.uid, user: files.uid },
  });
}

function assertWalMode(path: string, connection: SqliteConnection): void {
  const mode = connection.journalMode();
  if (mode !== "wal") throw notWal(path, mode);
}

function notWal(path: string, mode: string): DatabaseError {
  return new DatabaseError("not_wal", `${path} is not in WAL mode (it uses ${mode})`, {
    hint: `run once: sqlite3 ${shellQuoted(path)} 'PRAGMA journal_mode=WAL'`,
    data: { path, mode },
  });
}

/** Says what a lock that nobody releases means. */
function explainLock(path: string, error: unknown): unknown {
  if (!(error instanceof DatabaseError) || error.code !== "sqlite_busy") return error;
  return new DatabaseError("locked", `${path} is locked by another process`, {
    hint: "an application with PRAGMA locking_mode=EXCLUSIVE keeps everyone out: run it with locking_mode=NORMAL",
    data: { path },
    cause: error,
  });
}
