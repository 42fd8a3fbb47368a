/**
 * `pages.idx`: what the bucket holds, one 8-byte keyed hash per page, so that any doubt is answered by comparing.
 *
 * | Offset | Size | Field |
 * | --- | --- | --- |
 * | 0 | 8 | magic `WRIDX001` |
 * | 8 | 16 | lineage |
 * | 24 | 4 | page size, big-endian |
 * | 28 | 4 | zero |
 * | 32 | 16 | random key of this file |
 * | 48 | 16 | zero |
 * | 64 | 8 × pages | first 8 bytes of SHA-256(key ‖ page) of page 1, 2, … |
 *
 * Entries may be behind the bucket or ahead of the journal, never ahead of what is published or spooled.
 */
import type { Files, NewSha256, OpenFile, Random } from "../runtime/types.ts";
import { bytesOfHex, hexOf, isPageSize } from "../format/bytes.ts";

const headerSize = 64;
/** Bytes per page in the index. */
export const indexEntrySize = 8;
const magic = new TextEncoder().encode("WRIDX001");

/** Hashes of some pages: `hashes` holds 8 bytes for each of `pgnos`, in their order. */
export interface PageHashes {
  readonly pgnos: ArrayLike<number>;
  readonly hashes: Uint8Array;
}

/** An open page index. */
export class PageIndex {
  readonly lineage: string;
  /** Bytes. */
  readonly pageSize: number;
  readonly #file: OpenFile;
  /** The key, then room for a page: what is hashed. */
  readonly #keyed: Uint8Array;
  readonly #sha256: NewSha256;

  private constructor(file: OpenFile, lineage: string, pageSize: number, key: Uint8Array, sha256: NewSha256) {
    this.#file = file;
    this.lineage = lineage;
    this.pageSize = pageSize;
    this.#keyed = new Uint8Array(key.length + pageSize);
    this.#keyed.set(key);
    this.#sha256 = sha256;
  }

  /** Opens the index of this lineage; `null` when it is absent, another's or damaged. */
  static open(files: Files, path: string, lineage: string, sha256: NewSha256): PageIndex | null {
    if (files.stat(path)?.type !== "file") return null;
    const file = files.open(path, "update");
    const header = new Uint8Array(headerSize);
    let pageSize = 0;
    try {
      const isOurs = file.read(header, 0) === headerSize && magic.every((byte, i) => header[i] === byte) &&
        hexOf(header.subarray(8, 24)) === lineage;
      if (isOurs) pageSize = new DataView(header.buffer).getUint32(24);
    } finally {
      if (!isPageSize(pageSize)) file.close();
    }
    return isPageSize(pageSize) ? new PageIndex(file, lineage, pageSize, header.slice(32, 48), sha256) : null;
  }

  /** Begins an empty index, replacing whatever is there. */
  static create(
    files: Files,
    path: string,
    options: { lineage: string; pageSize: number; random: Random; sha256: NewSha256 },
  ): PageIndex {
    files.remove(path);
    const header = new Uint8Array(headerSize);
    const key = options.random.bytes(16);
    header.set(magic);
    header.set(bytesOfHex(options.lineage), 8);
    new DataView(header.buffer).setUint32(24, options.pageSize);
    header.set(key, 32);
    const file = files.open(path, "exclusive");
    try {
      file.write(header, 0);
    } catch (error) {
      file.close();
      throw error;
    }
    return new PageIndex(file, options.lineage, options.pageSize, key, options.sha256);
  }

  /** Writes the hash of `page` (page-size bytes) into `into` at `offset`. */
  hashPage(page: Uint8Array, into: Uint8Array, offset: number): void {
    this.#keyed.set(page, this.#keyed.length - page.length);
    into.set(this.#digest(this.#keyed).subarray(0, indexEntrySize), offset);
  }

  #digest(bytes: Uint8Array): Uint8Array {
    const { once } = this.#sha256;
    if (once !== undefined) return once(bytes);
    const hash = this.#sha256();
    hash.update(bytes);
    return hash.digest();
  }

  /** Entries of `count` pages from `first` on; pages never indexed read as zeros. */
  read(first: number, count: number): Uint8Array {
    const entries = new Uint8Array(count * indexEntrySize);
    this.#file.read(entries, headerSize + (first - 1) * indexEntrySize);
    return entries;
  }

  /** Sets the entries of `count` pages from `first` on. */
  writeRun(first: number, entries: Uint8Array): void {
    this.#file.write(entries, headerSize + (first - 1) * indexEntrySize);
  }

  /** Sets the entries of whole pages from `first` on by their content. */
  writePages(first: number, bytes: Uint8Array): void {
    const { pageSize } = this;
    const entries = new Uint8Array(bytes.length / pageSize * indexEntrySize);
    for (let i = 0; i * pageSize < bytes.length; i++) {
      this.hashPage(bytes.subarray(i * pageSize, (i + 1) * pageSize), entries, i * indexEntrySize);
    }
    this.writeRun(first, entries);
  }

  /** Sets the entries of pages in ascending order, then the number of pages the index covers. */
  apply(pages: PageHashes, pageCount: number): void {
    let start = 0;
    while (start < pages.pgnos.length) {
      let end = start + 1;
      while (end < pages.pgnos.length && pages.pgnos[end] === pages.pgnos[end - 1] + 1) end++;
      this.writeRun(pages.pgnos[start], pages.hashes.subarray(start * indexEntrySize, end * indexEntrySize));
      start = end;
    }
    this.truncate(pageCount);
  }

  /** Covers `pageCount` pages from now on: entries beyond must not come back as stale ones when the database grows. */
  truncate(pageCount: number): void {
    this.#file.truncate(headerSize + pageCount * indexEntrySize);
  }

  sync(): void {
    this.#file.sync();
  }

  close(): void {
    this.#file.close();
  }
}
