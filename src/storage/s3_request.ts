import { AwsV4Signer } from "aws4fetch";
import { StorageError } from "../errors.ts";
import { hexOf } from "../format/bytes.ts";
import type { Clock, Fetch, FetchResponse, Log, NewSha256, Random } from "../runtime/types.ts";
import type { CredentialsProvider } from "./credentials.ts";
import { defaultRetryPolicy, retry, type RetryOptions, type RetryPolicy, waitForRetry } from "./retry.ts";
import { objectUrl, type S3Address } from "./s3_address.ts";
import { type AnsweredRequest, answerOf, foreignProblem, readBounded, type S3Answer } from "./s3_answer.ts";
import {
  type Asked,
  clockCodes,
  connectionFailed,
  errorOfAnswer,
  errorOfDocument,
  expiredCodes,
  notS3,
  timedOut,
} from "./s3_error.ts";
import { parseDocument, type S3Element, xmlSizeMax } from "./s3_xml.ts";
import { Watchdog } from "./watchdog.ts";

/** One signed request and its failures: what all operations of S3 share. */

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
export interface S3Request extends AnsweredRequest {
  /** Name in the S3 API, for messages. */
  readonly operation: string;
  readonly query?: Record<string, string>;
  readonly headers?: Record<string, string>;
  readonly body?: Uint8Array;
  /** Statuses besides 2xx that are answers and not errors. */
  readonly accept?: readonly number[];
  /** Instead of the general limit until the answer's head, and the least one within its body, milliseconds. */
  readonly headMs?: number;
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
      watchdog.arm(headMs, timedOut(asked, headMs));
      response = await fetch(url, {
        method: request.method,
        headers,
        ...(request.body === undefined ? {} : { body: request.body }),
        signal: watchdog.signal,
      });
      // A body that nobody begins to read gives its connection back; who reads later resumes by range.
      const idleMs = this.#idleMs(request);
      watchdog.arm(idleMs, timedOut(asked, idleMs));
    } catch (error) {
      watchdog.close();
      request.signal?.throwIfAborted();
      if (watchdog.signal.aborted) throw watchdog.signal.reason;
      throw connectionFailed(asked, error);
    }
    const answer = answerOf(response, { request, asked, watchdog, idleMs: this.#idleMs(request) });
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
}

function askedBy(client: S3Client, request: S3Request): Asked {
  return { operation: request.operation, key: request.key, address: client.address };
}
