/**
 * One object out of a fetch, decoded in a stream. What it says by itself is proven: its seq against its key, its form,
 * its pages, its checksum, and of a snapshot the hash of the raw database. What its place demands is the caller's.
 */
import { FormatError, IntegrityError } from "../errors.ts";
import { ChangesetDecoder, type ChangesetHeader, checksumOfDigest } from "../format/hadbp.ts";
import { lockBytePage } from "../format/sqlite_header.ts";
import type { NewSha256, Sha256 } from "../runtime/types.ts";
import type { OrderedFetch } from "./fetch.ts";
import type { PoolObject } from "./inventory.ts";

/** Who is told of an object while it arrives. */
export interface ObjectListener {
  /** The header is there and fits the key; what this throws ends the reading. */
  begin(header: ChangesetHeader): void;
  /** Whole pages from page `first` on; valid until the call returns, and not proven before the object has ended. */
  pages(first: number, bytes: Uint8Array, pageSize: number): void;
}

/** An object whose every byte is verified. */
export interface ReadObject {
  readonly header: ChangesetHeader;
  /** Size of the database after it, pages. */
  readonly pageCount: number;
  /** Chain value after it: of a snapshot that of the raw database bytes, the second hash domain. */
  readonly chain: bigint;
}

/** Pages are handed on in runs of up to this many bytes: one write and one hash step for many pages. */
const runSizeMax = 1024 * 1024;

/** How far a foreign changeset may grow the database without sending the pages, bytes: more is a hostile size. */
const foreignGrowthMax = 64 * 1024 * 1024;

/** Reads objects one after another. */
export class ObjectReader {
  readonly #sha256: NewSha256;
  readonly #run: Uint8Array = new Uint8Array(runSizeMax);
  #runFirst = 0;
  #runLength = 0;
  #pageSize = 0;
  #rawHash: Sha256 | null = null;
  #listener: ObjectListener | null = null;

  constructor(sha256: NewSha256) {
    this.#sha256 = sha256;
  }

  /** Reads `object`, the next one of `fetch`. Throws `IntegrityError` at the first byte that is wrong. */
  async read(object: PoolObject, key: string, fetch: OrderedFetch, listener: ObjectListener): Promise<ReadObject> {
    const decoder = new ChangesetDecoder({ object: key, sha256: this.#sha256, size: object.size });
    this.#runLength = 0;
    this.#listener = listener;
    let header: ChangesetHeader | null = null;
    for (let last = false; !last;) {
      const part = await fetch.next();
      if (part === null) throw new Error(`assertion failed: the fetch ended before ${key}`);
      last = part.last;
      for (const entry of decoder.push(part.bytes)) {
        header ??= this.#begin(object, key, decoder.header!);
        if (entry.data.length > 0) this.#page(entry.pgno, entry.data);
      }
    }
    const { endPageCount, chainEnd } = decoder.finish();
    header ??= this.#begin(object, key, decoder.header!);
    this.#flush();
    if (this.#rawHash !== null) {
      return { header, pageCount: header.pageCount, chain: checksumOfDigest(this.#rawHash.digest()) };
    }
    if (endPageCount !== null) return { header, pageCount: endPageCount, chain: chainEnd };
    throw new FormatError("no_end_page_count", `${key} does not say how large the database is after it`, {
      data: { object: key, offset: 6, expected: "the end-page-count marker" },
    });
  }

  #begin(object: PoolObject, key: string, header: ChangesetHeader): ChangesetHeader {
    assertOwnHeader(object, key, header);
    this.#pageSize = header.pageSize;
    this.#rawHash = object.kind === "snapshot" ? this.#sha256() : null;
    this.#listener!.begin(header);
    return header;
  }

  #page(pgno: number, data: Uint8Array): void {
    const pageSize = this.#pageSize;
    const next = this.#runFirst + this.#runLength / pageSize;
    if (this.#runLength > 0 && (pgno !== next || this.#runLength + pageSize > runSizeMax)) this.#flush();
    if (this.#runLength === 0) this.#runFirst = pgno;
    this.#run.set(data, this.#runLength);
    this.#runLength += pageSize;
  }

  #flush(): void {
    if (this.#runLength === 0) return;
    const bytes = this.#run.subarray(0, this.#runLength);
    this.#rawHash?.update(bytes);
    this.#listener!.pages(this.#runFirst, bytes, this.#pageSize);
    this.#runLength = 0;
  }
}

/** Throws `IntegrityError` when a header is not that of the object its key names: no checksum covers these fields. */
export function assertOwnHeader(object: PoolObject, key: string, header: ChangesetHeader): void {
  if (header.seq !== object.max) throw contradiction("seq_mismatch", key, "seq", object.max, header.seq);
  if (object.kind !== "snapshot" || (header.version === 1 && header.flags === 0)) return;
  const found = `${header.version} and ${header.flags}`;
  throw contradiction("not_a_snapshot", key, "version and flags", "1 and 0", found);
}

/** How many of `count` pages from `first` on lie behind page `last`. */
export function pagesBeyond(last: number, first: number, count: number): number {
  return Math.max(0, first - 1 + count - Math.max(last, first - 1));
}

/**
 * A size is believed only as far as pages back it: ours send every new page, others nearly every one. `fresh` is how
 * many pages behind the end of before a changeset holds. Throws `IntegrityError`.
 */
export function assertGrowth(
  key: string,
  growth: { before: number; after: number; fresh: number; pageSize: number; isOwn: boolean },
): void {
  const { before, after, fresh, pageSize } = growth;
  if (after <= before) return;
  const lockPage = lockBytePage(pageSize);
  const lock = lockPage > before && lockPage <= after ? 1 : 0;
  const absent = after - before - fresh;
  const allowed = growth.isOwn ? lock : foreignGrowthMax / pageSize;
  if (absent > allowed) {
    throw new IntegrityError(
      "growth_without_pages",
      `${key} grows the database by ${absent} pages that it does not hold`,
      { data: { object: key, expected: String(before + fresh + lock), actual: String(after) } },
    );
  }
}

/** The error of a field that is not what its place demands. */
export function contradiction(
  code: string,
  key: string,
  field: string,
  expected: unknown,
  actual: unknown,
): IntegrityError {
  return new IntegrityError(code, `${key}: ${field} is ${actual}, expected ${expected}`, {
    data: { object: key, expected: String(expected), actual: String(actual) },
  });
}
