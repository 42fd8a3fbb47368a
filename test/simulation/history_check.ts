/** Reads the whole bucket with nothing of the engine and compares each published point with what was committed. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { checksumOfDigest, decodeChangeset, isBridge } from "../../src/format/hadbp.ts";
import { parseKey } from "../../src/format/keys.ts";
import { getBytes, type ObjectStore } from "../../src/storage/object_store.ts";
import { contentHash } from "./application.ts";

/** What the bucket holds, point by point. */
export interface Point {
  lineage: string;
  seq: bigint;
  createdMs: number;
  /** SHA-256 of the database. */
  content: string;
}

const newSha256 = (): ReturnType<typeof createHash> & { digest(): Uint8Array } => createHash("sha256") as never;

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

/** Every point is some commit's content, in commit order; throws at the first that is not. */
export function checkOrder(points: readonly Point[], timeline: readonly string[]): void {
  let lineage = "";
  let at = 0;
  for (const point of points) {
    if (point.lineage !== lineage) at = 0;
    lineage = point.lineage;
    const found = timeline.indexOf(point.content, at);
    const known = timeline.indexOf(point.content);
    assert.ok(known >= 0, `seq ${point.seq} (${point.content.slice(0, 8)}) is the content of no commit`);
    assert.ok(found >= 0, `seq ${point.seq} is content ${known}, but content ${at} was published before it`);
    at = found;
  }
}
