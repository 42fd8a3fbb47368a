import { StorageError } from "../errors.ts";

/**
 * The contract every object store keeps: memory, directory and S3.
 *
 * 1. Keys are non-empty strings of path segments; no segment is empty, `.` or `..`.
 * 2. An object appears whole or not at all, and is visible to every later call.
 * 3. Failed calls throw `StorageError`; retryable failures were already retried within limits.
 * 4. A conditional write that loses throws `PreconditionError` and changes nothing. When the stored bytes are
 *    identical to those sent, it succeeds instead (the reply to an earlier try was lost).
 * 5. Every call takes a signal and rejects with its reason when aborted.
 */

/** Cancels a call. */
export interface CallOptions {
  /** The call rejects with its reason when aborted. */
  signal?: AbortSignal;
}

/** What is known of a stored object. */
export interface ObjectInfo {
  /** Object key. */
  readonly key: string;
  /** Bytes. */
  readonly size: number;
  /** Opaque version of the content, for `ifMatch`; empty in listings of stores that do not say. */
  readonly etag: string;
  /** Unix milliseconds by the store's clock. */
  readonly lastModifiedMs: number;
}

/** An object's answer: what it is and its bytes. */
export interface ObjectBody {
  /** Size of the whole object, bytes, also for a ranged read. */
  readonly size: number;
  /** Opaque version of the content. */
  readonly etag: string;
  /** Chunks of the body (or range), total length proven; a chunk is valid until the next one is asked for. */
  readonly body: AsyncIterable<Uint8Array>;
}

/** Bytes `start` up to but not including `end`; `end` may lie beyond the object. */
export interface ByteRange {
  /** First byte. */
  readonly start: number;
  /** Byte after the last. */
  readonly end: number;
}

/** Reads a part. */
export interface GetOptions extends CallOptions {
  /** Only these bytes; the whole object when absent. */
  range?: ByteRange;
}

/** Makes a write conditional. */
export interface PutOptions extends CallOptions {
  /** Only when no object has this key. */
  ifAbsent?: boolean;
  /** Only when the object with this key has this etag. */
  ifMatch?: string;
}

/** Begins a listing in the middle. */
export interface ListOptions extends CallOptions {
  /** Only keys after this one. */
  startAfter?: string;
}

/** See the rules at the top of this file. */
export interface ObjectStore {
  /** Where the objects are, for messages: `s3://bucket`, `file:///dir`, `memory:`. */
  readonly location: string;
  /** Tells a bucket from one of the same name elsewhere, such as its URL; {@linkcode location} does where this is absent. */
  readonly identity?: string;
  /** Reads an object or a range of it; throws `NotFoundError`. A broken stream is resumed by range. */
  get(key: string, options?: GetOptions): Promise<ObjectBody>;
  /** `null` when no object has this key. */
  head(key: string, options?: CallOptions): Promise<ObjectInfo | null>;
  /** Stores `body`, at most 64 MiB; `body` is unchanged until the call ends. Returns the new etag. */
  put(key: string, body: Uint8Array, options?: PutOptions): Promise<{ etag: string }>;
  /**
   * Stores a stream of any size in bounded memory; a chunk is used before the next one is asked for.
   * Nothing is visible until the stream has ended; when it throws, what was sent is removed.
   * Condition and identical-bytes rule apply on completion (the latter by size and a comparison of all bytes hashed).
   */
  putStream(
    key: string,
    chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    options?: CallOptions & { ifAbsent?: boolean },
  ): Promise<{ etag: string }>;
  /** All objects whose key starts with `prefix`, ascending by key (UTF-8 bytes), page by page. */
  list(prefix: string, options?: ListOptions): AsyncIterable<ObjectInfo>;
  /** The distinct beginnings `prefix…/` one level below `prefix`, ascending. */
  listDirectories(prefix: string, options?: CallOptions): Promise<string[]>;
  /** Deletes; absent keys count as deleted. Returns what could not be deleted. */
  deleteMany(keys: readonly string[], options?: CallOptions): Promise<{ key: string; error: StorageErrorLike }[]>;
}

/** Why one key of many could not be deleted. */
export interface StorageErrorLike {
  /** The store's word for it, such as `AccessDenied`. */
  readonly code: string;
  /** For people. */
  readonly message: string;
}

/** Reads a whole object of at most `limit` bytes into memory; a larger one is refused before it is read. */
export async function getBytes(
  store: ObjectStore,
  key: string,
  limit: number,
  options: GetOptions = {},
): Promise<{ bytes: Uint8Array; etag: string; size: number }> {
  const object = await store.get(key, options);
  const end = Math.min(object.size, options.range?.end ?? object.size);
  const length = Math.max(0, end - (options.range?.start ?? 0));
  if (length > limit) {
    await object.body[Symbol.asyncIterator]().return?.();
    throw new StorageError("TooLarge", `${key} has ${length} bytes; at most ${limit} were expected`, { key });
  }
  const bytes = new Uint8Array(length);
  let filled = 0;
  for await (const chunk of object.body) {
    bytes.set(chunk, filled);
    filled += chunk.length;
  }
  // Else zeros would be taken for content.
  if (filled !== length) {
    throw new StorageError("Truncated", `${key}: ${filled} of ${length} bytes came`, { key, retryable: true });
  }
  return { bytes, etag: object.etag, size: object.size };
}
