/** The golden buckets made by the Rust library: every target of `expected.tsv` restored from any store. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join, relative } from "node:path";
import { WalrustError } from "../../src/errors.ts";
import { restore, type RestoreTarget } from "../../src/replication/restore.ts";
import type { Runtime } from "../../src/runtime/types.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";
import { vectorsDirectory } from "../support/vectors.ts";

/** Buckets with an `expected.tsv`. */
export const goldenBuckets = ["owned-lineage", "owned-bare", "owned-leveled", "owned-renumbered"] as const;

/** Root of the database in each of them. */
export const goldenRoot = "backups/app/";

/** A line of `expected.tsv`. */
export interface GoldenTarget {
  readonly target: string;
  readonly outcome: string;
  readonly sha256: string;
}

/** The targets of a bucket. */
export function goldenTargets(bucket: string): GoldenTarget[] {
  const lines = readFileSync(join(vectorsDirectory, bucket, "expected.tsv"), "utf8").split("\n");
  return lines.filter((line) => line !== "" && !line.startsWith("#")).map((line) => {
    const [target, outcome, sha256] = line.split("\t");
    return { target, outcome, sha256 };
  });
}

/** Copies a golden bucket into a store. */
export async function uploadGolden(store: ObjectStore, bucket: string): Promise<void> {
  const directory = join(vectorsDirectory, bucket, "bucket");
  for (const entry of readdirSync(directory, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    await store.put(relative(directory, path), new Uint8Array(readFileSync(path)));
  }
}

/** SHA-256 of a file, hexadecimal. */
export function fileSha256(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}

/** Restores every target of a bucket from `store` and compares with the golden outcome; returns how many held. */
export async function proveGolden(
  options: { store: ObjectStore; bucket: string; directory: string; runtime: Runtime },
): Promise<number> {
  const { store, bucket, directory, runtime } = options;
  const targets = goldenTargets(bucket);
  for (const { target, outcome, sha256 } of targets) {
    const outputPath = join(directory, `${bucket}-${target}.db`);
    const wanted: RestoreTarget = target === "latest" ? { kind: "latest" } : { kind: "seq", seq: BigInt(target) };
    let result: string;
    try {
      await restore({ store, root: goldenRoot, target: wanted, outputPath, runtime, integrityCheck: "full" });
      result = fileSha256(outputPath);
    } catch (error) {
      assert.ok(error instanceof WalrustError, `${bucket} ${target}: ${error}`);
      result = `exit ${error.exitCode}`;
      assert.ok(!existsSync(outputPath), `${bucket} ${target}: a refused restore left a file`);
    }
    const expected = outcome === "ok" ? sha256 : outcome === "integrity" ? "exit 5" : "exit 6";
    assert.equal(result, expected, `${bucket} ${target}`);
  }
  const leftovers = readdirSync(directory).filter((name) => !name.endsWith(".db"));
  assert.deepEqual(leftovers, [], "files beside the restored ones");
  return targets.length;
}
