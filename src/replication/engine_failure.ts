/** What an error means to an engine: trouble that passes, another writer, or the end. */
import { DatabaseError, IntegrityError, RestoreError, StorageError, WalrustError } from "../errors.ts";

/** True for the error of a writer that found another one in its place. */
export function isFenced(error: unknown): boolean {
  return error instanceof IntegrityError && error.code === "fenced";
}

/** The error of a writer whose pointer is gone: not another writer, the engine begins again from what is left. */
export function stateMissing(root: string): StorageError {
  return new StorageError("StateMissing", `${root}state.json is gone: the bucket was emptied or is another one`, {
    hint: "walrust begins a new lineage; objects that are left stay as they are",
    data: { root },
  });
}

/** True for errors that no further try of the same object can mend. */
export function endsWriting(error: unknown): boolean {
  return isFenced(error) || (error instanceof StorageError && error.code === "StateMissing");
}

/** Disk, SQLite and network trouble pass; integrity and our own bugs do not. */
export function isTransient(error: unknown): boolean {
  if (error instanceof WalrustError) return error.kind === "database" || error.kind === "storage";
  const code = error instanceof Error ? (error as { code?: unknown }).code : undefined;
  return typeof code === "string" && /^E[A-Z0-9]+$/.test(code);
}

/** The answer to a snapshot request that the end of the engine came before. */
export function stoppedBeforeSnapshot(): RestoreError {
  return new RestoreError("stopped", "walrust stopped before the snapshot was complete");
}

/** The error of an engine whose first object after a start met another writer's. */
export function takenOver(root: string, reason: string): IntegrityError {
  return new IntegrityError("fenced", `another writer published to ${root}: ${reason}`, {
    hint: "only one walrust may write to a prefix: stop the other one, then start this one again",
    data: { root, reason },
  });
}

/** The answer to a stop while the database could not be looked at because of `cause`. */
export function notLookedAt(path: string, cause: unknown): WalrustError {
  const why = cause instanceof Error ? `: ${cause.message}` : "";
  const message =
    `${path} could not be looked at before the stop${why}; what was committed since is in the database only`;
  const kind = cause instanceof WalrustError ? cause.kind : "database";
  return new WalrustError(kind, "not_published", message, {
    hint: (cause instanceof WalrustError ? cause.hint : undefined) ??
      "start walrust again: it publishes what is missing",
    data: { path },
    cause,
  });
}

/** The answer to a stop that leaves something out of the bucket; `null` when it leaves nothing. */
export function notPublished(left: {
  path: string;
  /** Newest seq in the bucket. */
  seq: bigint;
  spool: string;
  /** Sealed objects behind it, which the spool holds. */
  objects: number;
  /** Whether commits behind those are in the database alone. */
  hasCommits: boolean;
  hasSnapshot: boolean;
}): WalrustError | null {
  const { path, seq, spool, objects, hasCommits, hasSnapshot } = left;
  const parts: string[] = [];
  if (!hasSnapshot) parts.push("its first snapshot is not complete, so nothing can be restored yet");
  if (objects > 0) parts.push(`${objects === 1 ? "1 changeset" : `${objects} changesets`} kept in ${spool}`);
  if (hasCommits) parts.push("commits kept in the database");
  if (parts.length === 0) return null;
  const message = `${path}: not all is in the bucket, which ends at seq ${seq}: ${parts.join("; ")}`;
  const details = {
    hint: "start walrust again when the bucket can be reached: it publishes what is missing",
    data: { path, seq, objects, spool: objects > 0 ? spool : null, commits: hasCommits, snapshot: hasSnapshot },
  };
  const isStorage = objects > 0 || !hasSnapshot;
  return isStorage
    ? new StorageError("not_published", message, details)
    : new DatabaseError("not_published", message, details);
}
