/**
 * `watch`: one engine per database, each driven by its own loop that only sleeps and calls `step()`.
 */
import { ConfigError, DatabaseError, StorageError } from "../errors.ts";
import { databaseName } from "../format/keys.ts";
import { DatabaseEngine } from "../replication/engine.ts";
import type { EngineEvent, EngineOptions } from "../replication/options.ts";
import type { Clock, Log, Runtime } from "../runtime/types.ts";
import { abortable } from "../storage/wrap.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { type Limiter, limiter, limitUploads } from "./upload_limit.ts";
import { type InstanceLock, lockInstance } from "./instance_lock.ts";
import { SnapshotRequests } from "./snapshot_request.ts";

/** How databases are watched. */
export type WatchOptions = EngineOptions;

/** What happens while watching. */
export type WatchEvent = EngineEvent | { kind: "failed"; path: string; error: unknown };

/** A database to watch. */
export interface WatchedDatabase {
  /** Path of the database. */
  readonly path: string;
  /** Name in the bucket; the file name without its extension when absent. */
  readonly prefix?: string;
}

/** What {@linkcode watch} needs. */
export interface WatchCall {
  /** Each is independent of the others. */
  readonly databases: readonly WatchedDatabase[];
  /** Where it goes. */
  readonly store: ObjectStore;
  /** Key prefix of all databases, empty or ending with `/`. */
  readonly prefix: string;
  /** The machine. */
  readonly runtime: Runtime;
  /** How, as {@linkcode WatchOptions} says. */
  readonly options: WatchOptions;
  /** Told of everything published. */
  readonly onEvent?: (event: WatchEvent) => void;
  /** Told of what goes wrong and of what is done about it. */
  readonly log?: Log;
  /** Stops: a final sync, then the end. */
  readonly signal?: AbortSignal;
  /** Names this process in the lock file. */
  readonly holder?: string;
}

/** Uploads that run side by side over all databases: objects in one piece, and streams, which hold more memory. */
const uploadsMax = 32;
const streamsMax = 8;
/** Databases that start side by side: each reads all of its database. */
const startsMax = 8;
const startLimitMs = 10_000;
const stopLimitMs = 30_000;
const lockIntervalMs = 1000;
/** How long a request for a snapshot may wait, however rarely the database is looked at. */
const requestIntervalMs = 1000;

/** Databases that stopped with an error, in the order they did. */
export interface WatchResult {
  /** Path and reason. */
  readonly failures: readonly { path: string; error: unknown }[];
}

/**
 * Replicates until `signal` aborts or every database has failed; one failing database does not stop the others.
 * Throws `ConfigError` when two databases would share a name in the bucket.
 */
export async function watch(call: WatchCall): Promise<WatchResult> {
  const roots = call.databases.map((database) => rootOf(call.prefix, database));
  roots.forEach((root, i) => {
    const other = roots.indexOf(root);
    if (other === i) return;
    const [a, b] = [call.databases[other].path, call.databases[i].path];
    throw new ConfigError("same_prefix", `${a} and ${b} would both be stored as ${root}`, {
      hint: "give one of them another name",
      data: { root },
    });
  });
  const store = limitUploads(call.store, uploadsMax, streamsMax);
  const starting = limiter(startsMax);
  const failures: { path: string; error: unknown }[] = [];
  await Promise.all(call.databases.map(async (database, i) => {
    try {
      await watchOne(call, store, starting, database.path, roots[i]);
    } catch (error) {
      failures.push({ path: database.path, error });
      call.onEvent?.({ kind: "failed", path: database.path, error });
    }
  }));
  return { failures };
}

/** Key prefix of one database. */
export function rootOf(prefix: string, database: WatchedDatabase): string {
  return `${prefix}${database.prefix ?? databaseName(database.path)}/`;
}

async function watchOne(
  call: WatchCall,
  shared: ObjectStore,
  starting: Limiter,
  givenPath: string,
  root: string,
): Promise<void> {
  const { runtime, options, signal } = call;
  const path = await locate(call, givenPath);
  if (path === null) return;
  const emit = (event: EngineEvent): void => {
    call.log?.("debug", event.kind, { ...event });
    call.onEvent?.({ ...event, path: givenPath });
  };
  const end = new AbortController();
  const store = abortable(shared, end.signal);
  const engine = new DatabaseEngine({ path, root, store, runtime, options, emit });
  const lock: InstanceLock = lockInstance(runtime, {
    path: givenPath,
    directory: engine.directory,
    holder: call.holder ?? "walrust",
  });
  const limit = stopLimit(engine, runtime.clock, signal, end);
  try {
    const requests = new SnapshotRequests({
      runtime,
      directory: engine.directory,
      destination: `${store.location}/${root}`,
      engine,
    });
    const step = async (): Promise<number> => {
      requests.poll();
      return Math.min(requestIntervalMs, await engine.step());
    };
    await starting(() => {
      const latest = runtime.clock.monotonic() + startLimitMs;
      return drive(step, () => engine.atRest || runtime.clock.monotonic() >= latest, runtime.clock, signal);
    });
    await drive(step, () => false, runtime.clock, signal);
    await engine.stop(limit.leftMs);
  } catch (error) {
    // Nothing was replicated yet, so nothing is left behind.
    if (engine.started || !end.signal.aborted) throw error;
  } finally {
    limit.release();
    lock.release();
  }
}

/** Ends the requests under way when the final sync has had its time after the stop signal, or has nothing to do. */
function stopLimit(
  engine: DatabaseEngine,
  clock: Clock,
  signal: AbortSignal | undefined,
  end: AbortController,
): { readonly leftMs: number; release(): void } {
  const released = new AbortController();
  let deadline = Infinity;
  const begin = (): void => {
    const limitMs = engine.started ? stopLimitMs : 0;
    deadline = clock.monotonic() + limitMs;
    pause(clock.sleep(limitMs, released.signal), released.signal).then(() => {
      end.abort(new StorageError("Stopped", "walrust was stopped before the bucket answered", { retryable: true }));
    });
  };
  if (signal?.aborted) begin();
  else signal?.addEventListener("abort", begin, { once: true });
  return {
    get leftMs() {
      return Math.max(0, Math.min(stopLimitMs, deadline - clock.monotonic()));
    },
    release() {
      signal?.removeEventListener("abort", begin);
      released.abort();
    },
  };
}

/** Absolute path without links; waits for the file where that is asked for. `null` when stopped before it came. */
async function locate(call: WatchCall, path: string): Promise<string | null> {
  const { files, clock } = call.runtime;
  for (let waited = false;; waited = true) {
    if (call.signal?.aborted) return null;
    if (files.stat(path) !== null) return files.realPath(path);
    if (!call.options.waitForDatabase) {
      throw new DatabaseError("missing", `${path} does not exist`, {
        hint: "check the path, or pass --wait to wait until the application creates it",
        data: { path },
      });
    }
    if (!waited) call.onEvent?.({ kind: "waiting", path, reason: "the database does not exist yet" });
    await pause(clock.sleep(lockIntervalMs, call.signal), call.signal);
  }
}

/** Steps and sleeps until `isDone` says so after a step, or the stop signal. */
async function drive(
  step: () => Promise<number>,
  isDone: () => boolean,
  clock: Clock,
  signal: AbortSignal | undefined,
): Promise<void> {
  while (!signal?.aborted) {
    const restMs = await step();
    if (isDone()) return;
    await pause(clock.sleep(restMs, signal), signal);
  }
}

/** Awaits a sleep that may be cut short by the stop signal. */
async function pause(sleeping: Promise<void>, signal: AbortSignal | undefined): Promise<void> {
  try {
    await sleeping;
  } catch (error) {
    if (!signal?.aborted) throw error;
  }
}
