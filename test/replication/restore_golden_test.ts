import assert from "node:assert/strict";
import { join } from "node:path";
import { test } from "node:test";
import { systemRuntime } from "../../src/runtime/system.ts";
import { DirectoryStore } from "../../src/storage/directory.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { goldenBuckets, goldenTargets, proveGolden, uploadGolden } from "./golden.ts";
import { vectorsDirectory } from "../support/vectors.ts";

const runtime = systemRuntime();

for (const bucket of goldenBuckets) {
  test(`restore: every golden point of ${bucket} from a directory has the golden bytes or the golden refusal`, async () => {
    const store = new DirectoryStore({ ...runtime, directory: join(vectorsDirectory, bucket, "bucket") });
    const count = await proveGolden({ store, bucket, directory: temporaryDirectory("golden"), runtime });
    assert.equal(count, goldenTargets(bucket).length);
  });
}

test("canary: proveGolden fails when one byte of one page is another", async () => {
  const bucket = "owned-lineage";
  const store = new MemoryStore();
  await uploadGolden(store, bucket);
  const keys: string[] = [];
  for await (const { key } of store.list("backups/app/lineages/")) if (key.includes("/0000/")) keys.push(key);
  const damaged = new MemoryStore();
  await uploadGolden(damaged, bucket);
  const { body } = await store.get(keys.at(-1)!);
  const bytes: number[] = [];
  for await (const chunk of body) bytes.push(...chunk);
  bytes[60] ^= 1;
  await damaged.put(keys.at(-1)!, Uint8Array.from(bytes));
  const directory = temporaryDirectory("golden");
  await assert.rejects(proveGolden({ store: damaged, bucket, directory, runtime }), /owned-lineage 20/);
});
