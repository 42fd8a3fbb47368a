import assert from "node:assert/strict";
import { test } from "node:test";
import { systemRuntime } from "../../src/runtime/system.ts";
import { openStore } from "../../src/storage/open.ts";
import { needS3Server, startS3Server } from "../support/s3_server.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { goldenBuckets, goldenTargets, proveGolden, uploadGolden } from "./golden.ts";

const runtime = systemRuntime();

for (const kind of ["versitygw", "moto"] as const) {
  test(`restore: every golden point from ${kind} over S3 has the golden bytes or the golden refusal`, {
    skip: needS3Server(kind),
    timeout: 120_000,
  }, async () => {
    const server = await startS3Server(kind);
    try {
      for (const bucket of goldenBuckets) {
        await server.createBucket(bucket);
        const { store } = openStore({
          url: { scheme: "s3", bucket, prefix: "" },
          endpoint: server.endpoint,
          environment: { AWS_ACCESS_KEY_ID: server.accessKeyId, AWS_SECRET_ACCESS_KEY: server.secretAccessKey },
          runtime,
        });
        await uploadGolden(store, bucket);
        const count = await proveGolden({ store, bucket, directory: temporaryDirectory("golden-s3"), runtime });
        assert.equal(count, goldenTargets(bucket).length);
      }
    } finally {
      await server.stop();
    }
  });
}
