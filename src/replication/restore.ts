/** `walrust restore`: any point of the history as a database file, byte for byte, or a refusal and no file. */
import { IntegrityError, isAbsentObject, type NotFoundError, RestoreError } from "../errors.ts";
import type { Log, Runtime } from "../runtime/types.ts";
import { getBytes, type ObjectStore } from "../storage/object_store.ts";
import { checkOutput, ImageFile, installImage, type MovedAside, removeLeftovers } from "./apply.ts";
import { parallelDefault, rangeSize } from "./fetch.ts";
import { type History, readHistory, tryReadHeader } from "./history.ts";
import { assertSound, type ImageCheck, type IntegrityLevel } from "./image_check.ts";
import { objectKey, type PoolObject } from "./inventory.ts";
import { directoryOf } from "./paths.ts";
import { planRestore, type RestorePlan } from "./plan.ts";
import { type ResolvedTarget, resolveTarget, type RestoreTarget } from "./point_in_time.ts";
import { ChangesetWalk, type WalkResult } from "./walk.ts";

export type { ImageCheck, IntegrityLevel } from "./image_check.ts";
export type { RestoreTarget } from "./point_in_time.ts";

/** How far a restore is. */
export interface RestoreProgress {
  /** What is being done. */
  readonly phase: "fetch" | "check" | "install";
  /** Fetched so far. */
  readonly bytes: number;
  /** Planned. */
  readonly bytesTotal: number;
}

/** Options of {@linkcode restore}. */
export interface RestoreOptions {
  /** Bucket to read. */
  store: ObjectStore;
  /** `${prefix}${name}/` */
  root: string;
  /** Point to restore. */
  target: RestoreTarget;
  /** Path of the file to make. */
  outputPath: string;
  /** The machine. */
  runtime: Pick<Runtime, "files" | "sha256" | "sqlite" | "clock" | "random">;
  /** Plan only; nothing is written. */
  dryRun?: boolean;
  /** Move existing files aside. */
  force?: boolean;
  /** What SQLite looks at before the file gets its name. */
  integrityCheck: IntegrityLevel;
  /** Requests at once; 8 unless said otherwise. */
  parallel?: number;
  /** Cancels; nothing is left behind. */
  signal?: AbortSignal;
  /** Told after every chunk that arrives. */
  onProgress?: (progress: RestoreProgress) => void;
  /** Told of every warning when it arises; the report repeats them. */
  log?: Log;
  /** Used where the runtime has no built-in SQLite. */
  check?: ImageCheck;
}

/** An object that a restore fetches. */
export interface PlannedObject {
  /** Key in the bucket. */
  readonly key: string;
  /** Bridges are deltas of no pages. */
  readonly kind: "delta" | "snapshot" | "level";
  /** First seq it covers. */
  readonly min: bigint;
  /** Last seq it covers. */
  readonly max: bigint;
  /** Its size. */
  readonly bytes: number;
}

/** What was restored, and how. */
export interface RestoreReport {
  /** Path of the restored file. */
  readonly outputPath: string;
  /** True when nothing was written. */
  readonly dryRun: boolean;
  /** Null is the layout without lineages. */
  readonly lineage: string | null;
  /** Seq restored. */
  readonly seq: bigint;
  /** Of the last changeset, Unix milliseconds; null in a dry run that cannot read it. */
  readonly createdMs: number | null;
  /** What would be fetched, in order; null unless a dry run. */
  readonly plan: PlannedObject[] | null;
  /** Snapshot it started from. */
  readonly snapshotSeq: bigint;
  /** Its size. */
  readonly snapshotBytes: number;
  /** Objects after the snapshot, bridges included. */
  readonly changesets: number;
  /** Objects in the plan, the snapshot included. */
  readonly objects: number;
  /** Planned (dry run) or fetched, retries included. */
  readonly bytes: number;
  /** Planned (dry run) or sent; those for lists and documents are not counted. */
  readonly requests: number;
  /** Chain value at the end; null in a dry run. */
  readonly chain: bigint | null;
  /** Bytes; null in a dry run. */
  readonly pageSize: number | null;
  /** Null in a dry run. */
  readonly pageCount: number | null;
  /** What SQLite said; `skipped` when no SQLite could be asked. */
  readonly integrity: "none" | "ok" | "skipped";
  /** Files that stood at the output, where they are now. */
  readonly movedAside: string[];
  /** One shell command line that puts them back and keeps what was restored; null when nothing was moved. */
  readonly undo: string | null;
  /** What the user should know, in words. */
  readonly warnings: string[];
}

/** Objects left out one after another before giving up. */
const attemptsMax = 32;

/**
 * Restores a point to `outputPath`. Every byte is verified before the file gets its name; on any failure or abort no
 * file is left. Throws `RestoreError` (point not available, output exists, no space), `IntegrityError`, `StorageError`.
 *
 * @example
 * ```ts ignore
 * const report = await restore({
 *   store, root: "app/", target: { kind: "latest" }, outputPath: "out.db", runtime, integrityCheck: "quick",
 * });
 * ```
 */
export async function restore(options: RestoreOptions): Promise<RestoreReport> {
  const { runtime, outputPath, dryRun = false, force = false } = options;
  options.signal?.throwIfAborted();
  if (!dryRun) checkOutput(runtime.files, outputPath, force);
  const attempt = new RestoreAttempt(options);
  await attempt.locate();
  if (dryRun) return await attempt.rehearse();
  attempt.removeLeftovers();

  let image: ImageFile | null = null;
  try {
    let plan = attempt.plan();
    await attempt.checkSpace(plan);
    image = new ImageFile({ ...runtime, outputPath });
    let result: WalkResult | null = null;
    while (result === null) {
      result = await attempt.walk(plan, image);
      if (result === null) {
        image.reset();
        plan = attempt.plan();
      }
    }
    image.finish();
    const integrity = await attempt.checkImage(image.path);
    options.signal?.throwIfAborted();
    attempt.progress("install");
    const moved = installImage(runtime.files, image, outputPath, force, runtime.random);
    return attempt.report(plan, { ...result, integrity, moved });
  } finally {
    image?.remove();
  }
}

/** State of one restore: what was found corrupt on the way, and the first reason. */
class RestoreAttempt {
  readonly #options: RestoreOptions;
  readonly #excluded = new Set<PoolObject>();
  readonly #warnings: string[] = [];
  #history: History | null = null;
  #target: ResolvedTarget | null = null;
  #cause: IntegrityError | null = null;
  #relisted = false;
  #bytes = 0;
  #bytesTotal = 0;
  #requests = 0;

  constructor(options: RestoreOptions) {
    this.#options = options;
  }

  /** Reads the history and finds the target in it. */
  async locate(): Promise<void> {
    const { store, root, target, runtime, signal } = this.#options;
    this.#history = await readHistory(store, root, { signal });
    for (const text of this.#history.warnings) this.#warn(text);
    this.#target = await resolveTarget(store, this.#history, target, runtime.clock.now(), { signal });
    for (const text of this.#target.notes) this.#warn(text);
    const ignored = this.#history.segments.reduce((sum, segment) => sum + segment.ignoredKeys, 0);
    if (ignored > 0) this.#options.log?.("info", `${ignored} keys that are not ours were ignored`, { ignored });
  }

  /** The best plan without what is known to be corrupt; when there is none, the error that made it so. */
  plan(): RestorePlan {
    const { segment, seq } = this.#target!;
    try {
      const plan = planRestore(segment, seq, this.#excluded);
      this.#bytesTotal = this.#bytes + plan.bytes;
      return plan;
    } catch (error) {
      if (this.#cause === null || !(error instanceof IntegrityError)) throw error;
      throw new IntegrityError(this.#cause.code, this.#cause.message, {
        hint: error.hint ?? this.#olderPoint(),
        data: { ...this.#cause.data, reason: error.message },
        cause: this.#cause,
      });
    }
  }

  #olderPoint(): string | undefined {
    const bad = [...this.#excluded].filter((object) => object.max <= this.#target!.seq);
    const lowest = bad.reduce<bigint | null>((low, { min }) => low === null || min < low ? min : low, null);
    if (lowest === null || lowest < 1n) return undefined;
    return `An earlier point may be restored: --seq ${lowest - 1n}; walrust list shows them.`;
  }

  /** Applies a plan; null when an object turned out corrupt and another plan is to be tried. */
  async walk(plan: RestorePlan, image: ImageFile): Promise<WalkResult | null> {
    const { store, root, runtime, signal, parallel = parallelDefault } = this.#options;
    const { sha256 } = runtime;
    const onBytes = (bytes: number): void => {
      this.#bytes += bytes;
      this.progress("fetch");
    };
    const walk = new ChangesetWalk({ store, root, plan, sha256, parallel, signal, onBytes }, image);
    try {
      const result = await walk.run();
      for (const warning of result.warnings) this.#warn(warning);
      return result;
    } catch (error) {
      signal?.throwIfAborted();
      if (isAbsentObject(error) && await this.#vanished(error, walk)) {
        return null;
      }
      if (!(error instanceof IntegrityError) || walk.blame === null || this.#excluded.size >= attemptsMax) throw error;
      this.#exclude(walk.blame, error);
      return null;
    } finally {
      this.#requests += walk.requests;
    }
  }

  /** An object that was listed is gone: retention may have swept it, so look again once. */
  async #vanished(error: NotFoundError, walk: ChangesetWalk): Promise<boolean> {
    if (!this.#relisted) {
      this.#relisted = true;
      this.#warn(`${error.key ?? "an object"} vanished while it was being restored; planned again`);
      const { seq } = this.#target!;
      const { store, root, runtime, signal } = this.#options;
      const wanted = { kind: "seq", seq } as const;
      this.#history = await readHistory(store, root, { signal });
      this.#target = await resolveTarget(store, this.#history, wanted, runtime.clock.now(), { signal });
      this.#excluded.clear();
      return true;
    }
    if (walk.blame === null || this.#excluded.size >= attemptsMax) return false;
    const message = `${error.key ?? "an object"} is listed but cannot be read`;
    this.#exclude(walk.blame, new IntegrityError("object_vanished", message, { cause: error }));
    return true;
  }

  #exclude(object: PoolObject, error: IntegrityError): void {
    this.#cause ??= error;
    this.#excluded.add(object);
    const key = objectKey(this.#options.root, object);
    const instead = object.kind === "snapshot" ? "an older snapshot is used instead" : "another path is looked for";
    this.#warn(`${error.message}; ${key} is left out, ${instead}`);
  }

  /** The output must fit before the first byte is fetched. The last marker is only a hint here: it is proven later. */
  async checkSpace(plan: RestorePlan): Promise<void> {
    const { store, root, runtime, outputPath, signal } = this.#options;
    const directory = directoryOf(outputPath);
    let need = plan.snapshot.size;
    const last = plan.steps.at(-1);
    if (last !== undefined && last.kind !== "hole" && last.size >= 64) {
      const key = objectKey(root, last);
      const range = { start: last.size - 16, end: last.size };
      const tail = await getBytes(store, key, 16, { range, signal });
      const header = await getBytes(store, key, 16, { range: { start: 0, end: 16 }, signal });
      this.#requests += 2;
      if (tail.bytes.length === 16 && header.bytes.length === 16) {
        const pageSize = new DataView(header.bytes.buffer, header.bytes.byteOffset).getUint32(8);
        const size = (new DataView(tail.bytes.buffer, tail.bytes.byteOffset).getUint32(0) - 1) * pageSize;
        // Nothing in the plan can make it larger than all its bytes.
        if (size > need && size <= plan.bytes) need = size;
      }
    }
    const free = runtime.files.freeBytes(directory);
    if (free >= need) return;
    throw new RestoreError("no_space", `${directory} has ${free} bytes free; the restored database needs ${need}`, {
      hint: "Make room, or restore to another disk.",
      data: { free, need },
    });
  }

  /** SQLite's own opinion of the image; its bytes stay as they were proven. */
  async checkImage(path: string): Promise<RestoreReport["integrity"]> {
    const { integrityCheck: level, runtime, check } = this.#options;
    if (level === "none") return "none";
    this.progress("check");
    if (await assertSound(path, level, runtime, check)) return "ok";
    this.#warn(
      "no SQLite is available for this file, so the restored database was not checked by one; every checksum was",
    );
    return "skipped";
  }

  progress(phase: RestoreProgress["phase"]): void {
    this.#options.onProgress?.({ phase, bytes: this.#bytes, bytesTotal: Math.max(this.#bytes, this.#bytesTotal) });
  }

  /** The report of a restore that is only planned. */
  async rehearse(): Promise<RestoreReport> {
    const plan = this.plan();
    const { store, root, signal } = this.#options;
    const objects = [plan.snapshot, ...plan.steps.filter((step) => step.kind !== "hole")];
    const header = await tryReadHeader(store, root, objects.at(-1)!, { signal });
    if (typeof header === "string") this.#warn(header);
    return {
      ...this.report(plan, null),
      createdMs: typeof header === "string" ? null : header.createdMs,
      plan: objects.map((object) => {
        const { kind, min, max, size } = object;
        return { key: objectKey(root, object), kind, min, max, bytes: size };
      }),
    };
  }

  /** Says which files of restores that were killed it removed. */
  removeLeftovers(): void {
    const { runtime, outputPath } = this.#options;
    for (const path of removeLeftovers(runtime.files, outputPath, runtime.clock.now())) {
      this.#warn(`${path}, left behind by a restore that was killed, was removed`);
    }
  }

  /** What was done, or with `done` null what is planned. */
  report(
    plan: RestorePlan,
    done: WalkResult & { integrity: RestoreReport["integrity"]; moved: MovedAside } | null,
  ): RestoreReport {
    const objects = plan.steps.filter((step) => step.kind !== "hole");
    const planned = [plan.snapshot, ...objects].reduce((sum, { size }) => sum + Math.ceil(size / rangeSize), 0);
    return {
      outputPath: this.#options.outputPath,
      dryRun: done === null,
      lineage: plan.segment.lineage,
      seq: plan.seq,
      createdMs: done?.createdMs ?? null,
      plan: null,
      snapshotSeq: plan.snapshot.max,
      snapshotBytes: plan.snapshot.size,
      changesets: done?.changesets ?? objects.length,
      objects: objects.length + 1,
      bytes: done === null ? plan.bytes : this.#bytes,
      requests: done === null ? planned : this.#requests,
      chain: done?.chain ?? null,
      pageSize: done?.pageSize ?? null,
      pageCount: done?.pageCount ?? null,
      integrity: done?.integrity ?? "none",
      movedAside: done?.moved.paths ?? [],
      undo: done?.moved.undo ?? null,
      warnings: [...this.#warnings],
    };
  }

  #warn(text: string): void {
    this.#warnings.push(text);
    this.#options.log?.("warning", text);
  }
}
