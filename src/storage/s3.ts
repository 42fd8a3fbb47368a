import { NotFoundError, PreconditionError, StorageError } from "../errors.ts";
import type { Clock, Fetch, Log, NewSha256, Random } from "../runtime/types.ts";
import type { CredentialsProvider } from "./credentials.ts";
import { checkKey, checkPrefix, checkPutSize, checkRange, compareKeys, preconditionFailed } from "./object_key.ts";
import type {
  ByteRange,
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectBody,
  ObjectInfo,
  ObjectStore,
  PutOptions,
  StorageErrorLike,
} from "./object_store.ts";
import type { RetryPolicy } from "./retry.ts";
import { s3Address } from "./s3_address.ts";
import { drain, etagOf, lengthOf, type S3Answer } from "./s3_answer.ts";
import { deleteKeys } from "./s3_delete.ts";
import { describe, notS3, truncated } from "./s3_error.ts";
import { listPages } from "./s3_list.ts";
import { conditionHeaders, storedSame, uploadStream } from "./s3_multipart.ts";
import { S3Client, type S3Timeouts } from "./s3_request.ts";

/** What an {@linkcode S3Store} needs. */
export interface S3StoreOptions {
  /** Keys are whole: a prefix is part of the key. */
  readonly bucket: string;
  /** URL of a server other than AWS. */
  readonly endpoint?: string;
  /** Else what the endpoint's host implies, else `us-east-1`. */
  readonly region?: string;
  readonly credentials: CredentialsProvider;
  readonly fetch: Fetch;
  readonly clock: Clock;
  readonly random: Random;
  readonly sha256: NewSha256;
  readonly log?: Log;
  readonly timeouts?: Partial<S3Timeouts>;
  readonly retryPolicy?: Partial<RetryPolicy>;
}

/** Objects in a bucket of S3 or a server that speaks its protocol. */
export class S3Store implements ObjectStore {
  /** Where the objects are, for messages. */
  readonly location: string;
  /** URL of the bucket. */
  readonly identity: string;
  readonly #client: S3Client;

  /** Nothing is read or sent before the first call. */
  constructor(options: S3StoreOptions) {
    const address = s3Address(options);
    this.#client = new S3Client({ ...options, address });
    this.location = `s3://${address.bucket}`;
    this.identity = address.base;
  }

  /** See {@linkcode ObjectStore.get}. */
  async get(key: string, options: GetOptions = {}): Promise<ObjectBody> {
    checkKey(key);
    const { range, signal } = options;
    if (range) checkRange(range);
    if (range && range.start === range.end) return await this.#emptyRange(key, signal);
    const first = await this.#getFrom(key, range ?? { start: 0, end: Infinity }, null, signal);
    if (first === null) return await this.#emptyRange(key, signal, range?.start);
    return {
      size: first.size,
      etag: first.etag,
      body: new ResumedBody(first, (range, etag) => this.#getFrom(key, range, etag, signal), {
        client: this.#client,
        key,
        signal,
      }),
    };
  }

  /** See {@linkcode ObjectStore.head}. */
  async head(key: string, options: CallOptions = {}): Promise<ObjectInfo | null> {
    checkKey(key);
    const request = { operation: "HeadObject", method: "HEAD", key, accept: [404], signal: options.signal } as const;
    return await this.#client.send(request, async (answer) => {
      await drain(answer);
      if (answer.status === 404) return null;
      const size = lengthOf(answer);
      const etag = etagOf(answer);
      if (size === null || etag === null) throw this.#notS3(request, "no Content-Length or no ETag", answer.status);
      return { key, size, etag, lastModifiedMs: Date.parse(answer.header("last-modified") ?? "") || 0 };
    });
  }

  /** See {@linkcode ObjectStore.put}. */
  async put(key: string, body: Uint8Array, options: PutOptions = {}): Promise<{ etag: string }> {
    checkKey(key);
    checkPutSize(key, body.length);
    const client = this.#client;
    const { signal } = options;
    const request = {
      operation: "PutObject",
      method: "PUT",
      key,
      headers: { "content-type": "application/octet-stream", ...conditionHeaders(options) },
      body,
      signal,
    } as const;
    const wait = client.retryWaiter(request);
    for (;;) {
      try {
        return await client.send(request, async (answer) => {
          await drain(answer);
          const etag = etagOf(answer);
          if (etag === null) throw this.#notS3(request, "no ETag", answer.status);
          return { etag };
        });
      } catch (error) {
        const settled = await this.#afterCondition(key, body, options, error);
        if (settled !== null) return settled;
        await wait(conflict(client, key, error as StorageError));
      }
    }
  }

  /** See {@linkcode ObjectStore.putStream}. */
  async putStream(
    key: string,
    chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    options: CallOptions & { ifAbsent?: boolean } = {},
  ): Promise<{ etag: string }> {
    checkKey(key);
    return await uploadStream(this.#client, this, key, chunks, options);
  }

  /** See {@linkcode ObjectStore.list}. */
  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<ObjectInfo> {
    checkPrefix(prefix);
    for await (const page of listPages(this.#client, prefix, options)) yield* page.objects;
  }

  /** See {@linkcode ObjectStore.listDirectories}. */
  async listDirectories(prefix: string, options: CallOptions = {}): Promise<string[]> {
    checkPrefix(prefix);
    const found = new Set<string>();
    for await (const page of listPages(this.#client, prefix, { ...options, delimiter: "/" })) {
      for (const directory of page.directories) found.add(directory);
    }
    return [...found].sort(compareKeys);
  }

  /** See {@linkcode ObjectStore.deleteMany}. */
  async deleteMany(
    keys: readonly string[],
    options: CallOptions = {},
  ): Promise<{ key: string; error: StorageErrorLike }[]> {
    for (const key of keys) checkKey(key);
    return await deleteKeys(this.#client, keys, options);
  }

  /** One GET; null when the range begins behind the object's end. `etag`: only that version. */
  async #getFrom(
    key: string,
    range: ByteRange,
    etag: string | null,
    signal: AbortSignal | undefined,
  ): Promise<Opened | null> {
    const { start, end } = range;
    const whole = start === 0 && end === Infinity;
    const request = {
      operation: "GetObject",
      method: "GET",
      key,
      headers: {
        ...(whole ? {} : { range: `bytes=${start}-${end === Infinity ? "" : end - 1}` }),
        ...(etag === null ? {} : { "if-match": etag }),
      },
      accept: whole ? [] : [416],
      signal,
    } as const;
    return await this.#client.send(request, async (answer) => {
      if (answer.status === 416) {
        await drain(answer);
        return null;
      }
      const length = lengthOf(answer);
      const etag = etagOf(answer);
      if (length === null || etag === null) throw this.#notS3(request, "no Content-Length or no ETag", answer.status);
      if (whole) {
        if (answer.status !== 200) throw this.#notS3(request, `status ${answer.status}`, answer.status);
        return { answer, etag, size: length, start: 0, end: length };
      }
      const said = /^bytes (\d{1,16})-(\d{1,16})\/(\d{1,16})$/.exec(answer.header("content-range") ?? "");
      const size = said ? Number(said[3]) : NaN;
      const last = said ? Number(said[2]) + 1 : NaN;
      const isAsked = Number.isSafeInteger(size) && Number(said?.[1]) === start && last === Math.min(end, size);
      if (answer.status !== 206 || !isAsked) {
        throw this.#notS3(request, "another range than the one asked for", answer.status);
      }
      if (length !== last - start) throw this.#notS3(request, "Content-Length is not that of the range", answer.status);
      return { answer, etag, size, start, end: last };
    });
  }

  /** No bytes; `start`: because the server says that the object has none from there on. */
  async #emptyRange(key: string, signal: AbortSignal | undefined, start?: number): Promise<ObjectBody> {
    const info = await this.head(key, { signal });
    const asked = { operation: "GetObject", key, address: this.#client.address };
    if (info !== null && start !== undefined && info.size > start) {
      const problem = `the bytes from ${start} on were refused, but the object has ${info.size}`;
      throw new StorageError("BadRange", `${describe(asked)}: ${problem}`, {
        bucket: asked.address.bucket,
        key,
        retryable: true,
      });
    }
    if (info === null) {
      throw new NotFoundError("NoSuchKey", `${describe(asked)}: no such object`, {
        status: 404,
        bucket: asked.address.bucket,
        key,
      });
    }
    return { size: info.size, etag: info.etag, body: nothing() };
  }

  /**
   * A conditional write was refused: perhaps by our own earlier try whose reply was lost, so look before believing it.
   * 409 means that another write was under way: refused when something else is there now, else null: try again.
   */
  async #afterCondition(
    key: string,
    body: Uint8Array,
    options: PutOptions,
    error: unknown,
  ): Promise<{ etag: string } | null> {
    if (!options.ifAbsent && options.ifMatch === undefined) throw error;
    if (!(error instanceof StorageError)) throw error;
    const gone = error instanceof NotFoundError && error.code === "NoSuchKey";
    if (!(error instanceof PreconditionError) && error.status !== 409 && !gone) throw error;
    const stored = await this.head(key, { signal: options.signal });
    const parts = [{ size: body.length, hash: this.#client.hash(body) }];
    if (stored !== null && await storedSame(this.#client, this, stored, parts, options.signal)) {
      return { etag: stored.etag };
    }
    const still = options.ifAbsent ? stored === null : stored?.etag === options.ifMatch;
    if (still) return null;
    throw preconditionFailed(key, options, {
      bucket: this.#client.address.bucket,
      status: error.status,
      requestId: error.requestId,
      cause: error,
    });
  }

  #notS3(request: { operation: string; key: string }, problem: string, status: number): StorageError {
    return notS3({ ...request, address: this.#client.address }, problem, status);
  }
}

/** A conditional write met another one; the same request may succeed next time. */
function conflict(client: S3Client, key: string, cause: StorageError): StorageError {
  const asked = { operation: "PutObject", key, address: client.address };
  return new StorageError("ConditionalRequestConflict", `${describe(asked)}: another write is under way`, {
    status: cause.status,
    requestId: cause.requestId,
    bucket: asked.address.bucket,
    key,
    retryable: true,
    cause,
  });
}

/** A GET that has begun. */
interface Opened {
  readonly answer: S3Answer;
  readonly etag: string;
  readonly size: number;
  readonly start: number;
  readonly end: number;
}

/** The bytes of a GET; when the connection breaks, the rest is fetched by range from the same version of the object. */
class ResumedBody implements AsyncIterable<Uint8Array> {
  #opened: Opened;
  readonly #reopen: (range: ByteRange, etag: string) => Promise<Opened | null>;
  readonly #call: { client: S3Client; key: string; signal?: AbortSignal };

  constructor(
    opened: Opened,
    reopen: (range: ByteRange, etag: string) => Promise<Opened | null>,
    call: { client: S3Client; key: string; signal?: AbortSignal },
  ) {
    this.#opened = opened;
    this.#reopen = reopen;
    this.#call = call;
  }

  [Symbol.asyncIterator](): AsyncIterator<Uint8Array> {
    const { start, end } = this.#opened;
    let chunks = this.#opened.answer.body[Symbol.asyncIterator]();
    let at = start;
    let progress = start;
    let wait: ((error: unknown) => Promise<void>) | null = null;
    const step = async (): Promise<IteratorResult<Uint8Array>> => {
      for (;;) {
        try {
          const step = await chunks.next();
          if (step.done && at < end) throw truncated(this.#asked(), at - start, end - start);
          if (!step.done) at += step.value.length;
          if (at > end) throw truncated(this.#asked(), at - start, end - start);
          return step;
        } catch (error) {
          // Progress renews the tries: a large object over a poor line must get through.
          if (wait === null || at > progress) {
            wait = this.#call.client.retryWaiter({ ...this.#asked(), signal: this.#call.signal });
          }
          progress = at;
          await wait(error);
          chunks = await this.#continue(at, end);
        }
      }
    };
    return {
      next: step,
      return: async () => {
        await this.#opened.answer.discard();
        return { done: true, value: undefined };
      },
    };
  }

  async #continue(at: number, end: number): Promise<AsyncIterator<Uint8Array>> {
    const { etag, size, answer } = this.#opened;
    await answer.discard();
    if (at === end) return nothing();
    try {
      const next = await this.#reopen({ start: at, end }, etag);
      if (next !== null && next.etag === etag && next.size === size) {
        this.#opened = next;
        return next.answer.body[Symbol.asyncIterator]();
      }
      await next?.answer.discard();
    } catch (error) {
      if (!(error instanceof PreconditionError)) throw error;
    }
    const { address } = this.#call.client;
    throw new StorageError("ObjectChanged", `${describe(this.#asked())}: replaced while it was read`, {
      bucket: address.bucket,
      key: this.#call.key,
      retryable: true,
    });
  }

  #asked(): { operation: string; key: string; address: S3Client["address"] } {
    return { operation: "GetObject", key: this.#call.key, address: this.#call.client.address };
  }
}

async function* nothing(): AsyncGenerator<Uint8Array> {}
