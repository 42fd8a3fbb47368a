/** Retention and merging beside a watch: when they are due, one database at a time, and what came of it. */
import type { CompactReport } from "../replication/compact.ts";
import type { RetentionTiers } from "../replication/retention_tiers.ts";
import type { Runtime } from "../runtime/types.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import type { Limiter } from "./upload_limit.ts";

/** When a watch compacts, and what stays. */
export interface CompactionOptions {
  /** After every complete snapshot. */
  readonly afterSnapshot: boolean;
  /** At this interval, milliseconds; 0 = never. */
  readonly intervalMs: number;
  /** How many snapshots of each kind stay. */
  readonly tiers: RetentionTiers;
  /** How long what was marked is left alone, milliseconds; an hour unless said otherwise. */
  readonly graceMs?: number;
}

/** What a watch says of it. */
export type CompactionEvent =
  | {
    kind: "compacted";
    path: string;
    /** Deleted: objects and their bytes. */
    objects: number;
    bytes: number;
    /** Objects that were merged into others. */
    merged: number;
    /** Objects that are marked and wait for the grace to pass. */
    waiting: number;
    /** What is to be known of it, in words. */
    warnings: readonly string[];
  }
  /** It is tried again when it is due again. */
  | { kind: "compaction_failed"; path: string; error: unknown };

/** What {@linkcode Compactions} is made of. */
export interface CompactionParts {
  /** Path of the database, for the events. */
  readonly path: string;
  readonly root: string;
  readonly store: ObjectStore;
  readonly runtime: Pick<Runtime, "clock" | "sha256">;
  readonly options: CompactionOptions;
  /** One for all databases: merging holds some memory. */
  readonly limit: Limiter;
  readonly emit: (event: CompactionEvent) => void;
}

/** Compacts one database again and again. */
export class Compactions {
  readonly #parts: CompactionParts;
  readonly #end = new AbortController();
  #running: Promise<void> | null = null;
  #isDue = false;
  /** Monotonic milliseconds of the last begin, or of the start. */
  #since: number;

  constructor(parts: CompactionParts) {
    this.#parts = parts;
    this.#since = parts.runtime.clock.monotonic();
  }

  /** A snapshot is complete. */
  snapshotTaken(): void {
    if (this.#parts.options.afterSnapshot) this.#isDue = true;
  }

  /** Begins when it is due and none is under way. */
  poll(): void {
    const { options: { intervalMs }, runtime: { clock } } = this.#parts;
    const now = clock.monotonic();
    if (intervalMs > 0 && now - this.#since >= intervalMs) this.#isDue = true;
    if (!this.#isDue || this.#running !== null || this.#end.signal.aborted) return;
    this.#isDue = false;
    this.#since = now;
    this.#running = this.#run().finally(() => this.#running = null);
  }

  /** Ends what is under way, wherever it is: the next one goes on from there. */
  async end(): Promise<void> {
    this.#end.abort(new DOMException("the watch ends", "AbortError"));
    await this.#running;
  }

  async #run(): Promise<void> {
    const { path, limit, emit } = this.#parts;
    const { signal } = this.#end;
    try {
      const { deleted, merged, waiting, warnings, failed } = await limit(() => this.#compact(signal), signal);
      if (failed.length > 0) throw new Error(`${failed[0].key} could not be deleted: ${failed[0].error.message}`);
      const { objects, bytes } = deleted;
      const sources = merged.reduce((sum, object) => sum + object.sources, 0);
      emit({ kind: "compacted", path, objects, bytes, merged: sources, waiting: waiting.objects, warnings });
    } catch (error) {
      if (!signal.aborted) emit({ kind: "compaction_failed", path, error });
    }
  }

  async #compact(signal: AbortSignal): Promise<CompactReport> {
    const { store, root, runtime, options: { tiers, graceMs } } = this.#parts;
    // Loaded when it is first used: most watches never do.
    const { compact } = await import("../replication/compact.ts");
    return await compact({ store, root, runtime, tiers, graceMs, merge: true, force: true, signal });
  }
}
