/**
 * When a snapshot is due and where it stands: pin, publish up to the pin, hash, bridge, upload.
 * Nothing depends on the upload: a failed one is dropped and the next one begins from a new position.
 */
import { WalrustError } from "../errors.ts";
import type { Runtime } from "../runtime/types.ts";
import type { Capture, FrozenAt, SnapshotPoint } from "./capture.ts";
import { pointAtSnapshot } from "./lineage.ts";
import { sealDifference } from "./difference.ts";
import { endsWriting } from "./engine_failure.ts";
import type { FrozenImage } from "./frozen_image.ts";
import type { EngineEvent } from "./options.ts";
import { type SnapshotPlan, uploadSnapshot } from "./snapshot.ts";
import type { Stream } from "./stream.ts";
import { reached } from "./wal_log.ts";

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

interface Upload {
  readonly plan: SnapshotPlan;
  readonly frozen: FrozenImage;
  readonly abort: AbortController;
  readonly running: Promise<void>;
}

/** The snapshots of one open database and lineage. */
export class SnapshotTask {
  readonly #capture: Capture;
  readonly #stream: Stream;
  readonly #runtime: Pick<Runtime, "clock" | "sha256" | "files">;
  readonly #emit: (event: EngineEvent) => void;
  #point: SnapshotPoint | null = null;
  #upload: Upload | null = null;
  #finished: { done: SnapshotDone } | { error: unknown } | null = null;
  #startedAt = 0;
  #retryAt = 0;
  #failures = 0;

  constructor(
    parts: {
      capture: Capture;
      stream: Stream;
      runtime: Pick<Runtime, "clock" | "sha256" | "files">;
      emit: (event: EngineEvent) => void;
    },
  ) {
    this.#capture = parts.capture;
    this.#stream = parts.stream;
    this.#runtime = parts.runtime;
    this.#emit = parts.emit;
  }

  /** True while a snapshot is under way. */
  get active(): boolean {
    return this.#point !== null || this.#upload !== null || this.#finished !== null;
  }

  /** True while a snapshot waits until what was committed before it is sealed. */
  get waitsForCommits(): boolean {
    return this.#point !== null && !this.waitsForIdle;
  }

  /** True while a snapshot waits for nothing but that all that was sealed is published. */
  get waitsForIdle(): boolean {
    return this.#point !== null && reached(this.#stream.position, this.#point);
  }

  /** True while a snapshot holds a pin: no rollover then. */
  get holdsPin(): boolean {
    return this.#point !== null || this.#upload?.frozen.holdsPin === true;
  }

  /** True when a failed snapshot may be tried again. */
  get ready(): boolean {
    return this.#runtime.clock.monotonic() >= this.#retryAt;
  }

  /** Takes the pin where there is one; {@linkcode step} goes on when everything before it is published. */
  begin(): void {
    this.#startedAt = this.#runtime.clock.monotonic();
    this.#point = this.#capture.beginSnapshot(this.#stream.position);
  }

  /** Goes on as far as it can; returns a snapshot that became complete. */
  async step(): Promise<SnapshotDone | null> {
    if (this.#point !== null) await this.#hashWhenPublished(this.#point);
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
    this.#emit({ kind: "sync_failed", path: this.#capture.path, error, retryMs });
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

  async #hashWhenPublished(point: SnapshotPoint): Promise<void> {
    const { position, publisher, parts } = this.#stream;
    if (!publisher.idle || !reached(position, point)) return;
    const { sha256 } = this.#runtime;
    // From here on the frozen image answers for the point.
    const frozen = await this.#capture.freeze(point, { position, sha256, directory: `${parts.directory}/spool` })
      .finally(() => this.#point = null);
    // The log was restarted meanwhile: try from a new point.
    if (frozen === null) return;
    // What is only observed goes on while it is copied, be it that its log is as empty behind the commit as before.
    if (this.#capture.pinned === null) await this.#sealUpTo(frozen);
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

  async #sealUpTo({ image, end, changed, release }: FrozenAt): Promise<void> {
    try {
      await sealDifference(this.#stream, { image, end }, changed, "memory", this.#runtime.clock);
    } catch (error) {
      release();
      throw error;
    }
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
    const ended = new AbortController();
    const ready = this.#bridged(bridge, AbortSignal.any([abort.signal, ended.signal]));
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
      } finally {
        // Its bridge may never come, where the engine begins anew.
        ended.abort();
      }
    };
    this.#upload = { plan, frozen, abort, running: run() };
  }

  /** Gives up what is under way, because the WAL must be rolled over or the database is closed. */
  async abandon(reason: string): Promise<void> {
    const upload = this.#upload;
    if (upload !== null) {
      upload.abort.abort(new Error(reason));
      this.#emit({ kind: "snapshot_abandoned", path: this.#capture.path, seq: upload.plan.seq, reason });
    }
    this.#retryAt = this.#runtime.clock.monotonic() + abandonPauseMs;
    // The upload still reads the image until it has seen the abort.
    await upload?.running;
    this.#release();
    this.#finished = null;
  }

  #release(): void {
    const { point, upload } = { point: this.#point, upload: this.#upload };
    this.#point = null;
    this.#upload = null;
    point?.release();
    upload?.frozen.release();
  }
}
