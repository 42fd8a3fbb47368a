/**
 * HADBP, the physical changeset (`.hadbp`), SQLite profile; integers big-endian.
 *
 * | Offset | Size | Field |
 * | --- | --- | --- |
 * | 0 | 5 | magic `HADBP` |
 * | 5 | 1 | version: 1 plain, 2 compacted |
 * | 6 | 1 | flags: 0x01 end-page-count marker, 0x80 compacted (in version 2 and only there) |
 * | 7 | 1 | page id width, 4 |
 * | 8 | 4 | page size, power of two 512..65536 |
 * | 12 | 8 | seq |
 * | 20 | 8 | previous checksum: chain value before this changeset |
 * | 28 | 4 | entries, the marker included |
 * | 32 | 8 | creation time, signed, Unix milliseconds |
 * | 40 | 8 | declared end checksum, version 2 only |
 * | 40 or 48 | | entries: page number (4), data length (4), data |
 * | end − 8 | 8 | checksum |
 *
 * 1. Entries ascend by page number, none is 0, none comes twice.
 * 2. Data is one whole page, or nothing: the marker, last, page number = pages in the database afterwards + 1.
 * 3. The marker is there exactly when flag 0x01 is set; version 2 always has it.
 * 4. Without a marker it is a snapshot: version 1, flags 0, pages 1..N without a gap.
 * 5. At least one entry; nothing after the checksum. So header fields alone give the exact size.
 *
 * The checksum is the first 8 bytes of SHA-256 over the previous checksum and the bytes between header and checksum.
 * It does *not* cover magic, version, flags, width, page size, seq, entry count, time and declared end: version,
 * flags, width and count contradict the rules or the size when damaged; the others the caller checks against key, chain
 * and neighbours.
 */

import { formatError, isPageSize, viewOf } from "./bytes.ts";

/** Flag: the last entry is the end-page-count marker. */
export const deltaMarkerFlag = 0x01;
/** Flag: compacted, version 2. */
export const compactedFlag = 0x80;

const magic = [0x48, 0x41, 0x44, 0x42, 0x50];
const pageIdWidth = 4;
/** Bytes before the data of an entry. */
export const entryHeaderSize = 8;
/** Bytes of the checksum at the end. */
export const trailerSize = 8;
/** Where the header holds the number of entries. */
export const pageCountOffset = 28;
const createdOffset = 32;
const declaredEndOffset = 40;
/** The last time that a `Date` can hold; foreign clocks may be wrong, but a later time is damage. */
const createdMsMax = 8_640_000_000_000_000;

/** Fields of the header. */
export interface ChangesetHeader {
  /** 1 plain, 2 compacted. */
  version: 1 | 2;
  /** 0 snapshot, 0x01 delta, 0x81 merged deltas or bridge. */
  flags: number;
  /** Bytes, power of two 512..65536. */
  pageSize: number;
  /** Sequence number, unsigned 64-bit. */
  seq: bigint;
  /** Chain value before this changeset. */
  prevChecksum: bigint;
  /** Entries, the marker included. */
  pageCount: number;
  /** Unix milliseconds. */
  createdMs: number;
  /** Chain value after this changeset; null in version 1, where it is the object's own checksum. */
  declaredEnd: bigint | null;
}

/** One page, or the end-page-count marker: no bytes, and the database's size in pages plus one as number. */
export interface Entry {
  /** Page number from 1, or the marker's: pages in the database + 1. */
  pgno: number;
  /** One page, or no bytes. */
  data: Uint8Array;
}

/** What is known at the end of a changeset. */
export interface ChangesetEnd {
  /** The checksum that ends the object. */
  checksum: bigint;
  /** Chain value after a delta. After a snapshot it is the hash of the raw database instead: the other domain. */
  chainEnd: bigint;
  /** Pages in the database afterwards, from the marker; null in a snapshot, which holds them all. */
  endPageCount: number | null;
  /** Bytes of the object. */
  size: number;
}

/** Bytes of the header: 40 or 48. */
export function headerSize(version: 1 | 2): number {
  return version === 1 ? 40 : 48;
}

/** True when the last entry is the end-page-count marker, so for everything but a snapshot. */
export function hasMarker(header: ChangesetHeader): boolean {
  return (header.flags & deltaMarkerFlag) !== 0;
}

/** Exact size in bytes of the object that begins with this header. */
export function changesetSize(header: ChangesetHeader): number {
  const pages = header.pageCount - (hasMarker(header) ? 1 : 0);
  return headerSize(header.version) + header.pageCount * entryHeaderSize + pages * header.pageSize + trailerSize;
}

/** True for a bridge: it carries the chain over a snapshot and changes no page. */
export function isBridge(header: ChangesetHeader): boolean {
  return header.version === 2 && header.flags === (deltaMarkerFlag | compactedFlag) && header.pageCount === 1;
}

/** A checksum or chain value as 16 hexadecimal digits. */
export function checksumHex(checksum: bigint): string {
  return checksum.toString(16).padStart(16, "0");
}

/** A checksum from a SHA-256: its first 8 bytes. */
export function checksumOfDigest(digest: Uint8Array): bigint {
  return viewOf(digest).getBigUint64(0);
}

/** Reads a header from the first 48 bytes of an object; throws `FormatError`. */
export function decodeHeader(bytes: Uint8Array, object: string): ChangesetHeader {
  const refuse = (code: string, offset: number, expected: string, found: string): never => {
    throw formatError(code, object, offset, expected, found);
  };
  if (bytes.length < headerSize(1)) refuse("short", bytes.length, "a header of 40 or 48 bytes", "the end");
  if (magic.some((byte, index) => bytes[index] !== byte)) refuse("magic", 0, "HADBP", "other bytes");
  const version = bytes[5];
  if (version !== 1 && version !== 2) return refuse("version", 5, "version 1 or 2", String(version));
  if (bytes.length < headerSize(version)) refuse("short", bytes.length, "a header of 48 bytes", "the end");
  const flags = bytes[6];
  // Deltas carry the marker in both versions, so each version leaves few flags possible.
  const known = version === 1 ? [0, deltaMarkerFlag] : [compactedFlag | deltaMarkerFlag];
  if (!known.includes(flags)) refuse("flags", 6, `flags ${known.join(" or ")} in version ${version}`, String(flags));
  if (bytes[7] !== pageIdWidth) refuse("page_id_width", 7, "4-byte page numbers", String(bytes[7]));
  const view = viewOf(bytes);
  const pageSize = view.getUint32(8);
  if (!isPageSize(pageSize)) refuse("page_size", 8, "a power of two 512..65536", String(pageSize));
  const pageCount = view.getUint32(pageCountOffset);
  if (pageCount === 0) refuse("page_count", pageCountOffset, "at least one entry", "0");
  const created = view.getBigInt64(createdOffset);
  if (created < 0n || created > BigInt(createdMsMax)) {
    refuse("created_ms", createdOffset, "a time in Unix milliseconds", String(created));
  }
  return {
    version,
    flags,
    pageSize,
    seq: view.getBigUint64(12),
    prevChecksum: view.getBigUint64(20),
    pageCount,
    createdMs: Number(created),
    declaredEnd: version === 2 ? view.getBigUint64(declaredEndOffset) : null,
  };
}

/** The bytes of a header; throws `RangeError` for one that `decodeHeader` would not give back. */
export function encodeHeader(header: ChangesetHeader): Uint8Array {
  const bytes = new Uint8Array(headerSize(header.version));
  const view = viewOf(bytes);
  bytes.set(magic);
  bytes[5] = header.version;
  bytes[6] = header.flags;
  bytes[7] = pageIdWidth;
  view.setUint32(8, header.pageSize);
  view.setBigUint64(12, header.seq);
  view.setBigUint64(20, header.prevChecksum);
  view.setUint32(pageCountOffset, header.pageCount);
  view.setBigInt64(createdOffset, BigInt(header.createdMs));
  if (header.version === 2 && header.declaredEnd !== null) view.setBigUint64(declaredEndOffset, header.declaredEnd);
  let back: ChangesetHeader;
  try {
    back = decodeHeader(bytes, "header to write");
  } catch (error) {
    throw new RangeError(error instanceof Error ? error.message : "header", { cause: error });
  }
  for (const name of Object.keys(back) as (keyof ChangesetHeader)[]) {
    if (back[name] !== header[name]) throw new RangeError(`header.${name} cannot be written: ${header[name]}`);
  }
  return bytes;
}

/** What comes before an entry, to check the order. */
export interface EntryOrder {
  /** Entries so far. */
  index: number;
  /** Number of the last one, 0 before the first. */
  pgno: number;
}

/** Says what is wrong with the next entry: code, expectation, finding; null when it obeys the profile. */
export function entryProblem(
  header: ChangesetHeader,
  before: EntryOrder,
  pgno: number,
  length: number,
): [code: string, expected: string, found: string] | null {
  const last = before.index + 1 === header.pageCount;
  if (pgno === 0) return ["page_zero", "a page number", "0"];
  if (pgno <= before.pgno) return ["page_order", `a page number above ${before.pgno}`, String(pgno)];
  if (!hasMarker(header) && pgno !== before.index + 1) {
    return ["page_order", `page ${before.index + 1} of the snapshot`, String(pgno)];
  }
  if (hasMarker(header) && last) {
    if (length !== 0) return ["marker", "the end-page-count marker", `page ${pgno} of ${length} bytes`];
    if (pgno < 2) return ["marker", "an end page count of 1 or more", "0"];
    return null;
  }
  if (length === 0) return ["marker", `a page of ${header.pageSize} bytes`, "a marker"];
  return length === header.pageSize ? null : ["data_length", `${header.pageSize} bytes`, String(length)];
}

/** Sums up an object whose last entry and checksum are known. */
export function endOf(header: ChangesetHeader, checksum: bigint, lastPgno: number): ChangesetEnd {
  return {
    checksum,
    chainEnd: header.declaredEnd ?? checksum,
    endPageCount: hasMarker(header) ? lastPgno - 1 : null,
    size: changesetSize(header),
  };
}
