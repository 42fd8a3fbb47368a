/**
 * One walrust per database on a host: a tiny SQLite file whose write lock we hold. The kernel frees it when we are
 * killed, and containers that share the volume see it. Who holds it stands in a text file beside it.
 */
import { DatabaseError } from "../errors.ts";
import { readSmallFile, writeFileAtomically } from "../replication/journal.ts";
import type { Runtime, SqliteConnection } from "../runtime/types.ts";

/** A held lock. */
export interface InstanceLock {
  release(): void;
}

/** Takes the lock in `directory`; throws `DatabaseError` naming the holder when another process has it. */
export function lockInstance(
  runtime: Pick<Runtime, "files" | "sqlite">,
  options: { path: string; directory: string; holder: string },
): InstanceLock {
  const { path, directory, holder } = options;
  runtime.files.makeDirectory(directory);
  // Somebody who only asks whether it is held has it for a moment.
  const connection = openLock(runtime, directory, 300);
  if (!connection.beginImmediate()) {
    connection.close();
    const bytes = readSmallFile(runtime.files, `${directory}/lock.holder`, 1024);
    const other = bytes === null ? "unknown" : new TextDecoder().decode(bytes).trim();
    throw new DatabaseError("locked", `another walrust already replicates ${path} (${other})`, {
      hint: "stop it first; for a snapshot beside a running watch use the same --state-dir",
      data: { path, holder: other },
    });
  }
  try {
    writeFileAtomically(runtime.files, directory, "lock.holder", new TextEncoder().encode(`${holder}\n`));
  } catch (error) {
    connection.close();
    throw error;
  }
  return {
    release(): void {
      connection.rollback();
      connection.close();
    },
  };
}

/** True when a process holds the lock. */
export function isLocked(runtime: Pick<Runtime, "files" | "sqlite">, directory: string): boolean {
  if (runtime.files.stat(`${directory}/lock`) === null) return false;
  const connection = openLock(runtime, directory, 0);
  const free = connection.beginImmediate();
  connection.rollback();
  connection.close();
  return !free;
}

/** Nothing is ever written into it, and one is held for each database: the smallest pages cost the least memory. */
function openLock(runtime: Pick<Runtime, "sqlite">, directory: string, busyTimeoutMs: number): SqliteConnection {
  return runtime.sqlite!.open(`${directory}/lock`, { readOnly: false, busyTimeoutMs, pageSize: 512 });
}
