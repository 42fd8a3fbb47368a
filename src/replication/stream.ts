/**
 * Our end of one lineage: seals what capture brings, publishes it, and keeps index and journal true.
 * Order of truth: bucket (or spool), then index, then fsync, then journal.
 */
import { assert } from "../errors.ts";
import { type ObjectKey, renderKey } from "../format/keys.ts";
import type { Runtime } from "../runtime/types.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { type DatabaseFiles, type ImageSource, readFrame } from "./image.ts";
import { writeJournal } from "./journal.ts";
import type { EngineEvent } from "./options.ts";
import type { PageIndex } from "./page_index.ts";
import { Publisher } from "./publisher.ts";
import type { Head } from "./resume.ts";
import { objectInMemoryMax, sealBridge, sealDelta, type Sealed, type SealTarget } from "./sealed.ts";
import type { Spool } from "./spool.ts";
import { type Batch, missingGrowth, type WalPosition } from "./wal_log.ts";
import { type Moment, WriterCheck } from "./writer_check.ts";

/**
 * What keeps a sealed delta until it is confirmed: the frames in the WAL under our pin, the spool, or memory alone, for
 * the moment until {@linkcode Publisher.spoolAll} (a crash in between costs that point in time, no commit).
 */
export type Keep = "wal" | "spool" | "memory";

/** What a stream is made of. */
export interface StreamParts {
  readonly path: string;
  readonly root: string;
  readonly destination: string;
  readonly directory: string;
  readonly machine: string;
  readonly lineage: string;
  readonly store: ObjectStore;
  readonly runtime: Pick<Runtime, "clock" | "random" | "files" | "sha256">;
  readonly index: PageIndex;
  readonly spool: Spool;
  readonly emit: (event: EngineEvent) => void;
  /** When `state.json` was read that made us the writer. */
  readonly ownerSeen: Moment;
}

/** See the top of this file. */
export class Stream {
  readonly parts: StreamParts;
  readonly publisher: Publisher;
  /** Head of what is sealed: the next object continues from here. */
  sealed: Head;
  /** Where in the WAL that is. */
  position: WalPosition | null = null;
  /** Where the last rollover ended: there is nothing to gain until something is committed behind it. */
  rolledOver: WalPosition | null = null;
  /** Head of what is in the bucket. */
  published: Head;
  #publishedPosition: WalPosition | null = null;
  /** Newest complete snapshot; seq 0 while there is none: then nothing of this lineage can be restored or resumed. */
  snapshot: { seq: bigint; createdMs: number } = { seq: 0n, createdMs: 0 };
  /** True once an object of ours was confirmed since the start: from then on a conflict is another writer. */
  confirmedAny = false;
  #journalDirty = false;

  constructor(parts: StreamParts, head: Head) {
    this.parts = parts;
    this.sealed = head;
    this.published = head;
    this.publisher = new Publisher({
      store: parts.store,
      spool: parts.spool,
      clock: parts.runtime.clock,
      random: parts.runtime.random,
      events: {
        confirmed: (sealed, lagMs) => this.#confirmed(sealed, lagMs),
        failed: (_, error, retryMs) => parts.emit({ kind: "sync_failed", path: parts.path, error, retryMs }),
      },
      mayWrite: new WriterCheck(parts).mayWrite,
    });
  }

  /** Key of an object of this lineage. */
  key(kind: "delta" | "snapshot", seq: bigint): string {
    return renderKey(this.parts.root, { kind, lineage: this.parts.lineage, seq } as ObjectKey);
  }

  /** Takes up an object that an earlier process left in the spool. */
  adopt(sealed: Sealed): void {
    this.#queue(sealed, true);
  }

  /** False when the database grew by a page that no frame brings: only a difference can fill it. */
  accepts(batch: Batch, pageSize: number): boolean {
    return missingGrowth(batch, this.sealed.pageCount, pageSize) === null;
  }

  /** Seals committed frames; false, and nothing is sealed, when `holds` says that they changed meanwhile. */
  sealBatch(
    source: Pick<DatabaseFiles, "wal" | "pageSize">,
    batch: Batch,
    keep: Keep,
    holds: () => boolean = () => true,
  ): boolean {
    const { pgnos, sources } = batch;
    return this.#sealPages(
      source.pageSize,
      {
        pgnos,
        read: (index, into) => readFrame(source, sources[index], into),
        pageCount: batch.pageCount,
        position: batch.end,
        frames: batch.frames,
      },
      keep,
      holds,
    );
  }

  /** Seals pages of an image. */
  sealImagePages(image: ImageSource, pgnos: readonly number[], position: WalPosition | null, keep: Keep): void {
    this.#sealPages(
      image.pageSize,
      {
        pgnos,
        read: (index, into) => image.read(pgnos[index], 1, into),
        pageCount: image.pageCount,
        position,
        frames: 0,
      },
      keep,
      () => true,
    );
  }

  #sealPages(
    pageSize: number,
    content: Parameters<typeof sealDelta>[1],
    keep: Keep,
    holds: () => boolean,
  ): boolean {
    const { index, runtime, spool } = this.parts;
    const sealed = sealDelta(this.#next(pageSize), content, index, runtime.sha256);
    assert(keep !== "wal" || this.publisher.idle, "one delta in flight");
    const spooled = keep === "spool" || (keep === "memory" && sealed.size > objectInMemoryMax);
    const kept = spooled ? spool.add(sealed, holds) : holds() ? sealed : null;
    if (kept !== null) this.#queue(kept, spooled);
    return kept !== null;
  }

  /** Seals the bridge of a snapshot at the sealed head; returns its seq, what it continues and when it was made. */
  sealBridge(rawHash: bigint, pageSize: number): SealTarget {
    const target = this.#next(pageSize);
    const content = { rawHash, pageCount: this.sealed.pageCount, position: this.position };
    this.#queue(sealBridge(target, content, this.parts.runtime.sha256), false);
    return target;
  }

  #next(pageSize: number): SealTarget {
    const seq = this.sealed.seq + 1n;
    return {
      key: this.key("delta", seq),
      seq,
      prevChecksum: this.sealed.chain,
      createdMs: Math.max(this.parts.runtime.clock.now(), this.sealed.createdMs),
      pageSize,
    };
  }

  #queue(sealed: Sealed, spooled: boolean): void {
    assert(sealed.seq === this.sealed.seq + 1n, "objects are sealed in order");
    this.sealed = {
      seq: sealed.seq,
      chain: sealed.chainEnd,
      createdMs: sealed.createdMs,
      pageCount: sealed.pageCount,
    };
    if (sealed.position !== undefined) this.position = sealed.position;
    this.publisher.add(sealed, spooled);
  }

  #confirmed(sealed: Sealed, lagMs: number): void {
    const { index, emit, path } = this.parts;
    index.apply(sealed.hashes, sealed.pageCount);
    const { seq, createdMs, pageCount } = sealed;
    assert(seq === this.published.seq + 1n, "objects are confirmed in order");
    this.published = { seq, chain: sealed.chainEnd, createdMs, pageCount };
    this.#publishedPosition = sealed.position ?? null;
    this.confirmedAny = true;
    this.#journalDirty = true;
    if (sealed.kind === "bridge") emit({ kind: "bridge", path, seq });
    else {
      const pages = sealed.hashes.pgnos.length;
      emit({ kind: "delta", path, frames: sealed.frames, pages, bytes: sealed.size, seq, createdMs, lagMs });
    }
  }

  /** The head is at this place in the WAL without an object: nothing differed there. */
  moveTo(position: WalPosition | null): void {
    this.position = position;
    if (!this.publisher.idle) return;
    this.#publishedPosition = position;
    this.#journalDirty = true;
  }

  /** Remembers a complete snapshot. */
  snapshotComplete(seq: bigint, createdMs: number): void {
    this.snapshot = { seq, createdMs };
    this.#journalDirty = true;
  }

  /** Writes index and journal durably, if anything changed since the last time. */
  writeJournal(live: { device: bigint; inode: bigint }, pageSize: number): void {
    if (!this.#journalDirty || this.snapshot.seq === 0n) return;
    const { parts, published } = this;
    const at = this.#publishedPosition;
    parts.index.sync();
    writeJournal(parts.runtime.files, parts.directory, {
      destination: parts.destination,
      lineage: parts.lineage,
      seq: published.seq,
      chain: published.chain,
      createdMs: published.createdMs,
      pageSize,
      pageCount: published.pageCount,
      device: live.device,
      inode: live.inode,
      machine: parts.machine,
      position: at === null ? null : {
        salt1: at.header.salt1,
        salt2: at.header.salt2,
        frames: at.state.frames,
        checksum1: at.state.checksum1,
        checksum2: at.state.checksum2,
      },
      snapshotMs: this.snapshot.createdMs,
      snapshotSeq: this.snapshot.seq,
    }, parts.runtime.sha256);
    this.#journalDirty = false;
  }
}
