/** A replica beside programs that read it all the time: sqlite3 and Python see whole commits only. */
import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { assertAt } from "../replication/replica_scene.ts";
import { booking, ledgerSchema } from "../replication/sqlite_source.ts";
import { need } from "../support/need.ts";
import { LedgerReaders, replicate, sourceIn } from "./replica_process.ts";
import { inScene } from "./watch_process.ts";

const skip = need("python3") || need("sqlite3");
/** In the gate; `WALRUST_REPLICA_UPDATES=500` does more. */
const updates = Number(process.env.WALRUST_REPLICA_UPDATES ?? 80);

/** The newest seq that a replica has told of. */
function lastSeq(stdout: string): bigint {
  return BigInt(/"seq":"(\d+)"[^\n]*\n[^\n]*$/.exec(stdout.slice(-2000))?.[1] ?? 0);
}

/** Now and then what moves pages about, cuts the file, and changes what tables there are. */
function deedOf(n: number): string {
  if (n % 100 === 99) return "DELETE FROM debit WHERE amount = 0 AND note IS NOT NULL; VACUUM";
  if (n % 50 === 25) return `CREATE TABLE extra_${n}(x); ALTER TABLE debit ADD COLUMN extra_${n}`;
  if (n % 70 === 60) return "BEGIN; UPDATE debit SET note = NULL; UPDATE credit SET amount = amount; COMMIT; VACUUM";
  if (n % 7 === 3) return booking(0, 40_000);
  return booking(n, n * 20);
}

test(`[S100] [S105] replicate: ${updates} updates under sqlite3 and Python, no reader sees half a commit or fails`, {
  skip,
  timeout: 300_000,
}, () =>
  inScene(async (scene) => {
    const source = sourceIn(scene);
    try {
      await source.begin(ledgerSchema);
      const replica = replicate(scene, ["--interval", "10ms"]);
      await replica.event("bootstrapped");
      const readers = new LedgerReaders(scene);
      let applied = 0;
      for (let n = 0; applied < updates; n++) {
        const seq = await source.commit(deedOf(n));
        if (n % 40 === 39) await source.writer.snapshot();
        // An update for each commit: what the replica has not taken yet would come with the next one.
        await replica.alive(`seq ${seq}`, () => lastSeq(replica.stdout) >= seq);
        applied++;
      }
      const head = source.writer.seq;
      await replica.alive("the head", () => lastSeq(replica.stdout) === head);
      const { schemas, states } = await readers.finish();
      await replica.stop();
      assert.ok(schemas > 3 && states > 30, `${schemas} schemas, ${states} states`);
      const events = replica.of("applied").filter(({ pages }) => Number(pages) > 0);
      assert.ok(events.length >= updates, `${events.length} updates`);
      assertAt(source.writer, scene.path("replica.db"), source.writer.seq);
    } finally {
      source.close();
    }
  }));
