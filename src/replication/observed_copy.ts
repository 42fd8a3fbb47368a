/**
 * Images of a database that others write to, copied without a lock: they count only if nothing that they stand on
 * changed meanwhile.
 */
import { DatabaseError } from "../errors.ts";
import { equalBytes } from "../format/bytes.ts";
import { beginWalScan, type WalHeader } from "../format/wal.ts";
import type { Clock, Files, FileStat, OpenFile } from "../runtime/types.ts";
import type { HeldImage, HoldOptions } from "./capture.ts";
import { CopiedImage, openCopy, readFrame, readThere } from "./image.ts";
import { readHeader, sameStat } from "./live_database.ts";
import { ObservedLog, whileThere } from "./observed_log.ts";
import { missingGrowth, pagesFrom, passes, positionAfter, type Scan, type WalPlace } from "./wal_log.ts";

const runSize = 1024 * 1024;
/** Bytes that a copy leaves free. */
const spareMin = 64 * 1024 * 1024;
/** File times may be coarse: what was written less than this ago may be written again without another time. */
const settledMs = 2000;

/** How a copy is made. */
export interface CopyOptions extends Partial<HoldOptions> {
  /** All pages, whatever is known of the log. */
  readonly isWhole?: boolean;
}

/** A database file beside an empty log, as it was copied; `isSettled`: any later write shows. */
export interface CleanFile {
  readonly stat: FileStat;
  readonly isSettled: boolean;
}

/** What was copied. */
export interface ObservedCopy extends HeldImage {
  readonly takenMs: number;
  /** Pages of the last transaction in it. */
  readonly lastPages: ReadonlySet<number>;
  /** The file, where it alone was the database. */
  readonly clean: CleanFile | null;
}

type Overlaid = Omit<ObservedCopy, "release" | "clean">;

/** What is copied, and where to. */
export interface ObservedSource {
  readonly path: string;
  readonly file: OpenFile;
  readonly pageSize: number;
  /** Device and inode of the file. */
  readonly identity: FileStat;
  readonly directory: string;
  readonly runtime: { readonly files: Files; readonly clock: Clock };
}

/** False while the time of a file may hide a write after `nowMs`. */
export function isSettled({ mtimeNs }: FileStat, nowMs: number): boolean {
  return nowMs - Number(mtimeNs / 1_000_000n) >= settledMs;
}

/** See the top of this file. */
export class ObservedCopier {
  readonly #source: ObservedSource;

  constructor(source: ObservedSource) {
    this.#source = source;
  }

  /**
   * Copies the pages that may differ. In this order: pages of the database, then the log. What a checkpoint wrote into
   * the file meanwhile is in the log too, as long as that is not restarted: then, and when the log went away, `null`.
   */
  async copy(log: ObservedLog | null, options: CopyOptions): Promise<ObservedCopy | null> {
    const { path, identity, directory, runtime } = this.#source;
    const { files, clock } = runtime;
    const header = log?.readHeader() ?? null;
    const nowMs = clock.now();
    const before = files.stat(path);
    if (before?.inode !== identity.inode || before.device !== identity.device) return null;
    // Judged by a time before the copy: what is written from here on shows only if it must have another time.
    const hasSettled = isSettled(before, nowMs);
    const { since } = options;
    const passed = since !== undefined && log !== null && header !== null && this.#passes(log, header, since);
    const only = passed && options.isWhole !== true ? options.pages ?? new Set<number>() : null;
    files.makeDirectory(directory);
    if (only === null) this.#assertRoom(before.size);
    const copy = openCopy(`${directory}/observe.copy`, files);
    let image: Overlaid | "incomplete" | null = null;
    try {
      await this.#copyFile(copy, only);
      image = whileThere(() => this.#overlay(copy, { log, before, header, passed, only, ...options }), null);
      const isFileAlone = image !== null && image !== "incomplete" && image.end === null;
      // What was written a moment ago may be written again without another time.
      if (isFileAlone && !hasSettled && !await this.#isAsCopied(copy, { log, header, only })) image = null;
    } finally {
      if (image === null || image === "incomplete") copy.close();
    }
    // It grew by pages that only the file has.
    if (image === "incomplete") return await this.copy(log, { ...options, isWhole: true });
    if (image === null) return null;
    const clean = image.end === null ? { stat: before, isSettled: hasSettled } : null;
    return { ...image, clean, release: () => copy.close() };
  }

  /** A copy that would fill the disk is not begun: others write there too. */
  #assertRoom(size: number): void {
    const { path, directory, runtime } = this.#source;
    const free = runtime.files.freeBytes(directory);
    if (free >= size + spareMin) return;
    throw new DatabaseError(
      "no_room",
      `observing ${path} needs room for a copy of its ${size} bytes, ${free} are free`,
      {
        hint: `make room on the disk of ${directory}, or give a --state-dir on a larger one`,
        data: { path, directory, size, free },
      },
    );
  }

  /** A checkpoint may cut the file meanwhile: what it cut off, or what came again after it, the log says. */
  async #copyFile(copy: OpenFile, only: ReadonlySet<number> | null): Promise<void> {
    for await (const { bytes, start } of this.#readFile(only)) copy.write(bytes, start);
  }

  /**
   * True when the file was, in the moment of this call, what the copy is, and a whole database: every page is still
   * what it was when it was copied, and no checkpoint was under way, as the log had nothing for one.
   */
  async #isAsCopied(
    copy: OpenFile,
    { log, header, only }: { log: ObservedLog | null; header: WalHeader | null; only: ReadonlySet<number> | null },
  ): Promise<boolean> {
    const { path, pageSize, file, runtime } = this.#source;
    if (!ObservedLog.isInPlace(log, path, runtime.files) || (log !== null && !log.holds(header))) return false;
    if (header !== null && log!.scan(header, beginWalScan(header)).commit !== null) return false;
    const copied = new Uint8Array(only === null ? runSize : pageSize);
    for await (const { bytes, start } of this.#readFile(only)) {
      const part = copied.subarray(0, bytes.length);
      if (readThere(copy, part, start) !== part.length || !equalBytes(part, bytes)) return false;
    }
    return only !== null || file.stat().size === copy.stat().size;
  }

  /** The file from its first page to its last, or some pages of it; `bytes` are valid until the next ones. */
  async *#readFile(only: ReadonlySet<number> | null): AsyncGenerator<{ bytes: Uint8Array; start: number }> {
    const { pageSize, file, runtime } = this.#source;
    if (only !== null) {
      const bytes = new Uint8Array(pageSize);
      for (const pgno of only) {
        const start = (pgno - 1) * pageSize;
        if (readThere(file, bytes, start) === pageSize) yield { bytes, start };
      }
      return;
    }
    const buffer = new Uint8Array(runSize);
    for (let start = 0;;) {
      const length = readThere(file, buffer, start);
      if (length === 0) return;
      yield { bytes: buffer.subarray(0, length), start };
      start += length;
      await runtime.clock.sleep(0);
    }
  }

  /** Puts the newest committed frames over the copied pages; nothing else runs meanwhile. */
  #overlay(
    copy: OpenFile,
    options: CopyOptions & {
      log: ObservedLog | null;
      before: FileStat;
      header: WalHeader | null;
      passed: boolean;
      only: ReadonlySet<number> | null;
    },
  ): Overlaid | "incomplete" | null {
    const { log, before, header, passed, only, since, pages } = options;
    const { path, pageSize, runtime } = this.#source;
    const begin = header === null ? null : beginWalScan(header);
    const found = log === null || header === null || begin === null ? null : log.scan(header, begin);
    const commit = found?.commit ?? null;
    const committed: Scan["pages"] = found?.pages ?? new Map();
    const behind = new Set([...(pages ?? []), ...(passed ? pagesFrom(committed, since!.state.frames) : [])]);
    const pageCount = commit?.pageCount ?? before.size / pageSize;
    if (only !== null) {
      const pgnos = [...behind].sort((a, b) => a - b);
      if (missingGrowth({ pgnos, pageCount }, options.indexedCount ?? 0, pageSize) !== null) return "incomplete";
    }
    const page = new Uint8Array(pageSize);
    for (const [pgno, frame] of committed) {
      if (pgno > pageCount || (only !== null && !behind.has(pgno))) continue;
      readFrame({ wal: log!.file, pageSize }, frame, page);
      copy.write(page, (pgno - 1) * pageSize);
    }
    if (!Number.isInteger(pageCount) || pageCount < 1) return null;
    copy.truncate(pageCount * pageSize);
    const takenMs = runtime.clock.now();
    const end = commit === null ? null : positionAfter(header!, commit);
    if (!ObservedLog.isInPlace(log, path, runtime.files) || (log !== null && !log.holds(header))) return null;
    if (end !== null && !log!.leadsTo(end.state, header!, begin!)) return null;
    // What SQLite had not accepted may have been overwritten meanwhile, and all of it may differ then.
    if (passed && !this.#passes(log!, header!, since!)) return null;
    // Without a commit in the log the file alone is the database: then nobody may have written to it.
    if (end === null && !sameStat(before, runtime.files.stat(path))) return null;
    if ((only === null || behind.has(1)) && readHeader(path, copy).pageSize !== pageSize) return null;
    const inLog = new Set(committed.keys());
    const lastPages = pagesFrom(committed, commit?.firstFrame ?? 0);
    const image = new CopiedImage(copy, pageSize, pageCount);
    return { image, end, changed: passed ? behind : null, inLog, takenMs, lastPages };
  }

  #passes(log: ObservedLog, header: WalHeader, since: WalPlace): boolean {
    return whileThere(() => passes(log.file, header, since, log.countFrames()), false);
  }
}
