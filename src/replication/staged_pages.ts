/**
 * Pages on their way into a replica, newest image of each, in a scratch file where every page has the place that it has
 * in the database: the file is sparse, memory is a bit per page, and an update of any size can be revoked until its
 * last changeset is proven.
 */
import type { ChangesetHeader } from "../format/hadbp.ts";
import { lockBytePage } from "../format/sqlite_header.ts";
import type { Files, NewSha256, OpenFile } from "../runtime/types.ts";
import { io } from "./apply.ts";
import { openCopy, readWhole } from "./image.ts";
import type { PoolObject } from "./inventory.ts";
import { PageSet } from "./page_set.ts";
import type { ChangesetSink, VerifiedChangeset } from "./walk.ts";

/** What staged pages lie upon. */
export interface StageBase {
  /** Its size, pages of `pageSize` bytes. */
  readonly point: { readonly pageSize: number; readonly pageCount: number };
  /** Fills `into` with whole pages from `first` on, as the source has them. */
  readAsSource(first: number, into: Uint8Array): void;
}

/** Bytes read and hashed at once. */
const runSize = 1024 * 1024;

/** See the file's head; one instance for each update. */
export class StagedPages implements ChangesetSink {
  /** The last changeset proven; null while there is none. */
  last: VerifiedChangeset | null = null;
  /** Size of the database after what is staged, pages. */
  pageCount: number;
  /** Bytes. */
  pageSize: number;
  /** Pages that have an image here. */
  readonly pgnos: PageSet = new PageSet();
  readonly #files: Files;
  readonly #sha256: NewSha256;
  readonly #path: string;
  readonly #base: StageBase;
  /** Pages of the base that still count: what a shrink cuts off does not come back with a growth. */
  #baseCount: number;
  #file: OpenFile | null = null;

  constructor(options: { files: Files; sha256: NewSha256; path: string; base: StageBase }) {
    this.#files = options.files;
    this.#sha256 = options.sha256;
    this.#path = options.path;
    this.#base = options.base;
    const { pageSize, pageCount } = options.base.point;
    this.pageCount = this.#baseCount = pageCount;
    this.pageSize = pageSize;
  }

  begin(object: PoolObject, header: ChangesetHeader): void {
    if (object.kind !== "snapshot") return;
    this.pgnos.clear();
    this.#baseCount = this.pageCount = 0;
    this.pageSize = header.pageSize;
  }

  pages(first: number, bytes: Uint8Array, pageSize: number): void {
    io(() => this.#open().write(bytes, (first - 1) * pageSize), this.#path);
    // SQLite never reads or writes the lock-byte page, and a journal cannot restore it.
    const lockPage = lockBytePage(pageSize);
    const count = bytes.length / pageSize;
    for (let pgno = first; pgno < first + count; pgno++) if (pgno !== lockPage) this.pgnos.add(pgno);
  }

  end(changeset: VerifiedChangeset): void {
    this.last = changeset;
    this.pageCount = changeset.pageCount;
    this.pgnos.cut(this.pageCount);
    this.#baseCount = Math.min(this.#baseCount, this.pageCount);
  }

  imageDigest(): Uint8Array {
    const { pageSize } = this;
    const hash = this.#sha256();
    const pagesMax = Math.max(1, runSize / pageSize);
    const buffer = new Uint8Array(pagesMax * pageSize);
    for (let first = 1; first <= this.pageCount; first += pagesMax) {
      const run = buffer.subarray(0, Math.min(pagesMax, this.pageCount - first + 1) * pageSize);
      const inBase = Math.min(run.length / pageSize, Math.max(0, this.#baseCount - first + 1));
      run.fill(0, inBase * pageSize);
      if (inBase > 0) this.#base.readAsSource(first, run.subarray(0, inBase * pageSize));
      for (let at = 0; at < run.length; at += pageSize) {
        const pgno = first + at / pageSize;
        if (this.pgnos.has(pgno)) this.read(pgno, run.subarray(at, at + pageSize));
      }
      hash.update(run);
    }
    return hash.digest();
  }

  /** Fills `into` with staged pages from `first` on. */
  read(first: number, into: Uint8Array): void {
    io(() => readWhole(this.#open(), into, (first - 1) * this.pageSize), this.#path);
  }

  /** Stages zeros for pages that came back without content where the file of `fileSize` bytes still has some. */
  fillCutPages(fileSize: number): void {
    const zeros = new Uint8Array(this.pageSize);
    const end = Math.min(this.pageCount, Math.ceil(fileSize / this.pageSize));
    for (let pgno = this.#baseCount + 1; pgno <= end; pgno++) {
      if (!this.pgnos.has(pgno)) this.pages(pgno, zeros, this.pageSize);
    }
  }

  /** Closes the scratch file, which has no name any more and ends with it. */
  discard(): void {
    this.#file?.close();
    this.#file = null;
  }

  #open(): OpenFile {
    return this.#file ??= io(() => openCopy(this.#path, this.#files), this.#path);
  }
}
