/** One walrust per replica: a tiny SQLite file beside it whose write lock we hold; the kernel frees it when we end. */
import { DatabaseError } from "../errors.ts";
import type { OpenFile, Runtime, SqliteConnection } from "../runtime/types.ts";

/** Somebody else's look at the lock lasts a moment. */
const patienceMs = 300;

/** The lock of a replica. */
export interface ReplicaLock {
  /** Lets others have it. */
  release(): void;
}

/** Takes the lock of the replica at `localPath`; throws `DatabaseError` when another process has it. */
export function lockReplica(runtime: Pick<Runtime, "files" | "sqlite">, localPath: string): ReplicaLock {
  const path = `${localPath}-replica-lock`;
  const connection: SqliteConnection = runtime.sqlite!.open(path, {
    readOnly: false,
    busyTimeoutMs: patienceMs,
    pageSize: 512,
  });
  let file: OpenFile;
  try {
    if (!connection.beginImmediate()) {
      throw new DatabaseError("locked_by_walrust", `another walrust already replicates into ${localPath}`, {
        hint: "stop it first, or give this one another file",
        data: { path: localPath },
      });
    }
    // Without the right to write SQLite's write lock is silently none. Closed after the connection: locks would go too.
    file = runtime.files.open(path, "update");
  } catch (error) {
    connection.close();
    throw error;
  }
  return {
    release(): void {
      connection.rollback();
      connection.close();
      file.close();
    },
  };
}
