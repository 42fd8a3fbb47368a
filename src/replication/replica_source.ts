/**
 * What lies ahead of a replica in the bucket. Usually one listing of the deltas after the known seq; the whole history
 * is read at the start and whenever that does not lead on: deltas swept or merged, another lineage, a damaged object.
 */
import { IntegrityError, RestoreError } from "../errors.ts";
import { parseLineage } from "../format/documents.ts";
import { lineagePrefix, parseKey, renderKey } from "../format/keys.ts";
import type { Clock } from "../runtime/types.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { type History, readHistory, type Segment } from "./history.ts";
import { lastSeqOf, objectKey, type PoolObject, readDocument } from "./inventory.ts";
import { ownerOf, readState } from "./lineage.ts";
import { planAdvance, planRestore, type PlanStep, seqRangeText } from "./plan.ts";
import type { ReplicaPoint } from "./replica_state.ts";

/** The way ahead. */
export interface Advance {
  /** Lineage the steps belong to. */
  readonly lineage: string | null;
  /** True when this program wrote it. */
  readonly own: boolean;
  /** Null: the steps go on from the replica's own image. */
  readonly snapshot: PoolObject | null;
  readonly steps: readonly PlanStep[];
  /** True when more is known to lie behind it. */
  readonly isPartial: boolean;
  /** Why the replica's own image is left, in words; null when it is not. */
  readonly reason: string | null;
}

/** Options of {@linkcode ReplicaSource}. */
export interface ReplicaSourceOptions {
  store: ObjectStore;
  root: string;
  clock: Clock;
  followLineage: boolean;
  signal?: AbortSignal;
  /** Told of each warning once. */
  warn: (text: string) => void;
}

/** Deltas taken from one listing. */
const listedMax = 4096;

/** How often state.json is read while nothing happens, milliseconds; whenever something does, it is read too. */
const stateIntervalMs = 30_000;

/** Objects left out one after another before giving up. */
const excludedMax = 32;

/** Parents looked at, as far as a pointer may have been turned back. */
const ancestorsMax = 1000;

/** See the file's head. */
export class ReplicaSource {
  readonly #options: ReplicaSourceOptions;
  /** Keys of objects found damaged, until the replica has passed them. */
  readonly #excluded = new Set<string>();
  readonly #warned = new Set<string>();
  #cause: Error | null = null;
  /** Whether the followed lineage is our own program's; null before the history was read. */
  #own: boolean | null = null;
  /** Whether snapshots without bridges may be passed; some programs renumber pages in them. */
  #crossHoles = true;
  #readsHistory = true;
  #stateReadMs = -Infinity;

  constructor(options: ReplicaSourceOptions) {
    this.#options = options;
  }

  /** The way ahead of `point`, or null when there is nothing new. Throws when the history cannot be followed. */
  async next(point: ReplicaPoint): Promise<Advance | null> {
    if (this.#readsHistory || this.#own === null) return await this.#byHistory(point);
    const { clock } = this.#options;
    const { deltas, isPartial } = await this.#newDeltas(point);
    if (deltas.length > 0 || clock.monotonic() - this.#stateReadMs >= stateIntervalMs) {
      if (await this.#isSuperseded(point)) return await this.#byHistory(point);
      this.#stateReadMs = clock.monotonic();
    }
    if (deltas.length === 0) return null;
    const gap = deltas.findIndex((delta, index) => delta.min !== point.seq + 1n + BigInt(index));
    if (gap === 0) return await this.#byHistory(point);
    const steps = gap < 0 ? deltas : deltas.slice(0, gap);
    return this.#advance(this.#own, point.lineage, steps, { isPartial: isPartial || gap > 0 });
  }

  /** Leaves out an object that is damaged or gone, or throws its error when there were too many. */
  exclude(object: PoolObject, error: Error): void {
    if (this.#excluded.size >= excludedMax) throw error;
    this.#cause ??= error;
    const key = objectKey(this.#options.root, object);
    this.#excluded.add(key);
    this.#readsHistory = true;
    this.#options.warn(`${error.message}; ${key} is left out, another way is looked for`);
  }

  /** A snapshot of the followed lineage is not the image that the deltas lead to: from now on its own pages are taken. */
  keepToSnapshots(): void {
    this.#crossHoles = false;
    this.#readsHistory = true;
  }

  /** The history is read again for the next question. */
  readAgain(): void {
    this.#readsHistory = true;
  }

  /** The replica has moved on. */
  passed(): void {
    this.#excluded.clear();
    this.#cause = null;
  }

  async #newDeltas({ lineage, seq }: ReplicaPoint): Promise<{ deltas: PoolObject[]; isPartial: boolean }> {
    const { store, root, signal } = this.#options;
    const deltas: PoolObject[] = [];
    const startAfter = renderKey(root, { kind: "delta", lineage, seq });
    for await (const info of store.list(`${lineagePrefix(root, lineage)}0000/`, { startAfter, signal })) {
      const key = parseKey(root, info.key);
      if (key?.kind !== "delta" || key.seq <= seq) continue;
      if (deltas.length === listedMax) return { deltas, isPartial: true };
      const { size, lastModifiedMs } = info;
      deltas.push({ kind: "delta", lineage, level: 0, min: key.seq, max: key.seq, size, lastModifiedMs });
    }
    return { deltas, isPartial: false };
  }

  async #isSuperseded({ lineage }: ReplicaPoint): Promise<boolean> {
    const { store, root, signal } = this.#options;
    try {
      return ownerOf((await readState(store, root, signal)).state) !== lineage;
    } catch (error) {
      // A pointer that cannot be read: the history is found without it.
      if (error instanceof IntegrityError) return true;
      throw error;
    }
  }

  async #byHistory(point: ReplicaPoint): Promise<Advance | null> {
    const { store, root, signal } = this.#options;
    const history = await readHistory(store, root, { signal });
    for (const warning of history.warnings) this.#warnOnce(warning);
    const { segments } = history;
    const at = segments.findIndex((segment) => segment.lineage === point.lineage);
    const newest = segments.findIndex((segment) => segment.snapshots.length > 0);
    // While a lineage is only claimed, or more damage may be met, the listing alone does not tell.
    this.#readsHistory = at !== 0 || this.#excluded.size > 0;
    this.#own = at < 0 ? null : segments[at].own;
    if (newest < 0) throw nothingStored(store.location, root);
    if (at >= 0 && at <= newest) return this.#within(segments[at], point);
    const rest = at < 0 ? null : this.#restOf(segments[at], point);
    if (rest !== null) return { ...rest, isPartial: true };
    return await this.#intoLineage(history, segments[newest], point);
  }

  /** The way ahead in the replica's own lineage. */
  #within(segment: Segment, { lineage, seq }: ReplicaPoint): Advance | null {
    if (segment.through !== null && seq >= segment.through) return null;
    const { own } = segment;
    const deltasEnd = lastSeqOf([...segment.deltas, ...segment.levels]);
    const head = lastSeqOf([...segment.deltas, ...segment.levels, ...segment.snapshots]);
    if (head < seq) throw behind(seq, head);
    const excluded = this.#excludedOf(segment);
    // A snapshot without a bridge is passed when a delta after it proves it.
    const target = own || deltasEnd <= seq ? head : deltasEnd;
    if (target === seq || (!own && target === seq + 1n && deltasEnd <= seq)) return null;
    const choice = { excluded, crossHoles: this.#crossHoles };
    const path = planAdvance(segment, seq, target, choice);
    if (!("stop" in path)) return this.#advance(own, lineage, path);
    const gone = `${seqRangeText({ min: path.stop, max: path.stop })} cannot be had by itself any more`;
    try {
      const plan = planRestore(segment, target, excluded);
      return this.#advance(own, lineage, plan.steps, { snapshot: plan.snapshot, reason: gone });
    } catch (error) {
      // What leads up to the hole is sound, and the replica may have it.
      const sound = path.stop > seq + 1n ? planAdvance(segment, seq, path.stop - 1n, choice) : path;
      if (!("stop" in sound)) return this.#advance(own, lineage, sound, { isPartial: true });
      throw this.#cause ?? error;
    }
  }

  /** What is left of a lineage that was replaced; null also where it cannot be had any more, since another way leads on. */
  #restOf(segment: Segment, point: ReplicaPoint): Advance | null {
    try {
      return this.#within(segment, point);
    } catch (error) {
      if (error instanceof IntegrityError || error instanceof RestoreError) return null;
      throw error;
    }
  }

  /** The way into a lineage that has replaced the replica's own. */
  async #intoLineage(history: History, segment: Segment, point: ReplicaPoint): Promise<Advance> {
    const { followLineage, root } = this.#options;
    const ours = history.segments.find(({ lineage }) => lineage === point.lineage);
    const [from, to] = [point.lineage ?? "bare", segment.lineage ?? "bare"];
    if (await this.#isAncestor(segment.lineage, point)) {
      throw new IntegrityError("source_turned_back", `${root}state.json points back to lineage ${to}, before ${from}`, {
        hint: "an older pointer was put back; --rebootstrap makes the replica from what it points to",
        data: { root, lineage: to, replica: from },
      });
    }
    if (!followLineage) {
      throw new IntegrityError("new_lineage", `${root} goes on in lineage ${to}; the replica follows ${from}`, {
        hint: "--follow-lineage goes on there, --rebootstrap makes the replica anew",
        data: { root, lineage: to, replica: from, seq: String(point.seq) },
      });
    }
    const target = lastSeqOf([...segment.deltas, ...segment.levels, ...segment.snapshots]);
    const plan = planRestore(segment, target, this.#excludedOf(segment));
    const through = ours?.through ?? null;
    const lost = through !== null && point.seq > through
      ? `; what the replica had after seq ${through} is no part of its history`
      : "";
    this.#readsHistory = true;
    return this.#advance(segment.own, segment.lineage, plan.steps, {
      snapshot: plan.snapshot,
      reason: `lineage ${to} has replaced ${from}${lost}`,
    });
  }

  /** True when the replica's lineage comes from `lineage`. */
  async #isAncestor(lineage: string | null, point: ReplicaPoint): Promise<boolean> {
    const { store, root, signal } = this.#options;
    let child = point.lineage;
    for (let count = 0; child !== null && count < ancestorsMax; count++) {
      const key = renderKey(root, { kind: "lineage", lineage: child });
      const bytes = await readDocument(store, key, { signal });
      if (bytes === null) return false;
      const { parent } = parseLineage(bytes, key);
      if (parent === null) return false;
      child = parent === "bare" ? null : parent;
      if (child === lineage) return true;
    }
    return false;
  }

  #excludedOf(segment: Segment): Set<PoolObject> {
    if (this.#excluded.size === 0) return new Set();
    const { root } = this.#options;
    const objects = [...segment.deltas, ...segment.levels, ...segment.snapshots];
    return new Set(objects.filter((object) => this.#excluded.has(objectKey(root, object))));
  }

  #advance(own: boolean, lineage: string | null, steps: readonly PlanStep[], more: Partial<Advance> = {}): Advance {
    return { lineage, own, snapshot: null, steps, isPartial: false, reason: null, ...more };
  }

  #warnOnce(text: string): void {
    if (this.#warned.has(text)) return;
    if (this.#warned.size < excludedMax) this.#warned.add(text);
    this.#options.warn(text);
  }
}

function nothingStored(location: string, root: string): RestoreError {
  return new RestoreError("nothing_stored", `nothing is stored in ${location} below ${root} any more`, {
    hint: "check bucket, prefix and name; walrust list shows what is there",
    data: { root },
  });
}

function behind(seq: bigint, head: bigint): IntegrityError {
  return new IntegrityError("source_behind", `the bucket ends at seq ${head}, the replica is at seq ${seq}`, {
    hint: "objects were removed from the bucket, or it is an older copy; --rebootstrap goes back to what it holds",
    data: { replica: String(seq), bucket: String(head) },
  });
}
