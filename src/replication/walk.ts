/**
 * The walk along a plan: every object fetched ahead, decoded in a stream, checked against its key, its checksum and
 * the chain, and handed to a sink as runs of pages. Restore, drill and replica differ only in the sink.
 */
import { FormatError, IntegrityError } from "../errors.ts";
import {
  ChangesetDecoder,
  type ChangesetEnd,
  type ChangesetHeader,
  checksumHex,
  checksumOfDigest,
} from "../format/hadbp.ts";
import { lockBytePage } from "../format/sqlite_header.ts";
import type { NewSha256, Sha256 } from "../runtime/types.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { type FetchObject, OrderedFetch } from "./fetch.ts";
import { objectKey, type PoolObject } from "./inventory.ts";
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

/** Options of {@linkcode ChangesetWalk}. */
export interface WalkOptions {
  store: ObjectStore;
  root: string;
  plan: RestorePlan;
  sha256: NewSha256;
  parallel: number;
  signal?: AbortSignal;
  onBytes?: (bytes: number) => void;
}

/** Pages are handed on in runs of up to this many bytes: one write and one hash step for many pages. */
const runSizeMax = 1024 * 1024;

/** How far a foreign changeset may grow the database without sending the pages, bytes: more is a hostile size. */
const foreignGrowthMax = 64 * 1024 * 1024;

/** One walk; use an instance once. */
export class ChangesetWalk {
  /** The object to leave out of the next plan when {@linkcode ChangesetWalk.run} has thrown an integrity error. */
  blame: PoolObject | null = null;
  /** Requests sent. */
  requests = 0;
  readonly #options: WalkOptions;
  readonly #sink: ChangesetSink;
  readonly #run: Uint8Array = new Uint8Array(runSizeMax);
  readonly #warnings: string[] = [];
  #runFirst = 0;
  #runLength = 0;
  #rawHash: Sha256 | null = null;
  #pageSize = 0;
  #pageCount = 0;
  #chain = 0n;
  #createdMs = 0;
  #changesets = 0;
  #previous: PoolObject | null = null;

  constructor(options: WalkOptions, sink: ChangesetSink) {
    this.#options = options;
    this.#sink = sink;
  }

  /** Walks the whole plan; throws `IntegrityError` at the first thing that is not as it must be. */
  async run(): Promise<WalkResult> {
    const { store, root, plan, parallel, signal, onBytes } = this.#options;
    const steps = [plan.snapshot, ...plan.steps];
    const objects = function* (): Generator<FetchObject> {
      for (const step of steps) if (step.kind !== "hole") yield { key: objectKey(root, step), size: step.size };
    };
    const fetch = new OrderedFetch({ store, objects: objects(), parallel, signal, onBytes });
    try {
      for (const step of steps) {
        if (step.kind === "hole") this.#chain = checksumOfDigest(this.#sink.imageDigest());
        else {
          this.blame = step;
          await this.#object(step, fetch);
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
    const decoder = new ChangesetDecoder({ object: key, sha256: this.#options.sha256, size: object.size });
    const before = this.#pageCount;
    let header: ChangesetHeader | null = null;
    let fresh = 0;
    for (let last = false; !last;) {
      const part = await fetch.next();
      if (part === null) throw new Error(`assertion failed: the fetch ended before ${key}`);
      last = part.last;
      for (const entry of decoder.push(part.bytes)) {
        header ??= this.#begin(object, key, decoder.header!);
        if (entry.data.length === 0) continue;
        if (entry.pgno > before) fresh++;
        this.#page(object, key, entry.pgno, entry.data);
      }
    }
    const end = decoder.finish();
    header ??= this.#begin(object, key, decoder.header!);
    this.#flush();
    this.#end(object, key, header, end, fresh);
  }

  /** Everything a header says is checked against what is already known: its fields are not under the checksum. */
  #begin(object: PoolObject, key: string, header: ChangesetHeader): ChangesetHeader {
    const refuse = (code: string, field: string, expected: unknown, actual: unknown): IntegrityError =>
      new IntegrityError(code, `${key}: ${field} is ${actual}, expected ${expected}`, {
        data: { object: key, expected: String(expected), actual: String(actual) },
      });
    if (header.seq !== object.max) throw refuse("seq_mismatch", "seq", object.max, header.seq);
    if (this.#pageSize !== 0 && header.pageSize !== this.#pageSize) {
      throw refuse("page_size_mismatch", "page size", this.#pageSize, header.pageSize);
    }
    this.#pageSize = header.pageSize;
    if (object.kind === "snapshot") {
      const plain = header.version === 1 && header.flags === 0 && header.pageCount > 0;
      if (!plain) {
        throw refuse("not_a_snapshot", "version and flags", "1 and 0", `${header.version} and ${header.flags}`);
      }
      this.#rawHash = this.#options.sha256();
    } else {
      if (header.prevChecksum !== this.#chain) {
        // Right after a snapshot, or after a merged range, the doubt falls on them: others may lead to the same place.
        const previous = this.#previous!;
        if (previous.kind !== "delta") this.blame = previous;
        const [expected, actual] = [this.#chain, header.prevChecksum].map(checksumHex);
        throw refuse("chain_mismatch", "previous chain value", expected, actual);
      }
      if (this.#options.plan.segment.own && header.createdMs < this.#createdMs) {
        this.#warnings.push(`${key}: created_ms ${header.createdMs} is before that of the changeset in front of it`);
      }
    }
    this.#createdMs = header.createdMs;
    this.#sink.begin?.(object, header);
    return header;
  }

  #page(object: PoolObject, key: string, pgno: number, data: Uint8Array): void {
    const pageSize = this.#pageSize;
    const next = this.#runFirst + this.#runLength / pageSize;
    if (object.kind === "snapshot" && pgno !== this.#pageCount + 1) {
      throw new FormatError("snapshot_pages", `${key}: page ${pgno} follows page ${this.#pageCount}`, {
        data: { object: key, offset: 40, expected: `page ${this.#pageCount + 1}` },
      });
    }
    if (object.kind === "snapshot") this.#pageCount = pgno;
    if (this.#runLength > 0 && (pgno !== next || this.#runLength + pageSize > runSizeMax)) this.#flush();
    if (this.#runLength === 0) this.#runFirst = pgno;
    this.#run.set(data, this.#runLength);
    this.#runLength += pageSize;
  }

  #flush(): void {
    if (this.#runLength === 0) return;
    const bytes = this.#run.subarray(0, this.#runLength);
    this.#rawHash?.update(bytes);
    this.#sink.pages(this.#runFirst, bytes, this.#pageSize);
    this.#runLength = 0;
  }

  #end(object: PoolObject, key: string, header: ChangesetHeader, end: ChangesetEnd, fresh: number): void {
    if (object.kind === "snapshot") {
      // The second hash domain: after a snapshot the chain value is that of the raw database bytes.
      this.#chain = checksumOfDigest(this.#rawHash!.digest());
      this.#rawHash = null;
    } else {
      if (end.endPageCount === null) {
        throw new FormatError("no_end_page_count", `${key} does not say how large the database is after it`, {
          data: { object: key, offset: 6, expected: "the end-page-count marker" },
        });
      }
      this.#checkGrowth(key, end.endPageCount, fresh);
      this.#pageCount = end.endPageCount;
      this.#chain = end.chainEnd;
      if (header.pageCount > 1 || fresh > 0) this.#changesets++;
    }
    this.#sink.end({ object, header, pageCount: this.#pageCount, chain: this.#chain });
  }

  /** A size is believed only as far as pages back it: ours send every new page, others nearly every one. */
  #checkGrowth(key: string, endPageCount: number, fresh: number): void {
    const before = this.#pageCount;
    if (endPageCount <= before) return;
    const lockPage = lockBytePage(this.#pageSize);
    const lock = lockPage > before && lockPage <= endPageCount ? 1 : 0;
    const absent = endPageCount - before - fresh;
    const allowed = this.#options.plan.segment.own ? lock : foreignGrowthMax / this.#pageSize;
    if (absent > allowed) {
      throw new IntegrityError(
        "growth_without_pages",
        `${key} grows the database by ${absent} pages that it does not hold`,
        {
          data: { object: key, expected: String(before + fresh + lock), actual: String(endPageCount) },
        },
      );
    }
  }
}
