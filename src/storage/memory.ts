import { NotFoundError } from "../errors.ts";
import { equalBytes } from "../format/bytes.ts";
import type { Clock } from "../runtime/types.ts";
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

interface Stored {
  readonly bytes: Uint8Array;
  readonly etag: string;
  readonly lastModifiedMs: number;
}

/** Objects in memory: for tests, simulation, and as the shortest statement of what a store does. */
export class MemoryStore implements ObjectStore {
  /** Where the objects are, for messages. */
  readonly location = "memory:";
  readonly #objects = new Map<string, Stored>();
  readonly #clock: Clock | undefined;
  #version = 0;

  /** Without a clock, `lastModifiedMs` counts the writes. */
  constructor(options: { clock?: Clock } = {}) {
    this.#clock = options.clock;
  }

  /** See {@linkcode ObjectStore.get}. */
  async get(key: string, options: GetOptions = {}): Promise<ObjectBody> {
    await this.#begin(key, options);
    const stored = this.#objects.get(key);
    if (stored === undefined) {
      throw new NotFoundError("NoSuchKey", `${key}: no such object in ${this.location}`, { key });
    }
    if (options.range) checkRange(options.range);
    const { start, end } = options.range ?? { start: 0, end: stored.bytes.length };
    return {
      size: stored.bytes.length,
      etag: stored.etag,
      body: chunksOf(stored.bytes.subarray(start, Math.max(start, end)), options.signal),
    };
  }

  /** See {@linkcode ObjectStore.head}. */
  async head(key: string, options: CallOptions = {}): Promise<ObjectInfo | null> {
    await this.#begin(key, options);
    const stored = this.#objects.get(key);
    return stored === undefined ? null : infoOf(key, stored);
  }

  /** See {@linkcode ObjectStore.put}. */
  async put(key: string, body: Uint8Array, options: PutOptions = {}): Promise<{ etag: string }> {
    checkPutSize(key, body.length);
    await this.#begin(key, options);
    return this.#write(key, body, options);
  }

  /** See {@linkcode ObjectStore.putStream}. */
  async putStream(
    key: string,
    chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    options: CallOptions & { ifAbsent?: boolean } = {},
  ): Promise<{ etag: string }> {
    await this.#begin(key, options);
    const parts: Uint8Array[] = [];
    let size = 0;
    for await (const chunk of chunks) {
      options.signal?.throwIfAborted();
      parts.push(chunk.slice());
      size += chunk.length;
    }
    options.signal?.throwIfAborted();
    const body = new Uint8Array(size);
    let filled = 0;
    for (const part of parts) {
      body.set(part, filled);
      filled += part.length;
    }
    return this.#write(key, body, options);
  }

  /** See {@linkcode ObjectStore.list}. */
  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<ObjectInfo> {
    checkPrefix(prefix);
    await Promise.resolve();
    for (const key of this.#keys(prefix)) {
      options.signal?.throwIfAborted();
      if (options.startAfter !== undefined && compareKeys(key, options.startAfter) <= 0) continue;
      // An object deleted while the listing runs is left out, as a later page of S3 would leave it out.
      const stored = this.#objects.get(key);
      if (stored !== undefined) yield infoOf(key, stored);
    }
    options.signal?.throwIfAborted();
  }

  /** See {@linkcode ObjectStore.listDirectories}. */
  async listDirectories(prefix: string, options: CallOptions = {}): Promise<string[]> {
    checkPrefix(prefix);
    await Promise.resolve();
    options.signal?.throwIfAborted();
    const found = new Set<string>();
    for (const key of this.#keys(prefix)) {
      const slash = key.indexOf("/", prefix.length);
      if (slash >= 0) found.add(key.slice(0, slash + 1));
    }
    return [...found];
  }

  /** See {@linkcode ObjectStore.deleteMany}. */
  async deleteMany(
    keys: readonly string[],
    options: CallOptions = {},
  ): Promise<{ key: string; error: StorageErrorLike }[]> {
    for (const key of keys) await this.#begin(key, options);
    for (const key of keys) this.#objects.delete(key);
    return [];
  }

  /** A turn of the event loop, so that callers meet the same interleavings as with a real store. */
  async #begin(key: string, options: CallOptions): Promise<void> {
    checkKey(key);
    await Promise.resolve();
    options.signal?.throwIfAborted();
  }

  #keys(prefix: string): string[] {
    return [...this.#objects.keys()].filter((key) => key.startsWith(prefix)).sort(compareKeys);
  }

  #write(key: string, body: Uint8Array, options: PutOptions): { etag: string } {
    const before = this.#objects.get(key);
    const lost = (options.ifAbsent && before !== undefined) ||
      (options.ifMatch !== undefined && before?.etag !== options.ifMatch);
    if (lost) {
      if (before !== undefined && equalBytes(before.bytes, body)) return { etag: before.etag };
      throw preconditionFailed(key, options, { bucket: this.location });
    }
    const etag = `"${++this.#version}"`;
    this.#objects.set(key, { bytes: body.slice(), etag, lastModifiedMs: this.#clock?.now() ?? this.#version });
    return { etag };
  }
}

function infoOf(key: string, stored: Stored): ObjectInfo {
  return { key, size: stored.bytes.length, etag: stored.etag, lastModifiedMs: stored.lastModifiedMs };
}

async function* chunksOf(bytes: Uint8Array, signal: AbortSignal | undefined): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; at += chunkSize) {
    await Promise.resolve();
    signal?.throwIfAborted();
    // A copy: the reader may write into what it gets, the store may not change.
    yield bytes.slice(at, at + chunkSize);
  }
}
