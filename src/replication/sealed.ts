/**
 * A sealed object: its key and every byte are fixed, created_ms included, so that a retry sends the same bytes.
 */
import {
  type ChangesetEnd,
  type ChangesetHeader,
  changesetSize,
  compactedFlag,
  deltaMarkerFlag,
  encodeChangeset,
  type Entry,
} from "../format/hadbp.ts";
import type { NewSha256 } from "../runtime/types.ts";
import { indexEntrySize, type PageHashes, type PageIndex } from "./page_index.ts";
import type { WalPosition } from "./wal_log.ts";

/** Objects up to this size, in bytes, are kept in memory until they are confirmed; larger ones are encoded again. */
export const objectInMemoryMax: number = 8 * 1024 * 1024;

/** One object of the delta chain: a delta or a bridge. */
export interface Sealed {
  readonly kind: "delta" | "bridge";
  readonly key: string;
  readonly seq: bigint;
  readonly createdMs: number;
  /** Bytes of the whole object. */
  readonly size: number;
  /** Chain value after it. */
  readonly chainEnd: bigint;
  /** Database size after it, pages. */
  readonly pageCount: number;
  /** Index entries that become true when it is published. */
  readonly hashes: PageHashes;
  /** Where in the WAL it ends; `undefined` when it came from the spool of an earlier process. */
  readonly position: WalPosition | null | undefined;
  /** WAL frames it stands for. */
  readonly frames: number;
  /** The bytes, as often as asked; a chunk is valid until the next one. */
  chunks(): Iterable<Uint8Array>;
}

/** What a delta continues and where it goes. */
export interface SealTarget {
  readonly key: string;
  readonly seq: bigint;
  readonly prevChecksum: bigint;
  readonly createdMs: number;
  readonly pageSize: number;
}

const noHashes: PageHashes = { pgnos: [], hashes: new Uint8Array(0) };

/**
 * Seals the pages `pgnos` (ascending, `read` fills one) and the end-page-count marker into a delta.
 * `read` must give the same bytes for as long as the object is not confirmed: a pin or memory holds them.
 */
export function sealDelta(
  target: SealTarget,
  content: {
    pgnos: ArrayLike<number>;
    read: (index: number, into: Uint8Array) => void;
    pageCount: number;
    position: WalPosition | null;
    frames: number;
  },
  index: PageIndex,
  sha256: NewSha256,
): Sealed {
  const { pgnos, read, pageCount } = content;
  const header: ChangesetHeader = {
    version: 1,
    flags: deltaMarkerFlag,
    pageSize: target.pageSize,
    seq: target.seq,
    prevChecksum: target.prevChecksum,
    pageCount: pgnos.length + 1,
    createdMs: target.createdMs,
    declaredEnd: null,
  };
  function* entries(onPage?: (index: number, page: Uint8Array) => void): Generator<Entry> {
    const data = new Uint8Array(target.pageSize);
    for (let i = 0; i < pgnos.length; i++) {
      read(i, data);
      onPage?.(i, data);
      yield { pgno: pgnos[i], data };
    }
    yield { pgno: pageCount + 1, data: new Uint8Array(0) };
  }
  const size = changesetSize(header);
  const inMemory = size <= objectInMemoryMax;
  const hashes = new Uint8Array(pgnos.length * indexEntrySize);
  const first = encodeChangeset(
    header,
    entries((i, page) => index.hashPage(page, hashes, i * indexEntrySize)),
    { sha256, chunkSize: inMemory ? size : objectInMemoryMax },
  );
  const { bytes, end } = drain(first, inMemory);
  return {
    kind: "delta",
    key: target.key,
    seq: target.seq,
    createdMs: target.createdMs,
    size,
    chainEnd: end.chainEnd,
    pageCount,
    hashes: { pgnos, hashes },
    position: content.position,
    frames: content.frames,
    chunks: () =>
      bytes === null ? encodeChangeset(header, entries(), { sha256, chunkSize: objectInMemoryMax }) : [bytes],
  };
}

/** Runs an encoder to its end; keeps the bytes when the object is one chunk. */
function drain(
  encoder: Generator<Uint8Array, ChangesetEnd>,
  keep: boolean,
): { bytes: Uint8Array | null; end: ChangesetEnd } {
  let bytes: Uint8Array | null = null;
  for (let step = encoder.next();; step = encoder.next()) {
    if (step.done) return { bytes, end: step.value };
    if (keep) bytes = step.value;
  }
}

/** Seals the bridge that stands for a snapshot in the delta chain: 64 bytes, `rawHash` is the chain value after it. */
export function sealBridge(
  target: SealTarget,
  content: { rawHash: bigint; pageCount: number; position: WalPosition | null },
  sha256: NewSha256,
): Sealed {
  const header: ChangesetHeader = {
    version: 2,
    flags: deltaMarkerFlag | compactedFlag,
    pageSize: target.pageSize,
    seq: target.seq,
    prevChecksum: target.prevChecksum,
    pageCount: 1,
    createdMs: target.createdMs,
    declaredEnd: content.rawHash,
  };
  const entries: Entry[] = [{ pgno: content.pageCount + 1, data: new Uint8Array(0) }];
  const size = changesetSize(header);
  const { bytes } = drain(encodeChangeset(header, entries, { sha256, chunkSize: size }), true);
  return {
    kind: "bridge",
    key: target.key,
    seq: target.seq,
    createdMs: target.createdMs,
    size,
    chainEnd: content.rawHash,
    pageCount: content.pageCount,
    hashes: noHashes,
    position: content.position,
    frames: 0,
    chunks: () => [bytes!],
  };
}
