/** Where the state of a database is kept, which directories' locks guard it, and which machine it belongs to. */
import { ConfigError, DatabaseError } from "../errors.ts";
import { hexOf } from "../format/bytes.ts";
import type { Files, Runtime } from "../runtime/types.ts";
import { readJournal } from "./journal.ts";
import { nameOf } from "./paths.ts";
import { readSmallFile, writeFileAtomically } from "./small_file.ts";

/** What a database is called and where it is. */
export interface DatabasePath {
  /** As it was given; for messages. */
  readonly given: string;
  /** The name given, in its real directory: what the state is kept under, whatever file a link of that name leads to. */
  readonly name: string;
  /** The file itself, behind all links: what SQLite opens, and what the WAL lies beside. */
  readonly real: string;
}

/** Where state may go. */
export interface StateOptions {
  /** Directory for the state of all databases; `null`: `.walrust-<file name>/` beside each of them. */
  readonly stateDirectory: string | null;
  /** Directory for the state of databases beside which nothing may be made; `null`: they are refused. */
  readonly fallbackStateDirectory: string | null;
}

/** Where the state of one database is. */
export interface StatePlace {
  /** Journal, index and spool; absolute. */
  readonly directory: string;
  /** Who works on the database holds the locks in all of these, taken in this order. */
  readonly locks: readonly string[];
}

const pathFile = "path";
const pathSizeMax = 16 * 1024;
const hashDigits = 12;

/** `.walrust-<file name>/` beside `path`. */
export function besideDirectory(path: string): string {
  const slash = path.lastIndexOf("/");
  return `${path.slice(0, slash)}/.walrust-${path.slice(slash + 1)}`;
}

/**
 * Makes the directories for the state of `database` where they are absent. The lock beside the file itself is always
 * among them where that place may be written to: two walrusts with two state directories meet there. Throws
 * `DatabaseError` or `ConfigError` saying which place may not be written to by whom.
 */
export function makeStatePlace(
  runtime: Pick<Runtime, "files" | "sha256">,
  database: DatabasePath,
  options: StateOptions,
): StatePlace {
  const { files } = runtime;
  const besideFile = besideDirectory(database.real);
  const locks = makeWherePermitted(files, besideFile) ? [files.realPath(besideFile)] : [];
  const directory = files.realPath(makeStateDirectory(runtime, database, options));
  if (!locks.includes(directory)) locks.push(directory);
  return { directory, locks };
}

function makeStateDirectory(
  runtime: Pick<Runtime, "files" | "sha256">,
  database: DatabasePath,
  { stateDirectory, fallbackStateDirectory }: StateOptions,
): string {
  const { files } = runtime;
  if (stateDirectory !== null) return makeShared(runtime, database, stateDirectory);
  const beside = besideDirectory(database.name);
  if (makeWherePermitted(files, beside)) return beside;
  if (fallbackStateDirectory !== null) return makeShared(runtime, database, fallbackStateDirectory);
  throw new DatabaseError("state_not_writable", `${beside} cannot be made: ${userOf(files)} may not write there`, {
    hint: "let this user write to the directory of the database, or pass --state-dir",
    data: { path: database.given, directory: beside, user: files.uid },
  });
}

/** A folder below `parent` that is this database's alone: of two databases with one file name each has its own. */
function makeShared(runtime: Pick<Runtime, "files" | "sha256">, database: DatabasePath, parent: string): string {
  const { files } = runtime;
  try {
    const directory = sharedDirectory(runtime, database, parent);
    files.makeDirectory(directory);
    const path = new TextEncoder().encode(database.name);
    if (readPath(files, directory) !== database.name) writeFileAtomically(files, directory, pathFile, path);
    return directory;
  } catch (error) {
    throw new ConfigError(
      "bad_state_directory",
      `the state directory ${parent} cannot be used by ${userOf(files)}: ${(error as Error).message}`,
      {
        hint: "give --state-dir a directory that this user may write to",
        data: { path: database.given, directory: parent, user: files.uid },
        cause: error,
      },
    );
  }
}

function sharedDirectory(runtime: Pick<Runtime, "files" | "sha256">, database: DatabasePath, parent: string): string {
  const fileName = nameOf(database.name);
  // Earlier versions knew the file name only: their folder is kept by the database that it belongs to.
  const earlier = `${parent}/.walrust-${fileName}`;
  if (belongsTo(runtime, earlier, database)) return earlier;
  const hash = runtime.sha256();
  hash.update(new TextEncoder().encode(database.name));
  return `${parent}/${fileName}-${hexOf(hash.digest()).slice(0, hashDigits)}`;
}

function belongsTo(runtime: Pick<Runtime, "files" | "sha256">, directory: string, database: DatabasePath): boolean {
  const { files, sha256 } = runtime;
  const path = readPath(files, directory);
  if (path !== null) return path === database.name;
  const journal = readJournal(files, directory, sha256);
  const stat = files.stat(database.real);
  return journal !== null && journal.device === stat?.device && journal.inode === stat.inode;
}

function readPath(files: Files, directory: string): string | null {
  const bytes = readSmallFile(files, `${directory}/${pathFile}`, pathSizeMax);
  return bytes === null ? null : new TextDecoder().decode(bytes);
}

/** False where the system forbids it. */
function makeWherePermitted(files: Files, directory: string): boolean {
  try {
    files.makeDirectory(directory);
    return true;
  } catch (error) {
    if (isForbidden(error)) return false;
    throw new DatabaseError("state_not_writable", `${directory} cannot be made: ${(error as Error).message}`, {
      hint: "walrust keeps its state there: move away what has this name, or pass --state-dir",
      data: { directory },
      cause: error,
    });
  }
}

/** True for the system's word that we may not. */
export function isForbidden(error: unknown): boolean {
  return ["EACCES", "EPERM", "EROFS"].includes((error as { code?: string } | null)?.code ?? "");
}

/** The user whose rights we have, for messages. */
export function userOf(files: Files): string {
  return files.uid === null ? "this user" : `user ${files.uid}`;
}

/** The machine's name for itself where it has one, else empty: a state directory copied to another host is noticed. */
export function machineName(runtime: Pick<Runtime, "files">): string {
  const bytes = readSmallFile(runtime.files, "/etc/machine-id", 256);
  return bytes === null ? "" : new TextDecoder().decode(bytes).trim();
}
