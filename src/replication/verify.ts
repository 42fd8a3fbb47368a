/** `walrust verify`: whether what is stored of a database can be restored, how far that is proven, and what is not. */
import { ConfigError, NotFoundError, RestoreError } from "../errors.ts";
import { lineagePrefix, renderKey } from "../format/keys.ts";
import type { Clock, Runtime } from "../runtime/types.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { drill, type DrilledRun } from "./drill.ts";
import { parallelDefault } from "./fetch.ts";
import { Findings } from "./findings.ts";
import { type History, readHistory, type Segment, tryReadHeader } from "./history.ts";
import type { ImageCheck } from "./image_check.ts";
import { type LineageObjects, objectKey, type PoolObject, readLineage } from "./inventory.ts";
import { ownerOf } from "./lineage.ts";
import { directoryOf } from "./paths.ts";
import { type Point, type SeqRange, seqRangeText, timeText } from "./plan.ts";
import { type Reach, reachOf } from "./reach.ts";
import { SegmentVerifier } from "./segment_verifier.ts";
import type { VerifyLevel, VerifyPlace, VerifyReport } from "./verify_report.ts";

export * from "./verify_report.ts";

/** Options of {@linkcode verify}. */
export interface VerifyOptions {
  /** Bucket to read. */
  store: ObjectStore;
  /** `${prefix}${name}/` */
  root: string;
  /** How thoroughly. */
  level: VerifyLevel;
  /** The machine. A drill needs files. */
  runtime: { readonly clock: Clock } & Pick<Runtime, "sha256"> & Partial<Pick<Runtime, "files" | "sqlite" | "random">>;
  /** Begins the name of the file that a drill builds and removes. */
  scratchPath?: string;
  /** On `full`: reads about `bytes` of content behind `after`, and of the rest keys alone; all of it when absent. */
  budget?: { readonly bytes: number; readonly after: VerifyPlace | null };
  /** Remove what is provably of no use to any point. */
  fix?: boolean;
  /** Requests at once; 8 unless said otherwise. */
  parallel?: number;
  /** Cancels. */
  signal?: AbortSignal;
  /** Told after every chunk that arrives: bytes so far, and of how many. */
  onProgress?: (bytes: number, bytesTotal: number) => void;
  /** Used in a drill where the runtime has no built-in SQLite. */
  check?: ImageCheck;
}

/** How far ahead of this machine's clock a writer's may be, milliseconds. */
const clockSkewMax = 3_600_000;

/** A lineage that began less than this ago may still get its first snapshot, milliseconds. */
const abandonedAgeMin = 24 * 3_600_000;

/**
 * Verifies what is stored of one database. Damage and loss are findings; throws `StorageError` when the bucket cannot
 * be read, `RestoreError` for the layout of another program, `ConfigError` when a drill has no room.
 *
 * @example
 * ```ts ignore
 * const report = await verify({ store, root: "app/", level: "full", runtime });
 * for (const { severity, message } of report.findings) console.log(severity, message);
 * ```
 */
export async function verify(options: VerifyOptions): Promise<VerifyReport> {
  options.signal?.throwIfAborted();
  return await new Verification(options).run();
}

/** A lineage, and what became of it. */
interface Verified {
  readonly segment: Segment;
  readonly verifier: SegmentVerifier;
  reach: Reach;
}

/** One verification; use an instance once. */
class Verification {
  readonly #options: VerifyOptions;
  readonly #findings = new Findings();
  readonly #drilled: DrilledRun[] = [];
  readonly #removed: string[] = [];
  #readBytes = 0;
  #bytesTotal = 0;
  #budget = Infinity;
  #after: VerifyPlace | null = null;
  #next: VerifyPlace | null = null;

  constructor(options: VerifyOptions) {
    this.#options = options;
  }

  async run(): Promise<VerifyReport> {
    const { store, root, level, signal } = this.#options;
    const history = await readHistory(store, root, { signal });
    for (const warning of history.warnings) this.#findings.add("warning", "document", warning);
    const bytes = history.segments.reduce((sum, segment) => sum + segment.bytes, 0);
    this.#bytesTotal = level === "full" ? bytes : level === "drill" ? 2 * bytes : 0;
    const { budget } = this.#options;
    if (budget !== undefined) this.#budget = budget.bytes;
    this.#after = history.segments.some(({ lineage }) => lineage === budget?.after?.lineage) ? budget!.after : null;
    const verified: Verified[] = [];
    for (const segment of history.segments) verified.push(await this.#verifySegment(segment));
    await this.#settle(verified);
    for (const each of verified) await this.#tellLost(each, history.state?.claim ?? null, each === verified[0]);
    this.#checkPointer(history, verified);
    if (level === "drill") { for (const each of verified) await this.#drill(each); }
    await this.#lookAtOthers(history);
    const restorable = await this.#restorable(verified);
    const isBegun = this.#findings.list.some(({ code }) => code === "no_snapshot");
    if (restorable === null && !isBegun) this.#tellNothing(history);
    if (restorable !== null) this.#checkClock(restorable.last);
    return this.#report(verified, bytes, restorable);
  }

  async #verifySegment(segment: Segment): Promise<Verified> {
    const { store, root, level, runtime: { sha256 }, parallel = parallelDefault, signal } = this.#options;
    const onBytes = (count: number): void => this.#progress(count);
    const findings = this.#findings;
    const verifier = new SegmentVerifier(segment, { store, root, sha256, parallel, findings, signal, onBytes });
    if (level === "headers") await verifier.headers();
    else if (level !== "list") await this.#readContent(segment, verifier);
    return { segment, verifier, reach: reachOf(segment, verifier.damaged) };
  }

  /** As far as the budget goes, from where it was used up the last time. */
  async #readContent({ lineage }: Segment, verifier: SegmentVerifier): Promise<void> {
    const after = this.#after;
    if (this.#next !== null || (after !== null && after.lineage !== lineage)) return;
    this.#after = null;
    const seq = after?.seq ?? 0n;
    if (this.#budget <= 0) {
      this.#next = { lineage, seq };
      return;
    }
    const { bytes, stoppedAt } = await verifier.content(seq, this.#budget);
    this.#budget -= bytes;
    if (stoppedAt !== null) this.#next = { lineage, seq: stoppedAt };
  }

  #progress(count: number): void {
    this.#readBytes += count;
    this.#options.onProgress?.(this.#readBytes, Math.max(this.#readBytes, this.#bytesTotal));
  }

  /**
   * What seems lost is looked for once more: the listing of a bucket in use is no single moment, and what was merged or
   * swept meanwhile is lost to nobody.
   */
  async #settle(verified: Verified[]): Promise<void> {
    const { store, root, signal } = this.#options;
    if (verified.every(({ reach, verifier }) => reach.lost.length + verifier.vanished.length === 0)) return;
    const again = await readHistory(store, root, { signal });
    for (const each of verified) {
      const { segment, verifier } = each;
      const now = again.segments.find(({ lineage }) => lineage === segment.lineage);
      if (now === undefined) continue;
      const damagedKeys = new Set([...verifier.damaged].map((object) => objectKey(root, object)));
      const all = [...now.deltas, ...now.snapshots, ...now.levels];
      const reach = reachOf(now, new Set(all.filter((object) => damagedKeys.has(objectKey(root, object)))));
      const overlaps = (range: SeqRange): boolean =>
        each.reach.lost.some(({ min, max }) => min <= range.max && max >= range.min);
      each.reach = { points: reach.points, lost: reach.lost.filter(overlaps) };
    }
  }

  /** Names what cannot be restored, by seq and time. */
  async #tellLost({ segment, verifier, reach }: Verified, claim: string | null, isHead: boolean): Promise<void> {
    if (segment.lineage !== null && segment.lineage === claim && segment.snapshots.length === 0) {
      const message = `lineage ${claim} has no complete snapshot yet: what it holds cannot be restored`;
      return this.#findings.add("warning", "no_snapshot", message, { hint: "It may be under way: look again later." });
    }
    for (const lost of reach.lost) {
      const before = reach.points.findLast(({ max }) => max < lost.min);
      const after = reach.points.find(({ max }) => max > lost.max);
      const parts: string[] = [];
      if (before !== undefined) parts.push(`after ${await this.#timeOf(before)}`);
      if (after !== undefined) parts.push(`before ${await this.#timeOf(after)}`);
      const when = parts.length === 0 ? "" : ` (${parts.join(", ")})`;
      const isEnd = isHead && after === undefined;
      const cause = causeOf(segment, lost, verifier.damaged);
      this.#findings.add("error", isEnd ? "head_lost" : "points_lost", `${seqRangeText(lost)}${when}: ${cause}`, {
        seqs: lost,
        hint: isEnd
          ? "Take a new snapshot (walrust snapshot): it makes the newest state restorable again."
          : "Look for earlier versions of these objects in the bucket; all other points are not affected.",
      });
    }
  }

  async #timeOf(object: PoolObject): Promise<string> {
    const createdMs = await this.#createdMs(object);
    return createdMs === null ? `seq ${object.max}` : timeText(createdMs);
  }

  async #createdMs(object: PoolObject): Promise<number | null> {
    const { store, root, signal } = this.#options;
    try {
      const header = await tryReadHeader(store, root, object, { signal });
      return typeof header === "string" ? null : header.createdMs;
    } catch (error) {
      if (error instanceof NotFoundError) return null;
      throw error;
    }
  }

  /** state.json says how far the lineage came at least, and was read before its objects were listed. */
  #checkPointer({ root, state }: History, verified: readonly Verified[]): void {
    const active = verified.find(({ segment }) => segment.lineage === state?.lineageId);
    const seq = state?.currentSeq ?? 0n;
    if (active === undefined || seq === 0n) return;
    const { segment, reach } = active;
    const object = renderKey(root, { kind: "state" });
    const more = { object, seqs: { min: seq, max: seq }, hint: "Take a new snapshot (walrust snapshot)." };
    const last = reach.points.at(-1)?.max ?? 0n;
    if (reach.lost.some(({ min, max }) => min <= seq && seq <= max)) return;
    if (last < seq) {
      const message = `${object} says that seq ${seq} was reached; the last point that can be restored is seq ${last}`;
      this.#findings.add("error", "head_lost", message, more);
    } else if (segment.own && !segment.snapshots.some(({ max }) => max === seq)) {
      // Ours names its newest complete snapshot there; the bridge leads on without it.
      this.#findings.add("warning", "snapshot_missing", `${object} names the snapshot seq ${seq}, which is gone`, more);
    }
  }

  async #drill({ segment, verifier }: Verified): Promise<void> {
    const { store, root, runtime, scratchPath, parallel = parallelDefault, signal, check } = this.#options;
    const { files, random, sha256, sqlite = null } = runtime;
    if (files === undefined || random === undefined || scratchPath === undefined) {
      throw new TypeError("a drill needs files, random and scratchPath");
    }
    const [free, need] = [files.freeBytes(directoryOf(scratchPath)), verifier.databaseSizeMax];
    if (free < need) throw noRoom(directoryOf(scratchPath), free, need);
    const runs = await drill(segment, {
      store,
      root,
      runtime: { files, random, sha256, sqlite },
      damaged: verifier.damaged,
      scratchPath,
      parallel,
      check,
      signal,
      onBytes: (count) => this.#progress(count),
    }).catch((error) => {
      throw error instanceof RestoreError && error.code === "no_space"
        ? noRoom(directoryOf(scratchPath), free, need)
        : error;
    });
    this.#drilled.push(...runs);
    for (const { first, last, failure, isChecked } of runs) {
      const seqs = { min: first, max: last };
      if (failure !== null) {
        const hint = "The points behind the last proven one may be wrong; take a new snapshot (walrust snapshot).";
        this.#findings.add("error", failure.code, failure.message, { seqs, hint });
      } else if (!isChecked) {
        const message = "no SQLite is available for this file, so the rebuilt database was not checked by one";
        this.#findings.add("warning", "not_checked", message, { seqs });
      }
    }
  }

  /** Lineages that no history leads to. */
  async #lookAtOthers({ root, state, otherLineages }: History): Promise<void> {
    const { store, signal } = this.#options;
    const owner = state === null ? null : ownerOf(state);
    for (const lineage of otherLineages) {
      const objects = await readLineage(store, root, lineage, { signal });
      const count = objects.deltas.length + objects.snapshots.length + objects.levels.length;
      const isAbandoned = objects.snapshots.length === 0 && owner !== null && lineage !== owner &&
        this.#options.runtime.clock.now() - newestTime(objects) >= abandonedAgeMin;
      if (isAbandoned) await this.#tellAbandoned(root, objects, count);
      else if (count > 0) {
        const message = `lineage ${lineage} is no part of the history: ${count} objects, ${objects.bytes} bytes`;
        this.#findings.add("info", "other_lineage", message);
      }
    }
  }

  /** It never got a snapshot, its writer has been overtaken, and no reader ever found a point in it. */
  async #tellAbandoned(root: string, { lineage }: LineageObjects, count: number): Promise<void> {
    const { store, fix = false, signal } = this.#options;
    const message = `lineage ${lineage} was begun and given up before its first snapshot: ${count} objects of no use`;
    if (!fix) {
      return this.#findings.add("warning", "orphan", message, { hint: "--fix removes them." });
    }
    const keys: string[] = [];
    for await (const { key } of store.list(lineagePrefix(root, lineage), { signal })) keys.push(key);
    const failed = await store.deleteMany(keys, { signal });
    const left = new Set(failed.map(({ key }) => key));
    this.#removed.push(...keys.filter((key) => !left.has(key)));
    for (const { key, error } of failed) {
      this.#findings.add("warning", "not_removed", `${key} could not be removed: ${error.message}`, { object: key });
    }
  }

  async #restorable(verified: readonly Verified[]): Promise<VerifyReport["restorable"]> {
    const points = verified.map(({ reach }) => reach.points).filter((some) => some.length > 0);
    if (points.length === 0) return null;
    const [first, last] = [points.at(-1)![0], points[0].at(-1)!];
    return {
      first: { seq: first.max, createdMs: await this.#createdMs(first) },
      last: { seq: last.max, createdMs: await this.#createdMs(last) },
      points: points.reduce((sum, some) => sum + some.length, 0),
    };
  }

  #checkClock({ seq, createdMs }: Point): void {
    if (createdMs === null || createdMs <= this.#options.runtime.clock.now() + clockSkewMax) return;
    const message = `seq ${seq} is of ${timeText(createdMs)}, which lies in the future of this machine`;
    this.#findings.add("warning", "clock", message, { hint: "Check the clocks of both machines." });
  }

  #tellNothing({ root, segments }: History): void {
    const { location } = this.#options.store;
    const objects = segments.reduce((sum, { deltas, levels }) => sum + deltas.length + levels.length, 0);
    if (objects > 0) {
      const message = `nothing in ${location} below ${root} can be restored`;
      return this.#findings.add("error", "nothing_restorable", message, {
        hint: "Take a new snapshot (walrust snapshot) of the live database.",
      });
    }
    this.#findings.add("error", "nothing_stored", `nothing is stored in ${location} below ${root}`, {
      hint: "Check bucket, prefix and name; walrust list shows what is there.",
    });
  }

  #report(verified: readonly Verified[], bytes: number, restorable: VerifyReport["restorable"]): VerifyReport {
    const { root, level } = this.#options;
    const total = (of: (verified: Verified) => number): number => verified.reduce((sum, each) => sum + of(each), 0);
    const [snapshots, deltas, levels] = [
      total(({ segment }) => segment.snapshots.length),
      total(({ segment }) => segment.deltas.length),
      total(({ segment }) => segment.levels.length),
    ];
    return {
      root,
      level,
      lineages: verified.length,
      snapshots,
      deltas,
      levels,
      bytes,
      soundObjects: snapshots + deltas + levels - total(({ verifier }) => verifier.damaged.size),
      readBytes: this.#readBytes,
      next: this.#next,
      restorable,
      drilled: this.#drilled,
      findings: this.#findings.list,
      counts: this.#findings.counts,
      removed: this.#removed,
    };
  }
}

/** Why seqs cannot be reached: the first of them that is missing or damaged, or a chain that hangs on nothing. */
function causeOf(segment: Segment, lost: SeqRange, damaged: ReadonlySet<PoolObject>): string {
  const covers = ({ min, max }: PoolObject): boolean => min <= lost.min && max >= lost.min;
  const here = [...segment.deltas, ...segment.levels, ...segment.snapshots].filter(covers);
  if (here.some((object) => damaged.has(object))) return `cannot be restored, because seq ${lost.min} is damaged`;
  if (here.length > 0) return "cannot be restored, because no snapshot leads there";
  const next = [...segment.deltas, ...segment.levels].reduce<bigint | null>(
    (first, { min }) => min > lost.min && (first === null || min < first) ? min : first,
    null,
  );
  const max = next === null || next > lost.max ? lost.max : next - 1n;
  const missing = { min: lost.min, max };
  const rest = max < lost.max ? `, and with it what follows up to seq ${lost.max}` : "";
  return `cannot be restored, because ${seqRangeText(missing)} is missing${rest}`;
}

function newestTime({ document, deltas, levels }: LineageObjects): number {
  const modified = [...deltas, ...levels].map(({ lastModifiedMs }) => lastModifiedMs);
  return modified.reduce((newest, ms) => Math.max(newest, ms), document?.createdMs ?? 0);
}

function noRoom(directory: string, free: number, need: number): ConfigError {
  return new ConfigError("no_room", `a drill needs ${need} bytes in ${directory}, ${free} are free`, {
    hint: "Make room there, or give a --scratch directory on a larger disk.",
    data: { directory, free, need },
  });
}
