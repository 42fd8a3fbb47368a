/**
 * The rollback journal of an update, written under a name of our own while readers go on reading, and given the name
 * that SQLite looks for only when it is whole and durable: no reader ever meets half a journal.
 */
import {
  encodeRollbackHeader,
  encodeRollbackRecord,
  rollbackHeaderSize,
  rollbackRecordSize,
} from "../format/rollback_journal.ts";
import { viewOf } from "../format/bytes.ts";
import type { Files, OpenFile, Random } from "../runtime/types.ts";
import { io } from "./apply.ts";

/** Bytes written at once, at least one record. */
const bufferSize = 256 * 1024;

/** Path of the journal while it is prepared. */
export function preparedJournalPath(localPath: string): string {
  return `${localPath}-replica-journal`;
}

/** A journal being prepared; call `finish` once, or `discard`. */
export class ReplicaJournal {
  readonly path: string;
  /** Records so far. */
  records = 0;
  readonly #files: Files;
  readonly #pageSize: number;
  readonly #pageCount: number;
  readonly #nonce: number;
  readonly #buffer: Uint8Array;
  #file: OpenFile | null;
  #filled = 0;
  #position = rollbackHeaderSize;

  /** Begins the journal of a database of `pageCount` pages of `pageSize` bytes. */
  constructor(options: { files: Files; random: Random; localPath: string; pageSize: number; pageCount: number }) {
    const { files, random, localPath, pageSize, pageCount } = options;
    this.path = preparedJournalPath(localPath);
    this.#files = files;
    this.#pageSize = pageSize;
    this.#pageCount = pageCount;
    this.#nonce = viewOf(random.bytes(4)).getUint32(0);
    const recordSize = rollbackRecordSize(pageSize);
    this.#buffer = new Uint8Array(Math.max(1, Math.floor(bufferSize / recordSize)) * recordSize);
    files.remove(this.path);
    this.#file = io(() => files.open(this.path, "exclusive"), this.path);
  }

  /** Keeps the old image of a page. */
  add(pgno: number, page: Uint8Array): void {
    const recordSize = rollbackRecordSize(this.#pageSize);
    if (this.#filled === this.#buffer.length) this.#flush();
    encodeRollbackRecord(this.#buffer.subarray(this.#filled, this.#filled + recordSize), pgno, page, this.#nonce);
    this.#filled += recordSize;
    this.records++;
  }

  /** Makes it whole and durable. */
  finish(): void {
    this.#flush();
    const header = encodeRollbackHeader({
      records: this.records,
      nonce: this.#nonce,
      pageCount: this.#pageCount,
      pageSize: this.#pageSize,
    });
    io(() => {
      this.#file!.write(header, 0);
      this.#file!.sync();
    }, this.path);
    this.#close();
  }

  /** Removes it. */
  discard(): void {
    this.#close();
    this.#files.remove(this.path);
  }

  #flush(): void {
    io(() => this.#file!.write(this.#buffer.subarray(0, this.#filled), this.#position), this.path);
    this.#position += this.#filled;
    this.#filled = 0;
  }

  #close(): void {
    this.#file?.close();
    this.#file = null;
  }
}
