/**
 * One walrust per database on a host: tiny SQLite files whose write locks we hold, one beside the database and one in
 * the state directory where that is another place. The kernel frees them when we are killed, and containers that share
 * the volume see them. Who holds a lock, for what and where its state is, stands in a file beside it.
 */
import { DatabaseError } from "../errors.ts";
import { hexOf } from "../format/bytes.ts";
import { readSmallFile, writeFileAtomically } from "../replication/small_file.ts";
import { isForbidden, type StatePlace, userOf } from "../replication/state_directory.ts";
import type { OpenFile, Runtime, SqliteConnection } from "../runtime/types.ts";

type LockRuntime = Pick<Runtime, "files" | "sqlite" | "random">;

/** Held locks. */
export interface InstanceLock {
  release(): void;
}

/** Who holds a lock. */
export interface Holder {
  /** Names the process, for messages. */
  readonly name: string;
  /** What it does with the database. */
  readonly role: "watch" | "snapshot";
  /** Its state directory. */
  readonly directory: string;
  /** Another one each time the lock is taken. */
  readonly id: string;
}

const holderName = "lock.holder";
const holderSizeMax = 64 * 1024;
/** Somebody who only asks whether a lock is held has it for a moment. */
const patienceMs = 300;

/** Takes all locks of `place`; throws `DatabaseError` naming the holder when another process has one of them. */
export function lockInstance(
  runtime: LockRuntime,
  options: { path: string; place: StatePlace; name: string; role: Holder["role"] },
): InstanceLock {
  const { path, place, name, role } = options;
  const holder: Holder = { name, role, directory: place.directory, id: hexOf(runtime.random.bytes(8)) };
  const held: InstanceLock[] = [];
  const release = (): void => {
    for (const lock of held.splice(0).reverse()) lock.release();
  };
  try {
    for (const directory of place.locks) held.push(lockDirectory(runtime, path, directory, holder));
  } catch (error) {
    release();
    throw error;
  }
  return { release };
}

/** Who works on the database of `place`; `null` when nobody does. */
export function findHolder(runtime: LockRuntime, place: StatePlace): Holder | null {
  const directory = place.locks.find((directory) => isLocked(runtime, directory));
  return directory === undefined ? null : readHolder(runtime, directory);
}

/** True when a process holds the lock of `directory`. */
export function isLocked(runtime: LockRuntime, directory: string): boolean {
  if (runtime.files.stat(`${directory}/lock`) === null) return false;
  return explained(runtime, directory, () => {
    const connection = openLock(runtime, directory, 0);
    try {
      const free = connection.beginImmediate();
      connection.rollback();
      return !free;
    } finally {
      connection.close();
    }
  });
}

function lockDirectory(runtime: LockRuntime, path: string, directory: string, holder: Holder): InstanceLock {
  return explained(runtime, directory, () => {
    const connection = openLock(runtime, directory, patienceMs);
    let file: OpenFile | null = null;
    try {
      if (!connection.beginImmediate()) throw heldByAnother(path, readHolder(runtime, directory));
      // Without the right to write SQLite's write lock is silently none. Closed after the connection: locks would go too.
      file = runtime.files.open(`${directory}/lock`, "update");
      const text = JSON.stringify(holder);
      writeFileAtomically(runtime.files, directory, holderName, new TextEncoder().encode(text));
    } catch (error) {
      connection.close();
      file?.close();
      throw error;
    }
    const descriptor = file;
    return {
      release(): void {
        connection.rollback();
        connection.close();
        descriptor.close();
      },
    };
  });
}

function heldByAnother(path: string, holder: Holder): DatabaseError {
  return new DatabaseError("locked_by_walrust", `another walrust already replicates ${path} (${holder.name})`, {
    hint: "stop it first; `walrust snapshot` beside a running watch asks that one",
    data: { path, holder: holder.name, stateDirectory: holder.directory },
  });
}

/** Who says that they hold the lock; what an earlier version wrote is one line of text. */
function readHolder(runtime: LockRuntime, directory: string): Holder {
  const bytes = readSmallFile(runtime.files, `${directory}/${holderName}`, holderSizeMax);
  const text = bytes === null ? "unknown" : new TextDecoder().decode(bytes).trim();
  try {
    const { name, role, directory, id } = JSON.parse(text);
    return { name: String(name), role: role === "snapshot" ? "snapshot" : "watch", directory: String(directory), id };
  } catch {
    return { name: text, role: "watch", directory, id: text };
  }
}

/** Nothing is ever written into it, and one is held for each database: the smallest pages cost the least memory. */
function openLock(runtime: LockRuntime, directory: string, busyTimeoutMs: number): SqliteConnection {
  return runtime.sqlite!.open(`${directory}/lock`, { readOnly: false, busyTimeoutMs, pageSize: 512 });
}

/** Does `work`; says whose the place is where we may not write to it. */
function explained<T>(runtime: LockRuntime, directory: string, work: () => T): T {
  try {
    return work();
  } catch (error) {
    const isSqlite = error instanceof DatabaseError && ["sqlite_cantopen", "sqlite_readonly"].includes(error.code);
    if (!isSqlite && !isForbidden(error)) throw error;
    const { files } = runtime;
    const owner = files.stat(directory)?.uid;
    throw new DatabaseError("state_not_writable", `${directory} cannot be written to by ${userOf(files)}`, {
      hint: `it was made by user ${owner}: run walrust as that user, or remove it when no walrust works there`,
      data: { directory, owner, user: files.uid },
      cause: error,
    });
  }
}
