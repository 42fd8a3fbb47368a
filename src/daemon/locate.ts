/** Finds the file that a given path leads to, and notices when it leads to another one. */
import { ConfigError, DatabaseError } from "../errors.ts";
import { inspectDatabase, statDatabase } from "../replication/live_database.ts";
import type { CaptureMode } from "../replication/options.ts";
import { absolutePath } from "../replication/paths.ts";
import { besideDirectory, type DatabasePath, isForbidden, userOf } from "../replication/state_directory.ts";
import type { Files, FileStat } from "../runtime/types.ts";

/**
 * Where `given` leads to. Throws `DatabaseError` for what cannot be replicated, before anything was made for it, and
 * `ConfigError` for a file that is among `taken`, by any of its {@linkcode namesOf names}: this process works on it
 * already, and would drop the locks it holds there.
 */
export function locateDatabase(
  files: Files,
  given: string,
  options: { mode: CaptureMode; isShared: boolean; taken?: ReadonlySet<string> },
): DatabasePath {
  const { mode, isShared, taken } = options;
  try {
    statDatabase(given, files);
    const database = { given, name: absolutePath(files, given), real: files.realPath(given) };
    if (namesOf(files, database.real).some((name) => taken?.has(name))) {
      throw new ConfigError("same_database", `${given} and another path given lead to the same ${database.real}`, {
        hint: "name each database once",
        data: { path: given, database: database.real },
      });
    }
    // Where a lock may be held nothing is opened beside its holder, which may be this process: the engine will look.
    if (files.stat(besideDirectory(database.real)) === null) {
      inspectDatabase(database.real, files, { mode: mode === "pin" ? "update" : "read", isShared });
    }
    return database;
  } catch (error) {
    if (!isForbidden(error)) throw error;
    throw new DatabaseError("not_readable", `${given} cannot be reached by ${userOf(files)}: ${messageOf(error)}`, {
      hint: "run walrust as the user that owns the database, or let this user into its directory",
      data: { path: given, user: files.uid },
      cause: error,
    });
  }
}

/** What a file is known by: its real path, and its identity, which hard links share as they share its locks. */
export function namesOf(files: Files, real: string): string[] {
  const stat = files.stat(real);
  return stat === null ? [real] : [real, `${stat.device}:${stat.inode}`];
}

/** Notices that a link was switched to another file. What replaces the file itself the engine notices. */
export class LinkWatch {
  readonly #files: Files;
  readonly #database: DatabasePath;
  #seen: FileStat | null;

  constructor(files: Files, database: DatabasePath) {
    this.#files = files;
    this.#database = database;
    this.#seen = files.stat(database.real);
  }

  /** True when the path given leads to another file than before; one `stat` while it does not. */
  isSwitched(): boolean {
    try {
      const now = this.#files.stat(this.#database.given);
      const seen = this.#seen;
      if (now === null || (now.inode === seen?.inode && now.device === seen.device)) return false;
      if (this.#files.realPath(this.#database.given) !== this.#database.real) return true;
      this.#seen = now;
    } catch {
      // A directory on the way that is just being exchanged: the next look tells.
    }
    return false;
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
