/** SIGKILL of replicate in the middle of its updates, under programs that read the replica meanwhile. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { rmSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { fileURLToPath } from "node:url";
import { assertAt } from "../replication/replica_scene.ts";
import { booking, ledgerSchema } from "../replication/sqlite_source.ts";
import { need } from "../support/need.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { LedgerReaders, ledgerSql, replicate, sourceIn } from "./replica_process.ts";
import { inScene, type Scene } from "./watch_process.ts";

const skip = need("python3") || need("sqlite3");
const script = fileURLToPath(new URL("killable.ts", import.meta.url));
const compiled = { NODE_COMPILE_CACHE: temporaryDirectory("compiled") };
/** In the gate; `WALRUST_REPLICA_KILLS=100` does more. */
const kills = Number(process.env.WALRUST_REPLICA_KILLS ?? 6);

/** Where an update can be hit; the last page write is amid the pages, since an update here has several runs of them. */
const moments: readonly string[][] = [
  ["^amid write replica.journal"],
  ["^after rename replica.state"],
  ["^after lock"],
  ["^after rename rollback"],
  ["^amid write database"],
  ["^after write database", "^amid write database"],
  ["^before sync database"],
  ["^before remove rollback"],
  ["^after remove rollback"],
  ["^after truncate database"],
];

/** Runs replicate until it is at the head or dies at a moment. */
async function once(scene: Scene, plan: { moments?: readonly string[]; after?: number } | null): Promise<boolean> {
  const env: Record<string, string> = plan === null ? compiled : { ...compiled, WALRUST_KILL: JSON.stringify(plan) };
  const run = replicate(scene, ["--once"], env, script);
  const { code, signal } = await run.ended;
  const isKilled = signal === "SIGKILL" || code === 137;
  assert.ok(isKilled || code === 0, `${JSON.stringify(plan)}: ${code} ${signal} ${run.stderr}`);
  return isKilled;
}

/** What the sqlite3 command says of the replica as the kill left it. */
function assertWhole(scene: Scene, what: string): void {
  const sql = `.timeout 20000\n${ledgerSql}\nPRAGMA integrity_check;\n`;
  const { stdout, stderr } = spawnSync("sqlite3", [scene.path("replica.db")], { input: sql, encoding: "utf8" });
  assert.equal(stdout, "0\nok\n", `${what}: ${stderr}`);
}

test(`[C: mid replica update] [S101] replicate: killed ${kills} times amid updates, each reader finds a whole state`, {
  skip,
  timeout: 600_000,
}, () =>
  inScene(async (scene) => {
    const source = sourceIn(scene);
    try {
      await source.begin(ledgerSchema);
      assert.equal(await once(scene, null), false);
      const readers = new LedgerReaders(scene);
      let killed = 0;
      const reached = new Set<string>();
      for (let n = 1; killed < kills && n < 4 * kills; n++) {
        await source.commit(booking(n, 30_000));
        await source.commit(
          n % 3 === 0 ? "UPDATE debit SET note = NULL; VACUUM" : "UPDATE debit SET note = randomblob(900)",
        );
        const isRandom = n % 4 === 0;
        const [moment] = [moments[n % moments.length]];
        const plan = isRandom ? { after: 20 + Math.floor(Math.random() * 120) } : { moments: moment };
        if (!await once(scene, plan)) continue;
        killed++;
        if (!isRandom) reached.add(moment.join());
        assertWhole(scene, JSON.stringify(plan));
      }
      assert.ok(killed >= kills && reached.size >= Math.min(4, kills / 2), `${killed} kills, ${[...reached]}`);
      assert.equal(await once(scene, null), false);
      await readers.finish();
      assertAt(source.writer, scene.path("replica.db"), source.writer.seq);
    } finally {
      source.close();
    }
  }));

test(
  "assertWhole: a kill whose journal is taken away is found out (canary)",
  { skip, timeout: 120_000 },
  () =>
    inScene(async (scene) => {
      const source = sourceIn(scene);
      try {
        await source.begin(ledgerSchema);
        for (let n = 1; n <= 20; n++) await source.commit(booking(n, 3000));
        assert.equal(await once(scene, null), false);
        await source.commit("DELETE FROM debit WHERE id > 3; DELETE FROM credit WHERE id > 3; VACUUM");
        assert.equal(await once(scene, { moments: ["^amid write database"] }), true);
        rmSync(scene.path("replica.db-journal"));
        assert.throws(() => assertWhole(scene, "canary"));
      } finally {
        source.close();
      }
    }),
);
