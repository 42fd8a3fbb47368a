/** Bounds how many uploads run at once; everything else passes through. */
import type { ObjectStore } from "../storage/object_store.ts";
import { wrapStore } from "../storage/wrap.ts";

/** Runs work when there is room for it. */
export type Limiter = <T>(work: () => Promise<T>, signal?: AbortSignal) => Promise<T>;

/** At most `max` at a time, first come, first served; who gives up while waiting leaves the line. */
export function limiter(max: number): Limiter {
  let running = 0;
  const waiting: (() => void)[] = [];
  const enter = (signal?: AbortSignal): Promise<void> =>
    new Promise((resolve, reject) => {
      const go = (): void => {
        signal?.removeEventListener("abort", leave);
        resolve();
      };
      const leave = (): void => {
        waiting.splice(waiting.indexOf(go), 1);
        reject(signal!.reason);
      };
      waiting.push(go);
      signal?.addEventListener("abort", leave, { once: true });
    });
  return async (work, signal) => {
    signal?.throwIfAborted();
    if (running >= max) await enter(signal);
    else running++;
    try {
      return await work();
    } finally {
      // The place goes to the next in line without becoming free in between.
      const next = waiting.shift();
      if (next === undefined) running--;
      else next();
    }
  };
}

/**
 * The same store with at most `puts` objects and `streams` streamed objects uploaded at a time. Two lines, because the
 * stream of a snapshot waits for its bridge, which is put: in one line all of them could wait for each other.
 */
export function limitUploads(store: ObjectStore, puts: number, streams: number): ObjectStore {
  const putting = limiter(puts);
  const streaming = limiter(streams);
  return wrapStore(store, {
    put: (key, body, options) => putting(() => store.put(key, body, options), options?.signal),
    putStream: (key, chunks, options) => streaming(() => store.putStream(key, chunks, options), options?.signal),
  });
}
