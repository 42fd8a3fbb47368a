/** A real watch and a real S3 server with a bad network between them: nothing is dropped, and all comes in order. */
import assert from "node:assert/strict";
import { existsSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { after, test } from "node:test";
import { SeededRandom } from "../simulation/random.ts";
import { type Decide, type Fault, FaultProxy } from "../support/fault_proxy.ts";
import { needS3Server, type S3Server, startS3Server } from "../support/s3_server.ts";
import { testSeed } from "../support/seed.ts";
import { assertSameFile, checkpointSource } from "./checker.ts";
import { type Proof, prove } from "./proof.ts";
import { placeOn, Scene, sleep, until, type WatchLine, type WatchProcess, type Writer } from "./watch_process.ts";

const limits = { skip: needS3Server("versitygw"), timeout: 120_000 };
const flags = [
  ...["--wal-sync-interval", "0.1", "--checkpoint-interval", "0.5"],
  ...["--min-checkpoint-pages", "50", "--snapshot-interval", "1.5"],
];
const steady = ["--pace-ms", "2", "--cycle", "400000"];

let server: S3Server | null = null;
let buckets = 0;
after(() => server?.stop());

/** Runs `body` in a scene whose bucket lies behind a proxy. */
async function behindProxy(
  body: (scene: Scene, proxy: FaultProxy) => Promise<void>,
): Promise<void> {
  server ??= await startS3Server("versitygw");
  const bucket = `network-${++buckets}`;
  await server.createBucket(bucket);
  const proxy = await FaultProxy.start(server.endpoint);
  const scene = new Scene(placeOn(server, bucket, proxy.endpoint));
  try {
    await body(scene, proxy);
  } finally {
    await scene.close();
    await proxy.stop();
  }
}

/** Deals faults like cards: each of them once, in random order, among `clear` requests that go through; again and again. */
function dealt(random: SeededRandom, faults: readonly Fault[], clear: number): Decide {
  let deck: Fault[] = [];
  return () => {
    if (deck.length === 0) deck = [...faults, ...Array<Fault>(clear).fill("none")];
    return deck.splice(random.integer(deck.length), 1)[0];
  };
}

/** Names the seed with whatever goes wrong. */
async function seeded(body: (random: SeededRandom) => Promise<void>): Promise<void> {
  try {
    await body(new SeededRandom(testSeed));
  } catch (error) {
    throw new Error(`WALRUST_SEED=${testSeed} draws the same faults: ${(error as Error).message}`, { cause: error });
  }
}

async function begin(scene: Scene, writing: readonly string[] = steady): Promise<[Writer, WatchProcess]> {
  const writer = scene.writer("runtime", writing);
  await writer.started();
  const watch = scene.watch(flags);
  await watch.event("snapshot");
  return [writer, watch];
}

/** Everything committed is published, whatever the network does now; then everything is proven. */
async function end(scene: Scene, writer: Writer, watch: WatchProcess): Promise<Proof> {
  await writer.finish();
  await watch.stop();
  assert.deepEqual(watch.of("new_lineage"), []);
  return await prove(scene, { logged: true, samples: 30 });
}

test(
  "[S46] [S47] [S48] [S50] watch, restore: a third of all requests fail in every way; nothing is lost",
  limits,
  () =>
    seeded((random) =>
      behindProxy(async (scene, proxy) => {
        // So large that snapshots take several parts.
        const application = scene.application();
        await application.run("PRAGMA journal_mode = WAL");
        await application.run(`CREATE TABLE ballast(bytes BLOB);
        WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2300)
        INSERT INTO ballast SELECT randomblob(3900) FROM n`);
        await application.quit();
        const [writer, watch] = await begin(scene);
        const faults = ["reset request", "reset answer", "lost reply", "slow down", "short answer"] as const;
        proxy.decide = dealt(random, faults, 10);
        proxy.latencyMs = 5;
        await sleep(4000);
        const { lineage } = await end(scene, writer, watch);
        assert.ok(lineage.snapshots.length >= 2, `${lineage.snapshots.length} snapshots`);
        for (const fault of faults) assert.ok((proxy.counts.get(fault) ?? 0) > 2, JSON.stringify([...proxy.counts]));
      })
    ),
);

test(
  "[S46] watch: a storm of 503, with and without Retry-After; it catches up in order",
  limits,
  () =>
    behindProxy(async (scene, proxy) => {
      const [writer, watch] = await begin(scene);
      let stormed = 0;
      proxy.decide = () => stormed++ % 2 === 0 ? "slow down" : "retry after";
      await sleep(3000);
      assert.equal(watch.ending, null, watch.stderr);
      // Backoff and Retry-After: no hammering.
      assert.ok(stormed >= 2 && stormed < 40, `${stormed} requests in 3 s`);
      proxy.decide = () => "none";
      await scene.headBeyond(watch, scene.head());
      await end(scene, writer, watch);
    }),
);

test(
  "[S57] [S50] watch: pages of a captive portal, then answers cut short, are never taken for data",
  limits,
  () =>
    behindProxy(async (scene, proxy) => {
      const [writer, watch] = await begin(scene);
      proxy.decide = () => "html";
      await sleep(1500);
      const output = scene.path("portal.db");
      const refused = await scene.walrust("restore", "app", "-o", output, "-b", scene.bucketUrl);
      assert.equal(refused.ending?.code, 4, refused.stderr);
      assert.match(refused.stderr, /not from an S3 server/);
      assert.equal(existsSync(output), false);
      proxy.decide = () => "short answer";
      await sleep(1000);
      assert.equal(watch.ending, null, watch.stderr);
      assert.ok(watch.of("sync_failed").length > 0, "people are told");
      proxy.decide = () => "none";
      await scene.headBeyond(watch, scene.head());
      await end(scene, writer, watch);
    }),
);

test(
  "[S47] restore: answers that break in the middle are resumed by range",
  limits,
  () =>
    behindProxy(async (scene, proxy) => {
      const [writer, watch] = await begin(scene);
      await writer.finish();
      await watch.stop();
      const tries = new Map<string, number>();
      const from = proxy.requests.length;
      proxy.decide = ({ method, target, headers }) => {
        const place = `${target} ${headers.get("range")}`;
        tries.set(place, (tries.get(place) ?? 0) + 1);
        return method === "GET" && target.endsWith(".hadbp") && tries.get(place) === 1 ? "reset answer" : "none";
      };
      await prove(scene, { logged: true });
      const ranges = proxy.requests.slice(from).map(({ headers }) => headers.get("range") ?? "");
      assert.ok(ranges.some((range) => /^bytes=[1-9]\d*-/.test(range)), ranges.join(" "));
    }),
);

test(
  "[S54] watch: the server's clock is ten minutes ahead; signatures follow it",
  limits,
  () =>
    behindProxy(async (scene, proxy) => {
      proxy.dateShiftMs = 600_000;
      const [writer, watch] = await begin(scene);
      const skewed = proxy.counts.get("skewed") ?? 0;
      assert.ok(skewed > 0);
      proxy.dateShiftMs = -600_000;
      await scene.headBeyond(watch, scene.head());
      await sleep(500);
      const again = (proxy.counts.get("skewed") ?? 0) - skewed;
      assert.ok(again > 0 && again < 20, `${again} requests before the clock was corrected again`);
      await end(scene, writer, watch);
      assert.match(watch.stderr, /clock differs from the object store's by/);
    }),
);

// Of the two servers only moto takes session tokens; it keeps no objects as files.
test("[S53] watch: a session token that expires is read again from the profile", {
  ...limits,
  skip: needS3Server("moto"),
}, async () => {
  const moto = await startS3Server("moto");
  await moto.createBucket("tokens");
  const proxy = await FaultProxy.start(moto.endpoint);
  const place = placeOn(moto, "tokens", proxy.endpoint);
  const { AWS_ACCESS_KEY_ID: id, AWS_SECRET_ACCESS_KEY: secret, ...others } = place.env;
  const scene = new Scene(place);
  const file = scene.path("credentials");
  const profile = (token: string): void =>
    writeFileSync(
      file,
      `[default]\naws_access_key_id = ${id}\naws_secret_access_key = ${secret}\naws_session_token = ${token}\n`,
    );
  const env = { ...others, AWS_ACCESS_KEY_ID: "", AWS_SECRET_ACCESS_KEY: "", AWS_SHARED_CREDENTIALS_FILE: file };
  try {
    profile("first");
    const writer = scene.writer("runtime", steady);
    await writer.started();
    const watch = scene.watch(flags, env);
    await watch.event("snapshot");
    proxy.decide = ({ headers }) => headers.get("x-amz-security-token") === "first" ? "expired" : "none";
    // Nobody has new ones yet.
    await watch.event("sync_failed");
    profile("second");
    const before = watch.of("delta").length;
    await watch.alive("a delta after the refresh", () => watch.of("delta").length > before + 1);
    await writer.finish();
    await watch.stop();
    assert.equal(proxy.requests.at(-1)!.headers.get("x-amz-security-token"), "second");
    checkpointSource(scene.db);
    assertSameFile(await scene.restore("latest.db"), scene.db, "restored latest");
  } finally {
    await scene.close();
    await proxy.stop();
    await moto.stop();
  }
});

/** Frames in the average delta. */
function framesOf(deltas: readonly WatchLine[]): number {
  return deltas.reduce((sum, { frames }) => sum + Number(frames), 0) / deltas.length;
}

/** Resident memory of a process, bytes, or null where /proc does not tell. */
function residentBytes(pid: number): number | null {
  const path = `/proc/${pid}/status`;
  const found = existsSync(path) ? /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(path, "latin1")) : null;
  return found === null ? null : Number(found[1]) * 1024;
}

test(
  "[S60] [S116] watch: an outage, then a store slower than the interval; larger deltas, no backlog, flat memory",
  limits,
  () =>
    behindProxy(async (scene, proxy) => {
      const [writer, watch] = await begin(scene, ["--pace-ms", "1", "--cycle", "4000"]);
      const memory = residentBytes(watch.child.pid!);
      // The first one holds what was committed while the snapshot began.
      await watch.alive("some deltas", () => watch.of("delta").length > 3);
      const usual = framesOf(watch.of("delta").slice(1));
      proxy.down = true;
      const atOutage = watch.of("delta").length;
      const spool = `${scene.directory}/.walrust-app.db/spool`;
      const spooled = (): number => readdirSync(spool).filter((name) => name.endsWith(".hadbp")).length;
      let most = 0;
      let spooledMost = 0;
      for (const endMs = Date.now() + 5000; Date.now() < endMs;) {
        await sleep(100);
        most = Math.max(most, residentBytes(watch.child.pid!) ?? 0);
        spooledMost = Math.max(spooledMost, spooled());
      }
      assert.ok(watch.of("delta").length <= atOutage + 1, "nothing is confirmed while the store is down");
      assert.ok(spooledMost > 0, "the spool takes what the WAL must not keep");
      proxy.down = false;
      await until("the spool is empty again", () => spooled() === 0);
      const atSlow = watch.of("delta").length;
      const slowFrom = Date.now();
      proxy.latencyMs = 700;
      await sleep(4000);
      const slow = watch.of("delta").slice(atSlow + 1);
      // One in flight: at most one each 0.7 s, however short the interval.
      assert.ok(slow.length >= 2 && slow.length <= (Date.now() - slowFrom) / 700 + 1, `${slow.length} deltas`);
      assert.ok(framesOf(slow) > 2 * usual, `${framesOf(slow)} frames in a delta, ${usual} before`);
      for (const { lagMs } of slow) assert.ok(Number(lagMs) >= 700, `lag of ${lagMs} ms`);
      most = Math.max(most, residentBytes(watch.child.pid!) ?? 0);
      proxy.latencyMs = 0;
      // A thin line: snapshots take longer than their interval, deltas go on beside them.
      proxy.bytesPerSecond = 150_000;
      for (let round = 0; round < 2; round++) await scene.headBeyond(watch, scene.head());
      most = Math.max(most, residentBytes(watch.child.pid!) ?? 0);
      proxy.bytesPerSecond = Infinity;
      await end(scene, writer, watch);
      const grown = memory === null ? 0 : (most - memory) / 2 ** 20;
      assert.ok(grown < 128, `${grown.toFixed(0)} MiB more`);
    }),
);

test("watch: canary, an upload that a proxy threw away is found", limits, () =>
  behindProxy(async (scene, proxy) => {
    const [writer, watch] = await begin(scene);
    let swallowed = 0;
    proxy.decide = ({ method, target }) =>
      method === "PUT" && target.includes("/0000/") && swallowed++ === 0 ? "swallow" : "none";
    await scene.headBeyond(watch, scene.head() + 2n);
    await assert.rejects(end(scene, writer, watch), /hole before/);
  }));
