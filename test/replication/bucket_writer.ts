/** A small writer of buckets in our layout, independent of capture: the model says what each point must restore to. */
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { renderLineage, renderRetention, renderState, type RetentionDocument } from "../../src/format/documents.ts";
import { type ChangesetHeader, encodeChangeset, type Entry } from "../../src/format/hadbp.ts";
import { type ObjectKey, renderKey } from "../../src/format/keys.ts";
import type { NewSha256 } from "../../src/runtime/types.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";

const sha256: NewSha256 = () => {
  const hash = createHash("sha256");
  return { update: (bytes) => void hash.update(bytes), digest: () => new Uint8Array(hash.digest()) };
};

interface Change {
  pages: Map<number, Uint8Array>;
  pageCount: number;
  before: bigint;
  after: bigint;
  createdMs: number;
}

/** Writes one lineage; `bridges: false` writes as the Rust library does. */
export class BucketWriter {
  readonly images: Map<bigint, Uint8Array> = new Map<bigint, Uint8Array>();
  /** Time of each point. */
  readonly times: Map<bigint, number> = new Map<bigint, number>();
  readonly store: ObjectStore;
  readonly root: string;
  readonly lineage: string | null;
  readonly pageSize: number;
  seq: bigint;
  chain = 0n;
  nowMs = 1_700_000_000_000;
  /** Time between two changesets. */
  stepMs = 1000;
  #pages: Uint8Array[] = [];
  #changes = new Map<bigint, Change>();
  #salt = 0;

  constructor(
    options: { store: ObjectStore; root?: string; lineage?: string | null; pageSize?: number; seq?: bigint },
  ) {
    this.store = options.store;
    this.root = options.root ?? "app/";
    this.lineage = options.lineage === undefined ? "a".repeat(32) : options.lineage;
    this.pageSize = options.pageSize ?? 512;
    this.seq = options.seq ?? 0n;
  }

  key(kind: "delta" | "snapshot", seq: bigint): string {
    return renderKey(this.root, { kind, lineage: this.lineage, seq });
  }

  levelKey(level: number, min: bigint, max: bigint): string {
    return renderKey(this.root, { kind: "level", lineage: this.lineage, level, min, max });
  }

  /** lineage.json and, unless `state` is false, state.json. */
  async begin(options: { parent?: string | null; parentSeq?: bigint | null; state?: boolean } = {}): Promise<void> {
    const { parent = null, parentSeq = null, state = true } = options;
    const document = { parent, parentSeq, createdMs: this.nowMs, pageSize: this.pageSize, writer: "test" };
    await this.#put({ kind: "lineage", lineage: this.lineage! }, renderLineage(document));
    if (state) await this.point({ lineageId: this.lineage, claim: null });
  }

  /** Writes state.json. */
  async point(state: { lineageId: string | null; claim: string | null }): Promise<void> {
    const { seq, chain } = this;
    const document = { ...state, currentSeq: seq, dbChecksum: chain, lastSnapshot: null };
    await this.#put({ kind: "state" }, renderState(document));
  }

  /** The image from which another lineage goes on. */
  continueFrom(other: BucketWriter, seq: bigint): void {
    this.load(other.images.get(seq)!);
    this.nowMs = other.times.get(seq)!;
  }

  /** A snapshot at the next seq, with its bridge unless told otherwise (never for a lineage's first). */
  async snapshot(options: { upload?: boolean; bridge?: boolean } = {}): Promise<bigint> {
    const first = this.#changes.size === 0 && this.images.size === 0;
    if (this.#pages.length === 0) this.#grow(3);
    this.#tick();
    const image = this.#image();
    const rawHash = firstEight(image);
    const entries = this.#pages.map((data, index) => ({ pgno: index + 1, data }));
    const header = this.#header({ version: 1, flags: 0, pageCount: entries.length, prevChecksum: this.chain });
    const key: ObjectKey = { kind: "snapshot", lineage: this.lineage, seq: this.seq };
    if (options.upload ?? true) await this.#put(key, encode(header, entries));
    if (!first && (options.bridge ?? true)) {
      const bridge = this.#header({ version: 2, flags: 0x81, pageCount: 1, declaredEnd: rawHash });
      await this.#put({ ...key, kind: "delta" }, encode(bridge, [marker(this.#pages.length)]));
      const pageCount = this.#pages.length;
      const { chain: before, nowMs: createdMs } = this;
      this.#changes.set(this.seq, { pages: new Map(), pageCount, before, after: rawHash, createdMs });
    }
    this.chain = rawHash;
    this.#keep(image);
    return this.seq;
  }

  /** A delta: new content for `pages`, then the database ends at `pageCount`; a wrong writer forgets page `omitted`. */
  async delta(
    pages: number[] = [2],
    pageCount: number = Math.max(this.#pages.length, ...pages),
    omitted: number = 0,
  ): Promise<bigint> {
    this.#tick();
    const changed = new Map<number, Uint8Array>();
    for (let pgno = this.#pages.length + 1; pgno <= pageCount; pgno++) changed.set(pgno, this.#newPage());
    for (const pgno of pages) changed.set(pgno, this.#newPage());
    changed.set(1, this.#firstPage(pageCount));
    return await this.#publish(changed, pageCount, omitted);
  }

  /** The image that a first snapshot takes. */
  load(image: Uint8Array): void {
    this.#pages = this.#cut(image);
  }

  /** A delta that leads to this very image: what differs, and its size. */
  async deltaTo(image: Uint8Array): Promise<bigint> {
    this.#tick();
    const changed = new Map<number, Uint8Array>();
    const pages = this.#cut(image);
    pages.forEach((page, index) => {
      const old = this.#pages[index];
      if (old === undefined || Buffer.compare(old, page) !== 0) changed.set(index + 1, page);
    });
    return await this.#publish(changed, pages.length);
  }

  #cut(image: Uint8Array): Uint8Array[] {
    const pages: Uint8Array[] = [];
    for (let at = 0; at < image.length; at += this.pageSize) pages.push(image.slice(at, at + this.pageSize));
    return pages;
  }

  async #publish(changed: Map<number, Uint8Array>, pageCount: number, omitted: number = 0): Promise<bigint> {
    for (const [pgno, data] of changed) this.#pages[pgno - 1] = data;
    this.#pages.length = pageCount;
    changed.delete(omitted);
    const entries = deltaEntries(changed, pageCount);
    const header = this.#header({ version: 1, flags: 1, pageCount: entries.length });
    const bytes = encode(header, entries);
    await this.#put({ kind: "delta", lineage: this.lineage, seq: this.seq }, bytes);
    const before = this.chain;
    this.chain = new DataView(bytes.buffer).getBigUint64(bytes.length - 8);
    const { chain: after, nowMs: createdMs } = this;
    this.#changes.set(this.seq, { pages: changed, pageCount, before, after, createdMs });
    this.#keep(this.#image());
    return this.seq;
  }

  async deltas(count: number): Promise<void> {
    for (let index = 0; index < count; index++) await this.delta([2 + index % 3]);
  }

  /** Merges deltas into one object of a level; the sources go unless `keep`. */
  async merge(
    level: number,
    min: bigint,
    max: bigint,
    options: { keep?: boolean; createdMs?: number } = {},
  ): Promise<void> {
    const pages = new Map<number, Uint8Array>();
    for (let seq = min; seq <= max; seq++) {
      const change = this.#changes.get(seq)!;
      for (const [pgno, data] of change.pages) pages.set(pgno, data);
      for (const pgno of [...pages.keys()]) if (pgno > change.pageCount) pages.delete(pgno);
    }
    const last = this.#changes.get(max)!;
    const entries = deltaEntries(pages, last.pageCount);
    const header: ChangesetHeader = {
      version: 2,
      flags: 0x81,
      pageSize: this.pageSize,
      seq: max,
      prevChecksum: this.#changes.get(min)!.before,
      pageCount: entries.length,
      createdMs: options.createdMs ?? last.createdMs,
      declaredEnd: last.after,
    };
    await this.#put({ kind: "level", lineage: this.lineage, level, min, max }, encode(header, entries));
    if (!options.keep) await this.remove(min, max);
  }

  /** Removes deltas. */
  async remove(min: bigint, max: bigint = min): Promise<void> {
    for (let seq = min; seq <= max; seq++) await this.store.deleteMany([this.key("delta", seq)]);
  }

  async retention(ranges: RetentionDocument["ranges"]): Promise<void> {
    await this.#put({ kind: "retention", lineage: this.lineage! }, renderRetention({ ranges }));
  }

  #tick(): void {
    this.seq++;
    this.nowMs += this.stepMs;
  }

  #keep(image: Uint8Array): void {
    this.images.set(this.seq, image);
    this.times.set(this.seq, this.nowMs);
  }

  #grow(pageCount: number): void {
    for (let pgno = 1; pgno <= pageCount; pgno++) {
      this.#pages.push(pgno === 1 ? this.#firstPage(pageCount) : this.#newPage());
    }
  }

  #newPage(): Uint8Array {
    const page = new Uint8Array(this.pageSize);
    const seed = new TextEncoder().encode(`${this.lineage} ${++this.#salt}`);
    for (let at = 0; at < page.length; at += 32) {
      page.set(createHash("sha256").update(seed).update(String(at)).digest(), at);
    }
    return page;
  }

  /** Page 1 has to look like SQLite's. */
  #firstPage(pageCount: number): Uint8Array {
    const page = this.#newPage();
    page.set(new TextEncoder().encode("SQLite format 3\0"));
    const view = new DataView(page.buffer);
    view.setUint16(16, this.pageSize === 65536 ? 1 : this.pageSize);
    page.set([2, 2, 0, 64, 32, 32], 18);
    view.setUint32(24, Number(this.seq));
    view.setUint32(28, pageCount);
    view.setUint32(92, Number(this.seq));
    return page;
  }

  #image(): Uint8Array {
    const image = new Uint8Array(this.#pages.length * this.pageSize);
    this.#pages.forEach((page, index) => image.set(page, index * this.pageSize));
    return image;
  }

  #header(
    fields: Pick<ChangesetHeader, "version" | "flags" | "pageCount"> & Partial<ChangesetHeader>,
  ): ChangesetHeader {
    const { pageSize, seq, chain: prevChecksum, nowMs: createdMs } = this;
    return { pageSize, seq, prevChecksum, createdMs, declaredEnd: null, ...fields };
  }

  async #put(key: ObjectKey, bytes: Uint8Array): Promise<void> {
    await this.store.put(renderKey(this.root, key), bytes);
  }
}

function marker(pageCount: number): Entry {
  return { pgno: pageCount + 1, data: new Uint8Array(0) };
}

function deltaEntries(pages: Map<number, Uint8Array>, pageCount: number): Entry[] {
  const entries = [...pages].filter(([pgno]) => pgno <= pageCount).map(([pgno, data]) => ({ pgno, data }));
  return [...entries.sort((a, b) => a.pgno - b.pgno), marker(pageCount)];
}

function encode(header: ChangesetHeader, entries: Entry[]): Uint8Array {
  const chunks: Uint8Array[] = [];
  for (const chunk of encodeChangeset(header, entries, { sha256, chunkSize: 65536 })) chunks.push(chunk.slice());
  return new Uint8Array(Buffer.concat(chunks));
}

function firstEight(bytes: Uint8Array): bigint {
  return createHash("sha256").update(bytes).digest().readBigUInt64BE(0);
}
