/** The system's limit of open files: said in words wherever it is met. */
import fs from "node:fs";
import { devNull } from "node:os";
import { DatabaseError } from "../errors.ts";

const limitCodes = ["EMFILE", "ENFILE"];

/** The error of a process that may open no more files. */
export function tooManyFiles(path: string, cause: unknown): DatabaseError {
  return new DatabaseError(
    "too_many_files",
    `${path} cannot be opened: this process has as many open files as it may`,
    {
      hint: "allow it more: ulimit -n 65536 before the start, LimitNOFILE=65536 for systemd, " +
        "--ulimit nofile=65536 for Docker; a database in use takes up to 20, a quiet one 4",
      data: { path },
      cause,
    },
  );
}

/** Does `work`; says in words that the limit was met. */
export function withinLimit<T>(path: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (limitCodes.includes((error as { code?: string } | null)?.code ?? "")) throw tooManyFiles(path, error);
    throw error;
  }
}

/** True when the limit is met now: SQLite itself only says that it cannot open a file. */
export function isAtFileLimit(): boolean {
  try {
    fs.closeSync(fs.openSync(devNull, "r"));
    return false;
  } catch (error) {
    return limitCodes.includes((error as { code?: string } | null)?.code ?? "");
  }
}
