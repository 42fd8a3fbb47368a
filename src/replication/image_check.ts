/** SQLite's own opinion of a restored image. */
import { DatabaseError } from "../errors.ts";
import type { Files, Sqlite, SqliteConnection } from "../runtime/types.ts";
import { sidecarSuffixes, unsound } from "./apply.ts";
import { absolutePath } from "./paths.ts";

/** How thoroughly SQLite looks at the restored file. */
export type IntegrityLevel = "none" | "quick" | "full";

/** Asks a SQLite other than the runtime's for its findings; empty when sound, null when it cannot (too large, absent). */
export type ImageCheck = (
  files: Files,
  path: string,
  level: "quick" | "full",
) => Promise<string[] | null>;

/** What SQLite says when the machine, not the content of the file, stands in the way. */
const notOfContent = [
  "sqlite_busy",
  "sqlite_locked",
  "sqlite_readonly",
  "sqlite_ioerr",
  "sqlite_full",
  "sqlite_cantopen",
];

/**
 * The findings of the runtime's SQLite, empty when the image is sound. Throws `DatabaseError` when it could not look:
 * that says nothing about the content.
 */
export function checkWithSqlite(files: Files, sqlite: Sqlite, path: string, level: "quick" | "full"): string[] {
  let connection: SqliteConnection | null = null;
  try {
    // SQLite takes a name that begins with `file:` for a URI.
    connection = sqlite.open(absolutePath(files, path), { readOnly: true });
    return connection.check(level);
  } catch (error) {
    if (!(error instanceof DatabaseError)) throw error;
    if (connection === null || notOfContent.includes(error.code)) throw notChecked(error);
    return [error.message];
  } finally {
    connection?.close();
    // Opening a file in WAL mode makes sidecars beside it, which must not outlive the check.
    for (const suffix of sidecarSuffixes) files.remove(path + suffix);
  }
}

/**
 * Asks the runtime's SQLite, else `check`; false when neither could be asked. Throws `IntegrityError` for what they
 * find, `DatabaseError` when SQLite could not look.
 */
export async function assertSound(
  path: string,
  level: "quick" | "full",
  { files, sqlite }: { readonly files: Files; readonly sqlite: Sqlite | null },
  check: ImageCheck | undefined,
): Promise<boolean> {
  const findings = sqlite !== null
    ? checkWithSqlite(files, sqlite, path, level)
    : await check?.(files, path, level) ?? null;
  if (findings === null) return false;
  if (findings.length > 0) throw unsound(findings.slice(0, 3).join("; "), findings.slice(0, 100));
  return true;
}

function notChecked(error: DatabaseError): DatabaseError {
  return new DatabaseError(error.code, `SQLite could not check the restored database: ${error.message}`, {
    hint: "Restore to another directory; with --integrity-check none only the checksums are verified.",
    data: error.data,
    cause: error,
  });
}
