/**
 * The first 100 bytes of a database file (sqlite.org/fileformat2.html §1.3); integers big-endian.
 *
 * | Offset | Size | Field |
 * | --- | --- | --- |
 * | 0 | 16 | `SQLite format 3\0` |
 * | 16 | 2 | page size; 1 means 65536 |
 * | 18 | 1 | write version: 1 rollback journal, 2 WAL |
 * | 19 | 1 | read version, likewise |
 * | 20 | 1 | reserved bytes at the end of each page |
 * | 24 | 4 | change counter |
 * | 28 | 4 | pages in the file, trusted only when 92 equals the change counter |
 * | 92 | 4 | change counter for which the page count is valid |
 * | 96 | 4 | version of the SQLite that wrote page 1 last, such as 3051003 for 3.51.3 |
 */

import { isPageSize, viewOf } from "./bytes.ts";

/** Bytes of the database header. */
export const sqliteHeaderSize = 100;

const magic = "SQLite format 3\0";

/** What the database header says. */
export interface SqliteHeader {
  /** Bytes, a power of two 512..65536. */
  pageSize: number;
  /** 1 for the rollback journal, 2 for WAL. */
  writeVersion: number;
  /** 1 for the rollback journal, 2 for WAL. */
  readVersion: number;
  /** Counts the transactions in rollback mode; in WAL mode it changes rarely. */
  changeCounter: number;
  /** Pages in the file; meaningful when `versionValidFor` equals `changeCounter`. */
  pageCount: number;
  /** Bytes at the end of each page that SQLite leaves alone. */
  reservedBytes: number;
  /** Change counter for which `pageCount` was written. */
  versionValidFor: number;
  /** Version of the SQLite that wrote page 1 last: 3051003 is 3.51.3; 0 before 3.7.0. */
  sqliteVersion: number;
}

/** Reads the database header, or says why these bytes are none; an encrypted database has no magic. */
export function parseSqliteHeader(bytes: Uint8Array): SqliteHeader | "empty" | "short" | "magic" | "page-size" {
  if (bytes.length === 0) return "empty";
  for (let index = 0; index < Math.min(magic.length, bytes.length); index++) {
    if (bytes[index] !== magic.charCodeAt(index)) return "magic";
  }
  if (bytes.length < sqliteHeaderSize) return "short";
  const view = viewOf(bytes);
  const stored = view.getUint16(16);
  const pageSize = stored === 1 ? 65536 : stored;
  if (!isPageSize(pageSize)) return "page-size";
  return {
    pageSize,
    writeVersion: bytes[18],
    readVersion: bytes[19],
    reservedBytes: bytes[20],
    changeCounter: view.getUint32(24),
    pageCount: view.getUint32(28),
    versionValidFor: view.getUint32(92),
    sqliteVersion: view.getUint32(96),
  };
}

/**
 * Makes page 1 that of a database with a rollback journal instead of a WAL, in place: other programs notice a change of
 * the file by the change counter, and believe the page count because both counters agree.
 */
export function setRollbackForm(page: Uint8Array, changeCounter: number, pageCount: number): void {
  const view = viewOf(page);
  page[18] = page[19] = 1;
  view.setUint32(24, changeCounter);
  view.setUint32(28, pageCount);
  view.setUint32(92, changeCounter);
}

/** Number of the page at byte 1 GiB, which SQLite locks and never writes. */
export function lockBytePage(pageSize: number): number {
  return 0x4000_0000 / pageSize + 1;
}
