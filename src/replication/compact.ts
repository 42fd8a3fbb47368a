/**
 * `walrust compact`: what retention gives up goes, old deltas are merged. In this order, so that a kill at any step
 * leaves a bucket from which the next run goes on: merged objects are written and read back; what is to go is marked in
 * `retention.json`; what was marked long enough ago is deleted, the highest seq first.
 */
import { ConfigError, IntegrityError, isAbsentObject, PreconditionError, RestoreError } from "../errors.ts";
import type { RetentionDocument } from "../format/documents.ts";
import type { Log, Runtime } from "../runtime/types.ts";
import type { ObjectStore, StorageErrorLike } from "../storage/object_store.ts";
import { parallelDefault } from "./fetch.ts";
import { type History, readHistory, tryReadHeader } from "./history.ts";
import { objectKey, type PoolObject } from "./inventory.ts";
import { type MergedObject, mergeRun } from "./merge.ts";
import { type MergeRun, planMerges } from "./merge_plan.ts";
import { dueRemovals, dueSources, type MarkClock, markRetention } from "./retention_marks.ts";
import { fineWindowDefaultMs, planRetention, type RetentionPlan, type SegmentRetention } from "./retention_plan.ts";
import { graceDefaultMs, type RetentionTiers, retentionTiers } from "./retention_tiers.ts";

/** Options of {@linkcode compact}. */
export interface CompactOptions {
  /** Bucket to read and change. */
  store: ObjectStore;
  /** `${prefix}${name}/` */
  root: string;
  /** The machine. */
  runtime: Pick<Runtime, "clock" | "sha256">;
  /** True: do it. Else nothing is written and nothing deleted. */
  force?: boolean;
  /** How many snapshots of each kind stay; {@linkcode retentionTiers} unless said otherwise. */
  tiers?: RetentionTiers;
  /** How far back every point stays, milliseconds; a day unless said otherwise. */
  fineWindowMs?: number;
  /** How long what was marked is left alone, milliseconds; an hour unless said otherwise. */
  graceMs?: number;
  /** True: merge runs of old deltas. */
  merge?: boolean;
  /** Sources of a merged object, by its level; 60 and 24 unless said otherwise. */
  mergeFans?: readonly number[];
  /** Refuse, before anything is changed, when more objects than this would go; no limit unless said. */
  maxDelete?: number;
  /** Requests at once; 8 unless said otherwise. */
  parallel?: number;
  /** Cancels; what was done until then stands. */
  signal?: AbortSignal;
  /** Told of every byte that merging reads or writes. */
  onBytes?: (bytes: number) => void;
  /** Told of every warning when it arises; the report repeats them. */
  log?: Log;
}

/** Objects and their bytes. */
export interface ObjectSum {
  /** How many. */
  readonly objects: number;
  /** Bytes. */
  readonly bytes: number;
}

/** What {@linkcode compact} did, or with `dryRun` would do. */
export interface CompactReport {
  /** True when nothing was changed. */
  readonly dryRun: boolean;
  /** What stays of the snapshots and why, what is lost, and from where on every point stays. */
  readonly plan: RetentionPlan;
  /** What retention gives up, already marked or not. */
  readonly removable: ObjectSum;
  /** Runs that are, or were, to be merged. */
  readonly runs: readonly MergeRun[];
  /** Runs that were merged. */
  readonly merged: readonly MergedObject[];
  /** What could be deleted now (dry run), or was. */
  readonly deleted: ObjectSum;
  /** What is marked, or would be, and waits for the grace to pass. */
  readonly waiting: ObjectSum;
  /** When the last of it may go, Unix milliseconds; null when nothing waits, and in a dry run. */
  readonly waitingUntilMs: number | null;
  /** What the store would not delete. */
  readonly failed: readonly { readonly key: string; readonly error: StorageErrorLike }[];
  /** What the user should know, in words. */
  readonly warnings: readonly string[];
}

/** Keys of one request. */
const deleteBatch = 1000;

/**
 * Plans retention and merging of one database and, with `force`, carries both out. Throws `ConfigError` (`max_delete`),
 * `RestoreError` for nothing or a layout that is not walrust's, `IntegrityError` for a damaged `retention.json`, `StorageError`.
 *
 * @example
 * ```ts ignore
 * const { removable, plan } = await compact({ store, root: "app/", runtime });
 * console.log(`${removable.bytes} bytes could be freed`, plan.lost);
 * ```
 */
export async function compact(options: CompactOptions): Promise<CompactReport> {
  return await new Compaction(options).run();
}

/** What is to be deleted of a lineage. */
interface Sweep {
  readonly plan: SegmentRetention;
  readonly document: RetentionDocument;
  readonly due: readonly PoolObject[];
}

/** One run; use an instance once. */
class Compaction {
  readonly #options: CompactOptions;
  readonly #clock: MarkClock;
  readonly #warnings: string[] = [];
  readonly #merged = new Map<MergeRun, MergedObject>();
  readonly #failed: { key: string; error: StorageErrorLike }[] = [];

  constructor(options: CompactOptions) {
    this.#options = options;
    this.#clock = { nowMs: options.runtime.clock.now(), graceMs: options.graceMs ?? graceDefaultMs };
  }

  async run(): Promise<CompactReport> {
    const { store, root, signal, force = false } = this.#options;
    const history = await readHistory(store, root, { signal });
    for (const text of history.warnings) this.#warn(text);
    if (history.segments.length === 0) throw nothingStored(store, root);
    const plan = await this.#plan(history);
    const runs = this.#runs(plan);
    const planned = plan.segments.map((segment) => this.#sweep(segment, segment.segment.retention ?? { ranges: [] }));
    if (!force) return this.#report(plan, runs, planned, planned.flatMap(({ due }) => due));
    this.#guard(planned);
    for (const run of runs) await this.#merge(run);
    const sweeps: Sweep[] = [];
    for (const segment of plan.segments) sweeps.push(this.#sweep(segment, await this.#mark(segment)));
    const deleted: PoolObject[] = [];
    for (const sweep of sweeps) await this.#delete(sweep, deleted);
    return this.#report(plan, runs, sweeps, deleted);
  }

  async #plan(history: History): Promise<RetentionPlan> {
    const { tiers = retentionTiers, fineWindowMs = fineWindowDefaultMs, parallel = parallelDefault } = this.#options;
    const snapshots = history.segments.flatMap((segment) => segment.snapshots);
    const times = new Map<PoolObject, number | null>();
    for (let at = 0; at < snapshots.length; at += parallel) {
      const group = snapshots.slice(at, at + parallel);
      const found = await Promise.all(group.map((snapshot) => this.#createdMs(snapshot)));
      group.forEach((snapshot, index) => times.set(snapshot, found[index]));
    }
    return planRetention(history, times, { tiers, fineWindowMs, nowMs: this.#clock.nowMs });
  }

  async #createdMs(snapshot: PoolObject): Promise<number | null> {
    const { store, root, signal } = this.#options;
    try {
      const header = await tryReadHeader(store, root, snapshot, { signal });
      if (typeof header !== "string") return header.createdMs;
      this.#warn(`${header}; this snapshot is kept, and nothing relies on it`);
    } catch (error) {
      if (!isAbsentObject(error)) throw error;
      this.#warn(`${objectKey(root, snapshot)} vanished meanwhile`);
    }
    return null;
  }

  #runs(plan: RetentionPlan): MergeRun[] {
    const { merge = false, mergeFans: fans } = this.#options;
    const newest = plan.snapshots.find(({ createdMs }) => createdMs !== null);
    if (!merge || newest === undefined) return [];
    const options = { through: newest.object.max, beforeMs: plan.windowStartMs, fans };
    return plan.segments.flatMap((segment) => planMerges(segment, options));
  }

  /** A wrong clock, prefix or number of snapshots shows itself by how much would go. */
  #guard(sweeps: readonly Sweep[]): void {
    const { maxDelete, root } = this.#options;
    const objects = sweeps.reduce((sum, { plan, due }) => sum + new Set([...plan.remove, ...due]).size, 0);
    if (maxDelete === undefined || objects <= maxDelete) return;
    throw new ConfigError(
      "max_delete",
      `${root}: ${objects} objects would go, more than ${maxDelete}; nothing was done`,
      {
        hint: "look at the plan without --force; if it is right, give a larger --max-delete",
        data: { root, objects, maxDelete },
      },
    );
  }

  /** One run that cannot be merged is no reason to leave the others. */
  async #merge(run: MergeRun): Promise<void> {
    const { store, root, runtime: { sha256 }, parallel = parallelDefault, signal, onBytes } = this.#options;
    try {
      this.#merged.set(run, await mergeRun({ store, root, run, sha256, parallel, signal, onBytes }));
    } catch (error) {
      const isKnown = error instanceof IntegrityError || error instanceof PreconditionError || isAbsentObject(error);
      if (!isKnown) throw error;
      this.#warn(`seqs ${run.min} to ${run.max} were not merged: ${(error as Error).message}`);
    }
  }

  async #mark(plan: SegmentRetention): Promise<RetentionDocument> {
    const { store, root, signal } = this.#options;
    const { lineage, retention } = plan.segment;
    const merged = [...this.#merged.values()].filter((object) => object.lineage === lineage);
    if (retention === null && plan.remove.length + merged.length === 0) return { ranges: [] };
    this.#options.log?.("debug", `marking in ${root}`, { lineage, ranges: plan.ranges.length, merged: merged.length });
    return await markRetention(store, root, plan, merged, { ...this.#clock, signal });
  }

  #sweep(plan: SegmentRetention, document: RetentionDocument): Sweep {
    const due = [...dueRemovals(document, plan, this.#clock), ...dueSources(document, plan, this.#clock)];
    return { plan, document, due };
  }

  /** Stops where the store refuses one: what lies below it may be what its point is restored from. */
  async #delete({ due }: Sweep, deleted: PoolObject[]): Promise<void> {
    const { store, root, signal } = this.#options;
    for (let at = 0; at < due.length; at += deleteBatch) {
      const batch = new Map(due.slice(at, at + deleteBatch).map((object) => [objectKey(root, object), object]));
      const failed = await store.deleteMany([...batch.keys()], { signal });
      for (const { key } of failed) batch.delete(key);
      deleted.push(...batch.values());
      this.#failed.push(...failed);
      if (failed.length > 0) return;
    }
  }

  #report(
    plan: RetentionPlan,
    runs: readonly MergeRun[],
    sweeps: readonly Sweep[],
    deleted: readonly PoolObject[],
  ): CompactReport {
    const { force = false } = this.#options;
    const { nowMs, graceMs } = this.#clock;
    const removable = plan.segments.flatMap(({ remove }) => remove);
    const merging = (force ? [...this.#merged.keys()] : runs).flatMap(({ sources }) => sources);
    // Whatever is marked, however long ago.
    const marked = sweeps.flatMap((sweep) => dueSources(sweep.document, sweep.plan, { nowMs, graceMs: -Infinity }));
    const gone = new Set(deleted);
    const waiting = [...new Set([...removable, ...merging, ...marked])].filter((object) => !gone.has(object));
    const moments = sweeps.flatMap(({ document }) => [...document.ranges, ...document.snapshots ?? []])
      .map(({ markedMs = nowMs }) => markedMs).filter((markedMs) => markedMs > nowMs - graceMs);
    return {
      dryRun: !force,
      plan,
      removable: sumOf(removable),
      runs,
      merged: [...this.#merged.values()],
      deleted: sumOf(deleted),
      waiting: sumOf(waiting),
      waitingUntilMs: !force || waiting.length === 0 ? null : Math.max(...moments, nowMs - graceMs) + graceMs,
      failed: this.#failed,
      warnings: this.#warnings,
    };
  }

  #warn(text: string): void {
    this.#warnings.push(text);
    this.#options.log?.("warning", text);
  }
}

function nothingStored(store: ObjectStore, root: string): RestoreError {
  return new RestoreError("nothing_stored", `nothing is stored in ${store.location} below ${root}`, {
    hint: "check bucket, prefix and name; walrust list shows what is there",
    data: { root },
  });
}

function sumOf(objects: readonly PoolObject[]): ObjectSum {
  return { objects: objects.length, bytes: objects.reduce((sum, { size }) => sum + size, 0) };
}
