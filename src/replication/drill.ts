/**
 * The proof of a whole lineage by doing it: a scratch file is built from its oldest snapshot changeset by changeset.
 * At every snapshot its SHA-256 must be what the chain declares there, and SQLite has the last word.
 */
import { IntegrityError } from "../errors.ts";
import { checksumHex, checksumOfDigest, isBridge } from "../format/hadbp.ts";
import type { Runtime } from "../runtime/types.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { ImageFile } from "./apply.ts";
import type { Segment } from "./history.ts";
import { assertSound, type ImageCheck } from "./image_check.ts";
import { objectKey, type PoolObject } from "./inventory.ts";
import { planRestore, type RestorePlan } from "./plan.ts";
import { reachOf } from "./reach.ts";
import { type ChangesetSink, ChangesetWalk, type VerifiedChangeset } from "./walk.ts";

/** What {@linkcode drill} needs. */
export interface DrillOptions {
  readonly store: ObjectStore;
  readonly root: string;
  readonly runtime: Pick<Runtime, "files" | "sha256" | "random" | "sqlite">;
  /** Objects that are not used. */
  readonly damaged: ReadonlySet<PoolObject>;
  /** Begins the name of the scratch file, which is removed at the end. */
  readonly scratchPath: string;
  readonly parallel: number;
  readonly check?: ImageCheck;
  readonly signal?: AbortSignal;
  readonly onBytes?: (bytes: number) => void;
}

/** What was proven of a run of points. */
export interface DrilledRun {
  /** Its first point, a snapshot. */
  readonly first: bigint;
  /** Its last point. */
  readonly last: bigint;
  /** Places where the whole image was compared with the chain. */
  readonly images: number;
  /** Why it is not what it should be; null when it is. */
  readonly failure: IntegrityError | null;
  /** False when no SQLite could be asked. */
  readonly isChecked: boolean;
}

/** Rebuilds every run of points of a lineage, one after another. */
export async function drill(segment: Segment, options: DrillOptions): Promise<DrilledRun[]> {
  const runs: DrilledRun[] = [];
  for (const plan of runsOf(segment, options.damaged)) runs.push(await rebuild(plan, segment, options));
  return runs;
}

/** Paths that cover every point that can be reached: each from its snapshot to where the chain ends. */
function runsOf(segment: Segment, damaged: ReadonlySet<PoolObject>): RestorePlan[] {
  const plans: RestorePlan[] = [];
  let done = -1n;
  segment.snapshots.forEach((snapshot, at) => {
    if (damaged.has(snapshot) || snapshot.max <= done) return;
    const alone = { ...segment, snapshots: [snapshot] };
    // Another program's snapshots are no part of its chain: each run ends at the next one.
    const end = segment.own ? undefined : segment.snapshots[at + 1]?.max;
    const { points } = reachOf(alone, damaged);
    const last = points.findLast(({ max }) => end === undefined || max < end)!;
    done = last.max;
    plans.push(planRestore(alone, last.max, damaged));
  });
  return plans;
}

async function rebuild(plan: RestorePlan, segment: Segment, options: DrillOptions): Promise<DrilledRun> {
  const { store, root, runtime, parallel, signal, onBytes } = options;
  const image = new ImageFile({ ...runtime, outputPath: options.scratchPath });
  const sink = new DrillSink(image, root, segment);
  const walk = new ChangesetWalk({ store, root, plan, sha256: runtime.sha256, parallel, signal, onBytes }, sink);
  let failure: IntegrityError | null = null;
  let isChecked = true;
  try {
    await walk.run();
    image.finish();
    isChecked = await assertSound(image.path, "full", runtime, options.check);
  } catch (error) {
    if (!(error instanceof IntegrityError)) throw error;
    failure = error;
  } finally {
    image.remove();
  }
  return { first: plan.snapshot.max, last: plan.seq, images: sink.images, failure, isChecked };
}

/** Compares the whole image wherever the chain value is the hash of one. */
class DrillSink implements ChangesetSink {
  images = 0;
  readonly #image: ImageFile;
  readonly #root: string;
  readonly #bridged: ReadonlySet<bigint>;

  constructor(image: ImageFile, root: string, { own, snapshots }: Segment) {
    this.#image = image;
    this.#root = root;
    this.#bridged = new Set(own ? snapshots.map(({ max }) => max) : []);
  }

  pages(first: number, bytes: Uint8Array, pageSize: number): void {
    this.#image.pages(first, bytes, pageSize);
  }

  end(changeset: VerifiedChangeset): void {
    this.#image.end(changeset);
    const { object, header, chain } = changeset;
    if (object.kind !== "snapshot" && !isBridge(header) && !this.#bridged.has(object.max)) return;
    const actual = checksumOfDigest(this.#image.imageDigest());
    if (actual !== chain) {
      const key = objectKey(this.#root, object);
      const [expected, found] = [chain, actual].map(checksumHex);
      throw new IntegrityError(
        "image_mismatch",
        `the database rebuilt up to ${key} has checksum ${found}, where the chain declares ${expected}`,
        { data: { object: key, expected, actual: found } },
      );
    }
    this.images++;
  }

  imageDigest(): Uint8Array {
    return this.#image.imageDigest();
  }
}
