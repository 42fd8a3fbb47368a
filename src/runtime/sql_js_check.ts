/**
 * The integrity check where the runtime has no built-in SQLite: sql.js, SQLite compiled to WebAssembly, an optional
 * peer dependency loaded only when asked for. It holds the whole file in memory.
 */
import type { Files } from "./types.ts";

/** Larger files are not checked: file, copy and WebAssembly heap would take a multiple of this. */
const sizeMax = 500 * 1024 * 1024;

interface SqlJsDatabase {
  exec(sql: string): { values: unknown[][] }[];
  close(): void;
}

type SqlJs = () => Promise<{ Database: new (bytes: Uint8Array) => SqlJsDatabase }>;

/** Findings of `quick_check` or `integrity_check`, empty when sound; null when sql.js is absent or the file too large. */
export async function checkWithSqlJs(files: Files, path: string, level: "quick" | "full"): Promise<string[] | null> {
  const load = await loadSqlJs();
  if (load === null) return null;
  const file = files.open(path, "read");
  let bytes: Uint8Array;
  try {
    const { size } = file.stat();
    if (size > sizeMax) return null;
    bytes = new Uint8Array(size);
    for (let at = 0; at < size;) {
      const length = file.read(bytes.subarray(at), at);
      if (length === 0) return [`the file ends after ${at} of ${size} bytes`];
      at += length;
    }
  } finally {
    file.close();
  }
  // In memory there is no WAL: the copy says rollback journal (bytes 18 and 19), the file stays as it is.
  if (bytes.length >= 20 && bytes[18] === 2 && bytes[19] === 2) bytes[18] = bytes[19] = 1;
  const { Database } = await load();
  const database = new Database(bytes);
  try {
    const rows = database.exec(level === "quick" ? "PRAGMA quick_check" : "PRAGMA integrity_check");
    const findings = rows.flatMap((result) => result.values.map((row) => String(row[0])));
    return findings.length === 1 && findings[0] === "ok" ? [] : findings;
  } catch (error) {
    return [error instanceof Error ? error.message : String(error)];
  } finally {
    database.close();
  }
}

async function loadSqlJs(): Promise<SqlJs | null> {
  try {
    const name = "sql.js";
    const loaded: { default?: SqlJs } = await import(name);
    return loaded.default ?? null;
  } catch {
    return null;
  }
}
