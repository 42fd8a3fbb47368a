/** The end of a history: the bucket as it lies there, read without the engine, and what `restore` makes of it. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { WalrustError } from "../../src/errors.ts";
import { checksumOfDigest, decodeChangeset, isBridge } from "../../src/format/hadbp.ts";
import { parseKey } from "../../src/format/keys.ts";
import { readState } from "../../src/replication/lineage.ts";
import { restore, type RestoreTarget } from "../../src/replication/restore.ts";
import type { NewSha256 } from "../../src/runtime/types.ts";
import { getBytes, type ObjectStore } from "../../src/storage/object_store.ts";
import { contentHash } from "./application.ts";
import type { SimulatedClock } from "./clock.ts";
import { SimulatedDisk, SimulatedFiles } from "./files.ts";
import type { Ledger, LedgerPoint, LineageLedger } from "./ledger.ts";
import { type Machine, root } from "./machine.ts";
import type { SeededRandom } from "./random.ts";
import type { SimulatedBucket } from "./store.ts";

/** What the bucket holds, point by point. */
export interface Point {
  lineage: string;
  seq: bigint;
  createdMs: number;
  /** SHA-256 of the database. */
  content: string;
}

const newSha256 = (): ReturnType<typeof createHash> & { digest(): Uint8Array } => createHash("sha256") as never;
const sha256: NewSha256 = newSha256 as never;

/** Applies every lineage from its first snapshot on; throws when a chain, a key or a bridge is wrong. */
export async function readPoints(store: ObjectStore, root: string): Promise<Point[]> {
  const deltas = new Map<string, Map<bigint, Uint8Array>>();
  const snapshots = new Map<string, Map<bigint, Uint8Array>>();
  for await (const { key } of store.list(root)) {
    const parsed = parseKey(root, key);
    assert.ok(parsed, `${key} is a key of ours`);
    if (parsed.kind !== "delta" && parsed.kind !== "snapshot") continue;
    const pool = parsed.kind === "delta" ? deltas : snapshots;
    const lineage = parsed.lineage ?? "bare";
    if (!pool.has(lineage)) pool.set(lineage, new Map());
    pool.get(lineage)!.set(parsed.seq, (await getBytes(store, key, 2 ** 26)).bytes);
  }
  const points: Point[] = [];
  for (const [lineage, own] of snapshots) points.push(...applyLineage(lineage, own, deltas.get(lineage) ?? new Map()));
  return points;
}

function applyLineage(lineage: string, snapshots: Map<bigint, Uint8Array>, deltas: Map<bigint, Uint8Array>): Point[] {
  const sorted = [...deltas.keys()].sort((a, b) => (a < b ? -1 : 1));
  const first = [...snapshots.keys()].sort((a, b) => (a < b ? -1 : 1))[0];
  let image = decodeSnapshot(snapshots.get(first)!);
  let chain = checksumOfDigest(createHash("sha256").update(image).digest());
  let createdMs = 0;
  const points: Point[] = [{ lineage, seq: first, createdMs, content: contentHash(image) }];
  let next = first + 1n;
  for (const seq of sorted) {
    assert.equal(seq, next++, `${lineage}: deltas are without a hole`);
    const object = `delta ${seq}`;
    const expect = { seq, prevChecksum: chain };
    const decoded = decodeChangeset(deltas.get(seq)!, { object, sha256: newSha256, expect } as never);
    const { header } = decoded;
    assert.ok(header.createdMs >= createdMs, `${object}: created_ms never decreases`);
    createdMs = header.createdMs;
    assert.ok(decoded.endPageCount !== null, `${object} has a marker`);
    const grown = new Uint8Array(decoded.endPageCount * header.pageSize);
    grown.set(image.subarray(0, grown.length));
    image = grown;
    for (const { pgno, data } of decoded.entries) if (data.length > 0) image.set(data, (pgno - 1) * header.pageSize);
    chain = decoded.chainEnd;
    if (isBridge(header)) {
      assert.equal(chain, checksumOfDigest(createHash("sha256").update(image).digest()), `${object}: bridge`);
      const snapshot = snapshots.get(seq);
      if (snapshot) assert.equal(contentHash(decodeSnapshot(snapshot)), contentHash(image), `snapshot ${seq}`);
    } else assert.ok(!snapshots.has(seq), `seq ${seq} is a delta or a snapshot`);
    points.push({ lineage, seq, createdMs, content: contentHash(image) });
  }
  return points;
}

function decodeSnapshot(bytes: Uint8Array): Uint8Array {
  const { header, entries } = decodeChangeset(bytes, { object: "snapshot", sha256: newSha256 } as never);
  const image = new Uint8Array(entries.length * header.pageSize);
  for (const { pgno, data } of entries) image.set(data, (pgno - 1) * header.pageSize);
  return image;
}

/** What the check at the end of a history needs of its world. */
export interface EndedHistory {
  readonly clock: SimulatedClock;
  readonly random: SeededRandom;
  readonly bucket: SimulatedBucket;
  readonly ledger: Ledger;
  readonly machines: readonly Machine[];
  readonly vanished: ReadonlySet<string>;
  readonly troubles: { readonly clock: number };
  readonly trace: { readonly seed: number };
}

/** Every object is there with the bytes it first had; every point that `restore` gives is what was published. */
export async function checkBucket(history: EndedHistory): Promise<void> {
  const { bucket, ledger, machines, vanished, trace } = history;
  for (const [key, hash] of ledger.hashes) {
    if (vanished.has(key)) continue;
    assert.equal(contentHash((await getBytes(bucket.objects, key, 2 ** 26)).bytes), hash, `${key} never changes`);
  }
  const { state } = await readState(bucket.objects, root);
  const active = ledger.lineages.get(state.lineageId ?? "");
  assert.ok(active?.head, `the active lineage ${state.lineageId} was published`);
  const writer = machines.find(({ name }) => name === active.head!.writer)!;
  assert.ok(!writer.fenced, "who wrote the active lineage last still does");
  const { content } = active.head;
  assert.ok(writer.settled.includes(content), "the active lineage ends with its writer's database");
  await checkRestores(history, active, content);
  // Everything once more from the bucket alone: sometimes, because it costs as much as all the rest.
  if (trace.seed % 16 === 0 && vanished.size === 0) {
    for (const { lineage, seq, content } of await readPoints(bucket.objects, root)) {
      assert.equal(
        content,
        ledger.lineages.get(lineage)?.at(seq)?.content,
        `${lineage} seq ${seq} as it was published`,
      );
    }
  }
}

/** The newest point and another one, by seq and by time, the parents' points included. */
async function checkRestores(history: EndedHistory, active: LineageLedger, newest: string): Promise<void> {
  const { bucket, clock, random, ledger, vanished } = history;
  const disk = new SimulatedDisk(() => 0n);
  disk.makeDirectory("/data");
  const runtime = { clock, random, files: new SimulatedFiles(disk), sha256, sqlite: null };
  const common = { store: bucket.objects, root, runtime, integrityCheck: "none" as const };
  let count = 0;
  const restored = async (target: RestoreTarget): Promise<string> => {
    const outputPath = `/data/${count++}.db`;
    await restore({ ...common, target, outputPath });
    const inode = disk.lookup(outputPath)!;
    return contentHash(inode.data.subarray(0, inode.size));
  };
  assert.equal(await restored({ kind: "latest" }), newest, "restore gives the database");
  const points = reachable(ledger, active);
  const point = random.pick(points);
  try {
    assert.equal(await restored({ kind: "seq", seq: point.seq }), point.content, `restore --seq ${point.seq}`);
  } catch (error) {
    // What vanished may be missed, but never be made up.
    if (vanished.size === 0 || !(error instanceof WalrustError)) throw error;
  }
  if (vanished.size > 0 || history.troubles.clock > 0) return;
  const { createdMs: ms } = random.pick(active.points);
  if (ms > clock.now()) return;
  const then = active.points.findLast(({ createdMs }) => createdMs <= ms)!;
  assert.equal(await restored({ kind: "time", ms }), then.content, `restore at the time of seq ${then.seq}`);
}

/** Points of the active lineage and of its parents up to where each was left. */
function reachable(ledger: Ledger, active: LineageLedger): LedgerPoint[] {
  const points = [...active.points];
  for (let { parent } = active; parent !== null;) {
    const { seq, lineage } = parent;
    const owner = ledger.lineages.get(lineage);
    points.push(...owner?.points.filter((point) => point.seq <= seq) ?? []);
    parent = owner?.parent ?? null;
  }
  return points;
}
