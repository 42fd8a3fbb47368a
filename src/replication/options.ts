import type { Runtime } from "../runtime/types.ts";
import type { ObjectStore } from "../storage/object_store.ts";

/**
 * How a database is read. `pin`: through SQLite, which then keeps its log for us. `observe`: its files alone, nothing is
 * written or locked there. `auto`: pin, and observe where this runtime has no SQLite for it or may not write.
 */
export type CaptureMode = "auto" | "pin" | "observe";

/** How one database is watched. Times in milliseconds, sizes in pages or bytes as named. */
export interface EngineOptions {
  /** How the database is read. */
  readonly mode: CaptureMode;
  /** How often the WAL is looked at. */
  readonly walSyncIntervalMs: number;
  /** A snapshot at least this often while something changes; 0 = only when asked for. */
  readonly snapshotIntervalMs: number;
  /** A snapshot at the start when something changed since the last one. */
  readonly onStartup: boolean;
  /** How often a rollover is tried. */
  readonly checkpointIntervalMs: number;
  /** WAL size from which a rollover is tried, pages. */
  readonly minCheckpointPages: number;
  /** WAL size at which an error is reported and every tick tries a barrier, pages. */
  readonly walTruncateThresholdPages: number;
  /** Wait for a database that does not exist, is empty, not in WAL mode or locked yet. */
  readonly waitForDatabase: boolean;
  /** Where journal or index are lost, go on in the lineage that the bucket has, by its content. */
  readonly adopt: boolean;
  /** A delta is cut at the first commit that reaches this many bytes of pages. */
  readonly batchSizeMax?: number;
  /** The spool takes no more than this, bytes. */
  readonly spoolSizeMax: number;
  /** The spool leaves this much free on its file system, bytes. */
  readonly freeSpaceMin: number;
}

/** What happens to one database. */
export type EngineEvent =
  | { kind: "started"; path: string; destination: string; lineage: string; seq: bigint }
  | {
    kind: "adopted";
    path: string;
    lineage: string;
    seq: bigint;
    /** Why there was nothing to resume. */
    reason: string;
    /** Read from the bucket. */
    bytes: number;
  }
  | { kind: "new_lineage"; path: string; lineage: string; reason: string }
  | { kind: "old_sqlite"; path: string; version: string }
  | { kind: "unsafe_place"; path: string; reason: string }
  | { kind: "observing"; path: string; reason: string }
  | {
    kind: "wal_gap";
    path: string;
    reason: string;
    /** The points in time that may be missing lie between this one and the next. */
    seq: bigint;
  }
  | {
    kind: "waiting";
    path: string;
    reason: string;
    /** True when it was replicated before and has become what cannot be. */
    trouble: boolean;
  }
  | {
    kind: "difference";
    path: string;
    reason: string;
    /** Pages that differ. */
    pages: number;
    /** Their size, and that of the database, bytes. */
    bytes: number;
    databaseBytes: number;
    seq: bigint;
  }
  | {
    kind: "delta";
    path: string;
    frames: number;
    pages: number;
    bytes: number;
    seq: bigint;
    createdMs: number;
    lagMs: number;
  }
  | { kind: "bridge"; path: string; seq: bigint }
  | { kind: "snapshot"; path: string; seq: bigint; bytes: number; durationMs: number; checksum: bigint }
  | { kind: "snapshot_abandoned"; path: string; seq: bigint; reason: string }
  | { kind: "rollover"; path: string; barrier: boolean; frames: number; heldMs: number }
  | { kind: "barrier_in_vain"; path: string; heldMs: number }
  | { kind: "wal_size_exceeded"; path: string; frames: number }
  | {
    kind: "spool_full";
    path: string;
    /** What the spool holds. */
    bytes: number;
    /** `limit`: it may not take more; `disk`: little is left there. */
    reason: "limit" | "disk";
  }
  | { kind: "database_replaced"; path: string }
  | { kind: "sync_failed"; path: string; error: unknown; retryMs: number }
  | { kind: "fenced"; path: string; error: unknown }
  | { kind: "stopped"; path: string; seq: bigint };

/** What an engine is made of. */
export interface EngineParts {
  /** Absolute path of the database. */
  readonly path: string;
  /** Key prefix of the database in the store, with its trailing `/`. */
  readonly root: string;
  /** Where journal, index and spool of this database are. */
  readonly directory: string;
  /** True where another engine of this process replicated to `root` before: trouble is waited out from the start. */
  readonly continues?: boolean;
  /** True where other code of this process may have the database open. */
  readonly isShared?: boolean;
  readonly store: ObjectStore;
  readonly runtime: Runtime;
  readonly options: EngineOptions;
  readonly emit: (event: EngineEvent) => void;
}
