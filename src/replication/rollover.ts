/**
 * Rollover: lets SQLite reuse the WAL without overwriting a frame that is not published or spooled.
 *
 * The pin moves only here. First a second pin, then everything before it is published, then the first is released and
 * a passive checkpoint copies up to it. Where the checkpoint reached the end and nothing came after, a new pin on read
 * mark 0 lets the next writer restart the WAL once. A writer that never pauses needs the barrier: the write lock for
 * some milliseconds, and memory, then the spool, instead of the bucket.
 */
import type { Clock, SqliteConnection } from "../runtime/types.ts";
import type { LiveDatabase } from "./live_database.ts";
import type { EngineEvent, EngineOptions } from "./options.ts";
import { logEnd, lookAtWal } from "./pin_capture.ts";
import type { Stream } from "./stream.ts";
import { type LogEnd, reached, sameLog } from "./wal_log.ts";

const barrierWaitMs = 100;
const lockTriesPerTurn = 100;
/** Frames that may be left for the time under the lock, where the writer gives us the choice. */
const restMax = 32;
const passesMax = 8;
/** Milliseconds to wait for the application's own checkpoint while it may go on writing. */
const busyTriesMax = 100;
/** The same while it may not. */
const lockedWaitMs = 8;
const lockedTriesMax = 10_000;
const eagerIntervalMs = 1000;
const pauseMaxMs = 10_000;

/** Rollovers of one open database. */
export class Rollover {
  readonly #live: LiveDatabase;
  readonly #stream: Stream;
  readonly #options: EngineOptions;
  readonly #clock: Clock;
  readonly #emit: (event: EngineEvent) => void;
  /** The second pin and the frames that must be published before the first may go. */
  #next: (LogEnd & { pin: SqliteConnection; reachable: number }) | null = null;
  #lastTry: number;
  #lastBarrier = -Infinity;
  /** Grows while a foreign reader keeps checkpoints from finishing, or a writer keeps its lock. */
  #pauseMs = 0;
  #warned = false;
  #isSpoolFull = false;
  #lastLog = -1;

  constructor(
    parts: { live: LiveDatabase; stream: Stream; options: EngineOptions; clock: Clock; emit: (e: EngineEvent) => void },
  ) {
    this.#live = parts.live;
    this.#stream = parts.stream;
    this.#options = parts.options;
    this.#clock = parts.clock;
    this.#emit = parts.emit;
    this.#lastTry = parts.clock.monotonic();
  }

  /** Frames in the WAL up to our position, in the log that is current. */
  get #frames(): number {
    return this.#stream.position?.state.frames ?? 0;
  }

  /** True when every pause of the writer should be used. */
  get eager(): boolean {
    return this.#frames >= 4 * this.#options.minCheckpointPages && !this.done && this.#pauseMs === 0;
  }

  /** True when a rollover would help and no frame came since the last call: now it needs no barrier. */
  writerPaused(): boolean {
    if (!this.eager) return false;
    const { log } = this.#live.gauge();
    const paused = log === this.#lastLog;
    this.#lastLog = log;
    return paused;
  }

  /** Frames in the WAL, also those that we cannot take yet because the bucket cannot be reached. */
  get #size(): number {
    return Math.max(this.#frames, this.#live.gauge().log);
  }

  get #barrierDue(): boolean {
    return this.#size >= 16 * this.#options.minCheckpointPages;
  }

  /** True while a rollover waits for nothing but an upload. */
  get pending(): boolean {
    return this.#next !== null && reached(this.#stream.position, this.#next);
  }

  /** True when the WAL was rolled over and nothing was committed since: another one would gain nothing. */
  get done(): boolean {
    const { position, rolledOver } = this.#stream;
    return rolledOver !== null && position !== null && sameLog(rolledOver.header, position.header) &&
      rolledOver.state.frames === position.state.frames && this.#live.gauge().log <= position.state.frames;
  }

  /** True when the WAL is so large that nothing may stand in the way of a rollover. */
  get overdue(): boolean {
    // What SQLite counts, not our position: that stands still while the bucket cannot be reached.
    return this.#live.gauge().log >= this.#options.walTruncateThresholdPages && !this.done;
  }

  /** Does what is due; no snapshot may hold a pin. */
  async step(): Promise<void> {
    const now = this.#clock.monotonic();
    if (this.#next !== null) this.#finishWhenPublished();
    if (this.#size < this.#options.minCheckpointPages || this.done) return;
    const exceeded = this.#size >= this.#options.walTruncateThresholdPages;
    if (exceeded && !this.#warned) {
      this.#emit({ kind: "wal_size_exceeded", path: this.#live.path, frames: this.#size });
    }
    this.#warned = exceeded;
    if (this.#barrierDue && (exceeded || now - this.#lastBarrier >= Math.max(eagerIntervalMs, this.#pauseMs))) {
      this.#lastBarrier = now;
      return await this.#withBarrier();
    }
    const interval = Math.max(
      this.#pauseMs,
      this.eager ? Math.min(eagerIntervalMs, this.#options.checkpointIntervalMs) : this.#options.checkpointIntervalMs,
    );
    const paused = this.eager && this.#stream.publisher.idle && this.#live.gauge().log === this.#frames;
    if (this.#next === null && (paused || now - this.#lastTry >= interval)) {
      this.#lastTry = now;
      this.#begin();
      this.#finishWhenPublished();
    }
  }

  #begin(): void {
    const reachable = this.#live.gauge().log;
    const pin = this.#live.addPin();
    this.#next = { pin, ...logEnd(this.#live, this.#stream.position), reachable };
  }

  #finishWhenPublished(): void {
    const { position, publisher } = this.#stream;
    const next = this.#next!;
    if (!publisher.idle || !reached(position, next)) return;
    this.#next = null;
    this.#shift(next.pin);
    const connection = this.#live.openWritable();
    try {
      this.#report(false, this.#checkpoint(connection, next.pin, next.reachable), 0);
    } finally {
      connection.close();
    }
  }

  /** Releases every pin but this one. */
  #shift(pin: SqliteConnection): void {
    while (this.#live.oldestPin !== pin) this.#live.releasePin(this.#live.oldestPin);
  }

  /**
   * Copies what `pin` allows into the database; where that is all, moves the pin to mark 0.
   * `reachable` frames were committed before the pin was taken. Returns the frames copied, `null` when some remain,
   * `busy` when another checkpoint runs.
   */
  #checkpoint(connection: SqliteConnection, pin: SqliteConnection, reachable: number): number | "busy" | null {
    const result = connection.checkpointPassive();
    // No counts: another checkpoint runs, as after every commit of a busy application, and this says nothing of readers.
    if (result.log < 0) return "busy";
    if (!result.busy && result.log === result.checkpointed && result.log === this.#frames) {
      this.#live.addPin();
      this.#live.releasePin(pin);
      this.#stream.rolledOver = this.#stream.position;
      this.#pauseMs = 0;
      return result.log;
    }
    // Somebody reads an old snapshot: trying harder would not help.
    if (result.checkpointed < reachable) this.#backOff();
    return null;
  }

  #backOff(): void {
    this.#pauseMs = Math.min(pauseMaxMs, Math.max(2 * this.#pauseMs, 2 * eagerIntervalMs));
  }

  #report(barrier: boolean, frames: number | "busy" | null, heldMs: number): boolean {
    if (frames === null || frames === "busy") return false;
    this.#emit({ kind: "rollover", path: this.#live.path, barrier, frames, heldMs });
    return true;
  }

  /** Spools everything, takes the write lock, spools the rest, and rolls over while nobody can commit. */
  async #withBarrier(): Promise<void> {
    const { publisher } = this.#stream;
    if (this.#spoolFull()) return;
    if (this.#next !== null) this.#live.releasePin(this.#next.pin);
    this.#next = null;
    const lock = this.#live.openWritable();
    let checkpointer: SqliteConnection | null = null;
    try {
      checkpointer = this.#live.openWritable();
      // Nearly all of the work is done before anybody has to wait: each pass leaves what came during the one before.
      for (let pass = 1, before = Infinity; pass <= passesMax; pass++) {
        publisher.spoolAll();
        const reachable = this.#live.gauge().log;
        const pin = this.#live.addPin();
        if (!this.#seal(this.#live.gauge().log, "spool")) {
          // The next try takes one more, and in an outage there may be thousands.
          this.#live.releasePin(pin);
          return;
        }
        this.#shift(pin);
        let copied = this.#checkpoint(checkpointer, pin, reachable);
        for (let tries = 1; copied === "busy" && tries <= busyTriesMax; tries++) {
          await this.#clock.sleep(1);
          copied = this.#checkpoint(checkpointer, pin, reachable);
        }
        if (this.#report(false, copied, 0)) return;
        // A checkpoint that does not reach the end leaves what it wrote to the sync of the next one, under the lock.
        this.#live.file.sync();
        const rest = this.#live.gauge().log - this.#frames;
        if (rest <= restMax || rest > before / 2) break;
        before = rest;
      }
      this.#live.preparePins(2);
      const deadline = this.#clock.monotonic() + barrierWaitMs;
      // A busy writer leaves the lock free for microseconds only: try often, and let others run now and then.
      for (let tries = 1; !lock.beginImmediate(); tries++) {
        if (this.#clock.monotonic() >= deadline) return this.#backOff();
        if (tries % lockTriesPerTurn === 0) await this.#clock.sleep(1);
      }
      this.#rollUnderLock(checkpointer, lock);
    } finally {
      // Closing ends a transaction too: whatever fails, the write lock does not stay with us.
      try {
        lock.close();
      } finally {
        checkpointer?.close();
        this.#live.dropPreparedPins();
      }
    }
  }

  /** True when the spool may not take what the WAL holds: then the WAL keeps it, and somebody must hear of it. */
  #spoolFull(): boolean {
    const { spool } = this.#stream.parts;
    const { spoolSizeMax, freeSpaceMin } = this.#options;
    const bytes = (this.#size - this.#frames) * this.#live.pageSize;
    const reason = spool.full(bytes, { sizeMax: spoolSizeMax, freeMin: freeSpaceMin });
    if (reason !== null && !this.#isSpoolFull) {
      this.#emit({ kind: "spool_full", path: this.#live.path, bytes: spool.size, reason });
    }
    this.#isSpoolFull = reason !== null;
    return reason !== null;
  }

  #rollUnderLock(checkpointer: SqliteConnection, lock: SqliteConnection): void {
    const from = this.#clock.monotonic();
    let frames: number | "busy" | null = null;
    try {
      if (!this.#seal(Infinity, "memory")) return;
      const pin = this.#live.addPin();
      this.#shift(pin);
      frames = this.#checkpoint(checkpointer, pin, this.#frames);
      for (let tries = 1; frames === "busy" && tries <= lockedTriesMax; tries++) {
        if (this.#clock.monotonic() - from >= lockedWaitMs) break;
        frames = this.#checkpoint(checkpointer, pin, this.#frames);
      }
    } finally {
      lock.rollback();
      const heldMs = this.#clock.monotonic() - from;
      if (!this.#report(true, frames, heldMs)) this.#emit({ kind: "barrier_in_vain", path: this.#live.path, heldMs });
      // Writers go on while this syncs: the commits are in the database, only their own point in time is at stake.
      this.#stream.publisher.spoolAll();
    }
  }

  /** Seals committed frames up to `frames` or the end; false: a doubt, which the next look answers. */
  #seal(frames: number, keep: "spool" | "memory"): boolean {
    do {
      const look = lookAtWal(this.#live, this.#stream.position, this.#options.batchSizeMax ?? Infinity);
      if (look.kind === "none") return true;
      if (look.kind !== "batch" || !this.#stream.accepts(look.batch, this.#live.pageSize)) return false;
      this.#stream.sealBatch(this.#live, look.batch, keep);
    } while (this.#frames < frames);
    return true;
  }
}
