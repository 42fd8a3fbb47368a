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

  /** Throws `DatabaseError` where a pin is asked for and this runtime's SQLite cannot hold one. */
  constructor(
    parts: {
      readonly path: string;
      /** State directory. */
      readonly directory: string;
      readonly runtime: Runtime;
      readonly options: Pick<EngineOptions, "mode">;
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
    const { path, runtime, options } = this.#parts;
    if (options.mode === "observe") return this.#observe("asked for");
    const sqlite = this.#sqlite;
    if (sqlite === null) return this.#observe(noSqlite(runtime.sqlite).message);
    try {
      return new PinCapture(LiveDatabase.open(path, runtime.files, sqlite), runtime);
    } catch (error) {
      const isReadOnly = error instanceof DatabaseError && error.code === "not_writable";
      if (!isReadOnly || options.mode === "pin") throw error;
      return this.#observe(`${error.message}; ${error.hint}`);
    }
  }

  #observe(reason: string): Capture {
    const { path, directory, runtime, emit } = this.#parts;
    const capture = new ObserveCapture(path, `${directory}/spool`, runtime);
    if (reason !== this.#observed) emit({ kind: "observing", path, reason });
    this.#observed = reason;
    return capture;
  }
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
