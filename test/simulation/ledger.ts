/**
 * What was published, kept object by object as it reaches the bucket, with nothing of the engine. Each point must be the
 * content of a commit of the machine that published it, in the order of its commits; each object must continue its
 * chain and keep its bytes.
 */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { parseLineage } from "../../src/format/documents.ts";
import { checksumOfDigest, decodeChangeset, isBridge } from "../../src/format/hadbp.ts";
import { parseKey } from "../../src/format/keys.ts";
import { contentHash } from "./application.ts";

/** One published state of a database. */
export interface LedgerPoint {
  readonly lineage: string;
  readonly seq: bigint;
  readonly createdMs: number;
  readonly chain: bigint;
  readonly pageCount: number;
  /** SHA-256 of the database. */
  readonly content: string;
  /** The machine that published it and the place of the content in its history. */
  readonly writer: string;
  readonly commit: number;
}

/** Content of a page from one seq on. */
export interface PageVersion {
  readonly seq: bigint;
  readonly page: Uint8Array;
}

/** Contents of one machine's database, in order. */
export type Timeline = readonly string[];

const newSha256 = (): ReturnType<typeof createHash> & { digest(): Uint8Array } => createHash("sha256") as never;

/** One lineage, from its first snapshot on. */
export class LineageLedger {
  readonly lineage: string;
  /** Known once its `lineage.json` is there. */
  parent: { lineage: string; seq: bigint } | null = null;
  pageSize = 0;
  image: Uint8Array = new Uint8Array(0);
  readonly points: LedgerPoint[] = [];
  /** By page number, in the order of their seqs. */
  readonly versions: Map<number, PageVersion[]> = new Map();
  /** Deltas that came before the first snapshot. */
  readonly early: Map<bigint, { bytes: Uint8Array; writer: string }> = new Map();

  constructor(lineage: string) {
    this.lineage = lineage;
  }

  /** The newest point; `null` while the first snapshot is not there. */
  get head(): LedgerPoint | null {
    return this.points.at(-1) ?? null;
  }

  /** The point of a seq. */
  at(seq: bigint): LedgerPoint | null {
    return this.points.length === 0 ? null : this.points[Number(seq - this.points[0].seq)] ?? null;
  }
}

/** See the top of this file. */
export class Ledger {
  readonly root: string;
  readonly lineages: Map<string, LineageLedger> = new Map();
  readonly #timelines: ReadonlyMap<string, Timeline>;
  /** SHA-256 of each object that never changes, by key. */
  readonly hashes: Map<string, string> = new Map();
  /** How many points were checked. */
  checked = 0;

  constructor(root: string, timelines: ReadonlyMap<string, Timeline>) {
    this.root = root;
    this.#timelines = timelines;
  }

  /** Takes in an object; throws when it breaks a law. */
  add(key: string, bytes: Uint8Array, writer: string): void {
    const parsed = parseKey(this.root, key);
    assert.ok(parsed, `${key} is a key of ours`);
    if (parsed.kind === "state") return;
    const lineage = this.#lineage(parsed.lineage ?? "bare");
    if (parsed.kind === "lineage") {
      const { parent, parentSeq } = parseLineage(bytes, key);
      lineage.parent = parent === null ? null : { lineage: parent, seq: parentSeq! };
      return;
    }
    const hash = contentHash(bytes);
    assert.equal(this.hashes.get(key) ?? hash, hash, `${key} has two contents`);
    if (this.hashes.has(key)) return;
    this.hashes.set(key, hash);
    if (parsed.kind === "snapshot") this.#snapshot(lineage, parsed.seq, bytes, writer);
    if (parsed.kind === "delta" && lineage.head === null) lineage.early.set(parsed.seq, { bytes, writer });
    else if (parsed.kind === "delta") this.#delta(lineage, parsed.seq, bytes, writer);
  }

  #lineage(name: string): LineageLedger {
    if (!this.lineages.has(name)) this.lineages.set(name, new LineageLedger(name));
    return this.lineages.get(name)!;
  }

  #snapshot(lineage: LineageLedger, seq: bigint, bytes: Uint8Array, writer: string): void {
    const { header, entries } = decodeChangeset(
      bytes,
      { object: "snapshot", sha256: newSha256, expect: { seq } } as never,
    );
    const { pageSize, createdMs } = header;
    const image = new Uint8Array(entries.length * pageSize);
    for (const { pgno, data } of entries) image.set(data, (pgno - 1) * pageSize);
    if (lineage.head !== null) {
      const content = contentHash(image);
      assert.equal(lineage.at(seq)?.content, content, `snapshot ${seq} is what the deltas before it make`);
      return;
    }
    lineage.pageSize = pageSize;
    lineage.image = image;
    for (const { pgno, data } of entries) lineage.versions.set(pgno, [{ seq, page: data.slice() }]);
    const { parent } = lineage;
    assert.equal(seq, (parent?.seq ?? 0n) + 1n, `${lineage.lineage} begins behind its parent`);
    const chain = checksumOfDigest(createHash("sha256").update(image).digest());
    this.#point(lineage, { seq, createdMs, chain, pageCount: entries.length, writer });
    for (let next = seq + 1n; lineage.early.has(next); next++) {
      const early = lineage.early.get(next)!;
      this.#delta(lineage, next, early.bytes, early.writer);
    }
    lineage.early.clear();
  }

  #delta(lineage: LineageLedger, seq: bigint, bytes: Uint8Array, writer: string): void {
    const head = lineage.head!;
    assert.equal(seq, head.seq + 1n, `${lineage.lineage}: no hole behind a published seq`);
    const object = `delta ${seq}`;
    const expect = { seq, prevChecksum: head.chain, pageSize: lineage.pageSize };
    const decoded = decodeChangeset(bytes, { object, sha256: newSha256, expect } as never);
    const { header, endPageCount } = decoded;
    assert.ok(header.createdMs >= head.createdMs, `${object}: created_ms never decreases`);
    assert.ok(endPageCount !== null, `${object} has a marker`);
    const { pageSize } = lineage;
    if (endPageCount * pageSize !== lineage.image.length) {
      const resized = new Uint8Array(endPageCount * pageSize);
      resized.set(lineage.image.subarray(0, resized.length));
      lineage.image = resized;
    }
    for (const { pgno, data } of decoded.entries) {
      if (data.length === 0) continue;
      lineage.image.set(data, (pgno - 1) * pageSize);
      const versions = lineage.versions.get(pgno);
      const version = { seq, page: data.slice() };
      if (versions === undefined) lineage.versions.set(pgno, [version]);
      else versions.push(version);
    }
    if (isBridge(header)) {
      const raw = checksumOfDigest(createHash("sha256").update(lineage.image).digest());
      assert.equal(decoded.chainEnd, raw, `${object}: the bridge declares the database's hash`);
    }
    this.#point(lineage, {
      seq,
      createdMs: header.createdMs,
      chain: decoded.chainEnd,
      pageCount: endPageCount,
      writer,
    });
  }

  /** The content must have been committed by now, and not before what this machine published before. */
  #point(
    lineage: LineageLedger,
    point: Pick<LedgerPoint, "seq" | "createdMs" | "chain" | "pageCount" | "writer">,
  ): void {
    const { seq, writer } = point;
    const content = contentHash(lineage.image);
    const timeline = this.#timelines.get(writer)!;
    const before = this.#commitBefore(lineage, writer);
    const commit = timeline.indexOf(content, before);
    if (commit < 0) {
      const known = timeline.indexOf(content);
      assert.ok(known >= 0, `seq ${seq} (${content.slice(0, 8)}) is the content of no commit`);
      assert.fail(`seq ${seq} is content ${known}, but content ${before} was published before it`);
    }
    this.checked++;
    lineage.points.push({ ...point, lineage: lineage.lineage, content, commit });
  }

  /** The last content that this machine published, here or, where it was the parent's writer too, there. */
  #commitBefore(lineage: LineageLedger, writer: string): number {
    for (let at = lineage.points.length - 1; at >= 0; at--) {
      if (lineage.points[at].writer === writer) return lineage.points[at].commit;
    }
    const { parent } = lineage;
    const owner = parent === null ? undefined : this.lineages.get(parent.lineage);
    const last = owner?.at(parent!.seq) ?? null;
    return last?.writer === writer ? last.commit : 0;
  }
}
