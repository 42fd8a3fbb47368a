/** `walrust pragma`: the settings of SQLite that suit a replicated database, as SQL, and what each means for walrust. */
import { ConfigError } from "../errors.ts";
import type { Files } from "../runtime/types.ts";
import type { CommandCall, CommandContext } from "./context.ts";

/** One setting of SQLite. */
export interface Pragma {
  readonly name: string;
  readonly value: string;
  /** False where every connection has to set it again. */
  readonly isKept: boolean;
  readonly meaning: readonly string[];
}

/** In the order in which they must be set: a database in WAL mode keeps its page size. */
export const pragmas: readonly Pragma[] = [
  {
    name: "page_size",
    value: "4096",
    isKept: true,
    meaning: [
      "Counts for a new database, before its first table. walrust ships whole pages: larger ones make small changes",
      "large. A database whose page size has changed begins a new lineage.",
    ],
  },
  {
    name: "journal_mode",
    value: "WAL",
    isKept: true,
    meaning: ["walrust reads from the write-ahead log what was committed, and replicates no database without one."],
  },
  {
    name: "synchronous",
    value: "NORMAL",
    isKept: false,
    meaning: [
      "When the machine loses power the last commits may be lost, never the database. walrust then publishes the",
      "difference, so that bucket and database agree. FULL keeps those commits, for a disk flush each.",
    ],
  },
  {
    name: "wal_autocheckpoint",
    value: "1000",
    isKept: false,
    meaning: [
      "SQLite's default, in pages; it need not be 0. While walrust runs, it keeps the log until it has taken it and",
      "resets it then; while it does not, this keeps the log small.",
    ],
  },
  {
    name: "busy_timeout",
    value: "5000",
    isKept: false,
    meaning: [
      "Milliseconds. walrust holds the write lock for some of them at a checkpoint: a writer then waits instead of",
      "failing with SQLITE_BUSY.",
    ],
  },
  {
    name: "cache_size",
    value: "-16000",
    isKept: false,
    meaning: ["16 MB for each connection of the application. walrust has its own, with room for twenty pages."],
  },
  {
    name: "mmap_size",
    value: "134217728",
    isKept: false,
    meaning: ["128 MB of the file are mapped instead of copied. Nothing to walrust, which does not read through it."],
  },
];

/** Prints the SQL, or writes it to a new file. */
export function run(context: CommandContext, call: CommandCall): Promise<number> {
  const { output, runtime } = context;
  const sql = pragmaSql(call.options.comments !== false);
  const file = typeof call.options.output === "string" ? call.options.output : null;
  if (file !== null) writeNew(runtime.files, file, sql);
  output.json({ file, sql, pragmas });
  if (file !== null) output.line(`written to ${file}: run it with sqlite3 app.db < ${file}`);
  else if (!output.isJson) output.text(sql);
  return Promise.resolve(0);
}

/** The settings as SQL, one statement a line. */
export function pragmaSql(hasComments: boolean): string {
  if (!hasComments) return pragmas.map(statement).join("");
  const part = (isKept: boolean): string =>
    pragmas.filter((pragma) => pragma.isKept === isKept)
      .map((pragma) => `${pragma.meaning.map((line) => `-- ${line}\n`).join("")}${statement(pragma)}`).join("\n");
  return "-- Settings for a database that walrust replicates.\n\n" +
    `-- Kept in the database: once is enough.\n\n${part(true)}\n` +
    `-- Not kept: every connection of the application sets them.\n\n${part(false)}`;
}

function statement({ name, value }: Pragma): string {
  return `PRAGMA ${name} = ${value};\n`;
}

function writeNew(files: Files, path: string, text: string): void {
  try {
    const file = files.open(path, "exclusive");
    try {
      file.write(new TextEncoder().encode(text), 0);
    } finally {
      file.close();
    }
  } catch (error) {
    const isThere = (error as { code?: string }).code === "EEXIST";
    throw new ConfigError(
      isThere ? "output_exists" : "output_not_writable",
      isThere ? `${path} already exists` : `${path} cannot be written: ${(error as Error).message}`,
      {
        hint: "give -o a new file",
        data: { path },
        cause: error,
      },
    );
  }
}
