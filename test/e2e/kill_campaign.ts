/**
 * One database, one writer that never ends, and one walrust after another that is killed: after each kill the next one
 * must go on in the same lineage with a difference, and latest must restore to the source, byte for byte.
 */
import assert from "node:assert/strict";
import { copyFileSync, existsSync, readdirSync, rmSync, statSync, utimesSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { restore } from "../../src/replication/restore.ts";
import { systemRuntime } from "../../src/runtime/system.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";
import { assertImmutable, listKeys, objectHashes } from "./bucket.ts";
import { assertSameFile, checkpointSource, fileHash } from "./checker.ts";
import type { KillPlan } from "./kill_hook.ts";
import { type KillStep, type Pace, paceFlags } from "./kill_steps.ts";
import type { SeededRandom } from "../simulation/random.ts";
import { prove } from "./proof.ts";
import { type Scene, sleep, type WatchProcess, type Writer } from "./watch_process.ts";

const script = fileURLToPath(new URL("killable.ts", import.meta.url));
/** Writes long enough for rollovers beside a writer, pauses long enough for those without one. */
const writing = [
  ...["--pace-ms", "1", "--pause-every", "100", "--pause-ms", "150"],
  ...["--cycle", "4000000", "--autocheckpoint", "300"],
];
const stepLimitMs = 60_000;

/** What the campaign needs to know of the bucket besides the scene's. */
export interface KilledBucket {
  readonly store: ObjectStore;
  /** Pages that nobody touches, 4 KiB each. */
  readonly ballastPages: number;
  /** Objects begun and not completed. */
  readonly openUploads: () => Promise<number>;
}

/** How a killed watch ended. */
export interface Kill {
  /** The moment, or null when the test's own signal was quicker. */
  readonly moment: string | null;
}

/** A kill at any moment, and perhaps one in the start of the next watch. */
export interface RandomKill {
  /** Of the watches that follow. */
  readonly pace: Pace;
  /** Moments until the first dies, if it was not killed from outside before. */
  readonly after: number;
  /** When it is killed from outside. */
  readonly waitMs: number;
  /** True: asked to stop first, it dies in its final sync. */
  readonly stopping: boolean;
  /** Moments of the next one's life. */
  readonly again: number | null;
}

/** Draws a kill; few moments are as likely as many. */
export function drawKill(random: SeededRandom): RandomKill {
  const upTo = (limit: number): number => Math.ceil(limit ** random.number());
  return {
    pace: random.pick(Object.keys(paceFlags) as Pace[]),
    after: upTo(5000),
    waitMs: random.between(20, 600),
    stopping: random.chance(0.15),
    again: random.chance(0.5) ? upTo(500) : null,
  };
}

/** What was killed, and what it led to. */
export interface KillTotals {
  kills: number;
  comparisons: number;
  /** Differences that a restart published. */
  differences: number;
  /** Checkpoints by the application while nobody watched. */
  checkpoints: number;
}

/** See the top of this file. */
export class KillCampaign {
  readonly totals: KillTotals = { kills: 0, comparisons: 0, differences: 0, checkpoints: 0 };
  readonly #scene: Scene;
  readonly #bucket: KilledBucket;
  readonly #writer: Writer;
  #watch: WatchProcess | null = null;
  #pace: Pace = "deltas";
  #lineage: string | null = null;
  readonly #objects = new SeenObjects();
  #uploads = 0;
  /** SHA-256 of the source at heads that were compared. */
  readonly #sources = new Map<bigint, string>();
  readonly #resumed = new Set<bigint>();

  private constructor(scene: Scene, bucket: KilledBucket, writer: Writer) {
    this.#scene = scene;
    this.#bucket = bucket;
    this.#writer = writer;
  }

  /** Makes the database, starts the writer and lets it stand still, and takes the first snapshot. */
  static async begin(scene: Scene, bucket: KilledBucket): Promise<KillCampaign> {
    const application = scene.application();
    await application.run("PRAGMA journal_mode = WAL");
    await application.run(`
      CREATE TABLE ballast(id INTEGER PRIMARY KEY, bytes BLOB);
      WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${bucket.ballastPages})
      INSERT INTO ballast SELECT i, randomblob(3900) FROM n`);
    await application.quit();
    const writer = scene.writer("runtime", writing);
    await writer.started();
    await writer.pause();
    const campaign = new KillCampaign(scene, bucket, writer);
    campaign.#start("deltas");
    const watch = campaign.#watch!;
    await watch.event("snapshot");
    campaign.#lineage = String(watch.of("started")[0].lineage);
    // Ended in peace it leaves Node's compiled modules behind, which a killed one would not.
    await watch.stop();
    campaign.#start("deltas");
    await campaign.#caughtUp();
    return campaign;
  }

  /** Kills at a step, restarts, compares; returns the moment of death. With `lose` the store lies, see `KillPlan`. */
  async killAt(step: KillStep, options: { lose?: boolean } = {}): Promise<Kill> {
    if (this.#pace !== step.pace) {
      await this.#watch!.stop();
      this.#start(step.pace);
      await this.#caughtUp();
    }
    const kill = await this.#kill({ moments: step.moments, ...options }, step);
    assert.ok(kill.moment !== null, `${step.name}: died before that step`);
    await this.#recover(step.pace);
    return kill;
  }

  /** Kills a watch that has caught up, and perhaps the next one in its start; then restarts and compares. */
  async killAnywhere(plan: RandomKill): Promise<Kill[]> {
    const kills = [await this.#kill({ after: plan.after }, plan)];
    if (plan.again !== null) {
      this.#start(plan.pace, { after: plan.again });
      this.#writer.resume();
      kills.push(await this.#died(plan.waitMs));
    }
    await this.#recover(plan.pace);
    return kills;
  }

  /** Everything is proven once more, from the first object to the last. */
  async finish(): Promise<void> {
    const scene = this.#scene;
    await this.#writer.finish();
    await this.#watch!.stop();
    const { lineage, hashes } = await prove(scene, { logged: true, samples: 30 });
    assert.equal(lineage.lineage, this.#lineage);
    this.#objects.prove(scene.bucket);
    for (const [seq, hash] of this.#sources) {
      assert.equal(hashes.get(seq), hash, `seq ${seq} is not what the source was when it was compared`);
    }
    for (const { seq, kind, pages, unchanged } of lineage.points) {
      if (kind !== "delta" || !this.#resumed.has(seq)) continue;
      this.totals.differences++;
      assert.equal(unchanged, 0, `the resume at seq ${seq} sends ${unchanged} of ${pages} pages without need`);
    }
  }

  #start(pace: Pace, plan?: KillPlan): void {
    const env = {
      // Most of what a start costs on Node.
      NODE_COMPILE_CACHE: this.#scene.path("compiled"),
      ...(plan === undefined ? {} : { WALRUST_KILL: JSON.stringify(plan) }),
      ...(pace === "held snapshots" ? { WALRUST_NO_ROOM: "1" } : {}),
    };
    this.#pace = pace;
    this.#watch = this.#scene.watch(paceFlags[pace], env, script);
  }

  async #kill(plan: KillPlan, how: { waitMs?: number; stopping?: boolean; isLarge?: boolean }): Promise<Kill> {
    const watch = this.#watch!;
    watch.child.stdin!.write(`${JSON.stringify(plan)}\n`);
    this.#writer.resume();
    if (how.isLarge) {
      const application = this.#scene.application();
      await application.run("UPDATE ballast SET bytes = randomblob(3900)");
      await application.quit();
    }
    if (how.stopping) watch.terminate();
    return await this.#died(how.waitMs ?? null);
  }

  /** Waits for the death that was planned; with `waitMs` it is brought about after that time. */
  async #died(waitMs: number | null): Promise<Kill> {
    const watch = this.#watch!;
    const endMs = Date.now() + (waitMs ?? stepLimitMs);
    while (watch.ending === null && Date.now() < endMs) await sleep(5);
    assert.ok(watch.ending !== null || waitMs !== null, `never there: ${watch.stdout.slice(-3000)}`);
    const ending = await watch.kill();
    const moment = /^killed: (.*)$/m.exec(watch.stderr)?.[1] ?? null;
    const isKilled = ending.signal === "SIGKILL" || ending.code === 137;
    // Asked to stop, it may be done before.
    assert.ok(isKilled || ending.code === 0, `watch ended by itself: ${JSON.stringify(ending)} ${watch.stderr}`);
    if (isKilled) this.totals.kills++;
    await this.#writer.pause();
    await this.#look();
    return { moment };
  }

  /** The bucket after a kill: nothing that was there has changed, and at most one object was left half-written. */
  async #look(): Promise<void> {
    this.#objects.look(this.#scene.bucket);
    for (const { seq, pages } of this.#watch!.of("difference")) if (Number(pages) > 0) this.#resumed.add(BigInt(seq!));
    const uploads = await this.#bucket.openUploads();
    const left = uploads - this.#uploads;
    // One delta is in flight at a time, and one snapshot beside it.
    assert.ok(left <= (this.#pace.endsWith("snapshots") ? 2 : 1), `${left} objects were left half-written`);
    this.#uploads = uploads;
    if (this.totals.kills % 3 === 0) {
      checkpointSource(this.#scene.db);
      this.totals.checkpoints++;
    }
    agePointerLock(this.#scene.bucket);
  }

  async #recover(pace: Pace): Promise<void> {
    this.#start(pace);
    await this.#caughtUp();
    await this.#compare();
  }

  /** Resolves when everything committed is in the bucket; nobody writes meanwhile. */
  async #caughtUp(): Promise<void> {
    const watch = this.#watch!;
    const difference = await watch.event("difference");
    await watch.alive(`seq ${difference.seq} published`, () => this.#scene.head() >= BigInt(difference.seq!));
    assert.deepEqual(watch.of("new_lineage"), [], "the lineage goes on");
    assert.equal(watch.of("started")[0].lineage, this.#lineage);
  }

  /** Restores latest beside the running watch and compares it with the source, byte for byte. */
  async #compare(): Promise<void> {
    const scene = this.#scene;
    const source = scene.path("source.db");
    // In this order: what a checkpoint copies into the file meanwhile is also in the WAL, which nobody restarts.
    copyFileSync(scene.db, source);
    if (existsSync(`${scene.db}-wal`)) copyFileSync(`${scene.db}-wal`, `${source}-wal`);
    checkpointSource(source);
    const outputPath = scene.path("latest.db");
    rmSync(outputPath, { force: true });
    const { seq } = await restore({
      store: this.#bucket.store,
      root: "app/",
      target: { kind: "latest" },
      outputPath,
      runtime: systemRuntime(),
      integrityCheck: "none",
    });
    assertSameFile(outputPath, source, `restored latest, seq ${seq}`);
    this.#sources.set(seq, fileHash(source));
    this.totals.comparisons++;
  }
}

/** Objects of a bucket as they were when they were first seen: looking at them again and again must stay cheap. */
class SeenObjects {
  readonly #hashes = new Map<string, string>();
  readonly #files = new Map<string, string>();

  /** Fails when an object is gone or another file; takes note of the new ones. */
  look(bucket: string): void {
    const keys = listKeys(bucket).filter((key) => key.endsWith(".hadbp"));
    const now = new Map(keys.map((key) => {
      const { ino, mtimeMs, size } = statSync(`${bucket}/${key}`);
      return [key, `${ino} ${mtimeMs} ${size}`];
    }));
    assertImmutable(this.#files, now);
    for (const [key, file] of now) {
      if (this.#files.has(key)) continue;
      this.#files.set(key, file);
      this.#hashes.set(key, fileHash(`${bucket}/${key}`));
    }
  }

  /** Fails when a byte of any of them has changed. */
  prove(bucket: string): void {
    assertImmutable(this.#hashes, objectHashes(bucket));
  }
}

/** Objects begun in a bucket on a file system; what already has its name too is whole. */
export function begunFiles(bucket: string): number {
  const directory = `${bucket}/.walrust-tmp`;
  return readdirSync(directory).filter((name) => name !== "lock" && statSync(`${directory}/${name}`).nlink === 1)
    .length;
}

/** Who died with the lock of the pointer leaves it for half a minute, which has passed here. */
export function agePointerLock(bucket: string): void {
  const lock = `${bucket}/.walrust-tmp/lock`;
  const then = new Date(Date.now() - 60_000);
  if (existsSync(lock)) utimesSync(lock, then, then);
}
