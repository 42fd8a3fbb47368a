/** The modelled SQLite behind the interface that the engine knows. */
import { DatabaseError } from "../../src/errors.ts";
import type { CheckpointResult, Sqlite, SqliteConnection } from "../../src/runtime/types.ts";
import type { DatabaseFiles } from "./databases.ts";
import { SqliteFailure } from "./wal_index.ts";
import { drain, ModelConnection } from "./wal_model.ts";

/** SQLite in one process; `before` runs ahead of each call and may throw. */
export class SimulatedSqlite implements Sqlite {
  readonly version: readonly [number, number, number] = [3, 53, 0];
  #databases: DatabaseFiles;
  #process: string;
  #before: (operation: string) => void;

  constructor(databases: DatabaseFiles, process: string, before: (operation: string) => void = () => {}) {
    this.#databases = databases;
    this.#process = process;
    this.#before = before;
  }

  open(path: string, options: { readOnly: boolean }): SqliteConnection {
    this.#before("open connection");
    const database = path === this.#databases.path ? this.#databases.open(this.#process) : null;
    if (database === null) throw new DatabaseError("sqlite_cantopen", `${path}: no such database`);
    return new SimulatedConnection(new ModelConnection(database, this.#process, options.readOnly), this.#before);
  }
}

class SimulatedConnection implements SqliteConnection {
  #model: ModelConnection;
  #before: (operation: string) => void;

  constructor(model: ModelConnection, before: (operation: string) => void) {
    this.#model = model;
    this.#before = before;
  }

  #run<T>(operation: string, run: () => T): T {
    this.#before(operation);
    try {
      return run();
    } catch (error) {
      if (!(error instanceof SqliteFailure)) throw error;
      throw new DatabaseError(error.code, `${this.#model.database.path}: ${operation}: ${error.code}`, {
        data: { sqlite: { sqlite_busy: 5, sqlite_locked: 6, sqlite_readonly: 8, sqlite_misuse: 21 }[error.code] },
      });
    }
  }

  journalMode(): string {
    return this.#run("journal mode", () => {
      const { database } = this.#model;
      if (database.attached.size === 0 && !database.isInWalMode) return "delete";
      this.#model.look();
      return "wal";
    });
  }

  beginRead(): void {
    this.#run("begin read", () => this.#model.beginRead());
  }

  beginImmediate(): boolean {
    return this.#run("begin immediate", () => this.#model.beginWrite());
  }

  /** Only replicas take it, whose databases have no WAL. */
  beginExclusive(): boolean {
    throw new Error("the model knows no exclusive lock");
  }

  rollback(): void {
    this.#run("rollback", () => this.#model.rollback());
  }

  gauge(): CheckpointResult {
    return this.#run("gauge", () => drain(this.#model.checkpoint("noop")));
  }

  checkpointPassive(): CheckpointResult {
    return this.#run("checkpoint", () => drain(this.#model.checkpoint("passive")));
  }

  check(): string[] {
    return [];
  }

  close(): void {
    this.#run("close connection", () => this.#model.close());
  }
}
