import { StorageError } from "../errors.ts";
import type { FetchResponse } from "../runtime/types.ts";
import { type Asked, connectionFailed, timedOut, truncated } from "./s3_error.ts";
import type { Watchdog } from "./watchdog.ts";

/** What a request of S3 is answered with: its body, its length, its version, and whether the store itself wrote it. */

/** What is known here of a request. */
export interface AnsweredRequest {
  readonly method: "GET" | "HEAD" | "PUT" | "POST" | "DELETE";
  /** Empty for the bucket itself. */
  readonly key: string;
  readonly signal?: AbortSignal;
}

/** An answer whose status was asked for. */
export interface S3Answer {
  readonly status: number;
  header(name: string): string | null;
  /** Read it to its end, or call `discard`. */
  readonly body: AsyncIterable<Uint8Array>;
  discard(): Promise<void>;
}

/** Up to this size, in bytes, a body that nobody needs is read for its connection. */
const drainedSizeMax = 64 * 1024;

/** The answer with a body that is timed, counted against its announced length, and closed at its end. */
export function answerOf(
  response: FetchResponse,
  { request, asked, watchdog, idleMs }: { request: AnsweredRequest; asked: Asked; watchdog: Watchdog; idleMs: number },
): S3Answer {
  const announced = request.method === "HEAD" ? null : lengthOf(response);
  const chunks = response.body[Symbol.asyncIterator]();
  const silence = timedOut(asked, idleMs);
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
        watchdog.arm(idleMs, silence);
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
  if (await readBounded(answer.body, drainedSizeMax) === null) await answer.discard();
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

/** Signs of an answer that does not come from the store, or not unchanged. */
export function foreignProblem(answer: S3Answer, request: AnsweredRequest): string | null {
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
function mayBeHtml(answer: S3Answer, request: AnsweredRequest): boolean {
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
