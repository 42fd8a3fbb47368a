/** Time and randomness of the machine, by web standards that all runtimes have. */
import type { Clock, Random } from "./types.ts";

/** `setTimeout` counts in 32 bits; a longer wait is done in several. */
const timeoutMaxMs = 0x7fffffff;

function wait(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason);
    const abort = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, ms);
    signal?.addEventListener("abort", abort, { once: true });
  });
}

/** Not of the web, but in Node, Bun and Deno: a timer of zero costs a millisecond, this a few microseconds. */
const { setImmediate: soon = (run: () => void): unknown => setTimeout(run, 0) } = globalThis as {
  setImmediate?: (run: () => void) => unknown;
};

/** The machine's clock. */
export const systemClock: Clock = {
  now: () => Date.now(),
  monotonic: () => performance.now(),
  async sleep(ms, signal) {
    signal?.throwIfAborted();
    if (ms <= 0) await new Promise<void>((resolve) => soon(resolve));
    for (let left = ms; left > 0; left -= timeoutMaxMs) await wait(Math.min(left, timeoutMaxMs), signal);
  },
};

/** The machine's randomness. */
export const systemRandom: Random = {
  bytes: (length) => crypto.getRandomValues(new Uint8Array(length)),
  number: () => Math.random(),
};
