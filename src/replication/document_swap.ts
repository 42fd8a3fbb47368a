/** Small documents that several programs may change: read with their version, swapped only if that is still the one. */
import { isAbsentObject, PreconditionError } from "../errors.ts";
import { getBytes, type ObjectStore } from "../storage/object_store.ts";

const swapAttemptsMax = 5;

/** A kind of document and where it lies. */
export interface DocumentPlace<T> {
  readonly key: string;
  /** Most bytes it may have. */
  readonly sizeMax: number;
  readonly parse: (bytes: Uint8Array, key: string) => T;
  readonly render: (document: T) => Uint8Array;
  /** What stands for one that is not there. */
  readonly absent: T;
}

/** What a document says and the etag to swap it by; `etag` is `null` when it is absent. Throws `FormatError`. */
export async function readVersion<T>(
  store: ObjectStore,
  place: DocumentPlace<T>,
  signal?: AbortSignal,
): Promise<{ document: T; etag: string | null }> {
  const { key, sizeMax, parse, absent } = place;
  try {
    const { bytes, etag } = await getBytes(store, key, sizeMax, { signal });
    return { document: parse(bytes, key), etag };
  } catch (error) {
    if (isAbsentObject(error)) return { document: absent, etag: null };
    throw error;
  }
}

/**
 * Swaps a document: `change` gets what is stored and returns what is to be, null when that is right already, or throws
 * when it may not be changed. Tries again when another came between.
 */
export async function swapDocument<T>(
  store: ObjectStore,
  place: DocumentPlace<T>,
  change: (document: T) => T | null,
  signal?: AbortSignal,
): Promise<void> {
  for (let attempt = 1;; attempt++) {
    const { document, etag } = await readVersion(store, place, signal);
    const changed = change(document);
    if (changed === null) return;
    try {
      const condition = etag === null ? { ifAbsent: true } : { ifMatch: etag };
      await store.put(place.key, place.render(changed), { ...condition, signal });
      return;
    } catch (error) {
      if (!(error instanceof PreconditionError) || attempt >= swapAttemptsMax) throw error;
    }
  }
}
