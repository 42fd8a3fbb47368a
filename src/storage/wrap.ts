/** Stores made of another store. */
import type { CallOptions, ObjectStore } from "./object_store.ts";

/** The same store, some of whose calls are others. */
export function wrapStore(store: ObjectStore, change: Partial<ObjectStore>): ObjectStore {
  return {
    location: store.location,
    identity: store.identity,
    get: (key, options) => store.get(key, options),
    head: (key, options) => store.head(key, options),
    put: (key, body, options) => store.put(key, body, options),
    putStream: (key, chunks, options) => store.putStream(key, chunks, options),
    list: (prefix, options) => store.list(prefix, options),
    listDirectories: (prefix, options) => store.listDirectories(prefix, options),
    deleteMany: (keys, options) => store.deleteMany(keys, options),
    ...change,
  };
}

/** The same store, whose calls also end when `signal` aborts. */
export function abortable(store: ObjectStore, signal: AbortSignal): ObjectStore {
  const also = <T extends CallOptions>(options: T | undefined): T => {
    const own = options?.signal;
    return { ...options, signal: own === undefined ? signal : AbortSignal.any([own, signal]) } as T;
  };
  return {
    location: store.location,
    identity: store.identity,
    get: (key, options) => store.get(key, also(options)),
    head: (key, options) => store.head(key, also(options)),
    put: (key, body, options) => store.put(key, body, also(options)),
    putStream: (key, chunks, options) => store.putStream(key, chunks, also(options)),
    list: (prefix, options) => store.list(prefix, also(options)),
    listDirectories: (prefix, options) => store.listDirectories(prefix, also(options)),
    deleteMany: (keys, options) => store.deleteMany(keys, also(options)),
  };
}
