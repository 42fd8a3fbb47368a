/** A WAL file that nobody keeps for us: it may be cut, overwritten or replaced between two reads. */
import { DatabaseError } from "../errors.ts";
import { walFrameHeaderSize, type WalHeader, walHeaderSize } from "../format/wal.ts";
import type { Files, FileStat, OpenFile } from "../runtime/types.ts";
import { openIfThere } from "./small_file.ts";
import { readWalHeader, sameLog, type Scan, scanLog, type ScanOptions, type WalPosition } from "./wal_log.ts";

/** See the top of this file. */
export class ObservedLog {
  readonly file: OpenFile;
  readonly #pageSize: number;

  private constructor(file: OpenFile, pageSize: number) {
    this.file = file;
    this.#pageSize = pageSize;
  }

  /** Opens the WAL of a database for reading; `null` when there is none. */
  static open(databasePath: string, pageSize: number, files: Files): ObservedLog | null {
    const file = openIfThere(files, walPathOf(databasePath));
    return file === null ? null : new ObservedLog(file, pageSize);
  }

  /** True while the name of the WAL leads to this file; without a log, to none. */
  static isInPlace(log: ObservedLog | null, databasePath: string, files: Files): boolean {
    const there: FileStat | null = files.stat(walPathOf(databasePath));
    const held = log?.file.stat();
    return there?.inode === held?.inode && there?.device === held?.device;
  }

  /** The log that the file holds now. */
  readHeader(): WalHeader | null {
    return readWalHeader(this.file);
  }

  /** True while the file holds this log; `null`: none. */
  holds(header: WalHeader | null): boolean {
    const now = this.readHeader();
    return header === null || now === null ? header === now : sameLog(header, now);
  }

  /** Frames that the file has room for. */
  countFrames(): number {
    return Math.max(0, Math.floor((this.file.stat().size - walHeaderSize) / (walFrameHeaderSize + this.#pageSize)));
  }

  /** Scans what is in the file now. A log that becomes shorter meanwhile was emptied: it ends there. */
  scan(header: WalHeader, from: WalPosition["state"], options: ScanOptions & { limit?: number } = {}): Scan {
    const limit = Math.min(options.limit ?? Infinity, this.countFrames());
    try {
      return scanLog(this.file, header, from, Math.max(limit, from.frames), options);
    } catch (error) {
      if (!isShortRead(error) || this.countFrames() >= limit) throw error;
      return { pages: new Map(), commit: null, frames: from.frames, cut: false };
    }
  }

  /** True when the frames from `from` on still lead to `end`. */
  leadsTo(end: WalPosition["state"], header: WalHeader, from: WalPosition["state"]): boolean {
    const { commit } = this.scan(header, from, { limit: end.frames });
    return commit?.frame === end.frames - 1 && commit.checksum1 === end.checksum1 &&
      commit.checksum2 === end.checksum2;
  }

  close(): void {
    this.file.close();
  }
}

/** Reads what nobody keeps for us; `otherwise` when it was cut off meanwhile. */
export function whileThere<T>(work: () => T, otherwise: T): T {
  try {
    return work();
  } catch (error) {
    if (!isShortRead(error)) throw error;
    return otherwise;
  }
}

function isShortRead(error: unknown): boolean {
  return error instanceof DatabaseError && error.code === "short_read";
}

function walPathOf(databasePath: string): string {
  return `${databasePath}-wal`;
}
