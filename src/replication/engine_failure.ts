/** What an error means to an engine: trouble that passes, another writer, or the end. */
import { IntegrityError, RestoreError, WalrustError } from "../errors.ts";

/** True for the error of a writer that found another one in its place. */
export function isFenced(error: unknown): boolean {
  return error instanceof IntegrityError && error.code === "fenced";
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
