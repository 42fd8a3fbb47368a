/** How a replica follows, what it tells, and where it ends. */
import type { Log, Runtime } from "../runtime/types.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import type { RestoreProgress } from "./restore.ts";

/** What happens to a replica. */
export type FollowEvent =
  /** An existing replica is gone on with. */
  | { kind: "resumed"; source: string; lineage: string | null; seq: bigint }
  /** It was made; `undo` is a shell command line that brings back what stood there, null when nothing did. */
  | {
    kind: "bootstrapped";
    source: string;
    lineage: string | null;
    snapshotSeq: bigint;
    seq: bigint;
    pages: number;
    bytes: number;
    undo: string | null;
  }
  /**
   * An update has happened. `changesets` counts those with pages, `bytes` what was fetched; `lagMs` is how long ago the
   * source published the newest of it, by both clocks; readers were kept out for at most `heldMs`.
   */
  | {
    kind: "applied";
    changesets: number;
    pages: number;
    bytes: number;
    lineage: string | null;
    seq: bigint;
    createdMs: number;
    lagMs: number;
    heldMs: number;
  }
  /** The replica's own image was left for a snapshot's, in the same update: `reason` says why. */
  | { kind: "bridged"; reason: string; from: bigint; lineage: string | null; snapshotSeq: bigint; seq: bigint }
  /** Readers do not let an update in; it is tried again. */
  | { kind: "readers_busy"; waitedMs: number; retryMs: number }
  | { kind: "poll_failed"; error: unknown; retryMs: number }
  | { kind: "warning"; message: string }
  | { kind: "stopped"; seq: bigint | null };

/** Options of `follow`. */
export interface FollowOptions {
  /** Bucket to follow. */
  store: ObjectStore;
  /** `${prefix}${name}/` */
  root: string;
  /** Path of the replica. */
  localPath: string;
  /** The machine; its SQLite is needed. */
  runtime: Pick<Runtime, "files" | "sha256" | "sqlite" | "random" | "clock">;
  /** Time between two looks at the bucket, milliseconds; 5000 unless said otherwise. */
  intervalMs?: number;
  /** Go on in the lineage that replaces the followed one, instead of stopping. */
  followLineage?: boolean;
  /** Make the replica anew whatever stands there, which is moved aside. */
  rebootstrap?: boolean;
  /** Return when everything that the bucket held at the first look is applied. */
  once?: boolean;
  /** Requests at once; 8 unless said otherwise. */
  parallel?: number;
  /** True where no other code of this process opens the replica. */
  ownProcess?: boolean;
  /** Stops after the update under way. */
  signal?: AbortSignal;
  /** Told of everything that happens. */
  onEvent?: (event: FollowEvent) => void;
  /** Told of the bytes of the first restore. */
  onProgress?: (progress: RestoreProgress) => void;
  /** Told of details. */
  log?: Log;
}

/** Where the replica stands at the end. */
export interface FollowResult {
  /** Null is the layout without lineages. */
  readonly lineage: string | null;
  /** Newest seq applied; null when there is no replica yet. */
  readonly seq: bigint | null;
}
