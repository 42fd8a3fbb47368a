import { NotFoundError, StorageError } from "../errors.ts";
import { equalBytes } from "../format/bytes.ts";
import type { Clock, Files, FileStat, OpenFile, Random } from "../runtime/types.ts";
import { DirectoryScratch, scratchName } from "./directory_scratch.ts";
import { checkKey, checkPrefix, checkPutSize, checkRange, compareKeys, preconditionFailed } from "./object_key.ts";
import type {
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectBody,
  ObjectInfo,
  ObjectStore,
  PutOptions,
  StorageErrorLike,
} from "./object_store.ts";

const chunkSize = 1024 * 1024;
/** Up to this size an object is read at once, so that a document replaced meanwhile is never torn. */
const eagerSizeMax = 64 * 1024;
/** Some milliseconds apart for a second, then longer: together more than it takes to see that a holder is gone. */
const lockTriesQuick = 100;
const lockTries = 300;

/**
 * Objects as files below one directory (`file://`). An object is written to a temporary file, forced to the disk and
 * given its name by rename, or by an exclusive link for `ifAbsent`; `ifMatch` holds a lock file from the look to the
 * rename. A key that is a directory of other keys (`a` beside `a/b`) cannot be stored.
 */
export class DirectoryStore implements ObjectStore {
  /** Where the objects are, for messages. */
  readonly location: string;
  readonly #root: string;
  readonly #files: Files;
  readonly #random: Random;
  readonly #clock: Clock | undefined;
  readonly #scratch: DirectoryScratch;
  #spare: Uint8Array | null = null;

  /** `clock` is used to wait for the lock of another process; without one the wait is a short spin. */
  constructor(options: { directory: string; files: Files; random: Random; clock?: Clock }) {
    this.#root = options.directory.length > 1 ? options.directory.replace(/\/+$/, "") : options.directory;
    this.location = `file://${this.#root}`;
    this.#files = options.files;
    this.#random = options.random;
    this.#clock = options.clock;
    this.#scratch = new DirectoryScratch(this.#path(scratchName), options.files, options.random);
  }

  /** See {@linkcode ObjectStore.get}. */
  async get(key: string, options: GetOptions = {}): Promise<ObjectBody> {
    await this.#begin(key, options);
    if (options.range) checkRange(options.range);
    return this.#translate(key, () => {
      const stat = this.#stat(key);
      if (stat === null) throw this.#notFound(key);
      const file = this.#open(key);
      try {
        const now = file.stat();
        const start = Math.min(options.range?.start ?? 0, now.size);
        const end = Math.max(start, Math.min(options.range?.end ?? now.size, now.size));
        const etag = etagOf(now);
        if (end - start > eagerSizeMax) {
          return { size: now.size, etag, body: this.#readLater(key, etag, start, end, options.signal) };
        }
        const bytes = new Uint8Array(end - start);
        if (file.read(bytes, start) !== bytes.length) throw this.#truncated(key);
        return { size: now.size, etag, body: onceOf(bytes) };
      } finally {
        file.close();
      }
    });
  }

  /** See {@linkcode ObjectStore.head}. */
  async head(key: string, options: CallOptions = {}): Promise<ObjectInfo | null> {
    await this.#begin(key, options);
    return this.#translate(key, () => {
      const stat = this.#stat(key);
      return stat === null ? null : infoOf(key, stat);
    });
  }

  /** See {@linkcode ObjectStore.put}. */
  async put(key: string, body: Uint8Array, options: PutOptions = {}): Promise<{ etag: string }> {
    checkPutSize(key, body.length);
    return await this.putStream(key, [body], options);
  }

  /** See {@linkcode ObjectStore.putStream}. */
  async putStream(
    key: string,
    chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    options: PutOptions = {},
  ): Promise<{ etag: string }> {
    await this.#begin(key, options);
    const temporary = this.#translate(key, () => this.#scratch.create());
    try {
      let position = 0;
      for await (const chunk of chunks) {
        if (position > 0) await this.#turn();
        options.signal?.throwIfAborted();
        this.#translate(key, () => temporary.write(chunk, position));
        position += chunk.length;
      }
      options.signal?.throwIfAborted();
      const etag = this.#translate(key, () => {
        temporary.sync();
        return etagOf(temporary.stat());
      });
      if (options.ifMatch !== undefined) return await this.#replaceMatching(key, temporary, etag, options);
      return this.#translate(key, () => this.#publish(key, temporary, etag, options));
    } finally {
      temporary.close();
      this.#files.remove(temporary.path);
    }
  }

  /** See {@linkcode ObjectStore.list}. */
  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<ObjectInfo> {
    checkPrefix(prefix);
    await Promise.resolve();
    for (const found of this.#walk(prefix.slice(0, prefix.lastIndexOf("/") + 1), prefix, options.startAfter)) {
      options.signal?.throwIfAborted();
      yield found;
    }
    options.signal?.throwIfAborted();
  }

  /** See {@linkcode ObjectStore.listDirectories}. */
  async listDirectories(prefix: string, options: CallOptions = {}): Promise<string[]> {
    checkPrefix(prefix);
    await Promise.resolve();
    options.signal?.throwIfAborted();
    const directory = prefix.slice(0, prefix.lastIndexOf("/") + 1);
    return this.#entries(directory)
      .map((entry) => entry.key)
      .filter((key) => key.endsWith("/") && key.startsWith(prefix))
      // A directory without an object below it is a remnant, not a directory of the bucket.
      .filter((key) => !this.#walk(key, key, undefined).next().done);
  }

  /** See {@linkcode ObjectStore.deleteMany}. */
  async deleteMany(
    keys: readonly string[],
    options: CallOptions = {},
  ): Promise<{ key: string; error: StorageErrorLike }[]> {
    const failed: { key: string; error: StorageErrorLike }[] = [];
    const parents = new Set<string>();
    for (const key of keys) checkOwnKey(key);
    for (const key of keys) {
      await Promise.resolve();
      options.signal?.throwIfAborted();
      try {
        if (this.#stat(key) === null) continue;
        this.#files.remove(this.#path(key));
        parents.add(parentOf(key));
      } catch (error) {
        failed.push({ key, error: { code: codeOf(error), message: messageOf(error) } });
      }
    }
    for (const parent of parents) this.#tidy(parent);
    return failed;
  }

  async #begin(key: string, options: CallOptions): Promise<void> {
    checkOwnKey(key);
    await Promise.resolve();
    options.signal?.throwIfAborted();
  }

  /** Files are read and written at once: between the pieces of a large one everything else gets a turn. */
  async #turn(): Promise<void> {
    await this.#clock?.sleep(0);
  }

  #path(key: string): string {
    return this.#root === "/" ? `/${key}` : `${this.#root}/${key}`;
  }

  #stat(key: string): FileStat | null {
    try {
      const stat = this.#files.stat(this.#path(key));
      return stat?.type === "file" ? stat : null;
    } catch (error) {
      if (codeOf(error) === "ENOTDIR") return null;
      throw error;
    }
  }

  #open(key: string): OpenFile {
    try {
      return this.#files.open(this.#path(key), "read");
    } catch (error) {
      if (codeOf(error) === "ENOENT" || codeOf(error) === "ENOTDIR") throw this.#notFound(key);
      throw error;
    }
  }

  async *#readLater(
    key: string,
    etag: string,
    start: number,
    end: number,
    signal: AbortSignal | undefined,
  ): AsyncGenerator<Uint8Array> {
    // Opened only now: an answer whose body nobody reads must not keep a file open.
    const file = this.#translate(key, () => this.#open(key));
    try {
      if (etagOf(file.stat()) !== etag) {
        throw new StorageError("ObjectChanged", `${key}: replaced while it was read`, { key, retryable: true });
      }
      const buffer = end - start < chunkSize ? new Uint8Array(end - start) : this.#spare ?? new Uint8Array(chunkSize);
      if (buffer === this.#spare) this.#spare = null;
      for (let at = start; at < end; at += buffer.length) {
        await this.#turn();
        signal?.throwIfAborted();
        const chunk = buffer.subarray(0, Math.min(buffer.length, end - at));
        if (this.#translate(key, () => file.read(chunk, at)) !== chunk.length) throw this.#truncated(key);
        yield chunk;
      }
      // Read to the end, so nobody looks at it any more: large objects are read in many ranges, one after the other.
      if (buffer.length === chunkSize) this.#spare = buffer;
    } finally {
      file.close();
    }
  }

  /** Gives the temporary file its name, without a condition or only when the name is free. */
  #publish(key: string, temporary: OpenFile, etag: string, options: PutOptions): { etag: string } {
    const path = this.#path(key);
    for (let attempt = 1;; attempt++) {
      this.#makeParents(key);
      try {
        if (options.ifAbsent) this.#files.link(temporary.path, path);
        else this.#files.rename(temporary.path, path);
        this.#files.syncDirectory(this.#path(parentOf(key)));
        return { etag };
      } catch (error) {
        // Another process may remove the directory as empty between our making it and using it.
        if (codeOf(error) === "ENOENT" && attempt < 10) continue;
        if (codeOf(error) === "EEXIST" && options.ifAbsent) return this.#unlessDifferent(key, temporary, options);
        throw error;
      }
    }
  }

  async #replaceMatching(
    key: string,
    temporary: OpenFile,
    etag: string,
    options: PutOptions,
  ): Promise<{ etag: string }> {
    const lock = await this.#lock(key, options.signal);
    try {
      return this.#translate(key, () => {
        const current = this.#stat(key);
        if (current === null || etagOf(current) !== options.ifMatch) {
          return this.#unlessDifferent(key, temporary, options);
        }
        return this.#publish(key, temporary, etag, {});
      });
    } finally {
      lock.close();
      this.#files.remove(lock.path);
    }
  }

  /** The lost condition: fine when the object holds the very bytes we wanted to write. */
  #unlessDifferent(key: string, temporary: OpenFile, options: PutOptions): { etag: string } {
    if (this.#stat(key) !== null) {
      const stored = this.#open(key);
      try {
        const stat = stored.stat();
        if (stat.size === temporary.stat().size && sameContent(stored, temporary, stat.size)) {
          // Whoever wrote it may have died before the name was on the disk.
          this.#files.syncDirectory(this.#path(parentOf(key)));
          return { etag: etagOf(stat) };
        }
      } finally {
        stored.close();
      }
    }
    throw preconditionFailed(key, options, { bucket: this.location });
  }

  async #lock(key: string, signal: AbortSignal | undefined): Promise<OpenFile> {
    for (let attempt = 0; attempt < lockTries; attempt++) {
      const lock = this.#translate(key, () => this.#scratch.tryLock());
      if (lock !== null) return lock;
      const pauseMs = attempt < lockTriesQuick ? 1 + this.#random.number() * 20 : 100 + this.#random.number() * 200;
      if (this.#clock) await this.#clock.sleep(pauseMs, signal);
      else await Promise.resolve();
      signal?.throwIfAborted();
    }
    throw new StorageError("Locked", `${key}: ${this.#scratch.lockPath} is held by another process`, {
      key,
      bucket: this.location,
      retryable: true,
    });
  }

  /** Makes the directories of a key and forces the new names to the disk. */
  #makeParents(key: string): void {
    const missing: string[] = [];
    for (let parent = parentOf(key); parent !== ""; parent = parentOf(parent)) {
      if (this.#files.stat(this.#path(parent)) !== null) break;
      missing.push(parent);
    }
    if (missing.length === 0) return;
    this.#files.makeDirectory(this.#path(missing[0]));
    for (const made of missing) this.#files.syncDirectory(this.#path(parentOf(made)));
  }

  /** Forces deletions to the disk and removes directories that became empty. */
  #tidy(parent: string): void {
    try {
      this.#files.syncDirectory(this.#path(parent));
      for (let at = parent; at !== ""; at = parentOf(at)) this.#files.removeDirectory(this.#path(at));
    } catch (error) {
      // Already removed by another process: nothing is left to force.
      if (codeOf(error) !== "ENOENT") throw this.#failure(parent, error);
    }
  }

  /** Names in `directory` ("" or ending with "/") as keys, directories with a closing "/", in the order of keys. */
  #entries(directory: string): { key: string }[] {
    return this.#translate(directory, () => this.#files.list(this.#path(directory.replace(/\/$/, ""))))
      .filter((entry) => entry.type !== "other" && !(directory === "" && entry.name === scratchName))
      .map((entry) => ({ key: `${directory}${entry.name}${entry.type === "directory" ? "/" : ""}` }))
      .sort((a, b) => compareKeys(a.key, b.key));
  }

  *#walk(directory: string, prefix: string, startAfter: string | undefined): Generator<ObjectInfo> {
    for (const { key } of this.#entries(directory)) {
      if (!key.startsWith(prefix) && !prefix.startsWith(key)) continue;
      if (key.endsWith("/")) {
        const before = startAfter !== undefined && compareKeys(key, startAfter) < 0 && !startAfter.startsWith(key);
        if (!before) yield* this.#walk(key, prefix, startAfter);
      } else if (startAfter === undefined || compareKeys(key, startAfter) > 0) {
        const stat = this.#translate(key, () => this.#stat(key));
        if (stat !== null && key.startsWith(prefix)) yield infoOf(key, stat);
      }
    }
  }

  #notFound(key: string): NotFoundError {
    return new NotFoundError("NoSuchKey", `${key}: no such object in ${this.location}`, { key, bucket: this.location });
  }

  #truncated(key: string): StorageError {
    return new StorageError("Truncated", `${key}: the file became shorter while it was read`, { key, retryable: true });
  }

  #translate<T>(key: string, action: () => T): T {
    try {
      return action();
    } catch (error) {
      throw this.#failure(key, error);
    }
  }

  #failure(key: string, error: unknown): unknown {
    const code = codeOf(error);
    if (error instanceof StorageError || code === "") return error;
    return new StorageError(code, `${this.location}: ${messageOf(error)}`, {
      key,
      bucket: this.location,
      cause: error,
      hint: hints[code],
    });
  }
}

const hints: Record<string, string> = {
  ENOSPC: "Free space on the file system that holds the bucket directory.",
  EDQUOT: "Raise the quota of the file system that holds the bucket directory.",
  EACCES: "Give this user the right to read and write the bucket directory.",
  EPERM: "Give this user the right to read and write the bucket directory.",
  EROFS: "The file system is read-only; choose another bucket directory or remount it.",
};

function checkOwnKey(key: string): void {
  checkKey(key);
  if (key === scratchName || key.startsWith(`${scratchName}/`)) {
    throw new StorageError("InvalidKey", `object key ${JSON.stringify(key)} is reserved`, { key });
  }
}

function parentOf(key: string): string {
  return key.slice(0, Math.max(0, key.lastIndexOf("/")));
}

/** Every write makes a new inode, so inode, time and size name a version. */
function etagOf(stat: FileStat): string {
  return `"${stat.inode.toString(16)}-${stat.mtimeNs.toString(16)}-${stat.size.toString(16)}"`;
}

function infoOf(key: string, stat: FileStat): ObjectInfo {
  return { key, size: stat.size, etag: etagOf(stat), lastModifiedMs: Number(stat.mtimeNs / 1_000_000n) };
}

function sameContent(a: OpenFile, b: OpenFile, size: number): boolean {
  const left = new Uint8Array(Math.min(chunkSize, size));
  const right = new Uint8Array(left.length);
  for (let at = 0; at < size; at += left.length) {
    const length = Math.min(left.length, size - at);
    if (a.read(left.subarray(0, length), at) !== length || b.read(right.subarray(0, length), at) !== length) {
      return false;
    }
    if (!equalBytes(left.subarray(0, length), right.subarray(0, length))) return false;
  }
  return true;
}

async function* onceOf(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
  await Promise.resolve();
  if (bytes.length > 0) yield bytes;
}

function codeOf(error: unknown): string {
  const code = (error as { code?: unknown } | null)?.code;
  return typeof code === "string" ? code : "";
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
