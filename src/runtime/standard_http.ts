/**
 * HTTP behind our {@linkcode Fetch} by the global `fetch`: for the edge, Bun and Deno; and what every adapter shares.
 * Bodies are never decompressed: what is stored is what arrives.
 */
import type { Fetch, FetchResponse } from "./types.ts";

/** Headers that the HTTP client writes itself, from the URL and the body. */
const ownHeaders = new Set(["host", "content-length", "connection", "accept-encoding"]);

/** What is sent of the headers: not those that the HTTP client writes itself. */
export function sentHeaders(headers: Record<string, string>): Record<string, string> {
  const kept = Object.entries(headers).filter(([name]) => !ownHeaders.has(name.toLowerCase()));
  return { ...Object.fromEntries(kept), "accept-encoding": "identity" };
}

/** What the body must hold, or null where nobody said. */
export function declaredLength(
  method: string,
  response: { status: number; header(name: string): string | null },
): number | null {
  if (method === "HEAD" || response.status === 204 || response.status === 304) return null;
  const text = response.header("content-length");
  return text !== null && /^\d+$/.test(text) ? Number(text) : null;
}

/** Where a body comes from, chunk by chunk. */
export interface BodySource {
  next(): Promise<{ done?: boolean; value?: Uint8Array }>;
  /** Gives the connection up; called once, and only when the body was not read to its end. */
  cancel(): void;
}

/**
 * The body as an iterable that can be cancelled before its first chunk (an async generator could not),
 * that fails when fewer bytes come than were declared, and with the signal's reason when aborted.
 */
export function bodyOf(
  source: BodySource,
  length: number | null,
  signal: AbortSignal | undefined,
): AsyncIterable<Uint8Array> {
  let open = true;
  let received = 0;
  const end = (cancel: boolean): void => {
    if (!open) return;
    open = false;
    if (cancel) source.cancel();
  };
  const iterator: AsyncIterator<Uint8Array> = {
    async next() {
      if (!open) return { done: true, value: undefined };
      try {
        signal?.throwIfAborted();
        const step = await source.next();
        if (step.done !== true && step.value !== undefined) {
          received += step.value.length;
          return { done: false, value: step.value };
        }
        if (length !== null && received !== length) {
          throw Object.assign(new Error(`connection ended after ${received} of ${length} bytes`), {
            code: "ECONNRESET",
          });
        }
        end(false);
        return { done: true, value: undefined };
      } catch (error) {
        end(true);
        throw signal?.aborted ? signal.reason : error;
      }
    },
    return() {
      end(true);
      return Promise.resolve({ done: true, value: undefined });
    },
  };
  return { [Symbol.asyncIterator]: () => iterator };
}

function standardResponse(method: string, response: Response, signal: AbortSignal | undefined): FetchResponse {
  const { status } = response;
  const header = (name: string): string | null => response.headers.get(name);
  const reader = response.body?.getReader();
  const source: BodySource = {
    next: () => reader?.read() ?? Promise.resolve({ done: true }),
    cancel: () => void reader?.cancel().catch(() => {}),
  };
  return { status, header, body: bodyOf(source, declaredLength(method, { status, header }), signal) };
}

/** {@linkcode Fetch} over the global `fetch`. */
export const standardFetch: Fetch = async (url, { method, headers, body, signal }) => {
  const init = {
    method,
    headers: sentHeaders(headers),
    body: body as Uint8Array<ArrayBuffer> | undefined,
    redirect: "manual",
    signal,
    decompress: false, // Bun's own; the others ignore it.
  } as const;
  try {
    return standardResponse(method, await fetch(url, init), signal);
  } catch (error) {
    throw signal?.aborted ? signal.reason : error;
  }
};
