/** An S3 server that says what its script says, on a clock that jumps to whatever is waited for. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import type { Clock, Fetch, FetchResponse, Random } from "../../src/runtime/types.ts";
import { explicitCredentials } from "../../src/storage/credentials.ts";
import { S3Store, type S3StoreOptions } from "../../src/storage/s3.ts";

/** A request as it was sent. */
export interface SentRequest {
  readonly method: string;
  readonly url: string;
  readonly headers: Record<string, string>;
  readonly body: Uint8Array;
}

/** What the script answers: an answer, `"hang"` (until aborted), or an error of the connection. */
export interface Answer {
  readonly status?: number;
  readonly headers?: Record<string, string>;
  readonly body?: string | Uint8Array;
  /** The connection breaks after the body. */
  readonly breaks?: boolean;
  /** Silence after the body, until aborted. */
  readonly hangs?: boolean;
}
export type Scripted = Answer | "hang" | Error | ((request: SentRequest) => Answer | "hang" | Error);

/** Sleeps end at once, in the order of their time, as soon as nothing else goes on. */
export class JumpingClock implements Clock {
  readonly sleeps: number[] = [];
  #now = Date.UTC(2026, 0, 15, 10, 30);
  #waiting: { at: number; end: () => void }[] = [];

  now(): number {
    return this.#now;
  }

  monotonic(): number {
    return this.#now;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    this.sleeps.push(ms);
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const sleeper = { at: this.#now + ms, end: resolve };
      this.#waiting.push(sleeper);
      signal?.addEventListener("abort", () => {
        this.#waiting = this.#waiting.filter((other) => other !== sleeper);
        reject(signal.reason);
      });
      // Signing takes a few turns of the event loop, which must not count as idle.
      setTimeout(() => this.#jump(), 15);
    });
  }

  #jump(): void {
    this.#waiting.sort((a, b) => a.at - b.at);
    const next = this.#waiting.shift();
    if (next === undefined) return;
    this.#now = Math.max(this.#now, next.at);
    next.end();
  }
}

/** The server's script, what came, and a store that talks to it. */
export interface ScriptedS3 {
  readonly store: S3Store;
  readonly clock: JumpingClock;
  readonly requests: SentRequest[];
  /** Fails unless every scripted answer was asked for. */
  finish(): void;
}

const encoder = new TextEncoder();

/** Answers requests in the order of the script; one more than scripted fails with an error that is not retried. */
export function scriptedS3(script: readonly Scripted[], options: Partial<S3StoreOptions> = {}): ScriptedS3 {
  const clock = new JumpingClock();
  const requests: SentRequest[] = [];
  const fetch: Fetch = async (url, init) => {
    const request = { method: init.method, url, headers: init.headers, body: init.body?.slice() ?? new Uint8Array(0) };
    requests.push(request);
    await Promise.resolve();
    const scripted = script[requests.length - 1];
    if (scripted === undefined) return respond({ status: 418, body: "not in the script" }, init.signal);
    const answer = typeof scripted === "function" ? scripted(request) : scripted;
    if (answer instanceof Error) throw answer;
    if (answer !== "hang") return respond(answer, init.signal);
    return await silence(init.signal);
  };
  const random: Random = { bytes: (length) => new Uint8Array(length), number: () => 0.5 };
  const store = new S3Store({
    bucket: "bucket",
    endpoint: "http://s3.test",
    credentials: explicitCredentials({ accessKeyId: "id", secretAccessKey: "secret" }),
    fetch,
    clock,
    random,
    sha256: () => {
      const hash = createHash("sha256");
      return { update: (bytes) => void hash.update(bytes), digest: () => new Uint8Array(hash.digest()) };
    },
    ...options,
  });
  const finish = (): void => assert.equal(requests.length, script.length, "requests sent");
  return { store, clock, requests, finish };
}

function silence(signal: AbortSignal | undefined): Promise<never> {
  return new Promise((_, reject) => signal?.addEventListener("abort", () => reject(signal.reason)));
}

function respond(answer: Answer, signal: AbortSignal | undefined): FetchResponse {
  const body = typeof answer.body === "string" ? encoder.encode(answer.body) : answer.body ?? new Uint8Array(0);
  const headers: Record<string, string> = { "content-length": String(body.length), ...answer.headers };
  async function* chunks(): AsyncGenerator<Uint8Array> {
    await Promise.resolve();
    // Several chunks, so that a break comes in the middle.
    const size = Math.max(1, Math.ceil(body.length / 3));
    for (let at = 0; at < body.length; at += size) yield body.subarray(at, at + size);
    if (answer.hangs) await silence(signal);
    if (answer.breaks) throw Object.assign(new Error("socket hang up"), { code: "ECONNRESET" });
  }
  return { status: answer.status ?? 200, header: (name) => headers[name] ?? null, body: chunks() };
}

/** An `<Error>` answer. */
export function failure(status: number, code: string, more = "", headers: Record<string, string> = {}): Answer {
  return {
    status,
    headers: { "content-type": "application/xml", "x-amz-request-id": "REQ1", ...headers },
    body: `<?xml version="1.0"?><Error><Code>${code}</Code><Message>said ${code}</Message>${more}</Error>`,
  };
}

/** A stored object's answer to a whole or ranged GET, or to HEAD. */
export function object(content: Uint8Array, etag = '"e1"'): (request: SentRequest) => Answer {
  return (request) => {
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    if (!range) {
      const body = request.method === "HEAD" ? undefined : content;
      return { headers: { etag, "content-length": String(content.length) }, ...(body ? { body } : {}) };
    }
    const start = Number(range[1]);
    const end = Math.min(range[2] === "" ? Infinity : Number(range[2]) + 1, content.length);
    const headers = { etag, "content-range": `bytes ${start}-${end - 1}/${content.length}` };
    return { status: 206, headers, body: content.slice(start, end) };
  };
}

/** A page of a listing. */
export function page(keys: readonly string[], token?: string): Answer {
  const contents = keys.map((key) => `<Contents><Key>${encodeURIComponent(key)}</Key><Size>1</Size></Contents>`).join(
    "",
  );
  const more = token === undefined
    ? "<IsTruncated>false</IsTruncated>"
    : `<IsTruncated>true</IsTruncated><NextContinuationToken>${token}</NextContinuationToken>`;
  return { body: `<ListBucketResult><EncodingType>url</EncodingType>${more}${contents}</ListBucketResult>` };
}
