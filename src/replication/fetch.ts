/** Fetching many objects ahead of their use: several at once, large ones in ranges, delivered in order, in bounded memory. */
import { IntegrityError, StorageError, WalrustError } from "../errors.ts";
import type { ObjectStore } from "../storage/object_store.ts";

/** An object of a known size. */
export interface FetchObject {
  readonly key: string;
  /** Bytes, as listed. */
  readonly size: number;
}

/** A part of an object. */
export interface FetchedPart {
  readonly object: FetchObject;
  /** Valid until the next part is asked for. */
  readonly bytes: Uint8Array;
  /** True for the object's last part. */
  readonly last: boolean;
}

/** Options of {@linkcode OrderedFetch}. */
export interface OrderedFetchOptions {
  store: ObjectStore;
  objects: Iterable<FetchObject>;
  /** Requests at once. */
  parallel: number;
  /** Larger objects are read in ranges of this size, bytes; {@linkcode rangeSize} unless said otherwise. */
  rangeSize?: number;
  signal?: AbortSignal;
  /** Told of every byte that arrives. */
  onBytes?: (bytes: number) => void;
}

/** Requests at once, unless said otherwise. */
export const parallelDefault: number = 8;

/** Large objects are read in ranges of this size, bytes. */
export const rangeSize: number = 4 * 1024 * 1024;

/** Parts fetched or in flight never hold more than this many ranges, beside the one in use. */
const aheadRangesMax = 3;

/** Smaller parts get an array of their own; larger ones a reused one of a range's size. */
const smallPartMax = 256 * 1024;

/** The store retries by itself; these are tries beyond that, for bodies that break off. */
const triesMax = 4;

interface Part {
  readonly object: FetchObject;
  readonly start: number;
  readonly end: number;
}

interface Ahead {
  readonly part: Part;
  readonly buffer: Uint8Array;
  readonly done: Promise<void>;
}

/** Reads objects in order while fetching ahead. Call {@linkcode OrderedFetch.close} when done, also after an error. */
export class OrderedFetch {
  /** Requests sent, retries included. */
  requests = 0;
  readonly #options: OrderedFetchOptions;
  readonly #parts: Iterator<Part>;
  readonly #ahead: Ahead[] = [];
  readonly #free: Uint8Array[] = [];
  readonly #abort = new AbortController();
  readonly #signal: AbortSignal;
  readonly #rangeSize: number;
  #aheadBytes = 0;
  #inUse: Uint8Array | null = null;
  #pending: Part | null = null;

  constructor(options: OrderedFetchOptions) {
    this.#options = options;
    this.#rangeSize = options.rangeSize ?? rangeSize;
    this.#parts = partsOf(options.objects, this.#rangeSize);
    const { signal } = options;
    this.#signal = signal === undefined ? this.#abort.signal : AbortSignal.any([signal, this.#abort.signal]);
  }

  /** The next part, or null after the last object. */
  async next(): Promise<FetchedPart | null> {
    if (this.#inUse !== null) this.#release(this.#inUse);
    this.#inUse = null;
    this.#fill();
    const ahead = this.#ahead.shift();
    if (ahead === undefined) return null;
    await ahead.done;
    this.#signal.throwIfAborted();
    this.#aheadBytes -= ahead.buffer.length;
    this.#inUse = ahead.buffer;
    this.#fill();
    const { object, start, end } = ahead.part;
    return { object, bytes: ahead.buffer.subarray(0, end - start), last: end === object.size };
  }

  /** Stops what is in flight and waits for it. */
  async close(): Promise<void> {
    this.#abort.abort(new Error("fetch closed"));
    await Promise.allSettled(this.#ahead.map((ahead) => ahead.done));
    this.#ahead.length = 0;
    this.#free.length = 0;
  }

  #fill(): void {
    while (this.#ahead.length < this.#options.parallel) {
      this.#pending ??= takeFrom(this.#parts);
      if (this.#pending === null) return;
      const part = this.#pending;
      const length = part.end - part.start;
      const space = length <= smallPartMax ? length : this.#rangeSize;
      if (this.#ahead.length > 0 && this.#aheadBytes + space > aheadRangesMax * this.#rangeSize) return;
      this.#pending = null;
      const isReused = space === this.#rangeSize;
      const buffer = isReused ? this.#free.pop() ?? new Uint8Array(space) : new Uint8Array(space);
      this.#aheadBytes += buffer.length;
      const done = this.#fetch(part, buffer);
      // The failure is reported by next(), which may come much later.
      done.catch(() => {});
      this.#ahead.push({ part, buffer, done });
    }
  }

  #release(buffer: Uint8Array): void {
    if (buffer.length === this.#rangeSize) this.#free.push(buffer);
  }

  async #fetch(part: Part, buffer: Uint8Array): Promise<void> {
    const { object, start, end } = part;
    let filled = 0;
    for (let tries = 1; start + filled < end; tries++) {
      let failure: unknown;
      const before = filled;
      try {
        filled = await this.#fetchOnce(part, buffer, filled);
        const message = `${object.key} broke off after ${start + filled} of ${end} bytes`;
        failure = new StorageError("TruncatedBody", message, { key: object.key, retryable: true });
      } catch (error) {
        this.#signal.throwIfAborted();
        if (error instanceof BrokenBody) filled = error.filled;
        failure = error instanceof BrokenBody ? error.failure(object.key) : error;
        if (!(failure instanceof StorageError) || !failure.retryable) throw failure;
      }
      if (filled > before) tries = 0;
      else if (tries >= triesMax) throw failure;
    }
  }

  async #fetchOnce(part: Part, buffer: Uint8Array, from: number): Promise<number> {
    const { object, start, end } = part;
    let filled = from;
    this.requests++;
    const { store, onBytes } = this.#options;
    const range = { start: start + filled, end };
    const got = await store.get(object.key, { range, signal: this.#signal });
    if (got.size !== object.size) {
      throw new IntegrityError(
        "object_changed",
        `${object.key} has ${got.size} bytes, but was listed with ${object.size}`,
        {
          data: { object: object.key, expected: object.size, actual: got.size },
        },
      );
    }
    try {
      for await (const chunk of got.body) {
        if (start + filled + chunk.length > end) {
          throw new StorageError("TooLong", `${object.key} sent more bytes than asked for`, { key: object.key });
        }
        buffer.set(chunk, filled);
        filled += chunk.length;
        onBytes?.(chunk.length);
      }
    } catch (error) {
      throw new BrokenBody(filled, error);
    }
    return filled;
  }
}

/** Carries how far a body came before it broke. */
class BrokenBody extends Error {
  readonly filled: number;
  constructor(filled: number, cause: unknown) {
    super("body broke off", { cause });
    this.filled = filled;
  }
  /** Whatever a stream throws is a broken connection, unless the store says what it is. */
  failure(key: string): unknown {
    const { cause } = this;
    if (cause instanceof WalrustError) return cause;
    const message = cause instanceof Error ? cause.message : String(cause);
    return new StorageError("BrokenBody", `reading ${key} broke off: ${message}`, { key, retryable: true, cause });
  }
}

function* partsOf(objects: Iterable<FetchObject>, rangeSize: number): Generator<Part, undefined> {
  for (const object of objects) {
    // An empty object is a part without a request, so that its reader hears of it.
    if (object.size === 0) yield { object, start: 0, end: 0 };
    for (let start = 0; start < object.size; start += rangeSize) {
      yield { object, start, end: Math.min(object.size, start + rangeSize) };
    }
  }
  return undefined;
}

function takeFrom(parts: Iterator<Part>): Part | null {
  const next = parts.next();
  return next.done ? null : next.value;
}
