import assert from "node:assert/strict";
import { test } from "node:test";
import { IntegrityError, WalrustError } from "../../src/errors.ts";
import { type History, readHistory, segmentPoints } from "../../src/replication/history.ts";
import { type ResolvedTarget, resolveTarget } from "../../src/replication/point_in_time.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { getBytes, type GetOptions, type ObjectBody } from "../../src/storage/object_store.ts";
import { BucketWriter } from "./bucket_writer.ts";

/** Where created_ms lies in a header. */
const createdOffset = 32;

/** The machine's clock in these tests: long after everything was written. */
const nowMs = 1_800_000_000_000;

class CountingStore extends MemoryStore {
  headersRead = 0;
  override async get(key: string, options?: GetOptions): Promise<ObjectBody> {
    if (key.endsWith(".hadbp")) this.headersRead++;
    return await super.get(key, options);
  }
}

interface Bucket {
  store: CountingStore;
  history: History;
  /** Undamaged times, ascending by seq. */
  times: number[];
  seqs: bigint[];
  /** Time of lineage.json. */
  begunMs: number;
  /** Key of the object that says the time of a point. */
  keyOf(index: number): string;
  /** True where a snapshot lies beside the bridge and says the same time. */
  hasTwin(index: number): boolean;
}

/** A lineage of snapshots (`s`), deltas (`d`) and deltas at the same time as the one before (`=`). */
async function bucketOf(shape: string, stepMs: number): Promise<Bucket> {
  const store = new CountingStore();
  const writer = new BucketWriter({ store });
  writer.stepMs = stepMs;
  const begunMs = writer.nowMs;
  await writer.begin();
  for (const kind of shape) {
    if (kind === "=") writer.nowMs -= stepMs;
    await (kind === "s" ? writer.snapshot() : writer.delta([2]));
  }
  const history = await readHistory(store, writer.root);
  const seqs = [...writer.times.keys()];
  const points = segmentPoints(history.segments[0]);
  return {
    store,
    history,
    times: [...writer.times.values()],
    seqs,
    begunMs,
    keyOf: (index) => writer.key(points[index].kind as "delta" | "snapshot", points[index].max),
    hasTwin: (index) => index > 0 && shape[index] === "s",
  };
}

/** Seq that a time stands for, or the error. */
async function seqAt({ store, history }: Bucket, ms: number): Promise<ResolvedTarget | WalrustError> {
  try {
    return await resolveTarget(store, history, { kind: "time", ms }, nowMs);
  } catch (error) {
    assert.ok(error instanceof WalrustError, String(error));
    return error;
  }
}

async function change(
  store: MemoryStore,
  key: string,
  edit: (bytes: Uint8Array) => void,
): Promise<() => Promise<void>> {
  const { bytes } = await getBytes(store, key, 1e6);
  const whole = bytes.slice();
  edit(bytes);
  await store.put(key, bytes);
  return async () => void await store.put(key, whole);
}

/** Index of the newest time that is not later, −1 when all are. */
function newestNotLater(times: number[], ms: number): number {
  return times.findLastIndex((time) => time <= ms);
}

function ordered(times: number[]): boolean {
  return times.every((time, index) => index === 0 || times[index - 1] <= time);
}

/** Every target that could be decided otherwise: at, before and after every true time and the damaged one. */
function targets(bucket: Bucket, extra: number[]): number[] {
  const around = [bucket.begunMs, ...bucket.times, ...extra].flatMap((ms) => [ms - 1, ms]);
  return [...new Set([...around, nowMs])].filter((ms) => ms <= nowMs);
}

/** The right point, or an error that names the object; what was answered must be as the undamaged bucket says. */
async function assertRightOrNamed(bucket: Bucket, index: number, ms: number, mayRefuse: boolean): Promise<void> {
  const right = newestNotLater(bucket.times, ms);
  const answer = await seqAt(bucket, ms);
  const where = `object ${index}, time ${ms - bucket.begunMs}, right point ${right}: ${
    answer instanceof WalrustError ? answer.message : `seq ${answer.seq}`
  }`;
  if (!(answer instanceof WalrustError)) {
    assert.equal(answer.seq, bucket.seqs[right], where);
  } else if (answer.exitCode === 6) {
    assert.equal(right, -1, where);
  } else {
    assert.ok(mayRefuse, `refused without need: ${where}`);
    assert.ok(answer instanceof IntegrityError, where);
    assert.ok(answer.message.includes(bucket.keyOf(index)), `names the object: ${where}`);
    assert.match(answer.hint ?? "", /--seq \d+/);
    if (right >= 0) assert.match(answer.hint!, new RegExp(`--seq ${bucket.seqs[right]}\\b`), "offers the right point");
  }
}

const shapes: [shape: string, stepMs: number][] = [
  ["sdddd", 1000],
  ["sddsddsdd", 1000],
  ["sd=d==d=dd", 100_000],
  ["sdd", 37],
  ["sd", 1000],
  ["s", 1000],
];

for (const [shape, stepMs] of shapes) {
  test(`[S72] searchTime: ${shape}, ${stepMs} ms apart: no flipped bit of a created_ms gives another point`, async () => {
    const bucket = await bucketOf(shape, stepMs);
    for (let index = 0; index < bucket.times.length; index++) {
      for (let bit = 0; bit < 64; bit++) {
        const flip = (bytes: Uint8Array): void => void (bytes[createdOffset + (bit >> 3)] ^= 1 << (bit & 7));
        const key = bucket.keyOf(index);
        const undo = await change(bucket.store, key, flip);
        const { bytes } = await getBytes(bucket.store, key, 48, { range: { start: 0, end: 48 } });
        const stored = Number(new DataView(bytes.buffer, bytes.byteOffset).getBigInt64(createdOffset));
        const seen = bucket.times.with(index, stored);
        for (const ms of targets(bucket, [stored])) {
          const right = newestNotLater(bucket.times, ms);
          if (ordered([bucket.begunMs, ...seen, nowMs])) {
            // No order can show this one: it may move the border between two adjacent points, and nothing else.
            const answer = await seqAt(bucket, ms);
            const index = newestNotLater(seen, ms);
            assert.ok(Math.abs(index - right) <= 1);
            assert.equal(answer instanceof WalrustError ? answer.exitCode : answer.seq, bucket.seqs[index] ?? 6);
          } else {
            // Whether a point next to the damaged one is before or after it may be impossible to tell.
            await assertRightOrNamed(bucket, index, ms, index >= right - 1 && index <= right + 2);
          }
        }
        await undo();
      }
    }
  });

  test(`[S72] searchTime: ${shape}, ${stepMs} ms apart: an unreadable header is done without`, async () => {
    const bucket = await bucketOf(shape, stepMs);
    for (let index = 0; index < bucket.times.length; index++) {
      const undo = await change(bucket.store, bucket.keyOf(index), (bytes) => void (bytes[0] ^= 1));
      for (const ms of targets(bucket, [])) {
        const right = newestNotLater(bucket.times, ms);
        const needed = !bucket.hasTwin(index) && (index === right || index === right + 1);
        await assertRightOrNamed(bucket, index, ms, needed);
        const answer = await seqAt(bucket, ms);
        if (answer instanceof WalrustError || right < 0) continue;
        const read = answer.notes.some((note) => note.includes(bucket.keyOf(index)));
        if (index === right || index === right + 1) assert.ok(read, "the object left out is named");
      }
      await undo();
    }
  });
}

test("[S72] searchTime: an object left out is named in a note, with the right answer", async () => {
  const bucket = await bucketOf("s" + "d".repeat(12), 1000);
  // The very first probe of a bisection, a year too late.
  const undo = await change(bucket.store, bucket.keyOf(5), (bytes) => void (bytes[createdOffset + 3] ^= 8));
  const answer = await seqAt(bucket, bucket.times[9]);
  assert.ok(!(answer instanceof WalrustError), String(answer));
  assert.equal(answer.seq, bucket.seqs[9]);
  assert.ok(answer.notes.some((note) => note.includes(bucket.keyOf(5))), answer.notes.join());
  await undo();
  const whole = await seqAt(bucket, bucket.times[9]);
  assert.ok(!(whole instanceof WalrustError) && whole.notes.length === 0, "canary: an undamaged bucket has no notes");
});

test("[S72] searchTime: the damaged first time of a lineage does not draw times of its parent to it", async () => {
  const store = new CountingStore();
  const parent = new BucketWriter({ store });
  await parent.begin();
  await parent.snapshot();
  await parent.deltas(5);
  const child = new BucketWriter({ store, lineage: "c".repeat(32), seq: 6n });
  child.continueFrom(parent, 6n);
  await child.begin({ parent: parent.lineage, parentSeq: 6n });
  await child.snapshot();
  await child.deltas(5);
  for (const byte of [1, 2, 3, 4, 5]) {
    const key = child.key("snapshot", 7n);
    const undo = await change(store, key, (bytes) => void (bytes[createdOffset + byte] &= 0));
    const history = await readHistory(store, parent.root);
    for (const [seq, ms] of [...parent.times, ...child.times]) {
      const answer = await resolveTarget(store, history, { kind: "time", ms }, nowMs).catch((error) => error);
      if (!(answer instanceof Error)) assert.equal(answer.seq, seq, `byte ${byte}`);
      else {
        assert.ok(answer instanceof IntegrityError && answer.message.includes(key), answer.message);
        assert.match(answer.hint!, new RegExp(`--seq ${seq <= 6n ? "6 or --seq 7" : seq}`));
      }
    }
    await undo();
  }
});

test("[S72] searchTime: damage everywhere is refused, not guessed", async () => {
  const bucket = await bucketOf("s" + "d".repeat(60), 1000);
  for (let index = 5; index < 60; index++) {
    await change(bucket.store, bucket.keyOf(index), (bytes) => void (bytes[0] ^= 1));
  }
  const answer = await seqAt(bucket, bucket.times[30]);
  assert.ok(answer instanceof IntegrityError);
  assert.match(answer.hint!, /--seq [1-5] or --seq 61\b/);
});

test("searchTime: requests grow with the logarithm of the points, damage included", async () => {
  const bucket = await bucketOf("s" + "d".repeat(800), 1000);
  const measured = async (): Promise<number> => {
    let most = 0;
    for (let index = 3; index < 800; index += 7) {
      bucket.store.headersRead = 0;
      const answer = await seqAt(bucket, bucket.times[index] + 500);
      assert.ok(!(answer instanceof WalrustError), String(answer));
      assert.equal(answer.seq, bucket.seqs[index]);
      most = Math.max(most, bucket.store.headersRead);
    }
    return most;
  };
  assert.ok(await measured() <= 2 + 10 + 6);
  for (const index of [400, 401]) {
    await change(bucket.store, bucket.keyOf(index), (bytes) => void (bytes[createdOffset + 2] ^= 1));
  }
  assert.ok(await measured() <= 2 * (2 + 10 + 6));
  // Two wrong times are outvoted by the ends of the lineage, which are always asked: only they are blamed.
  const beside = await seqAt(bucket, bucket.times[399] + 500);
  assert.ok(beside instanceof IntegrityError);
  assert.deepEqual(beside.data.objects, [400, 401].map(bucket.keyOf));
});
