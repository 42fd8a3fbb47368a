/**
 * A consistent image of a pinned database: the file overlaid with the newest committed frame of each page.
 *
 * Why nothing can change under it while its pin lives: a pin on a frame stops backfill beyond that frame and any
 * restart of the WAL; a pin on read mark 0 stops all backfill, and allows one restart of a WAL that was already
 * copied into the file, in which case the image uses the file alone.
 */
import { DatabaseError } from "../errors.ts";
import { walFrameHeaderSize, walFrameOffset } from "../format/wal.ts";
import type { Clock, Files, OpenFile } from "../runtime/types.ts";

const attemptsMax = 100;
const attemptPauseMs = 5;

/** Pages 1..pageCount of one commit, which stay as they are while they are read. */
export interface ImageSource {
  /** Bytes. */
  readonly pageSize: number;
  readonly pageCount: number;
  /** Fills `into` with `count` pages from `first` on. Throws `DatabaseError` when a page cannot be read whole. */
  read(first: number, count: number, into: Uint8Array): void;
}

/** The open files of a database. */
export interface DatabaseFiles {
  /** Bytes. */
  readonly pageSize: number;
  readonly file: OpenFile;
  readonly wal: OpenFile;
}

/** The image of a pinned database. */
export class Image implements ImageSource {
  /** Bytes. */
  readonly pageSize: number;
  readonly pageCount: number;
  readonly #live: DatabaseFiles;
  readonly #frames: ReadonlyMap<number, number>;

  /** `frames` maps pgno to the 0-based WAL frame with its newest content; pages not in it are in the file. */
  constructor(live: DatabaseFiles, pageCount: number, frames: ReadonlyMap<number, number>) {
    this.pageSize = live.pageSize;
    this.pageCount = pageCount;
    this.#live = live;
    this.#frames = frames;
  }

  /** Fills `into` with `count` pages from `first` on. Throws `DatabaseError` when a page cannot be read whole. */
  read(first: number, count: number, into: Uint8Array): void {
    const { pageSize } = this;
    const start = (first - 1) * pageSize;
    const length = count * pageSize;
    const inFile = Math.max(0, Math.min(length, this.#live.file.stat().size - start));
    if (inFile > 0) readWhole(this.#live.file, into.subarray(0, inFile), start);
    // A page that was allocated and freed before it was ever written lies beyond the file: SQLite reads zeros too.
    into.fill(0, inFile, length);
    if (this.#frames.size === 0) return;
    for (let page = 0; page < count; page++) {
      const frame = this.#frames.get(first + page);
      if (frame === undefined) continue;
      readFrame(this.#live, frame, into.subarray(page * pageSize, (page + 1) * pageSize));
    }
  }
}

/** An image copied into a file of ours, so that the pin need not wait for an upload. */
export class CopiedImage implements ImageSource {
  readonly pageSize: number;
  readonly pageCount: number;
  readonly #file: OpenFile;

  constructor(file: OpenFile, pageSize: number, pageCount: number) {
    this.pageSize = pageSize;
    this.pageCount = pageCount;
    this.#file = file;
  }

  read(first: number, count: number, into: Uint8Array): void {
    readWhole(this.#file, into.subarray(0, count * this.pageSize), (first - 1) * this.pageSize);
  }
}

/** A new file for a copy, which ends with its descriptor, however we end; `path` is its name for a moment. */
export function openCopy(path: string, files: Files): OpenFile {
  files.remove(path);
  const copy = files.open(path, "exclusive");
  files.remove(path);
  return copy;
}

/** What `read` returns once no restart of the log came between (`null`). Throws `DatabaseError` when that never is. */
export async function whenSteady<T>(path: string, clock: Clock, read: () => Promise<T | null>): Promise<T> {
  for (let attempt = 0; attempt < attemptsMax; attempt++) {
    const found = await read();
    if (found !== null) return found;
    await clock.sleep(attemptPauseMs);
  }
  throw new DatabaseError("unsteady", `the WAL of ${path} does not stand still for a read`, { data: { path } });
}

/** Reads the page of one WAL frame. */
export function readFrame(
  { wal, pageSize }: Pick<DatabaseFiles, "wal" | "pageSize">,
  frame: number,
  into: Uint8Array,
): void {
  readWhole(wal, into, walFrameOffset(pageSize, frame) + walFrameHeaderSize);
}

/** Reads exactly `into.length` bytes; tries twice, then fails: a short read must never become a page of zeros. */
export function readWhole(file: OpenFile, into: Uint8Array, position: number): void {
  readTwice(file, into, position, (length) => length === into.length);
}

/** Reads as much as the file has there; a read that comes up short or fails is tried twice, and is never its end. */
export function readThere(file: OpenFile, into: Uint8Array, position: number): number {
  let size = Infinity;
  return readTwice(file, into, position, (length) => {
    // It may have grown, or been cut, since it was read: the second read is held to what was there before it.
    if (length === into.length || position + length >= size) return true;
    size = file.stat().size;
    return position + length >= size;
  });
}

function readTwice(file: OpenFile, into: Uint8Array, position: number, isAll: (length: number) => boolean): number {
  let failure: unknown;
  for (let attempt = 0; attempt < 2; attempt++) {
    try {
      const length = file.read(into, position);
      if (isAll(length)) return length;
    } catch (error) {
      failure = error;
    }
  }
  throw new DatabaseError("short_read", `${file.path}: ${into.length} bytes at offset ${position} cannot be read`, {
    hint: "check the disk",
    data: { path: file.path, offset: position, length: into.length },
    cause: failure,
  });
}
