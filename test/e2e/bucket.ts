/** Reads a whole `file://` bucket without walrust's restore: chain, bridges, holes, and the image of every point. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { type ChangesetHeader, decodeChangeset, decodeHeader, type Entry, isBridge } from "../../src/format/hadbp.ts";
import { lineagePrefix, parseKey, renderKey } from "../../src/format/keys.ts";
import { lockBytePage } from "../../src/format/sqlite_header.ts";
import type { Sha256 } from "../../src/runtime/types.ts";

/** SHA-256 of the runtime, in the shape the core asks for. */
export function newSha256(): Sha256 {
  const hash = createHash("sha256");
  return { update: (bytes) => void hash.update(bytes), digest: () => new Uint8Array(hash.digest()) };
}

function chainOf(bytes: Uint8Array): bigint {
  return createHash("sha256").update(bytes).digest().readBigUInt64BE(0);
}

/** Every file below a directory, as keys with `/`. */
export function listKeys(directory: string, prefix = ""): string[] {
  if (!existsSync(join(directory, prefix))) return [];
  return readdirSync(join(directory, prefix), { withFileTypes: true }).flatMap((entry) => {
    const key = prefix === "" ? entry.name : `${prefix}/${entry.name}`;
    return entry.isDirectory() ? listKeys(directory, key) : [key];
  }).sort();
}

/** Hash of every immutable object (`.hadbp`), by key. */
export function objectHashes(directory: string): Map<string, string> {
  const hashes = new Map<string, string>();
  for (const key of listKeys(directory)) {
    if (!key.endsWith(".hadbp")) continue;
    hashes.set(key, createHash("sha256").update(readFileSync(join(directory, key))).digest("hex"));
  }
  return hashes;
}

/** Asserts that every object seen before is still there with the same bytes: so every point restores to the same bytes. */
export function assertImmutable(before: ReadonlyMap<string, string>, after: ReadonlyMap<string, string>): void {
  for (const [key, hash] of before) assert.equal(after.get(key), hash, `${key} changed or vanished`);
}

/** One point of a lineage. */
export interface BucketPoint {
  readonly seq: bigint;
  readonly createdMs: number;
  readonly kind: "delta" | "bridge" | "snapshot";
  /** Pages sent. */
  readonly pages: number;
  /** Of these, pages of the database before that held the very same bytes. */
  readonly unchanged: number;
  /** Pages of the database at this point. */
  readonly pageCount: number;
}

/** What {@linkcode verifyBucket} proved of one lineage. */
export interface BucketLineage {
  readonly lineage: string;
  /** Ascending and without a hole; the first is the first snapshot. */
  readonly points: readonly BucketPoint[];
  readonly snapshots: readonly bigint[];
  /** The database at the head. */
  readonly image: Uint8Array;
}

/** A database image that changesets are applied to. */
class Image {
  #bytes: Uint8Array = new Uint8Array(1 << 20);
  #size = 0;
  readonly pageSize: number;

  constructor(pageSize: number) {
    this.pageSize = pageSize;
  }

  get pageCount(): number {
    return this.#size / this.pageSize;
  }

  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#size);
  }

  resize(pageCount: number): void {
    const size = pageCount * this.pageSize;
    if (size > this.#bytes.length) {
      const grown = new Uint8Array(size * 2);
      grown.set(this.bytes);
      this.#bytes = grown;
    }
    if (size < this.#size) this.#bytes.fill(0, size, this.#size);
    this.#size = size;
  }

  holds({ pgno, data }: Entry): boolean {
    const at = (pgno - 1) * this.pageSize;
    return at < this.#size && Buffer.from(data).equals(this.#bytes.subarray(at, at + data.length));
  }

  write({ pgno, data }: Entry): void {
    this.#bytes.set(data, (pgno - 1) * this.pageSize);
  }
}

interface LineageKeys {
  deltas: Map<bigint, string>;
  snapshots: Map<bigint, string>;
}

function keysOf(directory: string, root: string): Map<string, LineageKeys> {
  const lineages = new Map<string, LineageKeys>();
  for (const text of listKeys(directory)) {
    if (!text.startsWith(root)) continue;
    const key = parseKey(root, text);
    assert.ok(key !== null, `${text} is not a key of ours`);
    if (key.kind !== "delta" && key.kind !== "snapshot") continue;
    assert.ok(key.lineage !== null, `${text} is in no lineage`);
    let keys = lineages.get(key.lineage);
    if (keys === undefined) lineages.set(key.lineage, keys = { deltas: new Map(), snapshots: new Map() });
    (key.kind === "delta" ? keys.deltas : keys.snapshots).set(key.seq, text);
  }
  return lineages;
}

function ascending(seqs: Iterable<bigint>): bigint[] {
  return [...seqs].sort((a, b) => a < b ? -1 : a > b ? 1 : 0);
}

/** Called with each point and the image there; the image is valid until the call returns. */
export type PointVisitor = (point: BucketPoint, image: Uint8Array) => void;

/** State of the walk along one lineage. */
interface Walk {
  readonly directory: string;
  readonly image: Image;
  chain: bigint;
  createdMs: number;
}

function decode(walk: Pick<Walk, "directory">, key: string, seq: bigint): ReturnType<typeof decodeChangeset> {
  const bytes = new Uint8Array(readFileSync(join(walk.directory, key)));
  return decodeChangeset(bytes, { object: key, sha256: newSha256, expect: { seq } });
}

function checkTime(walk: Walk, header: ChangesetHeader, key: string): void {
  assert.ok(header.createdMs >= walk.createdMs, `${key}: created before its predecessor`);
  walk.createdMs = header.createdMs;
}

/** Applies a delta, checking the chain and the law that a grown database brings every new page. */
function applyDelta(walk: Walk, key: string, seq: bigint): BucketPoint {
  const { header, entries, chainEnd, endPageCount } = decode(walk, key, seq);
  const { image } = walk;
  assert.equal(header.prevChecksum, walk.chain, `${key}: does not continue the chain`);
  assert.equal(header.pageSize, image.pageSize, `${key}: page size`);
  checkTime(walk, header, key);
  assert.ok(endPageCount !== null, `${key}: no end-page-count marker`);
  const pages = entries.filter(({ data }) => data.length > 0);
  const unchanged = pages.filter((entry) => image.holds(entry)).length;
  if (isBridge(header)) {
    assert.equal(endPageCount, image.pageCount, `${key}: a bridge changes no size`);
    assert.equal(header.declaredEnd, chainOf(image.bytes), `${key}: a bridge declares the raw-file hash`);
  } else {
    assert.equal(header.version, 1, `${key}: a delta is version 1`);
    const sent = new Set(pages.map(({ pgno }) => pgno));
    for (let pgno = image.pageCount + 1; pgno <= endPageCount; pgno++) {
      assert.ok(sent.has(pgno) || pgno === lockBytePage(image.pageSize), `${key}: new page ${pgno} is not in it`);
    }
    assert.ok(pages.length > 0 || endPageCount !== image.pageCount, `${key}: an empty delta`);
    image.resize(endPageCount);
    pages.forEach((entry) => image.write(entry));
  }
  walk.chain = chainEnd;
  const kind = isBridge(header) ? "bridge" : "delta";
  return { seq, createdMs: header.createdMs, kind, pages: pages.length, unchanged, pageCount: endPageCount };
}

/** Asserts that a snapshot is the image of its seq. */
function compareSnapshot(walk: Walk, key: string, seq: bigint, bridge: ChangesetHeader): void {
  const { header, entries } = decode(walk, key, seq);
  assert.equal(header.prevChecksum, bridge.prevChecksum, `${key}: chain value before it`);
  assert.equal(header.createdMs, bridge.createdMs, `${key}: created with its bridge`);
  assert.equal(entries.length, walk.image.pageCount, `${key}: pages`);
  for (const entry of entries) {
    assert.ok(walk.image.holds(entry), `${key}: page ${entry.pgno} is not that of seq ${seq}`);
  }
}

function verifyLineage(directory: string, lineage: string, keys: LineageKeys, visit: PointVisitor): BucketLineage {
  const snapshots = ascending(keys.snapshots.keys());
  assert.ok(snapshots.length > 0, `lineage ${lineage} has no snapshot`);
  const first = snapshots[0];
  const firstKey = keys.snapshots.get(first)!;
  const { header, entries } = decode({ directory }, firstKey, first);
  const image = new Image(header.pageSize);
  image.resize(entries.length);
  entries.forEach((entry, i) => {
    assert.equal(entry.pgno, i + 1, `${firstKey}: pages 1..N in order`);
    image.write(entry);
  });
  const walk: Walk = { directory, image, chain: chainOf(image.bytes), createdMs: header.createdMs };
  const start: BucketPoint = {
    seq: first,
    createdMs: header.createdMs,
    kind: "snapshot",
    pages: entries.length,
    unchanged: 0,
    pageCount: entries.length,
  };
  const points = [start];
  visit(start, image.bytes);
  let next = first;
  for (const seq of ascending(keys.deltas.keys())) {
    assert.equal(seq, ++next, `lineage ${lineage}: hole before ${seq}`);
    const key = keys.deltas.get(seq)!;
    const point = applyDelta(walk, key, seq);
    points.push(point);
    visit(point, image.bytes);
    const snapshot = keys.snapshots.get(seq);
    if (snapshot === undefined) continue;
    assert.equal(point.kind, "bridge", `seq ${seq} is both a delta and a snapshot`);
    compareSnapshot(walk, snapshot, seq, decodeHeader(new Uint8Array(readFileSync(join(directory, key))), key));
  }
  for (const seq of snapshots) {
    assert.ok(seq === first || keys.deltas.has(seq), `lineage ${lineage}: snapshot ${seq} has no bridge`);
  }
  return { lineage, points, snapshots, image: image.bytes };
}

/**
 * Decodes every object of database `name` in a `file://` bucket and proves every lineage of it: checksums, chain with bridges,
 * no hole, times that never decrease, snapshots equal to the replayed image. Calls `visit` with the image of each point.
 */
export function verifyBucket(directory: string, name = "app", visit: PointVisitor = () => {}): BucketLineage[] {
  const lineages: BucketLineage[] = [];
  for (const [lineage, keys] of keysOf(directory, `${name}/`)) {
    lineages.push(verifyLineage(directory, lineage, keys, visit));
  }
  return lineages;
}

/** The lineage of a bucket that must have exactly one. */
export function onlyLineage(directory: string, name = "app", visit?: PointVisitor): BucketLineage {
  const lineages = verifyBucket(directory, name, visit);
  assert.equal(lineages.length, 1, `lineages: ${lineages.map(({ lineage }) => lineage).join(", ")}`);
  return lineages[0];
}

/** The key of a delta, to damage it in a canary. */
export function deltaKey(lineage: string, seq: bigint, name = "app"): string {
  return renderKey(`${name}/`, { kind: "delta", lineage, seq });
}

/** Highest seq in a bucket without decoding anything, 0 when it is empty; cheap enough to poll. */
export function headSeq(directory: string, name = "app"): bigint {
  let head = 0n;
  for (const text of listKeys(directory)) {
    const key = text.startsWith(`${name}/`) ? parseKey(`${name}/`, text) : null;
    if (key !== null && (key.kind === "delta" || key.kind === "snapshot") && key.seq > head) head = key.seq;
  }
  return head;
}

/** Prefix of a lineage below the bucket's root. */
export function lineageRoot(lineage: string, name = "app"): string {
  return lineagePrefix(`${name}/`, lineage);
}
