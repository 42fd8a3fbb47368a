import { hexOf } from "../format/bytes.ts";
import type { Files, OpenFile, Random } from "../runtime/types.ts";

/** Directory of half-written objects and of the lock, in that of the bucket; never listed, never a key. */
export const scratchName = ".walrust-tmp";

/** A lock is held for microseconds; one this old belongs to a process that is gone. */
const lockStaleNs = 30_000_000_000n;
const temporaryStaleNs = 24n * 3600n * 1_000_000_000n;

/** What a bucket directory holds besides objects. Errors are those of the file system. */
export class DirectoryScratch {
  readonly #directory: string;
  readonly #files: Files;
  readonly #random: Random;
  #swept = false;

  /** `directory`: that of the scratch itself; made when it is first needed. */
  constructor(directory: string, files: Files, random: Random) {
    this.#directory = directory;
    this.#files = files;
    this.#random = random;
  }

  /** A new file; whoever makes it removes or renames it. */
  create(): OpenFile {
    const name = hexOf(this.#random.bytes(12));
    if (this.#files.stat(this.#directory) === null) this.#files.makeDirectory(this.#directory);
    const file = this.#files.open(`${this.#directory}/${name}`, "exclusive");
    if (!this.#swept) {
      this.#swept = true;
      this.#sweep(file.stat().mtimeNs);
    }
    return file;
  }

  /** Takes the lock: close and remove the file to let go of it. `null` while another process holds it. */
  tryLock(): OpenFile | null {
    try {
      return this.#files.open(this.lockPath, "exclusive");
    } catch (error) {
      if ((error as { code?: unknown }).code !== "EEXIST") throw error;
    }
    this.#breakStaleLock();
    return null;
  }

  /** Where the lock is, for messages. */
  get lockPath(): string {
    return `${this.#directory}/lock`;
  }

  /** Ages are differences of modification times on the same file system, so no clock can be wrong. */
  #breakStaleLock(): void {
    const held = this.#files.stat(this.lockPath);
    if (held === null) return;
    const probe = this.create();
    try {
      if (probe.stat().mtimeNs - held.mtimeNs < lockStaleNs) return;
      const aside = `${probe.path}-lock`;
      this.#files.rename(this.lockPath, aside);
      const moved = this.#files.stat(aside);
      if (moved !== null && moved.inode !== held.inode) this.#files.link(aside, this.lockPath);
      this.#files.remove(aside);
    } catch (error) {
      // Whoever was quicker has broken it, or put back what belongs there.
      const { code } = error as { code?: unknown };
      if (code !== "ENOENT" && code !== "EEXIST") throw error;
    } finally {
      probe.close();
      this.#files.remove(probe.path);
    }
  }

  /** Removes what writers that died a day ago have left. */
  #sweep(nowNs: bigint): void {
    for (const entry of this.#files.list(this.#directory)) {
      const path = `${this.#directory}/${entry.name}`;
      const stat = entry.type === "file" ? this.#files.stat(path) : null;
      if (stat !== null && nowNs - stat.mtimeNs > temporaryStaleNs) this.#files.remove(path);
    }
  }
}
