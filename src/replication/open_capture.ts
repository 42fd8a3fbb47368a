/** Opens a database by a pin, or where that cannot be, by its files alone. */
import { DatabaseError } from "../errors.ts";
import type { Runtime, Sqlite } from "../runtime/types.ts";
import type { Capture } from "./capture.ts";
import { LiveDatabase } from "./live_database.ts";
import { ObserveCapture } from "./observe_capture.ts";
import type { EngineEvent, EngineOptions } from "./options.ts";
import { PinCapture } from "./pin_capture.ts";

/** Opens one database as often as needed. */
export class CaptureOpener {
  readonly #parts: ConstructorParameters<typeof CaptureOpener>[0];
  readonly #sqlite: Sqlite | null;
  /** Why it was observed the last time. */
  #observed: string | null = null;
  #looked = false;

  /** Throws `DatabaseError` where a pin is asked for and this runtime's SQLite cannot hold one. */
  constructor(
    parts: {
      readonly path: string;
      /** State directory. */
      readonly directory: string;
      readonly runtime: Runtime;
      readonly options: Pick<EngineOptions, "mode">;
      /** True where other code of this process may have the database open. */
      readonly isShared?: boolean;
      readonly emit: (event: EngineEvent) => void;
    },
  ) {
    this.#parts = parts;
    const { sqlite } = parts.runtime;
    this.#sqlite = sqlite !== null && canGauge(sqlite) ? sqlite : null;
    if (parts.options.mode === "pin" && this.#sqlite === null) throw noSqlite(sqlite);
  }

  /** Throws `DatabaseError` for what cannot be replicated. */
  open(): Capture {
    const capture = this.#open();
    if (!this.#looked) this.#lookAround(capture);
    this.#looked = true;
    return capture;
  }

  /** Says once what threatens the database itself, whatever we do. */
  #lookAround({ sqliteVersion }: Capture): void {
    const { path, emit, runtime } = this.#parts;
    if (hasResetRace(sqliteVersion)) emit({ kind: "old_sqlite", path, version: versionText(sqliteVersion) });
    const { links = 1, network = null } = runtime.files.placeOf?.(path) ?? {};
    if (links > 1) {
      const reason = `the file has ${links} names (hard links): who opens it by another one writes to another WAL, ` +
        "and commits are lost; keep one name, use a symbolic link for others";
      emit({ kind: "unsafe_place", path, reason });
    }
    if (network !== null) {
      const reason = `it lies on a network file system (${network}): its locks may fail, and a WAL serves one host ` +
        "only; keep the database on a local disk";
      emit({ kind: "unsafe_place", path, reason });
    }
  }

  #open(): Capture {
    const { path, runtime, options, isShared } = this.#parts;
    if (options.mode === "observe") return this.#observe("asked for");
    const sqlite = this.#sqlite;
    if (sqlite === null) return this.#observe(noSqlite(runtime.sqlite).message);
    try {
      return new PinCapture(LiveDatabase.open(path, runtime.files, sqlite, isShared), runtime);
    } catch (error) {
      const isReadOnly = error instanceof DatabaseError && error.code === "not_writable";
      if (!isReadOnly || options.mode === "pin") throw error;
      return this.#observe(`${error.message}; ${error.hint}`);
    }
  }

  #observe(reason: string): Capture {
    const { path, directory, runtime, emit, isShared } = this.#parts;
    const capture = new ObserveCapture(path, `${directory}/spool`, runtime, isShared === true);
    if (reason !== this.#observed) emit({ kind: "observing", path, reason });
    this.#observed = reason;
    return capture;
  }
}

/** Two connections that write and checkpoint at the same time may lose commits (sqlite.org/wal.html, "WAL-reset bug"). */
function hasResetRace(version: number): boolean {
  return version >= 3_007_000 && version < 3_051_003;
}

function versionText(version: number): string {
  return [Math.floor(version / 1_000_000), Math.floor(version / 1000) % 1000, version % 1000].join(".");
}

/** From 3.51 on SQLite says what it counts as committed without checkpointing. */
function canGauge({ version: [major, minor] }: Sqlite): boolean {
  return major * 1000 + minor >= 3051;
}

function noSqlite(sqlite: Sqlite | null): DatabaseError {
  return new DatabaseError("no_sqlite", "this runtime has no built-in SQLite of version 3.51 or newer", {
    hint: "use Node 24, Deno 2.9 or Bun 1.4, or newer",
    data: { version: sqlite?.version.join(".") ?? null },
  });
}
