/**
 * `walrust snapshot`: beside a running watch it leaves a request in the state directory of that watch and waits for the
 * answer, so that there are never two writers; alone it runs an engine until the snapshot is complete.
 */
import { DatabaseError, type ErrorKind, exitCodes, RestoreError, WalrustError } from "../errors.ts";
import { hexOf, printable } from "../format/bytes.ts";
import { DatabaseEngine } from "../replication/engine.ts";
import { readSmallFile, writeFileAtomically } from "../replication/small_file.ts";
import type { Log, Runtime } from "../runtime/types.ts";
import { makeStatePlace, type StatePlace } from "../replication/state_directory.ts";
import type { SnapshotDone } from "../replication/snapshot_task.ts";
import { abortable } from "../storage/wrap.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { findHolder, type Holder, type InstanceLock, lockInstance } from "./instance_lock.ts";
import { locateDatabase } from "./locate.ts";
import type { WatchOptions } from "./watch.ts";

const folderName = "requests";
const requestPattern = /^([0-9a-f]{16})\.request$/;
const sizeMax = 64 * 1024;
const pollMs = 100;
const pollsPerLockCheck = 20;
const defaultLimitMs = 10 * 60_000;

/** What `snapshot` prints. */
export interface SnapshotReport {
  /** Its sequence number. */
  readonly seq: bigint;
  /** Bytes of the object. */
  readonly bytes: number;
  /** From the request to the confirmation. */
  readonly durationMs: number;
  /** First 8 bytes of the SHA-256 over the database file at that point. */
  readonly checksum: bigint;
  /** Store and key prefix. */
  readonly destination: string;
}

/** What tells a place in one bucket from the same place in another. */
function destinationOf(store: ObjectStore, root: string): string {
  return `${store.identity ?? store.location}/${root}`;
}

/** Answers requests inside a running watch. */
export class SnapshotRequests {
  readonly #runtime: Pick<Runtime, "files">;
  readonly #folder: string;
  readonly #engine: DatabaseEngine;
  readonly #destination: string;
  /** Requests that wait for a snapshot. */
  readonly #open = new Set<string>();

  /** Forgets what was asked of an earlier process: whoever asked notices that another one holds the lock. */
  constructor(
    parts: {
      runtime: Pick<Runtime, "files">;
      directory: string;
      store: ObjectStore;
      root: string;
      engine: DatabaseEngine;
    },
  ) {
    const { files } = parts.runtime;
    this.#runtime = parts.runtime;
    this.#destination = destinationOf(parts.store, parts.root);
    this.#folder = `${parts.directory}/${folderName}`;
    this.#engine = parts.engine;
    files.makeDirectory(this.#folder);
    for (const { name } of files.list(this.#folder)) files.remove(`${this.#folder}/${name}`);
  }

  /** Looks for requests. */
  poll(): void {
    try {
      for (const { name } of this.#runtime.files.list(this.#folder)) {
        const id = requestPattern.exec(name)?.[1];
        if (id !== undefined) this.#take(id, `${this.#folder}/${name}`);
      }
    } catch {
      // The one who asks may take the request back at any moment; a request is no reason to end a watch.
    }
  }

  #take(id: string, path: string): void {
    const { files } = this.#runtime;
    const bytes = readSmallFile(files, path, sizeMax);
    if (bytes === null) return;
    files.remove(path);
    const asked = new TextDecoder().decode(bytes);
    if (asked !== this.#destination) {
      const message = `the running watch replicates to ${this.#destination}, not to ${asked}`;
      return this.#answer(id, { error: encodeError(new DatabaseError("other_destination", message)) });
    }
    this.#open.add(id);
    this.#engine.requestSnapshot().then(
      (done) => this.#answerOpen(id, { done: encode(done) }),
      (error) => this.#answerOpen(id, { error: encodeError(error) }),
    ).catch(() => undefined);
  }

  /** Something failed and will be tried again: a watch has time, who asks for a snapshot now has not. */
  fail(error: unknown): void {
    for (const id of this.#open) {
      try {
        this.#answerOpen(id, { error: encodeError(error) });
      } catch {
        // Whoever asked gives up by itself; this is no reason to end a watch.
      }
    }
  }

  #answerOpen(id: string, answer: Record<string, unknown>): void {
    if (this.#open.delete(id)) this.#answer(id, answer);
  }

  #answer(id: string, answer: Record<string, unknown>): void {
    const bytes = new TextEncoder().encode(JSON.stringify(answer));
    writeFileAtomically(this.#runtime.files, this.#folder, `${id}.answer`, bytes);
  }
}

/** An error as it is told to another process; what it was caused by stays here. */
function encodeError(error: unknown): Record<string, string | undefined> {
  if (!(error instanceof WalrustError)) return { kind: "general", message: String(error) };
  return { kind: error.kind, code: error.code, message: error.message, hint: error.hint };
}

function encode(done: SnapshotDone): Record<string, string | number> {
  return { seq: `${done.seq}`, bytes: done.bytes, durationMs: done.durationMs, checksum: `${done.checksum}` };
}

/** What {@linkcode snapshotNow} needs. */
export interface SnapshotCall {
  /** Path of the database. */
  readonly path: string;
  /** Where it goes. */
  readonly store: ObjectStore;
  /** Key prefix of the database, with its trailing `/`. */
  readonly root: string;
  /** The machine. */
  readonly runtime: Runtime;
  /** How, as for a watch. */
  readonly options: WatchOptions;
  /** Told of what goes wrong and of what is done about it. */
  readonly log?: Log;
  /** Gives up. */
  readonly signal?: AbortSignal;
  /** Names this process in the lock file. */
  readonly holder?: string;
  /** As for a watch. */
  readonly ownProcess?: boolean;
  /** How long to wait for a running watch or another snapshot, milliseconds. */
  readonly limitMs?: number;
}

type Done = Omit<SnapshotReport, "destination">;

/**
 * Takes one full snapshot now. Throws `DatabaseError`, `StorageError`, the error of a running watch, or `RestoreError`
 * when that does not answer.
 */
export async function snapshotNow(call: SnapshotCall): Promise<SnapshotReport> {
  const { runtime, store, root, options, signal } = call;
  const isShared = call.ownProcess !== true;
  const database = locateDatabase(runtime.files, call.path, { mode: call.options.mode, isShared });
  const place = makeStatePlace(runtime, database, options);
  const deadline = runtime.clock.monotonic() + (call.limitMs ?? defaultLimitMs);
  let done: Done | null = null;
  while (done === null) {
    const holder = findHolder(runtime, place);
    if (holder === null) {
      const lock = tryLock(call, place);
      if (lock !== null) done = await takeAlone(call, database.real, place.directory, lock);
    } else if (holder.role === "watch") done = await ask(call, holder, place, deadline);
    if (done !== null) break;
    if (runtime.clock.monotonic() >= deadline) throw noAnswer(call);
    await runtime.clock.sleep(pollMs, signal);
  }
  return { ...done, destination: `${store.location}/${root}` };
}

/** `null` when somebody else was faster. */
function tryLock(call: SnapshotCall, place: StatePlace): InstanceLock | null {
  const { runtime, path, holder = "walrust snapshot" } = call;
  try {
    return lockInstance(runtime, { path, place, name: holder, role: "snapshot" });
  } catch (error) {
    if (error instanceof DatabaseError && error.code === "locked_by_walrust") return null;
    throw error;
  }
}

/** Asks the watch that `holder` names; `null` when another process has taken its place, or it cannot be asked yet. */
async function ask(call: SnapshotCall, holder: Holder, place: StatePlace, deadline: number): Promise<Done | null> {
  const { runtime, store, root, signal } = call;
  const { files, clock, random } = runtime;
  const folder = `${holder.directory}/${folderName}`;
  if (files.stat(folder) === null) return null;
  const id = hexOf(random.bytes(8));
  const [request, answer] = [`${id}.request`, `${id}.answer`];
  writeFileAtomically(files, folder, request, new TextEncoder().encode(destinationOf(store, root)));
  try {
    for (let polls = 1; clock.monotonic() < deadline; polls++) {
      await clock.sleep(pollMs, signal);
      const bytes = readSmallFile(files, `${folder}/${answer}`, sizeMax);
      if (bytes !== null) return decodeAnswer(bytes);
      if (polls % pollsPerLockCheck !== 0) continue;
      const now = findHolder(runtime, place);
      // Nobody answers for a watch that has ended.
      if (now === null) break;
      if (now.id !== holder.id) return null;
    }
  } finally {
    for (const name of [request, answer]) files.remove(`${folder}/${name}`);
  }
  throw noAnswer(call);
}

/** What a running watch answered; throws its error, or `RestoreError` where it cannot be read. */
export function decodeAnswer(bytes: Uint8Array): Done {
  const { error, done } = fieldsOf(parsed(bytes));
  if (error !== undefined) throw decodeError(fieldsOf(error));
  const { seq, bytes: size, durationMs, checksum } = fieldsOf(done);
  if (!isU64(seq) || !isU64(checksum) || !isCount(size) || !isCount(durationMs)) {
    throw new RestoreError("bad_answer", "the running watch answered what cannot be understood", {
      hint: "it may be another version of walrust: restart it, then ask again",
    });
  }
  return { seq: BigInt(seq), bytes: size, durationMs, checksum: BigInt(checksum) };
}

function parsed(bytes: Uint8Array): unknown {
  try {
    return JSON.parse(new TextDecoder().decode(bytes));
  } catch {
    return null;
  }
}

function fieldsOf(value: unknown): Record<string, unknown> {
  return typeof value === "object" && value !== null ? value as Record<string, unknown> : {};
}

function isU64(value: unknown): value is string {
  return typeof value === "string" && /^\d{1,20}$/.test(value) && BigInt(value) < 2n ** 64n;
}

function isCount(value: unknown): value is number {
  return typeof value === "number" && Number.isFinite(value) && value >= 0;
}

function decodeError({ kind, code, message, hint }: Record<string, unknown>): WalrustError {
  const known = typeof kind === "string" && Object.hasOwn(exitCodes, kind) ? kind as ErrorKind : "general";
  const text = (value: unknown): string | undefined => typeof value === "string" ? printable(value) : undefined;
  return new WalrustError(known, text(code) ?? "snapshot_failed", `the running watch: ${text(message) ?? "failed"}`, {
    hint: text(hint),
  });
}

function noAnswer({ path }: SnapshotCall): RestoreError {
  return new RestoreError("no_answer", `the walrust that works on ${path} did not take a snapshot in time`, {
    hint: "look at its log; is the bucket reachable?",
    data: { path },
  });
}

/** Runs an engine until the snapshot is complete, and releases the lock. */
async function takeAlone(call: SnapshotCall, path: string, directory: string, lock: InstanceLock): Promise<Done> {
  const { runtime, root, options, signal } = call;
  const store = signal === undefined ? call.store : abortable(call.store, signal);
  try {
    let failure: unknown = null;
    const engine = new DatabaseEngine({
      path,
      root,
      directory,
      isShared: call.ownProcess !== true,
      store,
      runtime,
      options: { ...options, onStartup: false, snapshotIntervalMs: 0, waitForDatabase: false },
      emit: (event) => {
        call.log?.("debug", event.kind, { ...event });
        if (event.kind === "sync_failed") failure = event.error;
        // A watch has time; who asks for a snapshot now has not.
        if (event.kind === "waiting") failure = new DatabaseError("not_ready", event.reason, { data: { path } });
      },
    });
    let done: Done | null = null;
    const requested = engine.requestSnapshot().then((snapshot) => done = snapshot);
    requested.catch(() => undefined);
    try {
      while (done === null) {
        signal?.throwIfAborted();
        const wait = await engine.step();
        if (failure instanceof WalrustError) throw failure;
        if (done === null) await runtime.clock.sleep(Math.min(wait, 20), signal);
      }
    } finally {
      await engine.stop(0);
    }
    return done;
  } finally {
    lock.release();
  }
}
