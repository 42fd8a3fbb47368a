/**
 * When a snapshot is due and where it stands: pin, publish up to the pin, hash, bridge, upload.
 * Nothing depends on the upload: a failed one is dropped and the next one begins from a new position.
 */
import { WalrustError } from "../errors.ts";
import type { Runtime, SqliteConnection } from "../runtime/types.ts";
import { type LogEnd, reached, sameLog, takeImage } from "./capture.ts";
import { pointAtSnapshot } from "./lineage.ts";
import { endsWriting } from "./engine_failure.ts";
import { freezeImage, type FrozenImage } from "./frozen_image.ts";
import type { LiveDatabase } from "./live_database.ts";
import type { EngineEvent } from "./options.ts";
import { type SnapshotPlan, uploadSnapshot } from "./snapshot.ts";
import type { Stream } from "./stream.ts";

const retryFirstMs = 1000;
const retryMaxMs = 60_000;
const abandonPauseMs = 30_000;

/** A complete snapshot. */
export interface SnapshotDone {
  readonly seq: bigint;
  /** Bytes of the object. */
  readonly bytes: number;
  readonly durationMs: number;
  /** Raw-file hash of the image. */
  readonly checksum: bigint;
  readonly createdMs: number;
}

/** A pin and the frames that must be published before the image at it may be read. */
interface Pinned extends LogEnd {
  readonly pin: SqliteConnection;
}

interface Upload {
  readonly plan: SnapshotPlan;
  readonly frozen: FrozenImage;
  readonly abort: AbortController;
  readonly running: Promise<void>;
}

/** The snapshots of one open database and lineage. */
export class SnapshotTask {
  readonly #live: LiveDatabase;
  readonly #stream: Stream;
  readonly #runtime: Pick<Runtime, "clock" | "sha256" | "files">;
  readonly #emit: (event: EngineEvent) => void;
  #pinned: Pinned | null = null;
  #upload: Upload | null = null;
  #finished: { done: SnapshotDone } | { error: unknown } | null = null;
  #startedAt = 0;
  #retryAt = 0;
  #failures = 0;

  constructor(
    parts: {
      live: LiveDatabase;
      stream: Stream;
      runtime: Pick<Runtime, "clock" | "sha256" | "files">;
      emit: (event: EngineEvent) => void;
    },
  ) {
    this.#live = parts.live;
    this.#stream = parts.stream;
    this.#runtime = parts.runtime;
    this.#emit = parts.emit;
  }

  /** True while a snapshot is under way. */
  get active(): boolean {
    return this.#pinned !== null || this.#upload !== null || this.#finished !== null;
  }

  /** True while a snapshot waits until what was committed before it is sealed. */
  get waitsForCommits(): boolean {
    return this.#pinned !== null && !reached(this.#stream.position, this.#pinned);
  }

  /** True while a snapshot holds a pin: no rollover then. */
  get holdsPin(): boolean {
    return this.#pinned !== null || this.#upload?.frozen.holdsPin === true;
  }

  /** True when a failed snapshot may be tried again. */
  get ready(): boolean {
    return this.#runtime.clock.monotonic() >= this.#retryAt;
  }

  /** Takes the pin; {@linkcode step} goes on when everything before it is published. */
  begin(): void {
    this.#startedAt = this.#runtime.clock.monotonic();
    this.#pinned = { pin: this.#live.addPin(), at: this.#stream.position, frames: this.#live.gauge().log };
  }

  /** Goes on as far as it can; returns a snapshot that became complete. */
  async step(): Promise<SnapshotDone | null> {
    if (this.#pinned !== null) await this.#hashWhenPublished(this.#pinned);
    const finished = this.#finished;
    if (finished === null) return null;
    this.#finished = null;
    const { plan, frozen } = this.#upload!;
    if ("done" in finished) {
      this.#release();
      this.#failures = 0;
      this.#stream.snapshotComplete(plan.seq, plan.createdMs);
      return finished.done;
    }
    const { error } = finished;
    if (endsWriting(error) || (error instanceof WalrustError && error.kind === "integrity")) throw error;
    const retryMs = Math.min(retryMaxMs, retryFirstMs * 2 ** this.#failures++);
    this.#retryAt = this.#runtime.clock.monotonic() + retryMs;
    this.#emit({ kind: "sync_failed", path: this.#live.path, error, retryMs });
    // The first snapshot cannot be had from another position: the chain hangs on it.
    if (this.#stream.snapshot.seq === 0n) this.#retryFirst(plan, frozen);
    else this.#release();
    return null;
  }

  /** The first snapshot of a lineage: its image is already hashed and no bridge stands for it. */
  beginFirst(plan: SnapshotPlan, frozen: FrozenImage): void {
    this.#startedAt = this.#runtime.clock.monotonic();
    this.#start(plan, frozen, 0n);
  }

  #retryFirst(plan: SnapshotPlan, frozen: FrozenImage): void {
    const waitMs = Math.max(0, this.#retryAt - this.#runtime.clock.monotonic());
    const abort = new AbortController();
    const running = this.#runtime.clock.sleep(waitMs, abort.signal).then(
      () => this.#upload?.abort === abort ? this.#start(plan, frozen, 0n) : undefined,
      () => undefined,
    );
    this.#upload = { plan, frozen, abort, running };
  }

  async #hashWhenPublished(pinned: Pinned): Promise<void> {
    const { position, publisher } = this.#stream;
    if (!publisher.idle || !reached(position, pinned)) return;
    const taken = takeImage(this.#live, { limit: position?.state.frames ?? 0 });
    const atPosition = taken !== null &&
      (taken.end === null ? position === null : position !== null && sameLog(taken.end.header, position.header) &&
        taken.end.state.frames === position.state.frames);
    if (!atPosition) {
      // The log was restarted meanwhile: try from a new pin.
      this.#release();
      return;
    }
    // From here on the frozen image answers for the pin.
    const { pin } = pinned;
    const directory = `${this.#stream.parts.directory}/spool`;
    const frozen = await freezeImage(taken.image, { live: this.#live, pin, directory, ...this.#runtime })
      .finally(() => this.#pinned = null);
    const { image, rawHash } = frozen;
    const target = this.#stream.sealBridge(rawHash, image.pageSize);
    const plan: SnapshotPlan = {
      key: this.#stream.key("snapshot", target.seq),
      seq: target.seq,
      prevChecksum: target.prevChecksum,
      createdMs: target.createdMs,
      rawHash,
      image,
    };
    this.#start(plan, frozen, target.seq);
  }

  /** Resolves when the bridge is in the bucket, or when nobody waits for it any more: an outage may last for hours. */
  async #bridged(seq: bigint, signal: AbortSignal): Promise<void> {
    while (this.#stream.published.seq < seq && !signal.aborted) {
      await this.#runtime.clock.sleep(20, signal).catch(() => undefined);
    }
  }

  /** Uploads; `bridge` is the seq that must be in the bucket before the snapshot may be complete. */
  #start(plan: SnapshotPlan, frozen: FrozenImage, bridge: bigint): void {
    const abort = new AbortController();
    const ready = this.#bridged(bridge, abort.signal);
    const { store, root, lineage } = this.#stream.parts;
    const run = async (): Promise<void> => {
      try {
        const bytes = await uploadSnapshot(plan, { store, sha256: this.#runtime.sha256, ready, signal: abort.signal });
        const { seq, rawHash, createdMs } = plan;
        await pointAtSnapshot(store, root, { lineage, seq, rawHash, createdMs }, abort.signal);
        const durationMs = this.#runtime.clock.monotonic() - this.#startedAt;
        if (!abort.signal.aborted) this.#finished = { done: { seq, bytes, durationMs, checksum: rawHash, createdMs } };
      } catch (error) {
        if (!abort.signal.aborted) this.#finished = { error };
      }
    };
    this.#upload = { plan, frozen, abort, running: run() };
  }

  /** Gives up what is under way, because the WAL must be rolled over or the database is closed. */
  async abandon(reason: string): Promise<void> {
    const upload = this.#upload;
    if (upload !== null) {
      upload.abort.abort(new Error(reason));
      this.#emit({ kind: "snapshot_abandoned", path: this.#live.path, seq: upload.plan.seq, reason });
    }
    this.#retryAt = this.#runtime.clock.monotonic() + abandonPauseMs;
    // The upload still reads the image until it has seen the abort.
    await upload?.running;
    this.#release();
    this.#finished = null;
  }

  #release(): void {
    const { pinned, upload } = { pinned: this.#pinned, upload: this.#upload };
    this.#pinned = null;
    this.#upload = null;
    if (pinned !== null) this.#live.releasePin(pinned.pin);
    upload?.frozen.release();
  }
}
