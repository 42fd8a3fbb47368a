/**
 * `walrust snapshot`: beside a running watch it leaves a request in the state directory and waits for the answer,
 * so that there are never two writers; alone it runs an engine until the snapshot is complete.
 */
import { DatabaseError, RestoreError, WalrustError } from "../errors.ts";
import { hexOf } from "../format/bytes.ts";
import { DatabaseEngine } from "../replication/engine.ts";
import { readSmallFile, writeFileAtomically } from "../replication/journal.ts";
import type { EngineOptions } from "../replication/options.ts";
import type { Log, Runtime } from "../runtime/types.ts";
import { stateDirectoryOf } from "../replication/state_directory.ts";
import type { SnapshotDone } from "../replication/snapshot_task.ts";
import { abortable } from "../storage/wrap.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { isLocked, lockInstance } from "./instance_lock.ts";

const requestName = "snapshot.request";
const answerName = "snapshot.answer";
const sizeMax = 4096;
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

/** Answers requests inside a running watch. */
export class SnapshotRequests {
  readonly #runtime: Pick<Runtime, "files">;
  readonly #directory: string;
  readonly #engine: DatabaseEngine;
  readonly #destination: string;
  #seen = "";

  constructor(
    parts: { runtime: Pick<Runtime, "files">; directory: string; destination: string; engine: DatabaseEngine },
  ) {
    this.#runtime = parts.runtime;
    this.#destination = parts.destination;
    this.#directory = parts.directory;
    this.#engine = parts.engine;
  }

  /** Looks for a request; costs one `stat` while there is none. */
  poll(): void {
    try {
      this.#poll();
    } catch {
      // The one who asks may take the request back at any moment; a request is no reason to end a watch.
    }
  }

  #poll(): void {
    const { files } = this.#runtime;
    const bytes = readSmallFile(files, `${this.#directory}/${requestName}`, sizeMax);
    if (bytes === null) return;
    const [id, destination] = new TextDecoder().decode(bytes).split("\n");
    if (id === this.#seen) return;
    this.#seen = id;
    files.remove(`${this.#directory}/${requestName}`);
    if (destination !== this.#destination) {
      return this.#answer(id, { error: `the running watch replicates to ${this.#destination}, not to ${destination}` });
    }
    this.#engine.requestSnapshot().then(
      (done) => this.#answer(id, { done: encode(done) }),
      (error) => this.#answer(id, { error: error instanceof Error ? error.message : String(error) }),
    ).catch(() => undefined);
  }

  #answer(id: string, answer: Record<string, unknown>): void {
    const bytes = new TextEncoder().encode(JSON.stringify({ id, ...answer }));
    writeFileAtomically(this.#runtime.files, this.#directory, answerName, bytes);
  }
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
  readonly options: EngineOptions;
  /** Told of what goes wrong and of what is done about it. */
  readonly log?: Log;
  /** Gives up. */
  readonly signal?: AbortSignal;
  /** Names this process in the lock file. */
  readonly holder?: string;
  /** How long to wait for a running watch, milliseconds. */
  readonly limitMs?: number;
}

/** Takes one full snapshot now. Throws `DatabaseError`, `StorageError`, or `RestoreError` when the watch does not answer. */
export async function snapshotNow(call: SnapshotCall): Promise<SnapshotReport> {
  const { files } = call.runtime;
  if (files.stat(call.path) === null) {
    throw new DatabaseError("missing", `${call.path} does not exist`, {
      hint: "check the path",
      data: { path: call.path },
    });
  }
  const path = files.realPath(call.path);
  const directory = stateDirectoryOf(path, call.options.stateDirectory);
  const destination = `${call.store.location}/${call.root}`;
  const done = isLocked(call.runtime, directory)
    ? await ask(call, directory, destination)
    : await takeAlone(call, path, directory);
  return { ...done, destination };
}

type Done = Omit<SnapshotReport, "destination">;

async function ask(call: SnapshotCall, directory: string, destination: string): Promise<Done> {
  const { files, clock, random } = call.runtime;
  const id = hexOf(random.bytes(8));
  files.remove(`${directory}/${answerName}`);
  writeFileAtomically(files, directory, requestName, new TextEncoder().encode(`${id}\n${destination}`));
  const deadline = clock.monotonic() + (call.limitMs ?? defaultLimitMs);
  for (let polls = 1; clock.monotonic() < deadline; polls++) {
    // Nobody answers for a watch that has ended.
    if (polls % pollsPerLockCheck === 0 && !isLocked(call.runtime, directory)) break;
    await clock.sleep(pollMs, call.signal);
    const bytes = readSmallFile(files, `${directory}/${answerName}`, sizeMax);
    if (bytes === null) continue;
    const answer = JSON.parse(new TextDecoder().decode(bytes));
    if (answer.id !== id) continue;
    if (typeof answer.error === "string") throw new DatabaseError("snapshot_failed", answer.error);
    const { seq, bytes: size, durationMs, checksum } = answer.done;
    return { seq: BigInt(seq), bytes: size, durationMs, checksum: BigInt(checksum) };
  }
  files.remove(`${directory}/${requestName}`);
  throw new RestoreError("no_answer", `the walrust that watches ${call.path} did not take a snapshot in time`, {
    hint: "look at its log; is the bucket reachable?",
    data: { path: call.path },
  });
}

async function takeAlone(call: SnapshotCall, path: string, directory: string): Promise<Done> {
  const { runtime, root, options, signal } = call;
  const store = signal === undefined ? call.store : abortable(call.store, signal);
  const lock = lockInstance(runtime, { path: call.path, directory, holder: call.holder ?? "walrust snapshot" });
  try {
    let failure: unknown = null;
    const engine = new DatabaseEngine({
      path,
      root,
      store,
      runtime,
      options: { ...options, onStartup: false, snapshotIntervalMs: 0 },
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
