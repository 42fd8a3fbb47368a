import { AwsV4Signer } from "aws4fetch";
import { StorageError } from "../errors.ts";
import { hexOf } from "../format/bytes.ts";
import type { Clock, Fetch, FetchResponse, Log, NewSha256, Random } from "../runtime/types.ts";
import type { CredentialsProvider } from "./credentials.ts";
import { defaultRetryPolicy, retry, type RetryOptions, type RetryPolicy, waitForRetry } from "./retry.ts";
import { objectUrl, type S3Address } from "./s3_address.ts";
import {
  type Asked,
  clockCodes,
  connectionFailed,
  describe,
  errorOfAnswer,
  errorOfDocument,
  expiredCodes,
  notS3,
  truncated,
} from "./s3_error.ts";
import { parseDocument, type S3Element, xmlSizeMax } from "./s3_xml.ts";
import { Watchdog } from "./watchdog.ts";

/** One signed request, its answer and its failures: what all operations of S3 share. */

/** How long a server may be silent. */
export interface S3Timeouts {
  /** Until the answer's head, milliseconds, besides the time the request's body takes. */
  readonly headMs: number;
  /** Between two pieces of a body, milliseconds. */
  readonly idleMs: number;
  /** Slowest upload that is waited for, bytes per second. */
  readonly bytesPerSecondMin: number;
}

const defaultTimeouts: S3Timeouts = { headMs: 30_000, idleMs: 30_000, bytesPerSecondMin: 32 * 1024 };

/** What the client is made of. */
export interface S3ClientOptions {
  readonly address: S3Address;
  readonly credentials: CredentialsProvider;
  readonly fetch: Fetch;
  readonly clock: Clock;
  readonly random: Random;
  readonly sha256: NewSha256;
  readonly log?: Log;
  readonly timeouts?: Partial<S3Timeouts>;
  readonly retryPolicy?: Partial<RetryPolicy>;
}

/** A request, before it is signed. */
export interface S3Request {
  /** Name in the S3 API, for messages. */
  readonly operation: string;
  readonly method: "GET" | "HEAD" | "PUT" | "POST" | "DELETE";
  /** Empty for the bucket itself. */
  readonly key: string;
  readonly query?: Record<string, string>;
  readonly headers?: Record<string, string>;
  readonly body?: Uint8Array;
  readonly signal?: AbortSignal;
  /** Statuses besides 2xx that are answers and not errors. */
  readonly accept?: readonly number[];
  /** Instead of the general limit until the answer's head, and the least one within its body, milliseconds. */
  readonly headMs?: number;
}

/** An answer whose status was asked for. */
export interface S3Answer {
  readonly status: number;
  header(name: string): string | null;
  /** Read it to its end, or call `discard`. */
  readonly body: AsyncIterable<Uint8Array>;
  discard(): Promise<void>;
}

interface Retried {
  readonly operation: string;
  readonly key: string;
  readonly signal?: AbortSignal;
}

const emptyBody = new Uint8Array(0);
const errorSizeMax = 64 * 1024;

/** Signs, sends, times, retries, and turns failures into errors. Redirects are never followed. */
export class S3Client {
  readonly address: S3Address;
  readonly #options: S3ClientOptions;
  readonly #timeouts: S3Timeouts;
  readonly #policy: RetryPolicy;
  /** Derived signing keys; they change once a day. */
  readonly #keys = new Map<string, ArrayBuffer>();
  /** Server's clock minus ours, milliseconds. */
  #skewMs = 0;

  constructor(options: S3ClientOptions) {
    this.address = options.address;
    this.#options = options;
    this.#timeouts = { ...defaultTimeouts, ...options.timeouts };
    this.#policy = { ...defaultRetryPolicy, ...options.retryPolicy };
  }

  /** Sends until `read` has made something of the answer; what `read` throws may be retried too. */
  async send<T>(request: S3Request, read: (answer: S3Answer) => Promise<T> | T): Promise<T> {
    const payloadHash = this.hash(request.body ?? emptyBody);
    let corrected = false;
    let refresh = false;
    return await this.retry(request, async () => {
      for (;;) {
        try {
          return await this.#attempt(request, payloadHash, refresh, read);
        } catch (error) {
          if (!(error instanceof StorageError)) throw error;
          // Both cures take effect at once, and each is tried once.
          if (clockCodes.has(error.code) && !corrected && this.#correctClock(error)) corrected = true;
          else if (expiredCodes.has(error.code) && !refresh) refresh = true;
          else throw error;
        }
      }
    });
  }

  /** As `send`, for an answer that is an XML document with this root; `<Error>` inside a 200 is an error. */
  async sendForDocument(
    request: S3Request,
    root: string | readonly string[],
  ): Promise<{ document: S3Element; answer: S3Answer }> {
    const roots = typeof root === "string" ? [root] : root;
    return await this.send(request, async (answer) => {
      const bytes = await readBounded(answer.body, xmlSizeMax);
      if (bytes === null) throw notS3(askedBy(this, request), `more than ${xmlSizeMax} bytes of XML`, answer.status);
      const asked = askedBy(this, request);
      let document: S3Element;
      try {
        document = parseDocument(bytes);
      } catch (error) {
        throw notS3(asked, (error as Error).message, answer.status);
      }
      if (document.name === "Error") throw this.#errorInside(answer, document, asked);
      if (!roots.includes(document.name)) {
        throw notS3(asked, `<${document.name.slice(0, 40)}> instead of <${roots[0]}>`, answer.status);
      }
      return { document, answer };
    });
  }

  /** Retries `action` under the policy of this client. */
  async retry<T>(request: Retried, action: () => Promise<T>, policy: Partial<RetryPolicy> = {}): Promise<T> {
    return await retry(action, this.#retryOptions(request, policy));
  }

  /** Counts the tries of something that is not one call; the function waits, or throws the error when it is final. */
  retryWaiter(request: Retried, policy: Partial<RetryPolicy> = {}): (error: unknown) => Promise<void> {
    const options = this.#retryOptions(request, policy);
    const startedAt = options.clock.monotonic();
    let attempt = 0;
    return (error) => waitForRetry(error, ++attempt, startedAt, options);
  }

  #retryOptions(request: Retried, policy: Partial<RetryPolicy>): RetryOptions {
    return {
      clock: this.#options.clock,
      random: this.#options.random,
      policy: { ...this.#policy, ...policy },
      signal: request.signal,
      onRetry: (error, delayMs, attempt) =>
        this.#options.log?.("warning", `${error.message}; retry ${attempt} in ${Math.round(delayMs)} ms`, {
          operation: request.operation,
          key: request.key,
          code: error.code,
          status: error.status,
        }),
    };
  }

  /** SHA-256, as hexadecimal. */
  hash(bytes: Uint8Array): string {
    const sha256 = this.#options.sha256();
    sha256.update(bytes);
    return hexOf(sha256.digest());
  }

  async #attempt<T>(
    request: S3Request,
    payloadHash: string,
    refresh: boolean,
    read: (answer: S3Answer) => Promise<T> | T,
  ): Promise<T> {
    const asked = askedBy(this, request);
    const { clock, fetch } = this.#options;
    const url = objectUrl(this.address, request.key, request.query);
    const headers = await this.#sign(request, url, payloadHash, refresh);
    request.signal?.throwIfAborted();
    const size = request.body?.length ?? 0;
    const headMs = (request.headMs ?? this.#timeouts.headMs) + size / this.#timeouts.bytesPerSecondMin * 1000;
    const watchdog = new Watchdog(clock, request.signal);
    let response: FetchResponse;
    try {
      watchdog.arm(headMs, timeout(asked, headMs));
      response = await fetch(url, {
        method: request.method,
        headers,
        ...(request.body === undefined ? {} : { body: request.body }),
        signal: watchdog.signal,
      });
      // A body that nobody begins to read gives its connection back; who reads later resumes by range.
      const idleMs = this.#idleMs(request);
      watchdog.arm(idleMs, timeout(asked, idleMs));
    } catch (error) {
      watchdog.close();
      request.signal?.throwIfAborted();
      if (watchdog.signal.aborted) throw watchdog.signal.reason;
      throw connectionFailed(asked, error);
    }
    const answer = this.#answer(response, request, asked, watchdog);
    try {
      return await this.#judge(answer, request, asked, read);
    } catch (error) {
      await answer.discard();
      throw error;
    }
  }

  async #judge<T>(
    answer: S3Answer,
    request: S3Request,
    asked: Asked,
    read: (answer: S3Answer) => Promise<T> | T,
  ): Promise<T> {
    const { status } = answer;
    const good = status >= 200 && status < 300;
    if (!good && !request.accept?.includes(status)) {
      const body = request.method === "HEAD" ? emptyBody : await readBounded(answer.body, errorSizeMax) ?? emptyBody;
      throw this.#withServerTime(errorOfAnswer(answer, body, asked, this.#options.clock.now()), answer);
    }
    if (good) {
      const problem = foreignProblem(answer, request);
      if (problem !== null) throw notS3(asked, problem, status);
    }
    return await read(answer);
  }

  #errorInside(answer: S3Answer, document: S3Element, asked: Asked): StorageError {
    const error = errorOfDocument(answer, document, asked, this.#options.clock.now());
    return this.#withServerTime(error, answer);
  }

  async #sign(
    request: S3Request,
    url: string,
    payloadHash: string,
    refresh: boolean,
  ): Promise<Record<string, string>> {
    const credentials = await this.#options.credentials(refresh ? { refresh } : undefined);
    if (this.#keys.size > 8) this.#keys.clear();
    const now = new Date(this.#options.clock.now() + this.#skewMs);
    const signer = new AwsV4Signer({
      method: request.method,
      url,
      headers: { ...request.headers, "x-amz-content-sha256": payloadHash },
      accessKeyId: credentials.accessKeyId,
      secretAccessKey: credentials.secretAccessKey,
      ...(credentials.sessionToken === undefined ? {} : { sessionToken: credentials.sessionToken }),
      service: "s3",
      region: this.address.region,
      cache: this.#keys,
      datetime: now.toISOString().replace(/[:-]|\.\d{3}/g, ""),
    });
    const signed = await signer.sign();
    return Object.fromEntries(signed.headers);
  }

  /** Remembers the server's time with an error, for the correction of our own. */
  #withServerTime(error: StorageError, answer: S3Answer): StorageError {
    const serverMs = Date.parse(answer.header("date") ?? "");
    if (Number.isFinite(serverMs)) error.data.serverTimeMs = serverMs;
    return error;
  }

  #correctClock(error: StorageError): boolean {
    const serverMs = error.data.serverTimeMs;
    if (typeof serverMs !== "number") return false;
    this.#skewMs = serverMs - this.#options.clock.now();
    this.#options.log?.("warning", `clock differs from the object store's by ${Math.round(this.#skewMs / 1000)} s`, {
      skewMs: this.#skewMs,
    });
    return true;
  }

  /** What needs longer for its head may begin its answer and work on. */
  #idleMs(request: S3Request): number {
    return Math.max(this.#timeouts.idleMs, request.headMs ?? 0);
  }

  /** The answer with a body that is timed, counted against its announced length, and closed at its end. */
  #answer(response: FetchResponse, request: S3Request, asked: Asked, watchdog: Watchdog): S3Answer {
    const announced = request.method === "HEAD" ? null : lengthOf(response);
    const chunks = response.body[Symbol.asyncIterator]();
    const idleMs = this.#idleMs(request);
    const timedOut = timeout(asked, idleMs);
    let received = 0;
    let ended = false;
    const close = async (cancel: boolean): Promise<void> => {
      if (ended) return;
      ended = true;
      watchdog.close();
      if (cancel) await chunks.return?.().catch(() => {});
    };
    const iterator: AsyncIterator<Uint8Array> = {
      next: async () => {
        if (ended) return { done: true, value: undefined };
        try {
          watchdog.arm(idleMs, timedOut);
          const step = await chunks.next();
          watchdog.disarm();
          received += step.done ? 0 : step.value.length;
          if (announced !== null && (step.done ? received < announced : received > announced)) {
            throw truncated(asked, received, announced);
          }
          if (step.done) await close(false);
          return step;
        } catch (error) {
          await close(true);
          request.signal?.throwIfAborted();
          if (watchdog.signal.aborted) throw watchdog.signal.reason;
          throw error instanceof StorageError ? error : connectionFailed(asked, error);
        }
      },
      return: async () => {
        await close(true);
        return { done: true, value: undefined };
      },
    };
    return {
      status: response.status,
      header: (name) => response.header(name),
      body: { [Symbol.asyncIterator]: () => iterator },
      discard: () => close(true),
    };
  }
}

/** Reads a body whole, or null when it is larger than `limit`. */
export async function readBounded(body: AsyncIterable<Uint8Array>, limit: number): Promise<Uint8Array | null> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  for await (const chunk of body) {
    size += chunk.length;
    if (size > limit) return null;
    chunks.push(chunk.slice());
  }
  const bytes = new Uint8Array(size);
  let filled = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, filled);
    filled += chunk.length;
  }
  return bytes;
}

/** Reads a body that nobody needs, so that its connection can be used again. */
export async function drain(answer: S3Answer): Promise<void> {
  if (await readBounded(answer.body, errorSizeMax) === null) await answer.discard();
}

/** `Content-Length`, or null when it is absent or no number. */
export function lengthOf(answer: { header(name: string): string | null }): number | null {
  const text = answer.header("content-length");
  const length = text !== null && /^\d{1,16}$/.test(text.trim()) ? Number(text) : NaN;
  return Number.isSafeInteger(length) ? length : null;
}

/** An ETag as it came, or null when it is absent or could not go into a header again. */
export function usableEtag(etag: string | null): string | null {
  return etag !== null && /^[\x21-\x7e]{1,256}$/.test(etag) ? etag : null;
}

/** The answer's `ETag`, as {@linkcode usableEtag}. */
export function etagOf(answer: { header(name: string): string | null }): string | null {
  return usableEtag(answer.header("etag"));
}

function askedBy(client: S3Client, request: S3Request): Asked {
  return { operation: request.operation, key: request.key, address: client.address };
}

/** Signs of an answer that does not come from the store, or not unchanged. */
function foreignProblem(answer: S3Answer, request: S3Request): string | null {
  const html = /^\s*text\/html\b/i.test(answer.header("content-type") ?? "");
  if (html && !mayBeHtml(answer, request)) return "an HTML page";
  const encoding = (answer.header("content-encoding") ?? "").trim().toLowerCase();
  // Nothing is ever stored compressed; `aws-chunked` describes how an object was once sent, not its bytes.
  if (encoding !== "" && encoding !== "identity" && encoding !== "aws-chunked") {
    return `Content-Encoding ${encoding}, which a proxy must have added`;
  }
  return null;
}

/** Some servers (moto) call empty answers and XML HTML; documents are judged by the parser instead. */
function mayBeHtml(answer: S3Answer, request: S3Request): boolean {
  switch (request.method) {
    case "PUT":
      return answer.header("etag") !== null && lengthOf(answer) === 0;
    case "DELETE":
      return answer.status === 204;
    case "POST":
      return true;
    default:
      return request.key === "";
  }
}

function timeout(asked: Asked, ms: number): StorageError {
  return new StorageError("Timeout", `${describe(asked)}: no answer within ${Math.round(ms / 1000)} s`, {
    bucket: asked.address.bucket,
    key: asked.key === "" ? undefined : asked.key,
    retryable: true,
    hint: "Check the network and the endpoint.",
  });
}
