/** Plain SQL over the runtime's built-in SQLite, for programs that are an application themselves, such as the demo. */
import process from "node:process";
import { DatabaseError } from "../errors.ts";

/** A value in a row. */
export type SqlValue = null | number | bigint | string | Uint8Array;

/** A prepared statement. */
export interface SqlStatement {
  run(...values: SqlValue[]): unknown;
  all(...values: SqlValue[]): unknown[];
}

/** An open database. */
export interface SqlDatabase {
  exec(sql: string): void;
  prepare(sql: string): SqlStatement;
  close(): void;
}

/** Opens a database (made when absent) with the runtime's built-in SQLite; throws `DatabaseError` where there is none. */
export function openDatabase(path: string): SqlDatabase {
  const warn = process.emitWarning;
  // Node 22 warns that node:sqlite is experimental; that is nothing our users can act on.
  process.emitWarning = () => {};
  try {
    const { DatabaseSync } = process.getBuiltinModule("node:sqlite");
    return new DatabaseSync(path) as SqlDatabase;
  } catch (error) {
    throw new DatabaseError("sqlite_open", `${path}: cannot be opened with the runtime's built-in SQLite`, {
      hint: "use Node 22.13 or newer, Deno 2.2 or newer, or Bun 1.4 or newer",
      cause: error,
    });
  } finally {
    process.emitWarning = warn;
  }
}
