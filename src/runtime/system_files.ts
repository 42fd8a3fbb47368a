/** Files through the synchronous calls of `node:fs`, which all three runtimes have. */
import fs from "node:fs";
import type { BigIntStats } from "node:fs";
import { dirname } from "node:path";
import process from "node:process";
import { withinLimit } from "./open_files.ts";
import type { Files, FileStat, OpenFile, OpenMode } from "./types.ts";

const { O_CREAT, O_EXCL, O_RDONLY, O_RDWR } = fs.constants;

const openFlags: Record<OpenMode, number> = {
  read: O_RDONLY,
  update: O_RDWR,
  create: O_RDWR | O_CREAT,
  exclusive: O_RDWR | O_CREAT | O_EXCL,
};

/** One call reads or writes at most this much: Linux stops at 2 GiB, and the runtimes disagree on larger numbers. */
const callMax = 1 << 30;

function codeOf(error: unknown): string | undefined {
  return (error as { code?: string } | null)?.code;
}

/** Runs `work`; errors with one of these codes are answered by `otherwise`. */
function unless<T>(codes: string[], otherwise: T, work: () => T): T {
  try {
    return work();
  } catch (error) {
    if (codes.includes(codeOf(error) ?? "")) return otherwise;
    throw error;
  }
}

function describe(stat: BigIntStats): FileStat {
  return {
    size: Number(stat.size),
    mtimeNs: stat.mtimeNs,
    device: stat.dev,
    inode: stat.ino,
    mode: Number(stat.mode & 0o7777n),
    uid: Number(stat.uid),
    type: stat.isFile() ? "file" : stat.isDirectory() ? "directory" : "other",
  };
}

/** A numeric descriptor: nothing but `close` ends it, above all not the garbage collector. */
class SystemFile implements OpenFile {
  readonly path: string;
  readonly #descriptor: number;
  #open = true;

  constructor(path: string, mode: OpenMode) {
    this.path = path;
    this.#descriptor = withinLimit(path, () => fs.openSync(path, openFlags[mode], 0o666));
  }

  read(into: Uint8Array, position: number): number {
    let done = 0;
    while (done < into.length) {
      const count = fs.readSync(this.#fd(), into, done, Math.min(into.length - done, callMax), position + done);
      if (count === 0) break;
      done += count;
    }
    return done;
  }

  write(bytes: Uint8Array, position: number): void {
    let done = 0;
    while (done < bytes.length) {
      done += fs.writeSync(this.#fd(), bytes, done, Math.min(bytes.length - done, callMax), position + done);
    }
  }

  truncate(size: number): void {
    fs.ftruncateSync(this.#fd(), size);
  }

  sync(): void {
    fs.fsyncSync(this.#fd());
  }

  stat(): FileStat {
    return describe(fs.fstatSync(this.#fd(), { bigint: true }));
  }

  close(): void {
    if (!this.#open) return;
    this.#open = false;
    fs.closeSync(this.#descriptor);
  }

  /** A closed descriptor's number may already belong to another file. */
  #fd(): number {
    if (!this.#open) throw new TypeError(`${this.path}: used after close`);
    return this.#descriptor;
  }
}

function entryType(directory: string, entry: fs.Dirent): "file" | "directory" | "other" {
  if (entry.isFile()) return "file";
  if (entry.isDirectory()) return "directory";
  if (!entry.isSymbolicLink()) return "other";
  return systemFiles.stat(`${directory}/${entry.name}`)?.type ?? "other";
}

/** Makes one directory; nothing happens when it is there. */
function makeOne(path: string): void {
  try {
    fs.mkdirSync(path);
  } catch (error) {
    if (codeOf(error) !== "EEXIST" || !fs.statSync(path).isDirectory()) throw error;
  }
}

/** By the numbers that Linux gives them (statfs(2)). */
const networkFileSystems: ReadonlyMap<number, string> = new Map([
  [0x6969, "NFS"],
  [0x517b, "SMB"],
  [0xff534d42, "CIFS"],
  [0xfe534d42, "SMB 2"],
  [0x01021997, "9P"],
  [0x00c36400, "Ceph"],
  [0x5346414f, "AFS"],
  [0x0bd00bd0, "Lustre"],
  [0x47504653, "GPFS"],
]);

/** The machine's file system. */
export const systemFiles: Files = {
  uid: process.geteuid?.() ?? null,
  stat(path) {
    // Absent is the usual answer of some polls: an exception for each would cost more than the call.
    return unless(["ENOENT", "ENOTDIR"], null, () => {
      const stats = fs.statSync(path, { bigint: true, throwIfNoEntry: false });
      return stats === undefined ? null : describe(stats);
    });
  },
  open(path, mode) {
    return new SystemFile(path, mode);
  },
  rename(from, to) {
    fs.renameSync(from, to);
  },
  link(from, to) {
    fs.linkSync(from, to);
  },
  remove(path) {
    unless(["ENOENT"], undefined, () => fs.unlinkSync(path));
  },
  makeDirectory(path) {
    // Not with `recursive`: Node then says ENOENT of a read-only file system.
    try {
      makeOne(path);
    } catch (error) {
      if (codeOf(error) !== "ENOENT" || dirname(path) === path) throw error;
      systemFiles.makeDirectory(dirname(path));
      makeOne(path);
    }
  },
  removeDirectory(path) {
    unless(["ENOENT", "ENOTEMPTY", "EEXIST"], undefined, () => fs.rmdirSync(path));
  },
  list(path) {
    const entries = withinLimit(
      path,
      () => unless(["ENOENT"], [], () => fs.readdirSync(path, { withFileTypes: true })),
    );
    return entries
      .map((entry) => ({ name: entry.name, type: entryType(path, entry) }))
      .sort((a, b) => (a.name < b.name ? -1 : a.name > b.name ? 1 : 0));
  },
  syncDirectory(path) {
    const descriptor = withinLimit(path, () => fs.openSync(path, O_RDONLY));
    try {
      fs.fsyncSync(descriptor);
    } finally {
      fs.closeSync(descriptor);
    }
  },
  freeBytes(path) {
    const stat = fs.statfsSync(path);
    return Number(stat.bavail) * Number(stat.bsize);
  },
  realPath(path) {
    return fs.realpathSync(path);
  },
  clone(from, to) {
    const { COPYFILE_EXCL, COPYFILE_FICLONE } = fs.constants;
    withinLimit(to, () => fs.copyFileSync(from, to, COPYFILE_EXCL | COPYFILE_FICLONE));
  },
  placeOf(path) {
    return unless(["ENOENT", "ENOTDIR", "EACCES", "ENOSYS"], null, () => {
      return { links: fs.statSync(path).nlink, network: networkFileSystems.get(fs.statfsSync(path).type) ?? null };
    });
  },
};
