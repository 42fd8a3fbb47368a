/** What every end-to-end test proves at its end: the bucket is sound, latest is the source, and points are exact prefixes. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { rmSync, writeFileSync } from "node:fs";
import { type BucketLineage, type BucketPoint, onlyLineage } from "./bucket.ts";
import { assertSameFile, checkPoint, checkpointSource, previousOf, readLog, type WriterLog } from "./checker.ts";
import type { Scene } from "./watch_process.ts";

/** What was proven. */
export interface Proof {
  readonly lineage: BucketLineage;
  readonly log: WriterLog | null;
  /** SHA-256 of the database at every seq, from the objects alone. */
  readonly hashes: ReadonlyMap<bigint, string>;
}

/** SHA-256 of a database image, lowercase hex. */
export function imageHash(image: Uint8Array): string {
  return createHash("sha256").update(image).digest("hex");
}

/**
 * After writer and watch have ended: checkpoints the source, verifies every object of the bucket (one lineage), and asserts
 * that the replayed head and the restored latest are the source, byte for byte. With `logged`, the content of at most
 * `samples` points, the first and the last among them, is an exact prefix of the commits with the right time.
 */
export async function prove(scene: Scene, options: { logged: boolean; samples?: number }): Promise<Proof> {
  checkpointSource(scene.db);
  const log = options.logged ? readLog(scene.log) : null;
  const hashes = new Map<bigint, string>();
  const total = onlyLineage(scene.bucket).points.length;
  const stride = Math.max(1, Math.floor(total / (options.samples ?? 60)));
  const scratch = scene.path("point.db");
  const seen: BucketPoint[] = [];
  let index = 0;
  const lineage = onlyLineage(scene.bucket, "app", (point, image) => {
    hashes.set(point.seq, imageHash(image));
    seen.push(point);
    if (log !== null && (index % stride === 0 || index === total - 1)) {
      rmSync(`${scratch}-wal`, { force: true });
      writeFileSync(scratch, image);
      try {
        checkPoint(scratch, log, point, previousOf(seen, index));
      } catch (error) {
        throw new Error(`seq ${point.seq}: ${(error as Error).message}`, { cause: error });
      }
    }
    index++;
  });
  writeFileSync(scene.path("head.db"), lineage.image);
  assertSameFile(scene.path("head.db"), scene.db, "the head of the bucket");
  assertSameFile(await scene.restore("latest.db"), scene.db, "restored latest");
  assert.equal(hashes.size, lineage.points.length);
  return { lineage, log, hashes };
}
