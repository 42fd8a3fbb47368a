/**
 * The walk along a plan: every object fetched ahead, decoded in a stream, checked against its key, its checksum and
 * the chain, and handed to a sink as runs of pages. Restore, drill and replica differ only in the sink.
 */
import { type ChangesetHeader, checksumHex, checksumOfDigest } from "../format/hadbp.ts";
import type { NewSha256 } from "../runtime/types.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { type FetchObject, OrderedFetch } from "./fetch.ts";
import { objectKey, type PoolObject } from "./inventory.ts";
import { assertGrowth, contradiction, ObjectReader, pagesBeyond } from "./object_reader.ts";
import type { RestorePlan } from "./plan.ts";

/** A changeset whose every byte and whose place in the chain is verified. */
export interface VerifiedChangeset {
  readonly object: PoolObject;
  readonly header: ChangesetHeader;
  /** Size of the database after it, pages. */
  readonly pageCount: number;
  /** Chain value after it. */
  readonly chain: bigint;
}

/** Takes what the walk brings. Pages come before their changeset is proven: keep them revocable until `end`. */
export interface ChangesetSink {
  /** A changeset begins; its header's place is already checked. */
  begin?(object: PoolObject, header: ChangesetHeader): void;
  /** Whole pages from page `first` on; valid until the call returns. */
  pages(first: number, bytes: Uint8Array, pageSize: number): void;
  /** The changeset is proven. */
  end(changeset: VerifiedChangeset): void;
  /** SHA-256 of the whole image as it stands: asked only in lineages without bridges. */
  imageDigest(): Uint8Array;
}

/** What the walk came to. */
export interface WalkResult {
  readonly pageSize: number;
  readonly pageCount: number;
  /** Chain value at the end. */
  readonly chain: bigint;
  /** Of the last object. */
  readonly createdMs: number;
  /** Objects after the snapshot, bridges not counted. */
  readonly changesets: number;
  readonly warnings: string[];
}

/** Where a walk begins that goes on from an image instead of a snapshot. */
export type WalkStart = Pick<WalkResult, "pageSize" | "pageCount" | "chain" | "createdMs">;

/** What a walk visits: a snapshot, or the image it goes on from, then the steps. */
export interface WalkPlan extends Pick<RestorePlan, "steps"> {
  readonly snapshot: PoolObject | WalkStart;
  readonly segment: Pick<RestorePlan["segment"], "own">;
}

/** Options of {@linkcode ChangesetWalk}. */
export interface WalkOptions {
  store: ObjectStore;
  root: string;
  plan: WalkPlan;
  sha256: NewSha256;
  parallel: number;
  signal?: AbortSignal;
  onBytes?: (bytes: number) => void;
}

/** One walk; use an instance once. */
export class ChangesetWalk {
  /** The object to leave out of the next plan when {@linkcode ChangesetWalk.run} has thrown an integrity error. */
  blame: PoolObject | null = null;
  /** True when it was the image at a hole that the changeset after it does not continue. */
  failedAtHole = false;
  /** Requests sent. */
  requests = 0;
  readonly #options: WalkOptions;
  readonly #sink: ChangesetSink;
  readonly #reader: ObjectReader;
  readonly #warnings: string[] = [];
  #pageSize = 0;
  #pageCount = 0;
  #chain = 0n;
  #createdMs = 0;
  #changesets = 0;
  #previous: PoolObject | null = null;
  #isAfterHole = false;

  constructor(options: WalkOptions, sink: ChangesetSink) {
    this.#options = options;
    this.#reader = new ObjectReader(options.sha256);
    this.#sink = sink;
  }

  /** Walks the whole plan; throws `IntegrityError` at the first thing that is not as it must be. */
  async run(): Promise<WalkResult> {
    const { store, root, plan, parallel, signal, onBytes } = this.#options;
    const { snapshot } = plan;
    const steps = "kind" in snapshot ? [snapshot, ...plan.steps] : plan.steps;
    if (!("kind" in snapshot)) {
      this.#pageSize = snapshot.pageSize;
      this.#pageCount = snapshot.pageCount;
      this.#chain = snapshot.chain;
      this.#createdMs = snapshot.createdMs;
    }
    const objects = function* (): Generator<FetchObject> {
      for (const step of steps) if (step.kind !== "hole") yield { key: objectKey(root, step), size: step.size };
    };
    const fetch = new OrderedFetch({ store, objects: objects(), parallel, signal, onBytes });
    try {
      for (const step of steps) {
        if (step.kind === "hole") {
          this.#chain = checksumOfDigest(this.#sink.imageDigest());
          this.#isAfterHole = true;
        } else {
          this.blame = step;
          await this.#object(step, fetch);
          this.#isAfterHole = false;
          this.#previous = step;
        }
      }
    } finally {
      this.requests = fetch.requests;
      await fetch.close();
    }
    return {
      pageSize: this.#pageSize,
      pageCount: this.#pageCount,
      chain: this.#chain,
      createdMs: this.#createdMs,
      changesets: this.#changesets,
      warnings: this.#warnings,
    };
  }

  async #object(object: PoolObject, fetch: OrderedFetch): Promise<void> {
    const key = objectKey(this.#options.root, object);
    const before = this.#pageCount;
    let fresh = 0;
    const { header, pageCount, chain } = await this.#reader.read(object, key, fetch, {
      begin: (header) => this.#begin(object, key, header),
      pages: (first, bytes, pageSize) => {
        fresh += pagesBeyond(before, first, bytes.length / pageSize);
        this.#sink.pages(first, bytes, pageSize);
      },
    });
    if (object.kind !== "snapshot") {
      const isOwn = this.#options.plan.segment.own;
      assertGrowth(key, { before, after: pageCount, fresh, pageSize: header.pageSize, isOwn });
      if (header.pageCount > 1 || fresh > 0) this.#changesets++;
    }
    this.#pageCount = pageCount;
    this.#chain = chain;
    this.#sink.end({ object, header, pageCount, chain });
  }

  /** Everything a header says is checked against what is already known: its fields are not under the checksum. */
  #begin(object: PoolObject, key: string, header: ChangesetHeader): void {
    if (this.#pageSize !== 0 && header.pageSize !== this.#pageSize) {
      throw contradiction("page_size_mismatch", key, "page size", this.#pageSize, header.pageSize);
    }
    this.#pageSize = header.pageSize;
    if (object.kind !== "snapshot") {
      if (header.prevChecksum !== this.#chain) {
        // Right after a snapshot, or after a merged range, the doubt falls on them: others may lead to the same place.
        this.failedAtHole = this.#isAfterHole;
        const previous = this.#previous;
        if (previous !== null && previous.kind !== "delta") this.blame = previous;
        const [expected, actual] = [this.#chain, header.prevChecksum].map(checksumHex);
        throw contradiction("chain_mismatch", key, "previous chain value", expected, actual);
      }
      if (this.#options.plan.segment.own && header.createdMs < this.#createdMs) {
        this.#warnings.push(`${key}: created_ms ${header.createdMs} is before that of the changeset in front of it`);
      }
    }
    this.#createdMs = header.createdMs;
    this.#sink.begin?.(object, header);
  }
}
