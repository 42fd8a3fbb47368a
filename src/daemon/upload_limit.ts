/** Bounds how many uploads run at once; everything else passes through. */
import type { ObjectStore } from "../storage/object_store.ts";

/** The same store with at most `max` uploads at a time, first come, first served. */
export function limitUploads(store: ObjectStore, max: number): ObjectStore {
  let running = 0;
  const waiting: (() => void)[] = [];
  const limited = async <T>(upload: () => Promise<T>): Promise<T> => {
    if (running >= max) await new Promise<void>((resolve) => waiting.push(resolve));
    else running++;
    try {
      return await upload();
    } finally {
      // The place goes to the next in line without becoming free in between.
      const next = waiting.shift();
      if (next === undefined) running--;
      else next();
    }
  };
  return {
    location: store.location,
    get: (key, options) => store.get(key, options),
    head: (key, options) => store.head(key, options),
    put: (key, body, options) => limited(() => store.put(key, body, options)),
    putStream: (key, chunks, options) => limited(() => store.putStream(key, chunks, options)),
    list: (prefix, options) => store.list(prefix, options),
    listDirectories: (prefix, options) => store.listDirectories(prefix, options),
    deleteMany: (keys, options) => store.deleteMany(keys, options),
  };
}
