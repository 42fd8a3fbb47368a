/**
 * Replication of one database: one `step()` after another, driven from outside; it sleeps nowhere for long.
 *
 * closed → (open: pin, resume or new lineage, difference) → live ⇄ idle (nothing held open) → stopped
 */
import { DatabaseError, type WalrustError } from "../errors.ts";
import { beginStream } from "./begin_stream.ts";
import type { Capture, Doubt } from "./capture.ts";
import { sealDifference } from "./difference.ts";
import { DiskGate } from "./disk_gate.ts";
import { isFenced, isTransient, notLookedAt, notPublished, stoppedBeforeSnapshot } from "./engine_failure.ts";
import { whenSteady } from "./image.ts";
import { type FilesSeen, isAbsence, sameFiles, seeFiles } from "./live_database.ts";
import { LookSchedule } from "./look_schedule.ts";
import { CaptureOpener } from "./open_capture.ts";
import type { EngineParts } from "./options.ts";
import { Rollover } from "./rollover.ts";
import { SnapshotSchedule } from "./snapshot_schedule.ts";
import { type SnapshotDone, SnapshotTask } from "./snapshot_task.ts";
import type { Stream } from "./stream.ts";
import { type LogEnd, reached } from "./wal_log.ts";

/** Databases up to this size, in bytes, are not held open while they are quiet. */
const idleSizeMax = 256 * 1024 * 1024;
const quietMs = 2000;
const fullLookIntervalMs = 60_000;
const journalIntervalMs = 30_000;
const batchSizeDefault = 64 * 1024 * 1024;
const waitsMax = 20;
const busyIntervalMs = 50;
const retryFirstMs = 250;
const retryMaxMs = 30_000;
const firstPutAttemptsMax = 3;

/** See the top of this file. */
export class DatabaseEngine {
  readonly #parts: EngineParts;
  readonly #opener: CaptureOpener;
  #live: Capture | null = null;
  #stream: Stream | null = null;
  #task: SnapshotTask | null = null;
  #rollover: Rollover | null = null;
  #doubt: Doubt | null = null;
  /** The files as they were when they were let go of. */
  #idle: FilesSeen | null = null;
  /** Why nothing is replicated at the moment. */
  #trouble: unknown = null;
  #waits = 0;
  #failures = 0;
  #retryAt = 0;
  #firstPutAttempts = 0;
  #lastFullLook = 0;
  readonly #looks: LookSchedule;
  #lastJournal = 0;
  readonly #schedule: SnapshotSchedule;
  #everStarted: boolean;
  readonly #disk: DiskGate;
  #stopping = false;
  #stopped = false;

  /** Throws `DatabaseError` where a pin is asked for and the runtime's SQLite is missing or older than 3.51. */
  constructor(parts: EngineParts) {
    this.#opener = new CaptureOpener(parts);
    this.#parts = parts;
    this.#everStarted = parts.continues === true;
    this.#schedule = new SnapshotSchedule(parts.options, parts.runtime.clock);
    this.#looks = new LookSchedule(parts.options.walSyncIntervalMs, parts.runtime.clock, parts.runtime.random);
    this.#disk = new DiskGate(parts.runtime.clock, (error, retryMs) => {
      parts.emit({ kind: "sync_failed", path: parts.path, error, retryMs });
    });
  }

  /** Where journal, index and spool of this database are. */
  get directory(): string {
    return this.#parts.directory;
  }

  /** Does what there is to do; returns after how many milliseconds it wants to be called again. */
  async step(): Promise<number> {
    const { clock } = this.#parts.runtime;
    if (this.#stopped) return Infinity;
    if (this.#retryAt > clock.monotonic()) return this.#retryAt - clock.monotonic();
    try {
      if (this.#stream === null ? await this.#open() : this.#live !== null || this.#wake()) {
        await this.#liveStep();
        this.#failures = 0;
        this.#trouble = null;
      }
      return this.#restMs();
    } catch (error) {
      return await this.#recover(error);
    }
  }

  /** How long there is nothing to do. */
  #restMs(): number {
    const now = this.#parts.runtime.clock.monotonic();
    const interval = this.#parts.options.walSyncIntervalMs;
    // Databases at rest are looked at together: one wake-up an interval, however many there are.
    if (this.#live === null) return interval - now % interval;
    if (this.#working) return Math.min(busyIntervalMs, interval);
    if (this.#looks.restMs > 0) return this.#looks.restMs;
    // A look is due that waits for an upload.
    return Math.min(interval, Math.max(busyIntervalMs, this.#stream!.publisher.retryInMs));
  }

  /** Resolves when the object that is being uploaded is confirmed or failed. */
  settled(): Promise<void> {
    return this.#stream?.publisher.settled() ?? Promise.resolve();
  }

  /** True once something was replicated: from then on trouble is waited out instead of ending the engine. */
  get started(): boolean {
    return this.#everStarted;
  }

  /** True when replication has begun and nothing is under way. */
  get atRest(): boolean {
    return this.#stream !== null && !this.busy;
  }

  /** True when something is under way. */
  get busy(): boolean {
    return this.#stream !== null && (!this.#stream.publisher.idle || this.#working);
  }

  /** True when something is under way that needs our next step, not just time. */
  get #working(): boolean {
    return this.#doubt !== null || this.#task?.active === true ||
      (this.#disk.isOpen && (this.#rollover?.pending === true || this.#rollover?.eager === true));
  }

  /** Takes a snapshot as soon as possible. */
  requestSnapshot(): Promise<SnapshotDone> {
    return this.#stopped ? Promise.reject(stoppedBeforeSnapshot()) : this.#schedule.request();
  }

  /**
   * Publishes what is committed, for `limitMs` at most, then closes. What is left stays in the WAL and the spool: the
   * answer says what that is, or is `null` when everything committed before the call is in the bucket.
   */
  async stop(limitMs: number): Promise<WalrustError | null> {
    const { clock } = this.#parts.runtime;
    const deadline = clock.monotonic() + limitMs;
    let goal: LogEnd | null = null;
    let left: WalrustError | null = null;
    this.#stopping = true;
    try {
      // One look there is always time for: it waits for nobody.
      for (let looks = 0; this.#stream !== null && (looks === 0 || clock.monotonic() < deadline); looks++) {
        // A commit that waited for its fsync while we let go of the database changes no file when it is done.
        if (this.#live === null && !this.#wake(looks === 0)) break;
        // What is committed from here on is not waited for: an application may never pause.
        goal ??= this.#live!.end(this.#stream.position);
        this.#looks.hurry();
        await this.#liveStep();
        if (this.#caughtUp(goal)) break;
        const retryInMs = this.#stream?.publisher.retryInMs ?? 0;
        if (retryInMs > 0) await clock.sleep(Math.min(busyIntervalMs, retryInMs));
        else await Promise.race([this.settled(), clock.sleep(busyIntervalMs)]);
        if (this.#caughtUp(goal)) break;
        await clock.sleep(1);
      }
      left = this.#leftBehind(goal);
    } catch (error) {
      // An upload of an earlier process came late: the next start takes it in, as this one would have.
      if (!isFenced(error) || this.#stream?.confirmedAny !== false) throw error;
      left = notLookedAt(this.#parts.path, error);
    } finally {
      const seq = this.#stream?.published.seq ?? 0n;
      this.#stopped = true;
      this.#schedule.reject(stoppedBeforeSnapshot());
      await this.#close("stopped");
      this.#parts.emit({ kind: "stopped", path: this.#parts.path, seq });
    }
    return left;
  }

  /** True when the bucket holds what was committed before `goal`. */
  #caughtUp(goal: LogEnd | null): boolean {
    const stream = this.#stream;
    if (this.#live === null || stream === null || stream.snapshot.seq === 0n) return false;
    return this.#doubt === null && stream.publisher.idle && !this.#behind(goal);
  }

  /** True when something was committed, before `goal` where there is one, that is not sealed. */
  #behind(goal: LogEnd | null): boolean {
    const { position } = this.#stream!;
    const { kind } = this.#live!.look(position, 1);
    return kind !== "none" && !(kind === "batch" && goal !== null && reached(position, goal));
  }

  /** What is not in the bucket; `null` when nothing is missing there. */
  #leftBehind(goal: LogEnd | null): WalrustError | null {
    const { path, runtime } = this.#parts;
    const stream = this.#stream;
    if (!this.#everStarted) return null;
    if (stream === null) return notLookedAt(path, this.#trouble);
    if (this.#live === null) {
      const isSame = this.#idle !== null && sameFiles(this.#idle, seeFiles(path, runtime.files));
      return isSame ? null : notLookedAt(path, this.#trouble);
    }
    const { seq } = stream.published;
    return notPublished({
      path,
      seq,
      spool: `${this.directory}/spool`,
      objects: Number(stream.sealed.seq - seq),
      hasCommits: this.#doubt !== null || this.#behind(goal),
      hasSnapshot: stream.snapshot.seq > 0n,
    });
  }

  /** Opens and pins; false when the database is not there and we wait for it. */
  #openLive(): boolean {
    const { path, runtime, options, emit } = this.#parts;
    try {
      this.#live = this.#opener.open();
    } catch (error) {
      if (!isAbsence(error)) throw error;
      const { code, message: reason } = error;
      // An application of another user that has closed its database is no trouble.
      const isOrdinary = code === "no_wal";
      if (!this.#everStarted && !isOrdinary && !options.waitForDatabase) throw error;
      const isNew = !(this.#trouble instanceof DatabaseError) || this.#trouble.code !== code;
      this.#trouble = error;
      if (isNew) emit({ kind: "waiting", path, reason, trouble: this.#everStarted && !isOrdinary });
      return false;
    }
    this.#trouble = null;
    this.#idle = null;
    this.#lastFullLook = runtime.clock.monotonic();
    return true;
  }

  async #open(): Promise<boolean> {
    if (this.#live === null && !this.#openLive()) return false;
    const live = this.#live!;
    const { stream, task, doubt, isNew } = await beginStream(live, this.#parts, this.#firstPutAttempts > 0);
    this.#stream = stream;
    this.#task = task;
    this.#doubt = doubt;
    if (isNew) this.#schedule.begin();
    this.#rollover = this.#rolloverOf(live);
    this.#everStarted = true;
    return true;
  }

  /** Only a pin is ever moved. */
  #rolloverOf({ pinned }: Capture): Rollover | null {
    const { runtime, options, emit } = this.#parts;
    return pinned === null
      ? null
      : new Rollover({ live: pinned, stream: this.#stream!, options, clock: runtime.clock, emit });
  }

  async #liveStep(): Promise<void> {
    const live = this.#live!;
    const stream = this.#stream!;
    const seen = seeFiles(live.path, this.#parts.runtime.files);
    const place = live.inPlace(seen);
    if (place !== "same") return await this.#reopen(place);
    stream.publisher.send();
    if (stream.confirmedAny) this.#firstPutAttempts = 0;
    const task = this.#task!;
    let quiet = false;
    if (stream.publisher.idle) {
      if (this.#doubt !== null) await this.#resolve(this.#doubt);
      // Where every look finds something, a snapshot would else wait for ever until nothing is in flight.
      else if (!task.waitsForIdle && this.#looks.takeTurn(this.#isLookWanted)) quiet = this.#capture(live, stream);
    }
    const rollover = this.#rollover;
    if (task.holdsPin) {
      if (rollover?.overdue === true && stream.snapshot.seq > 0n) {
        await task.abandon("the WAL grew too large while the snapshot was uploaded");
      }
    } else if (this.#doubt === null && rollover !== null) {
      await this.#disk.run(() => rollover.step());
    }
    await this.#snapshotStep();
    const now = this.#parts.runtime.clock.monotonic();
    if (now - this.#lastJournal >= journalIntervalMs) await this.#disk.run(() => this.#writeJournal());
    if (quiet) await this.#idleWhenQuiet(seen);
  }

  /** True when a look need not wait for its turn. */
  get #isLookWanted(): boolean {
    return this.#task!.waitsForCommits || this.#rollover?.writerPaused() === true;
  }

  /** Seals what was committed; true when there was nothing. */
  #capture(live: Capture, stream: Stream): boolean {
    const look = live.look(stream.position, this.#parts.options.batchSizeMax ?? batchSizeDefault);
    this.#waits = look.kind === "wait" ? this.#waits + 1 : 0;
    if (look.kind === "doubt") this.#doubt = look;
    else if (this.#waits > waitsMax) this.#doubt = { reason: "the WAL does not settle" };
    else if (look.kind === "batch") {
      if (stream.accepts(look.batch, live.pageSize)) live.seal(stream, look.batch);
      else this.#doubt = { reason: "the database grew by pages that are not in the WAL" };
    }
    return look.kind === "none";
  }

  /** Publishes the pages of the last commit that differ from what the bucket holds. */
  async #resolve(doubt: Doubt): Promise<void> {
    const stream = this.#stream!;
    const { runtime, emit, path } = this.#parts;
    const wanted = { ...doubt, indexedCount: stream.published.pageCount };
    const held = await whenSteady(path, runtime.clock, () => this.#live!.hold(wanted));
    const { image, end, changed, inLog } = held;
    const candidates = changed === null ? null : new Set([...changed, ...(doubt.pages ?? [])]);
    const before = stream.sealed.seq;
    let pgnos: readonly number[];
    try {
      // A pin keeps what is sealed; a copy is gone in a moment.
      const keep = this.#live!.pinned === null ? "memory" : "wal";
      pgnos = await sealDifference(stream, { image, end }, candidates, keep, runtime.clock);
    } finally {
      held.release();
    }
    this.#doubt = null;
    const { gap, reason } = doubt;
    if (gap === "likely" || (gap === "possible" && pgnos.some((pgno) => !inLog?.has(pgno)))) {
      emit({ kind: "wal_gap", path, reason, seq: before });
    }
    const { pageSize } = image;
    emit({
      kind: "difference",
      path,
      reason,
      pages: pgnos.length,
      bytes: pgnos.length * pageSize,
      databaseBytes: image.pageCount * pageSize,
      seq: stream.sealed.seq,
    });
  }

  get #snapshotDue(): boolean {
    const { snapshot, published, publisher } = this.#stream!;
    return this.#schedule.isDue(snapshot, published.seq, publisher.idle);
  }

  async #snapshotStep(): Promise<void> {
    const task = this.#task!;
    const done = await task.step();
    if (done !== null) {
      const { seq, bytes, durationMs, checksum } = done;
      // Worth a try although the disk failed a moment ago: without a journal the next start begins a new lineage.
      this.#disk.open();
      await this.#disk.run(() => this.#writeJournal());
      this.#parts.emit({ kind: "snapshot", path: this.#parts.path, seq, bytes, durationMs, checksum });
      this.#schedule.answer(done);
      // A quiet database is let go of now, not after an interval: of many that start, few are open at a time.
      this.#looks.hurry();
    }
    if (this.#stopping || task.active || !task.ready || this.#doubt !== null) return;
    if (!this.#snapshotDue) return;
    task.begin();
    this.#schedule.begin();
    await task.step();
  }

  /** Lets go of a small database that has not changed for a while: what we saw before the look is the baseline. */
  async #idleWhenQuiet(seen: FilesSeen): Promise<void> {
    const stream = this.#stream!;
    const { clock } = this.#parts.runtime;
    const newest = Math.max(...[seen.database, seen.wal].map((stat) => Number((stat?.mtimeNs ?? 0n) / 1_000_000n)));
    const live = this.#live!;
    const size = stream.published.pageCount * live.pageSize;
    // A commit that waits for its fsync changes no file when it is done.
    const restMs = live.goesOn(stream.position) ? fullLookIntervalMs : quietMs;
    if (this.busy || this.#schedule.requested || size > idleSizeMax || clock.now() - newest < restMs) return;
    if (stream.snapshot.seq === 0n) return;
    await this.#disk.run(() => this.#writeJournal());
    // Without its journal it stays open, until there is room.
    if (!this.#disk.isOpen) return;
    await this.#closeLive("idle");
    this.#idle = seen;
  }

  /** Opens again an idle or lost database when something changed or a full look is due; false: nothing to do. */
  #wake(isLookDue = false): boolean {
    const { path, runtime } = this.#parts;
    const idle = this.#idle;
    if (idle !== null) {
      const due = isLookDue || runtime.clock.monotonic() - this.#lastFullLook >= fullLookIntervalMs ||
        this.#snapshotDue;
      if (!due && sameFiles(idle, seeFiles(path, runtime.files))) return false;
    }
    if (!this.#openLive()) return false;
    const live = this.#live!;
    const stream = this.#stream!;
    if (live.pageSize !== stream.parts.index.pageSize) {
      this.#forget();
      return false;
    }
    const { emit } = this.#parts;
    const seen = idle?.database ?? null;
    const replaced = seen !== null && (seen.inode !== live.identity.inode || seen.device !== live.identity.device);
    if (replaced) emit({ kind: "database_replaced", path });
    const doubt = replaced ? { reason: "the database was replaced" } : live.lookBack(stream.position, seen);
    if (doubt !== null) this.#doubt ??= doubt;
    this.#task = new SnapshotTask({ capture: live, stream, runtime, emit });
    this.#rollover = this.#rolloverOf(live);
    return true;
  }

  /** The file or its WAL is another one: everything is compared. */
  async #reopen(place: "database" | "wal"): Promise<void> {
    const { path, emit } = this.#parts;
    if (place === "database") emit({ kind: "database_replaced", path });
    await this.#closeLive(`the ${place} file was replaced`);
    if (this.#stream!.snapshot.seq === 0n) this.#forget();
    else this.#doubt = { reason: place === "database" ? "the database file was replaced" : "the WAL was replaced" };
  }

  #writeJournal(): void {
    this.#stream!.writeJournal(this.#live!.identity, this.#stream!.parts.index.pageSize);
    this.#lastJournal = this.#parts.runtime.clock.monotonic();
  }

  /** Lets go of files and connections; what is still under way is made durable first. */
  async #closeLive(reason: string): Promise<void> {
    const live = this.#live;
    if (live === null) return;
    await this.#task?.abandon(reason);
    try {
      this.#stream?.publisher.spoolAll();
      if (this.#stream !== null) this.#writeJournal();
    } finally {
      this.#live = null;
      this.#task = null;
      this.#rollover = null;
      live.close();
    }
  }

  /** Drops what we know, to begin again from journal and bucket. */
  #forget(): void {
    this.#live?.close();
    this.#live = null;
    this.#task = null;
    this.#rollover = null;
    this.#stream?.parts.index.close();
    this.#stream = null;
    this.#doubt = null;
    this.#idle = null;
  }

  async #close(reason: string): Promise<void> {
    try {
      await this.#closeLive(reason);
    } finally {
      this.#forget();
    }
  }

  /** Decides what an error means: the end of this engine, or a new start from journal and bucket after a pause. */
  async #recover(error: unknown): Promise<number> {
    const { clock } = this.#parts.runtime;
    const firstPut = this.#stream !== null && isFenced(error) && !this.#stream.confirmedAny;
    if (firstPut && this.#firstPutAttempts < firstPutAttemptsMax) this.#firstPutAttempts++;
    else if (!this.#everStarted || !isTransient(error)) {
      if (isFenced(error)) this.#parts.emit({ kind: "fenced", path: this.#parts.path, error });
      await this.#close("failed").catch(() => undefined);
      this.#stopped = true;
      this.#schedule.reject(error);
      throw error;
    }
    await this.#task?.abandon("error").catch(() => undefined);
    this.#forget();
    this.#trouble = error;
    const retryMs = Math.min(retryMaxMs, retryFirstMs * 2 ** this.#failures++);
    this.#retryAt = clock.monotonic() + retryMs;
    this.#parts.emit({ kind: "sync_failed", path: this.#parts.path, error, retryMs });
    return retryMs;
  }
}
