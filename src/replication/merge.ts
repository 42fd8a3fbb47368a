/**
 * Several deltas become one object that leads to the same bytes: of every page the newest image, no page beyond the end,
 * one marker. It continues what the first one continued and declares the chain value after the last one.
 *
 * The sources are read twice, as streams: first one after another, to prove them and to count the pages, then side by
 * side, by ascending page. What was written is read back; only then may the sources go.
 */
import { IntegrityError } from "../errors.ts";
import {
  ChangesetDecoder,
  ChangesetEncoder,
  type ChangesetEnd,
  type ChangesetHeader,
  changesetSize,
  checksumHex,
  compactedFlag,
  deltaMarkerFlag,
  type Entry,
} from "../format/hadbp.ts";
import { renderKey } from "../format/keys.ts";
import type { NewSha256 } from "../runtime/types.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { OrderedFetch } from "./fetch.ts";
import { objectKey, type PoolObject } from "./inventory.ts";
import type { MergeRun } from "./merge_plan.ts";
import { assertGrowth } from "./object_reader.ts";
import { PageSet } from "./page_set.ts";

/** Options of {@linkcode mergeRun}. */
export interface MergeOptions {
  /** Bucket to read and write. */
  readonly store: ObjectStore;
  /** `${prefix}${name}/` */
  readonly root: string;
  /** What becomes one. */
  readonly run: MergeRun;
  /** Begins a hash. */
  readonly sha256: NewSha256;
  /** Requests at once while the sources are proven. */
  readonly parallel: number;
  /** Cancels; what was not complete is not there. */
  readonly signal?: AbortSignal;
  /** Told of every byte that is read or written. */
  readonly onBytes?: (bytes: number) => void;
}

/** A merged object that was read back. */
export interface MergedObject {
  /** Its key. */
  readonly key: string;
  /** Null is the layout without lineages. */
  readonly lineage: string | null;
  /** Its level. */
  readonly level: number;
  /** First seq it covers. */
  readonly min: bigint;
  /** Last seq it covers. */
  readonly max: bigint;
  /** Bytes. */
  readonly size: number;
  /** Objects it stands for. */
  readonly sources: number;
  /** Their bytes. */
  readonly sourceBytes: number;
}

/** Sources of so few bytes together are read once and kept. */
const sourcesInMemoryMax = 8 * 1024 * 1024;

/** Buffers of all sources together while they are read side by side, bytes: two each. */
const buffersMax = 16 * 1024 * 1024;

const chunkSize = 1024 * 1024;

/** What was learned of the sources. */
interface Proven {
  /** Of the object to write. */
  readonly header: ChangesetHeader;
  /** Pages in the database after the last source. */
  readonly endPageCount: number;
  /** Their parts, where they are few. */
  readonly kept: readonly Uint8Array[][] | null;
}

/**
 * Merges a run: written once, read back, proven. Throws `IntegrityError` when a source is damaged, cannot be merged, or
 * when the result is not what it must be (it is then removed); `PreconditionError` when another object has its key;
 * `NotFoundError` when a source is gone.
 */
export async function mergeRun(options: MergeOptions): Promise<MergedObject> {
  const { store, root, run, signal, onBytes } = options;
  const { lineage } = run.sources[0];
  const key = renderKey(root, { kind: "level", lineage, level: run.level, min: run.min, max: run.max });
  const proven = await prove(options);
  const merge = new SourceMerge(options, proven);
  const chunks = async function* (): AsyncGenerator<Uint8Array> {
    for await (const chunk of merge.chunks()) {
      onBytes?.(chunk.length);
      yield chunk;
    }
  };
  await store.putStream(key, chunks(), { ifAbsent: true, signal });
  const size = changesetSize(proven.header);
  await readBack(options, key, proven, merge.end!);
  const sourceBytes = run.sources.reduce((sum, source) => sum + source.size, 0);
  const { level, min, max } = run;
  return { key, lineage, level, min, max, size, sources: run.sources.length, sourceBytes };
}

/** Reads every source, checks its bytes and its place in the chain, and counts the pages of the result. */
async function prove(options: MergeOptions): Promise<Proven> {
  const { store, root, run, sha256, parallel, signal, onBytes } = options;
  const { sources } = run;
  const objects = sources.map((source) => ({ key: objectKey(root, source), size: source.size }));
  const isSmall = sources.reduce((sum, { size }) => sum + size, 0) <= sourcesInMemoryMax;
  const kept: Uint8Array[][] | null = isSmall ? [] : null;
  const pages = new PageSet();
  const fetch = new OrderedFetch({ store, objects, parallel, signal, onBytes });
  let first: ChangesetHeader | null = null;
  let last: { header: ChangesetHeader; end: ChangesetEnd } | null = null;
  try {
    for (const [at, source] of sources.entries()) {
      const before = last?.end.endPageCount ?? null;
      const decoder: ChangesetDecoder = new ChangesetDecoder({
        object: objects[at].key,
        sha256,
        size: source.size,
        expect: { seq: source.max, kind: "delta", pageSize: first?.pageSize, prevChecksum: last?.end.chainEnd },
      });
      const { parts, fresh } = await readSource(fetch, decoder, pages, { before: before ?? 0, keep: isSmall });
      kept?.push(parts);
      const end = decoder.finish();
      const header = decoder.header!;
      if (before !== null) {
        // Where pages are left out a shrink before left zeros, and the merged object would leave what stood there. So
        // strict as with ours: what others grow without their pages is not merged.
        const growth = { before, after: end.endPageCount!, fresh, pageSize: header.pageSize, isOwn: true };
        assertGrowth(objects[at].key, growth);
      }
      first ??= header;
      last = { header, end };
    }
  } finally {
    await fetch.close();
  }
  const { end: { endPageCount, chainEnd }, header: { createdMs } } = last!;
  const header: ChangesetHeader = {
    version: 2,
    flags: deltaMarkerFlag | compactedFlag,
    pageSize: first!.pageSize,
    seq: run.max,
    prevChecksum: first!.prevChecksum,
    pageCount: pages.countUpTo(endPageCount!) + 1,
    createdMs,
    declaredEnd: chainEnd,
  };
  return { header, endPageCount: endPageCount!, kept };
}

async function readSource(
  fetch: OrderedFetch,
  decoder: ChangesetDecoder,
  pages: PageSet,
  { before, keep }: { before: number; keep: boolean },
): Promise<{ parts: Uint8Array[]; fresh: number }> {
  const parts: Uint8Array[] = [];
  let fresh = 0;
  for (let last = false; !last;) {
    const part = (await fetch.next())!;
    last = part.last;
    if (keep) parts.push(part.bytes.slice());
    for (const { pgno, data } of decoder.push(part.bytes)) {
      if (data.length === 0) continue;
      if (pgno > before) fresh++;
      pages.add(pgno);
    }
  }
  return { parts, fresh };
}

/** One source, entry by entry. */
class SourceReader {
  /** The page it stands at; null at the end, when the source is proven once more. */
  head: Entry | null = null;
  readonly #decoder: ChangesetDecoder;
  readonly #next: () => Promise<{ bytes: Uint8Array; last: boolean }>;
  #entries: Iterator<Entry> = [][Symbol.iterator]();
  #isLast = false;

  constructor(decoder: ChangesetDecoder, next: () => Promise<{ bytes: Uint8Array; last: boolean }>) {
    this.#decoder = decoder;
    this.#next = next;
  }

  /** Goes to the next page; false when more bytes are needed for that: then {@linkcode SourceReader.refill}. */
  step(): boolean {
    for (;;) {
      const entry = this.#entries.next();
      if (entry.done && !this.#isLast) return false;
      this.head = entry.done ? null : entry.value;
      if (entry.done) this.#decoder.finish();
      // The marker is not a page; what comes behind it is the end.
      if (this.head === null || this.head.data.length > 0) return true;
    }
  }

  async refill(): Promise<void> {
    do {
      const part = await this.#next();
      this.#isLast = part.last;
      this.#entries = this.#decoder.push(part.bytes)[Symbol.iterator]();
    } while (!this.step());
  }
}

/** The sources side by side: of each page the newest image, ascending. */
class SourceMerge {
  /** Of the object that came out; null until then. */
  end: ChangesetEnd | null = null;
  readonly #options: MergeOptions;
  readonly #proven: Proven;
  readonly #fetches: OrderedFetch[] = [];

  constructor(options: MergeOptions, proven: Proven) {
    this.#options = options;
    this.#proven = proven;
  }

  async *chunks(): AsyncGenerator<Uint8Array> {
    const { header, endPageCount } = this.#proven;
    const encoder = new ChangesetEncoder(header, { sha256: this.#options.sha256, chunkSize });
    const readers = this.#options.run.sources.map((source, at) => this.#reader(source, at));
    try {
      await Promise.all(readers.map((reader) => reader.refill()));
      for (let lowest = newestLowest(readers); lowest !== null; lowest = newestLowest(readers)) {
        const { pgno } = lowest;
        if (pgno <= endPageCount) { for (const chunk of encoder.push(lowest)) yield chunk; }
        for (const reader of readers) {
          if (reader.head?.pgno === pgno && !reader.step()) await reader.refill();
        }
      }
      for (const chunk of encoder.push({ pgno: endPageCount + 1, data: new Uint8Array(0) })) yield chunk;
      this.end = yield* encoder.finish();
    } finally {
      await Promise.all(this.#fetches.map((fetch) => fetch.close()));
    }
  }

  #reader(source: PoolObject, at: number): SourceReader {
    const { store, root, run, sha256, signal, onBytes } = this.#options;
    const key = objectKey(root, source);
    const decoder = new ChangesetDecoder({ object: key, sha256, size: source.size });
    const parts = this.#proven.kept?.[at];
    if (parts !== undefined) {
      let next = 0;
      return new SourceReader(decoder, () => Promise.resolve({ bytes: parts[next], last: ++next === parts.length }));
    }
    const rangeSize = Math.floor(buffersMax / (2 * run.sources.length));
    const objects = [{ key, size: source.size }];
    const fetch = new OrderedFetch({ store, objects, parallel: 1, rangeSize, signal, onBytes });
    this.#fetches.push(fetch);
    return new SourceReader(decoder, async () => (await fetch.next())!);
  }
}

/** The newest image of the lowest page; null at the end of all. */
function newestLowest(readers: readonly SourceReader[]): Entry | null {
  let lowest: Entry | null = null;
  for (const { head } of readers) {
    if (head !== null && (lowest === null || head.pgno <= lowest.pgno)) lowest = head;
  }
  return lowest;
}

/** What is stored must be what was sent and end where the sources end; else it is removed, and the sources stay. */
async function readBack(options: MergeOptions, key: string, { header, endPageCount }: Proven, sent: ChangesetEnd) {
  const { store, sha256, parallel, signal, onBytes } = options;
  const { seq, pageSize, prevChecksum } = header;
  const size = changesetSize(header);
  const decoder = new ChangesetDecoder({
    object: key,
    sha256,
    size,
    expect: { seq, pageSize, prevChecksum, kind: "delta" },
  });
  const fetch = new OrderedFetch({ store, objects: [{ key, size }], parallel, signal, onBytes });
  try {
    for (let last = false; !last;) {
      const part = (await fetch.next())!;
      last = part.last;
      for (const _entry of decoder.push(part.bytes)) { /* Proven at the end. */ }
    }
    const end = decoder.finish();
    const isSame = end.checksum === sent.checksum && end.endPageCount === endPageCount &&
      end.chainEnd === header.declaredEnd && decoder.header!.createdMs === header.createdMs;
    if (!isSame) throw differs(key, checksumHex(sent.checksum), checksumHex(end.checksum));
  } catch (error) {
    if (!(error instanceof IntegrityError)) throw error;
    await store.deleteMany([key], { signal });
    const message = `${error.message}; the merged object was removed, its sources stay`;
    throw new IntegrityError("merge_differs", message, { hint: error.hint, data: error.data, cause: error });
  } finally {
    await fetch.close();
  }
}

function differs(key: string, expected: string, actual: string): IntegrityError {
  return new IntegrityError("merge_differs", `${key} reads back with checksum ${actual}, ${expected} was written`, {
    data: { object: key, expected, actual },
  });
}
