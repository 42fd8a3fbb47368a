/** The main job against real S3 servers: a live writer, SIGKILL in the middle, a restart, and the same bytes back. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { walrustCommand } from "../support/runtime.ts";
import { needS3Server, startS3Server } from "../support/s3_server.ts";
import { assertSameFile, checkpointSource } from "./checker.ts";
import { eagerFlags, inScene, Running, sleep, WatchProcess } from "./watch_process.ts";

for (const kind of ["versitygw", "moto"] as const) {
  test(`watch, restore: killed and restarted over S3 (${kind}), one lineage and the source byte for byte`, {
    skip: needS3Server(kind),
    timeout: 120_000,
  }, () =>
    inScene(async (scene) => {
      const server = await startS3Server(kind);
      try {
        await server.createBucket("backups");
        const env = {
          AWS_ACCESS_KEY_ID: server.accessKeyId,
          AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
          AWS_ENDPOINT_URL_S3: server.endpoint,
        };
        const bucket = "s3://backups/some prefix+1";
        const watch = () => {
          const command = [...walrustCommand(), "watch", scene.db, "-b", bucket, "--json", ...eagerFlags];
          return scene.start(new WatchProcess(command, env));
        };
        const writer = scene.writer("runtime", ["--pace-ms", "2"]);
        await writer.started();
        const first = watch();
        await first.event("delta");
        await sleep(1500);
        await first.kill();
        const second = watch();
        await second.event("delta");
        await sleep(1500);
        await writer.finish();
        await second.stop();
        assert.deepEqual(second.of("new_lineage"), [], "resumed in the same lineage");
        assert.equal(second.of("started")[0].lineage, first.of("started")[0].lineage);

        checkpointSource(scene.db);
        const output = scene.path("restored.db");
        const restore = scene.start(
          new Running([...walrustCommand(), "restore", "app", "-o", output, "-b", bucket], env),
        );
        await restore.ended;
        assert.equal(restore.ending?.code, 0, restore.stderr);
        assertSameFile(output, scene.db, "restored latest");
      } finally {
        await server.stop();
      }
    }));
}
