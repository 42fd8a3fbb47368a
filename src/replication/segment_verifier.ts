/** The objects of one lineage read one by one, headers only or every byte, and what is wrong with them. */
import { IntegrityError, isAbsentObject } from "../errors.ts";
import { type ChangesetHeader, changesetSize } from "../format/hadbp.ts";
import type { NewSha256 } from "../runtime/types.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { byEnd, Continuity, type ContinuityListener } from "./continuity.ts";
import { type FetchObject, OrderedFetch } from "./fetch.ts";
import type { Findings } from "./findings.ts";
import { readHeader, type Segment } from "./history.ts";
import { objectKey, type PoolObject } from "./inventory.ts";
import { assertGrowth, contradiction, ObjectReader, pagesBeyond, type ReadObject } from "./object_reader.ts";

/** What {@linkcode SegmentVerifier} needs. */
export interface SegmentVerifierOptions {
  readonly store: ObjectStore;
  readonly root: string;
  readonly sha256: NewSha256;
  /** Requests at once. */
  readonly parallel: number;
  readonly findings: Findings;
  readonly signal?: AbortSignal;
  /** Told of every byte that arrives. */
  readonly onBytes?: (bytes: number) => void;
}

/** Verifies one lineage; use an instance once. */
export class SegmentVerifier implements ContinuityListener {
  /** Objects that a restore cannot use. */
  readonly damaged: Set<PoolObject> = new Set();
  /** Objects that were listed and are gone. */
  readonly vanished: PoolObject[] = [];
  /** Largest size that the database had, bytes. */
  databaseSizeMax = 0;
  readonly #segment: Segment;
  readonly #options: SegmentVerifierOptions;
  readonly #continuity: Continuity;
  readonly #objects: readonly PoolObject[];

  constructor(segment: Segment, options: SegmentVerifierOptions) {
    this.#segment = segment;
    this.#options = options;
    this.#continuity = new Continuity(options.root, segment, this);
    this.#objects = [...segment.deltas, ...segment.snapshots, ...segment.levels].sort(byEnd);
  }

  /** Reads the header of every object. */
  async headers(): Promise<void> {
    const { store, root, signal, parallel, onBytes } = this.#options;
    const read = async (object: PoolObject): Promise<ChangesetHeader | Error> => {
      try {
        return await readHeader(store, root, object, { signal });
      } catch (error) {
        return error as Error;
      }
    };
    for (let at = 0; at < this.#objects.length; at += parallel) {
      const group = this.#objects.slice(at, at + parallel);
      const headers = await Promise.all(group.map(read));
      signal?.throwIfAborted();
      onBytes?.(48 * group.length);
      group.forEach((object, i) => this.#takeHeader(object, headers[i]));
    }
    this.#continuity.finish();
  }

  #takeHeader(object: PoolObject, header: ChangesetHeader | Error): void {
    if (header instanceof Error) return this.#fail(object, header);
    const size = changesetSize(header);
    if (size !== object.size) {
      const key = objectKey(this.#options.root, object);
      return this.#fail(object, contradiction("size_mismatch", key, "size", size, object.size));
    }
    const end = header.declaredEnd === null ? null : { chain: header.declaredEnd, pageCount: null };
    this.#continuity.add(object, header, end);
  }

  /**
   * Reads every byte of the objects that end behind seq `after`, as many as fit into `bytesMax`, at least one. Returns
   * the bytes, and the seq at which it stopped, `null` at the end. What ends at `after` is read again, to link to it.
   */
  async content(after: bigint, bytesMax: number): Promise<{ bytes: number; stoppedAt: bigint | null }> {
    const objects: PoolObject[] = [];
    let [bytes, stoppedAt]: [number, bigint | null] = [0, null];
    for (const object of this.#objects.filter(({ max }) => max >= after)) {
      if (bytes >= bytesMax) {
        stoppedAt = objects[objects.length - 1].max;
        break;
      }
      objects.push(object);
      if (object.max > after) bytes += object.size;
    }
    await this.#readAll(objects);
    return { bytes, stoppedAt };
  }

  async #readAll(objects: readonly PoolObject[]): Promise<void> {
    const { store, root, parallel, signal, onBytes, sha256 } = this.#options;
    const reader = new ObjectReader(sha256);
    for (let at = 0; at < objects.length;) {
      const from = at;
      const ahead = function* (): Generator<FetchObject> {
        for (let i = from; i < objects.length; i++) yield { key: objectKey(root, objects[i]), size: objects[i].size };
      };
      const fetch = new OrderedFetch({ store, objects: ahead(), parallel, signal, onBytes });
      try {
        for (; at < objects.length; at++) await this.#readWhole(objects[at], reader, fetch);
      } catch (error) {
        signal?.throwIfAborted();
        // The fetch has stopped inside this object: it goes on with a new one behind it.
        this.#fail(objects[at++], error);
      } finally {
        await fetch.close();
      }
    }
    this.#continuity.finish();
  }

  async #readWhole(object: PoolObject, reader: ObjectReader, fetch: OrderedFetch): Promise<void> {
    const key = objectKey(this.#options.root, object);
    const before = this.#continuity.pageCountBefore(object);
    let fresh = 0;
    const read: ReadObject = await reader.read(object, key, fetch, {
      begin: () => {},
      pages: (first, bytes, pageSize) => fresh += pagesBeyond(before ?? 0, first, bytes.length / pageSize),
    });
    const { header, pageCount: after, chain } = read;
    const { pageSize } = header;
    if (object.kind !== "snapshot" && before !== null) {
      assertGrowth(key, { before, after, fresh, pageSize, isOwn: this.#segment.own });
    }
    this.databaseSizeMax = Math.max(this.databaseSizeMax, after * pageSize);
    this.#continuity.add(object, header, { chain, pageCount: after });
  }

  /** Takes what is the object's fault as a finding; throws everything else. */
  #fail(object: PoolObject, error: unknown): void {
    if (isAbsentObject(error)) {
      this.damaged.add(object);
      this.vanished.push(object);
    } else if (error instanceof IntegrityError) this.refuse(object, error.code, error.message);
    else throw error;
  }

  refuse(object: PoolObject, code: string, message: string): void {
    this.damaged.add(object);
    this.#tell("error", object, code, message);
  }

  doubt(object: PoolObject, code: string, message: string): void {
    this.#tell("warning", object, code, message);
  }

  #tell(severity: "error" | "warning", object: PoolObject, code: string, message: string): void {
    const { findings, root } = this.#options;
    const { min, max } = object;
    findings.add(severity, code, message, { object: objectKey(root, object), seqs: { min, max } });
  }
}
