/**
 * The rollback journal of SQLite (sqlite.org/fileformat2.html §3, `pager.c`): what a database file held before a
 * transaction. Integers big-endian.
 *
 * | Header offset | Size | Field |
 * | --- | --- | --- |
 * | 0 | 8 | magic `d9d505f920a163d7` |
 * | 8 | 4 | records that follow |
 * | 12 | 4 | nonce, with which every checksum begins |
 * | 16 | 4 | database size before the transaction, pages |
 * | 20 | 4 | sector size: the records begin there |
 * | 24 | 4 | page size before the transaction |
 *
 * | Record offset | Size | Field |
 * | --- | --- | --- |
 * | 0 | 4 | page number |
 * | 4 | page size | page |
 * | page size + 4 | 4 | checksum: nonce + every 200th byte, from page size − 200 down, 0 left out |
 *
 * 1. Playback ends at the first record with page number 0, that of the lock-byte page, or a wrong checksum.
 * 2. Playback sets the file to the size before, and leaves out records of pages beyond it.
 * 3. Every page that is written, or cut off by a smaller size, has a record, the lock-byte page excepted.
 * 4. The checksum does not cover the page number, nor most of the page: it finds records that were never written.
 */

import { isPageSize, viewOf } from "./bytes.ts";

/** Bytes before the first record: a sector of the smallest size, whatever the disk's is. */
export const rollbackHeaderSize = 512;

const magic = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
const checksumStep = 200;
const u32Max = 0xffff_ffff;

/** What the header says. */
export interface RollbackHeader {
  /** Records that follow. */
  records: number;
  /** Random 32 bits, so that records of an older journal in the same blocks are not taken for ours. */
  nonce: number;
  /** Pages of the database before. */
  pageCount: number;
  /** Bytes of a page before. */
  pageSize: number;
}

/** The header, `rollbackHeaderSize` bytes; throws `RangeError` for one that SQLite would refuse. */
export function encodeRollbackHeader(header: RollbackHeader): Uint8Array {
  const { records, nonce, pageCount, pageSize } = header;
  for (const field of [records, nonce, pageCount]) {
    if (!Number.isInteger(field) || field < 0 || field > u32Max) throw new RangeError(`${field} is no 32-bit number`);
  }
  // All bits set ask SQLite to count the records by the size of the file.
  if (records === u32Max || !isPageSize(pageSize)) throw new RangeError(`${records} records of ${pageSize} bytes`);
  const bytes = new Uint8Array(rollbackHeaderSize);
  bytes.set(magic);
  const view = viewOf(bytes);
  [records, nonce, pageCount, rollbackHeaderSize, pageSize].forEach((field, i) => view.setUint32(8 + 4 * i, field));
  return bytes;
}

/** Bytes of a record. */
export function rollbackRecordSize(pageSize: number): number {
  return pageSize + 8;
}

/** Writes a record into the first bytes of `into`. */
export function encodeRollbackRecord(into: Uint8Array, pgno: number, page: Uint8Array, nonce: number): void {
  const view = viewOf(into);
  view.setUint32(0, pgno);
  into.set(page, 4);
  view.setUint32(4 + page.length, rollbackChecksum(page, nonce));
}

/** The checksum of a record, unsigned. */
export function rollbackChecksum(page: Uint8Array, nonce: number): number {
  let sum = nonce;
  for (let at = page.length - checksumStep; at > 0; at -= checksumStep) sum = (sum + page[at]) >>> 0;
  return sum >>> 0;
}
