/** SIGKILL of watch at random moments, the application going on: resumed in the same lineage, nothing lost, nothing forked. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { assertImmutable, objectHashes } from "./bucket.ts";
import { fileHash } from "./checker.ts";
import { prove } from "./proof.ts";
import { inScene, type Scene, sleep, type WatchProcess } from "./watch_process.ts";

const kills = 20;
/** Pages that nobody touches: a resume that sent everything would be seen. */
const ballastPages = 1200;
const flags = [
  ...["--wal-sync-interval", "0.1", "--checkpoint-interval", "0.3", "--min-checkpoint-pages", "50"],
  ...["--snapshot-interval", "2", "--on-startup", "false"],
];

async function addBallast(scene: Scene): Promise<void> {
  const application = scene.application();
  await application.run("PRAGMA journal_mode = WAL");
  await application.run(`
    CREATE TABLE ballast(id INTEGER PRIMARY KEY, bytes BLOB);
    WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${ballastPages})
    INSERT INTO ballast SELECT i, randomblob(3900) FROM n`);
  await application.quit();
}

test(
  "[S25] watch: killed 20 times, half of the time with checkpoints while down; one lineage, no hole, byte for byte",
  {
    timeout: 180_000,
  },
  () =>
    inScene(async (scene) => {
      await addBallast(scene);
      // Neither bulk nor VACUUM: what a resume sends is then proportional to some hundred commits.
      const steady = ["--cycle", "4000000", "--pace-ms", "2", "--autocheckpoint", "300"];
      const writer = scene.writer("runtime", steady);
      await writer.started();
      let checkpoints = 0;
      let seen: ReadonlyMap<string, string> = new Map();
      const headsAtKill: bigint[] = [];
      const resumed = new Set<bigint>();
      const noteResumes = (watch: WatchProcess): void => {
        // Without pages the seq is that of an object published before.
        for (const { seq, pages } of watch.of("difference")) if (Number(pages) > 0) resumed.add(BigInt(seq!));
      };
      for (let kill = 0; kill < kills; kill++) {
        const watch = scene.watch(flags);
        // Some kills hit the start itself, the others any moment of the first second after it.
        if (kill === 0 || kill % 4 !== 3) await watch.event("started");
        await sleep(Math.floor(Math.random() * (kill % 4 === 3 ? 400 : 900)));
        // Before its first snapshot a lineage is only claimed, and a restart rightly begins another one.
        if (kill === 0) await watch.event("snapshot");
        if (kill === 0) await scene.headBeyond(watch, 1n);
        assert.equal(watch.ending, null, `watch ended by itself: ${watch.stderr}`);
        await watch.kill();
        noteResumes(watch);
        const objects = objectHashes(scene.bucket);
        assertImmutable(seen, objects);
        seen = objects;
        headsAtKill.push(scene.head());
        if (kill % 2 === 0) {
          const application = scene.application();
          const [row] = await application.run(`PRAGMA wal_checkpoint(${kill % 4 === 0 ? "TRUNCATE" : "RESTART"})`);
          if (Number(row.busy) === 0) checkpoints++;
          await application.quit();
        }
      }
      const watch = scene.watch(flags);
      await watch.event("started");
      await sleep(1000);
      await writer.finish();
      await watch.stop();
      noteResumes(watch);
      assert.ok(checkpoints >= kills / 4, `${checkpoints} checkpoints while down were whole`);

      const { lineage, hashes } = await prove(scene, { logged: true, samples: 40 });
      assertImmutable(seen, objectHashes(scene.bucket));
      let differences = 0;
      for (const { seq, kind, pages, unchanged, pageCount } of lineage.points) {
        if (kind === "delta") assert.ok(pages < pageCount / 2, `seq ${seq} sends ${pages} of ${pageCount} pages`);
        if (!resumed.has(seq) || kind !== "delta") continue;
        differences++;
        assert.equal(unchanged, 0, `the resume at seq ${seq} sends ${unchanged} of ${pages} pages without need`);
      }
      assert.ok(differences >= kills / 2, `${differences} resumes published a difference`);
      for (const seq of new Set(headsAtKill.filter((head) => head > 0n))) {
        const restored = await scene.restore("then.db", "--seq", String(seq));
        assert.equal(fileHash(restored), hashes.get(seq), `seq ${seq}, the head at a kill`);
      }
    }),
);
