/**
 * `watch`: one engine per database, each driven by its own loop that only sleeps and calls `step()`.
 */
import { ConfigError, type DatabaseError, StorageError } from "../errors.ts";
import { databaseName } from "../format/keys.ts";
import { ignoredConditions } from "../replication/condition_probe.ts";
import { DatabaseEngine } from "../replication/engine.ts";
import { isTransient, notLookedAt } from "../replication/engine_failure.ts";
import { isAbsence } from "../replication/live_database.ts";
import type { EngineEvent, EngineOptions } from "../replication/options.ts";
import { type DatabasePath, makeStatePlace, type StateOptions } from "../replication/state_directory.ts";
import type { Clock, Log, Runtime } from "../runtime/types.ts";
import { abortable } from "../storage/wrap.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { type CompactionEvent, type CompactionOptions, Compactions } from "./compaction.ts";
import { type Limiter, limiter, limitUploads } from "./upload_limit.ts";
import { lockInstance } from "./instance_lock.ts";
import { LinkWatch, locateDatabase, namesOf } from "./locate.ts";
import { SnapshotRequests } from "./snapshot_request.ts";
import { Validation, type ValidationEvent, type ValidationOptions } from "./validation.ts";

/** How databases are watched. */
export type WatchOptions = EngineOptions & StateOptions & ValidationOptions & {
  /** When retention and merging run beside it; never when absent. */
  readonly compaction?: CompactionOptions;
};

/** What happens while watching. */
export type WatchEvent =
  | EngineEvent
  | ValidationEvent
  | CompactionEvent
  | { kind: "failed"; path: string; error: unknown }
  /** The bucket ignores conditions of writes: another writer to the same place would not be noticed. */
  | { kind: "conditions_ignored"; path: string; ignored: readonly ("If-None-Match" | "If-Match")[] };

/** A database to watch. */
export interface WatchedDatabase {
  /** Path of the database. */
  readonly path: string;
  /** Name in the bucket; the file name without its extension when absent. */
  readonly prefix?: string;
  /** How, where it is otherwise than the others. */
  readonly options?: WatchOptions;
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
  /**
   * True where no other code of this process opens the databases. Otherwise their descriptors stay open to the end:
   * closing one would drop the locks of the application's own connections.
   */
  readonly ownProcess?: boolean;
}

/** Uploads that run side by side over all databases: objects in one piece, and streams, which hold more memory. */
const uploadsMax = 32;
const streamsMax = 8;
/** Databases that start side by side: each reads all of its database. */
const startsMax = 8;
const startLimitMs = 10_000;
const stopLimitMs = 30_000;
/** How long the file that a link led to may hold up the one that it leads to now. */
const switchLimitMs = 5000;
const waitIntervalMs = 1000;
/** How long a request for a snapshot or a switched link may wait, however rarely the database is looked at. */
const pollIntervalMs = 1000;

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
  const [validating, compacting] = [limiter(1), limiter(1)];
  const probe = { asked: false };
  const shared: Shared = { call, store, starting, validating, compacting, taken: new Set(), probe };
  const failures: { path: string; error: unknown }[] = [];
  await Promise.all(call.databases.map(async (database, i) => {
    try {
      await watchOne(shared, database, roots[i]);
    } catch (error) {
      failures.push({ path: database.path, error });
      report(call, { kind: "failed", path: database.path, error });
    }
  }));
  return { failures };
}

/** Key prefix of one database. */
export function rootOf(prefix: string, database: WatchedDatabase): string {
  return `${prefix}${database.prefix ?? databaseName(database.path)}/`;
}

/** What the databases of one call have in common. */
interface Shared {
  readonly call: WatchCall;
  readonly store: ObjectStore;
  readonly starting: Limiter;
  readonly validating: Limiter;
  readonly compacting: Limiter;
  /** Real paths and identities of the files that are watched. */
  readonly taken: Set<string>;
  /** `asked` once the bucket was asked whether it keeps conditions. */
  readonly probe: { asked: boolean };
}

async function watchOne(shared: Shared, { path, options }: WatchedDatabase, root: string): Promise<void> {
  const own = options === undefined ? shared : { ...shared, call: { ...shared.call, options } };
  for (let continues = false;; continues = true) {
    const found = await findDatabase(own, path, continues);
    if (found === null) return;
    try {
      if (await watchFile(own, found.database, root, continues) === "stopped") return;
    } finally {
      for (const name of found.names) shared.taken.delete(name);
    }
  }
}

/**
 * Where `given` leads to, waiting where that is asked for or was watched before; `null` when stopped before it came.
 * From then on `names` are taken.
 */
async function findDatabase(
  { call, taken }: Shared,
  given: string,
  continues: boolean,
): Promise<{ database: DatabasePath; names: string[] } | null> {
  const { files, clock } = call.runtime;
  let absence: DatabaseError | null = null;
  while (!call.signal?.aborted) {
    try {
      const database = locateDatabase(files, given, {
        mode: call.options.mode,
        isShared: call.ownProcess !== true,
        taken,
      });
      const names = namesOf(files, database.real);
      // At once: another path may lead to the same file.
      for (const name of names) taken.add(name);
      return { database, names };
    } catch (error) {
      if (!isAbsence(error) || !(continues || call.options.waitForDatabase)) throw error;
      if (error.code !== absence?.code) {
        report(call, { kind: "waiting", path: given, reason: error.message, trouble: continues });
      }
      absence = error;
    }
    await pause(clock.sleep(waitIntervalMs, call.signal), call.signal);
  }
  if (continues) throw notLookedAt(given, absence);
  return null;
}

/** Replicates one file until the stop signal, or until a link was switched to another file. */
async function watchFile(
  shared: Shared,
  database: DatabasePath,
  root: string,
  continues: boolean,
): Promise<"stopped" | "switched"> {
  const { call, starting } = shared;
  const { runtime, options, signal } = call;
  const { clock } = runtime;
  const place = makeStatePlace(runtime, database, options);
  const lock = lockInstance(runtime, {
    path: database.given,
    place,
    name: call.holder ?? "walrust",
    role: "watch",
  });
  const end = new AbortController();
  const store = abortable(shared.store, end.signal);
  const link = new LinkWatch(runtime.files, database);
  let isSwitched = false;
  let requests: SnapshotRequests | null = null;
  const aside = new AbortController();
  const compactions = compactionsOf(shared, database.given, root, store);
  let probing: Promise<void> | null = null;
  const emit = (event: EngineEvent): void => {
    if (event.kind === "sync_failed") requests?.fail(event.error);
    if (event.kind === "snapshot") compactions?.snapshotTaken();
    if (!isSwitched || event.kind !== "stopped") report(call, { ...event, path: database.given });
    if (event.kind === "started") probing ??= probe(shared, database.given, root, event.lineage, aside.signal);
  };
  const { directory } = place;
  const engine = new DatabaseEngine({
    path: database.real,
    root,
    directory,
    continues,
    isShared: call.ownProcess !== true,
    store,
    runtime,
    options,
    emit,
  });
  const limit = stopLimit(engine, clock, signal, end);
  const isStopped = signal === undefined ? aside.signal : AbortSignal.any([signal, aside.signal]);
  const validation = options.validationIntervalMs === 0 ? null : new Validation({
    path: database.given,
    root,
    directory,
    store,
    runtime,
    options,
    turns: shared.validating,
    emit: (event) => report(call, event),
  }).run(isStopped);
  try {
    const asked = requests = new SnapshotRequests({ runtime, directory, store, root, engine });
    const step = async (): Promise<number> => {
      asked.poll();
      if (engine.started) compactions?.poll();
      return Math.min(pollIntervalMs, await engine.step());
    };
    await starting(() => {
      const latest = clock.monotonic() + startLimitMs;
      return drive(step, () => engine.atRest || clock.monotonic() >= latest, clock, signal);
    });
    await drive(step, () => isSwitched = link.isSwitched(), clock, signal);
    if (isSwitched) {
      await leave(engine);
      return "switched";
    }
    // Aborted at once, so that the final sync has all of its time.
    void compactions?.end();
    const left = await engine.stop(limit.leftMs);
    if (left !== null) throw left;
  } catch (error) {
    // Nothing was replicated yet, so nothing is left behind.
    if (engine.started || !end.signal.aborted) throw error;
  } finally {
    limit.release();
    lock.release();
    aside.abort();
    await Promise.all([probing, validation, compactions?.end()]);
  }
  return "stopped";
}

/** Retention and merging of one database, where the call asks for them. */
function compactionsOf(
  { call, compacting }: Shared,
  path: string,
  root: string,
  store: ObjectStore,
): Compactions | null {
  const { options: { compaction: options }, runtime } = call;
  if (options === undefined || (!options.afterSnapshot && options.intervalMs === 0)) return null;
  const emit = (event: CompactionEvent): void => report(call, event);
  return new Compactions({ path, root, store, runtime, options, limit: compacting, emit });
}

/** Asks the bucket, once for all databases, whether it keeps conditions. Where it gives no answer the next start asks. */
async function probe(
  shared: Shared,
  path: string,
  root: string,
  lineage: string,
  signal: AbortSignal,
): Promise<void> {
  if (shared.probe.asked) return;
  shared.probe.asked = true;
  try {
    const ignored = await ignoredConditions(shared.store, root, lineage, signal);
    if (ignored.length > 0) report(shared.call, { kind: "conditions_ignored", path, ignored });
  } catch {
    shared.probe.asked = false;
  }
}

/** Ends the engine of a file that is not ours any more; what its spool holds the next engine publishes. */
async function leave(engine: DatabaseEngine): Promise<void> {
  try {
    await engine.stop(switchLimitMs);
  } catch (error) {
    if (!isTransient(error)) throw error;
  }
}

/** Tells the program, and the log in words that it can filter by. */
function report(call: WatchCall, event: WatchEvent): void {
  call.log?.(severityOf(event), event.kind, { ...event });
  call.onEvent?.(event);
}

const errorKinds: readonly string[] = ["failed", "fenced", "wal_size_exceeded", "spool_full", "corruption_detected"];
const warningKinds: readonly string[] = [
  "compaction_failed",
  ...["conditions_ignored", "old_sqlite", "unsafe_place", "observing", "wal_gap", "validation_failed"],
];

function severityOf(event: WatchEvent): "error" | "warning" | "debug" {
  if (errorKinds.includes(event.kind)) return "error";
  if (warningKinds.includes(event.kind)) return "warning";
  return event.kind === "sync_failed" || (event.kind === "waiting" && event.trouble) ? "warning" : "debug";
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
