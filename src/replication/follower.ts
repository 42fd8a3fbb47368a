/**
 * `walrust replicate`: a local database that follows the bucket. Restored once, then updated in place by what is new
 * there, every byte verified before it counts; readers see commit after commit without reopening.
 */
import { ConfigError, DatabaseError, IntegrityError, isAbsentObject, RestoreError, StorageError } from "../errors.ts";
import { sidecarSuffixes } from "./apply.ts";
import { parallelDefault } from "./fetch.ts";
import type { FollowEvent, FollowOptions, FollowResult } from "./follow_options.ts";
import { absolutePath, directoryOf } from "./paths.ts";
import { bootstrapReplica, removeBootstrap } from "./replica_bootstrap.ts";
import { changed, type PreparedUpdate, type Replica } from "./replica.ts";
import { ReplicaCopy } from "./replica_copy.ts";
import { ReplicaFile } from "./replica_file.ts";
import { preparedJournalPath } from "./replica_journal.ts";
import { lockReplica } from "./replica_lock.ts";
import { type Advance, ReplicaSource } from "./replica_source.ts";
import { readReplicaState, type ReplicaPoint, type ReplicaState, replicaStatePath } from "./replica_state.ts";
import type { StagedPages } from "./staged_pages.ts";
import { ChangesetWalk, type WalkPlan } from "./walk.ts";

const intervalDefaultMs = 5000;
/** Objects of one update: enough to catch up fast, few enough that readers wait for a moment only. */
const batchBytes = 8 * 1024 * 1024;
const batchObjects = 1000;

/** After a failure: doubled each time, halved at random. */
const retryBaseMs = 500;
const retryMaxMs = 60_000;
const busyRetryMaxMs = 5000;

/**
 * Keeps the database at `localPath` equal to what the bucket holds until `signal` aborts. Throws `DatabaseError` when
 * the replica was changed by others or is in use by another walrust, `IntegrityError` when the history cannot be
 * followed (`new_lineage`, `source_behind`, damage), `StorageError` when the bucket is refused at the start, and
 * `RestoreError` when it holds nothing. Whatever is thrown, the file is a whole database at a point of the history.
 * While readers hold an update up, each try blocks the calling thread for up to a second.
 *
 * @example
 * ```ts ignore
 * await follow({ store, root: "app/", localPath: "replica.db", runtime, signal, onEvent: console.log });
 * ```
 */
export async function follow(options: FollowOptions): Promise<FollowResult> {
  const { runtime, signal, onEvent } = options;
  const { files } = runtime;
  signal?.throwIfAborted();
  if (files.stat(directoryOf(options.localPath))?.type !== "directory") {
    throw new ConfigError("output_directory", `the directory ${directoryOf(options.localPath)} does not exist`, {
      hint: "Create it first.",
    });
  }
  // SQLite looks for a journal beside the file itself, whatever link led there.
  const isThere = files.stat(options.localPath) !== null;
  const localPath = isThere ? files.realPath(options.localPath) : absolutePath(files, options.localPath);
  if (runtime.sqlite === null) {
    const message =
      "this runtime has no SQLite: each update is a new file, and programs see it when they open it again";
    onEvent?.({ kind: "warning", message });
  }
  const lock = runtime.sqlite === null ? null : lockReplica(runtime, localPath);
  try {
    const follower = new Follower({ ...options, localPath });
    try {
      return await follower.run();
    } finally {
      follower.close();
    }
  } finally {
    lock?.release();
  }
}

class Follower {
  readonly #options: FollowOptions;
  readonly #sourceName: string;
  readonly #source: ReplicaSource;
  #replica: Replica | null = null;
  /** What stands there is moved aside at the first bootstrap, never at a later one. */
  #rebootstraps: boolean;
  /** True once the bucket has answered: what it refuses later may pass. */
  #hasAnswered = false;
  /** True after an object vanished, until an update has happened. */
  #hasReadAgain = false;

  constructor(options: FollowOptions) {
    this.#options = options;
    const { store, root, runtime, followLineage = false, rebootstrap = false, signal } = options;
    this.#rebootstraps = rebootstrap;
    this.#sourceName = `${store.location}/${root}`;
    this.#source = new ReplicaSource({
      ...{ store, root, clock: runtime.clock, followLineage, signal },
      warn: (message) => this.#emit({ kind: "warning", message }),
    });
  }

  close(): void {
    this.#replica?.close();
  }

  async run(): Promise<FollowResult> {
    const { runtime, localPath, signal, once = false } = this.#options;
    removeBootstrap(runtime, localPath);
    runtime.files.remove(preparedJournalPath(localPath));
    for (let failures = 0;;) {
      try {
        signal?.throwIfAborted();
        const isBehind = await this.#step();
        failures = 0;
        if (once && !isBehind) break;
        if (!isBehind) await this.#pause();
      } catch (error) {
        if (signal?.aborted) break;
        if (once || !this.#mayPass(error)) throw error;
        const retryMs = this.#backoff(failures++, retryMaxMs);
        this.#emit({ kind: "poll_failed", error, retryMs });
        // A stop ends the wait; the loop sees it.
        await runtime.clock.sleep(retryMs, signal).catch(() => {});
      }
    }
    const point = this.#replica?.point;
    this.#emit({ kind: "stopped", seq: point?.seq ?? null });
    return { lineage: point?.lineage ?? null, seq: point?.seq ?? null };
  }

  /** One look at the bucket and all that follows from it; true when more is known to lie ahead. */
  async #step(): Promise<boolean> {
    this.#replica ??= this.#resume() ?? await this.#bootstrap();
    this.#replica.hold();
    const advance = await this.#source.next(this.#replica.point);
    this.#hasAnswered = true;
    return advance !== null && await this.#follow(this.#replica, advance);
  }

  /** The replica that is there; null when none is, or another one is wanted. */
  #resume(): Replica | null {
    const { runtime, localPath } = this.#options;
    const { files } = runtime;
    if (this.#rebootstraps || files.stat(localPath) === null) return null;
    const state = readReplicaState(files, localPath);
    if (state === null || state === "damaged") {
      const why = state === null ? "there is no" : "damaged is";
      throw new DatabaseError("not_a_replica", `${localPath} is no replica: ${why} ${replicaStatePath(localPath)}`, {
        hint: "choose another file; --rebootstrap makes a replica there and keeps what is there now aside",
        data: { path: localPath },
      });
    }
    if (state.source !== this.#sourceName) {
      throw new ConfigError("other_source", `${localPath} is a replica of ${state.source}, not ${this.#sourceName}`, {
        hint: "choose another file; --rebootstrap makes it anew and keeps what is there now aside",
        data: { path: localPath, source: state.source },
      });
    }
    if (files.stat(`${localPath}-wal`) !== null) throw changed(localPath, "it has a WAL");
    const replica = this.#open(state);
    const { lineage, seq } = replica.point;
    this.#emit({ kind: "resumed", source: this.#sourceName, lineage, seq });
    return replica;
  }

  async #bootstrap(): Promise<Replica> {
    const { store, root, runtime, localPath } = this.#options;
    const { signal, onProgress, log, parallel = parallelDefault } = this.#options;
    if (!this.#rebootstraps) this.#refuseSidecars();
    const { state, report, moved } = await bootstrapReplica({
      ...{ store, root, localPath, runtime, parallel, signal, onProgress },
      source: this.#sourceName,
      force: this.#rebootstraps,
      log: (level, message, data) => {
        if (level === "warning") this.#emit({ kind: "warning", message });
        else log?.(level, message, data);
      },
    });
    this.#rebootstraps = false;
    const { lineage, seq, snapshotSeq, bytes } = report;
    this.#emit({
      ...{ kind: "bootstrapped", source: this.#sourceName, lineage, snapshotSeq, seq, bytes },
      ...{ pages: state.after.pageCount, undo: moved.undo },
    });
    return this.#open(state);
  }

  #open(state: ReplicaState): Replica {
    const { runtime, localPath, ownProcess = false } = this.#options;
    const options = { runtime, localPath, isShared: !ownProcess };
    return runtime.sqlite === null ? new ReplicaCopy(options, state) : new ReplicaFile(options, state);
  }

  /** A journal or WAL without its database would be played into the new one. */
  #refuseSidecars(): void {
    const { runtime, localPath } = this.#options;
    const stale = sidecarSuffixes.find((suffix) => runtime.files.stat(localPath + suffix) !== null);
    if (stale === undefined) return;
    throw new RestoreError("output_exists", `${localPath + stale} exists, but its database does not`, {
      hint: "remove it, or use --rebootstrap: it is then kept aside",
      data: { path: localPath + stale },
    });
  }

  /** Applies what lies ahead, one update after the other; true when more is known to lie behind it. */
  async #follow(replica: Replica, advance: Advance): Promise<boolean> {
    const { signal } = this.#options;
    const { snapshot, steps, lineage, own, reason } = advance;
    if (snapshot !== null) this.#checkSpace(replica.point, snapshot.size);
    let plan: WalkPlan = { snapshot: snapshot ?? replica.point, steps, segment: { own } };
    while ("kind" in plan.snapshot || plan.steps.length > 0) {
      signal?.throwIfAborted();
      const before = replica.point;
      const end = batchEnd(plan, before.lineage === lineage ? before.seq : -1n);
      const staged = replica.stage();
      try {
        const walked = await this.#walk({ ...plan, steps: plan.steps.slice(0, end) }, staged);
        if (walked === null) return true;
        const update = replica.prepare(staged, lineage);
        const heldMs = await this.#commit(replica, update);
        this.#source.passed();
        this.#hasReadAgain = false;
        if ("kind" in plan.snapshot && reason !== null) {
          const { max: snapshotSeq } = plan.snapshot;
          this.#emit({ kind: "bridged", reason, from: before.seq, lineage, snapshotSeq, seq: replica.point.seq });
        }
        this.#tellApplied(replica.point, { ...walked, pages: update.pages, heldMs });
      } finally {
        staged.discard();
      }
      plan = { ...plan, snapshot: replica.point, steps: plan.steps.slice(end) };
    }
    return advance.isPartial;
  }

  /** Stages a batch; null when an object turned out damaged or gone, and another way is to be looked for. */
  async #walk(plan: WalkPlan, staged: StagedPages): Promise<{ changesets: number; bytes: number } | null> {
    const { store, root, runtime, signal, parallel = parallelDefault } = this.#options;
    const { sha256 } = runtime;
    let bytes = 0;
    const onBytes = (more: number): void => void (bytes += more);
    const walk = new ChangesetWalk({ store, root, plan, sha256, parallel, signal, onBytes }, staged);
    try {
      const { changesets, warnings } = await walk.run();
      for (const message of warnings) this.#emit({ kind: "warning", message });
      return { changesets, bytes };
    } catch (error) {
      signal?.throwIfAborted();
      const isGone = isAbsentObject(error);
      if (isGone && !this.#hasReadAgain) {
        // Retention may have swept it since it was listed.
        this.#hasReadAgain = true;
        this.#source.readAgain();
        return null;
      }
      if (walk.failedAtHole) {
        this.#source.keepToSnapshots();
        return null;
      }
      if (walk.blame === null || !(isGone || error instanceof IntegrityError)) throw error;
      this.#source.exclude(walk.blame, error);
      return null;
    }
  }

  /** Makes the update happen as soon as readers let it; returns how long they were kept out. */
  async #commit(replica: Replica, update: PreparedUpdate): Promise<number> {
    const { runtime, signal } = this.#options;
    const beganMs = runtime.clock.monotonic();
    try {
      for (let tries = 0;; tries++) {
        const heldMs = replica.commit(update);
        if (heldMs !== null) return heldMs;
        const retryMs = this.#backoff(tries, busyRetryMaxMs);
        // More and more rarely: a report may read for hours.
        const isDue = (tries & (tries - 1)) === 0;
        if (isDue) this.#emit({ kind: "readers_busy", waitedMs: runtime.clock.monotonic() - beganMs, retryMs });
        await runtime.clock.sleep(retryMs, signal);
      }
    } finally {
      update.journal?.discard();
    }
  }

  #tellApplied(
    { lineage, seq, createdMs }: ReplicaPoint,
    done: { changesets: number; pages: number; bytes: number; heldMs: number },
  ): void {
    const lagMs = Math.max(0, this.#options.runtime.clock.now() - createdMs);
    this.#emit({ kind: "applied", ...done, lineage, seq, createdMs, lagMs });
  }

  /** A snapshot is staged beside the replica, and what it replaces is journaled. */
  #checkSpace(point: ReplicaPoint, snapshotSize: number): void {
    const { runtime, localPath } = this.#options;
    const directory = directoryOf(localPath);
    const need = snapshotSize + Math.max(snapshotSize, point.pageCount * point.pageSize);
    const free = runtime.files.freeBytes(directory);
    if (free >= need) return;
    throw new RestoreError("no_space", `${directory} has ${free} bytes free; going on from a snapshot needs ${need}`, {
      hint: "make room; the replica stays as it is until then",
      data: { free, need },
    });
  }

  async #pause(): Promise<void> {
    const { runtime, intervalMs = intervalDefaultMs, signal } = this.#options;
    // Replicas that were started together do not ask together.
    await runtime.clock.sleep(intervalMs * (1 - 0.1 * runtime.random.number()), signal);
  }

  #backoff(failures: number, maxMs: number): number {
    const boundMs = Math.min(maxMs, retryBaseMs * 2 ** Math.min(failures, 16));
    return Math.round(boundMs * (0.5 + 0.5 * this.#options.runtime.random.number()));
  }

  #mayPass(error: unknown): boolean {
    if (error instanceof StorageError) return error.retryable || this.#hasAnswered;
    return error instanceof DatabaseError && error.code === "sqlite_busy";
  }

  #emit(event: FollowEvent): void {
    this.#options.onEvent?.(event);
  }
}

/**
 * How many steps the next update takes. It never ends at a hole, which only what follows proves, nor before `seq`: from
 * an older snapshot the way may lead through the replica's past.
 */
function batchEnd({ snapshot, steps }: WalkPlan, seq: bigint): number {
  const isJump = "kind" in snapshot;
  let bytes = isJump ? snapshot.size : 0;
  let reached = isJump ? snapshot.max : seq;
  for (const [index, step] of steps.entries()) {
    const mayEnd = index === 0 ? isJump : steps[index - 1].kind !== "hole";
    if (mayEnd && reached > seq && (index >= batchObjects || bytes >= batchBytes)) return index;
    bytes += step.size;
    reached = step.max;
  }
  return steps.length;
}
