/** Primary and replica as two processes: watch beside a busy writer, replicate behind it, over S3, or over a folder where there is no server. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { needS3Server, startS3Server } from "../support/s3_server.ts";
import { checkpointSource } from "./checker.ts";
import { pagesHash, replicate } from "./replica_process.ts";
import { type BucketPlace, inScene, placeOn, sleep } from "./watch_process.ts";

async function followed(place: BucketPlace | undefined): Promise<void> {
  await inScene(async (scene) => {
    const writer = scene.writer("runtime", ["--cycle", "400", "--bulk", "400", "--pace-ms", "1"]);
    await writer.started();
    const watch = scene.watch();
    await watch.event("snapshot");
    const replica = replicate(scene, ["--interval", "50ms"], place?.env ?? {});
    await replica.event("bootstrapped");
    await sleep(900);
    // Killed and gone on with, while the primary goes on.
    await replica.kill();
    const second = replicate(scene, ["--interval", "50ms"], place?.env ?? {});
    await second.event("applied");
    await sleep(500);
    await writer.finish();
    await watch.stop();
    const head = scene.head();
    await second.alive("the head", () => BigInt(second.of("applied").at(-1)!.seq!) === head);
    await second.stop();
    assert.deepEqual(second.of("bootstrapped"), []);
    assert.deepEqual(second.of("warning"), []);
    assert.equal(second.of("stopped")[0].seq, String(head));
    checkpointSource(scene.db);
    assert.equal(pagesHash(scene.path("replica.db")), pagesHash(scene.db), "the same pages but for the header");
  }, place);
}

const noServer = needS3Server("versitygw");

test(`replicate: behind a live watch over ${noServer ? "a folder" : "S3"}, killed and resumed, it has the same pages`, {
  timeout: 120_000,
}, async () => {
  if (noServer) return await followed(undefined);
  const server = await startS3Server("versitygw");
  try {
    await server.createBucket("backups");
    await followed(placeOn(server, "backups"));
  } finally {
    await server.stop();
  }
});
