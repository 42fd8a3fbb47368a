/** A source of a replica with real content: SQL runs in a real database, and each commit becomes a delta of its pages. */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { DatabaseSync } from "node:sqlite";
import type { MemoryStore } from "../../src/storage/memory.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";
import { BucketWriter } from "./bucket_writer.ts";

/** See the file's head; `path` is where its database is made. */
export class SqliteSource<Store extends ObjectStore = MemoryStore> {
  readonly writer: BucketWriter & { store: Store };
  readonly database: DatabaseSync;
  readonly #file: number;

  constructor(store: Store, path: string, pageSize: number = 4096, options: { lineage?: string | null } = {}) {
    this.writer = new BucketWriter({ store, pageSize, lineage: options.lineage }) as typeof this.writer;
    // Before the connection and closed after it: closing a descriptor drops the locks of SQLite.
    this.#file = openSync(path, "a+");
    this.database = new DatabaseSync(path);
    this.database.exec(`PRAGMA page_size = ${pageSize}; PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF`);
  }

  /** The database as a WAL that was checkpointed whole leaves it. */
  image(): Uint8Array {
    this.database.prepare("PRAGMA wal_checkpoint(TRUNCATE)").all();
    const bytes = new Uint8Array(fstatSync(this.#file).size);
    readSync(this.#file, bytes, 0, bytes.length, 0);
    return bytes;
  }

  /** Runs SQL and begins the lineage with a snapshot of it. */
  async begin(sql: string): Promise<void> {
    this.database.exec(sql);
    if (this.writer.lineage !== null) await this.writer.begin();
    this.writer.load(this.image());
    await this.writer.snapshot();
  }

  /** Runs SQL and publishes what it changed. */
  async commit(sql: string): Promise<bigint> {
    this.database.exec(sql);
    return await this.writer.deltaTo(this.image());
  }

  close(): void {
    this.database.close();
    closeSync(this.#file);
  }
}

/** Two tables whose sums only whole commits keep equal and opposite. */
export const ledgerSchema = `
  CREATE TABLE debit(id INTEGER PRIMARY KEY, amount INTEGER, note BLOB);
  CREATE TABLE credit(id INTEGER PRIMARY KEY, amount INTEGER);
  CREATE INDEX debit_amount ON debit(amount);
  INSERT INTO debit VALUES (1, 0, NULL);
  INSERT INTO credit VALUES (1, 0)`;

/** One booking, and `noteBytes` of ballast with it. */
export function booking(amount: number, noteBytes: number = 100): string {
  return `BEGIN;
    INSERT INTO debit(amount, note) VALUES (${amount}, randomblob(${noteBytes}));
    INSERT INTO credit(amount) VALUES (${-amount});
    COMMIT`;
}

/** 0 as long as only whole commits are seen. */
export const ledgerSum = "SELECT (SELECT sum(amount) FROM debit) + (SELECT sum(amount) FROM credit) AS n";
