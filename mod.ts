/**
 * Continuous replication of SQLite databases to S3-compatible storage.
 *
 * This entry point touches no runtime: time, files, SQLite, hashing and HTTP are handed in. The adapter for Node,
 * Bun and Deno is in `@walrust/walrust/system`. Reading what lies in a bucket needs no adapter at all:
 *
 * ```ts
 * import { listDatabases, MemoryStore, renderKey, renderState } from "@walrust/walrust";
 *
 * const store = new MemoryStore();
 * const state = { lineageId: null, claim: null, currentSeq: 7n, dbChecksum: null, lastSnapshot: null };
 * await store.put(renderKey("backups/app/", { kind: "state" }), renderState(state));
 * for (const { name, layout } of await listDatabases(store, "backups/")) console.log(name, layout);
 * ```
 *
 * @module
 */
export * from "./src/errors.ts";
export * from "./src/format/documents.ts";
export * from "./src/format/hadbp.ts";
export {
  type BucketUrl,
  databaseName,
  lineagePrefix,
  type ObjectKey,
  parseBucketUrl,
  parseKey,
  renderKey,
  seqHex,
} from "./src/format/keys.ts";
export * from "./src/format/sqlite_header.ts";
export * from "./src/format/wal.ts";
export * from "./src/storage/object_store.ts";
export { MemoryStore } from "./src/storage/memory.ts";
export { DirectoryStore } from "./src/storage/directory.ts";
export { S3Store } from "./src/storage/s3.ts";
export { openStore, type OpenStoreOptions } from "./src/storage/open.ts";
export * from "./src/replication/compact.ts";
export { type History, readHistory, type Segment } from "./src/replication/history.ts";
export {
  type DatabaseEntry,
  detectLayout,
  type Layout,
  layoutNames,
  type LineageObjects,
  listDatabases,
  type PoolObject,
  type ReadOptions,
} from "./src/replication/inventory.ts";
export * from "./src/replication/listing.ts";
export { type MergedObject, type MergeOptions, mergeRun as merge } from "./src/replication/merge.ts";
export { type MergePlanOptions, type MergeRun, planMerges } from "./src/replication/merge_plan.ts";
export type { Point, SeqRange } from "./src/replication/plan.ts";
export { parsePointInTime } from "./src/replication/point_in_time.ts";
export * from "./src/replication/restore.ts";
export { follow } from "./src/replication/follower.ts";
export type { FollowEvent, FollowOptions, FollowResult } from "./src/replication/follow_options.ts";
export * from "./src/replication/verify.ts";
export * from "./src/replication/retention_plan.ts";
export { type RetentionTiers, retentionTiers, type TierName } from "./src/replication/retention_tiers.ts";
export type { CompactionEvent, CompactionOptions } from "./src/daemon/compaction.ts";
export {
  watch,
  type WatchCall,
  type WatchedDatabase,
  type WatchEvent,
  type WatchOptions,
  type WatchResult,
} from "./src/daemon/watch.ts";
export type { ValidationEvent, ValidationOptions } from "./src/daemon/validation.ts";
export { type SnapshotCall, snapshotNow, type SnapshotReport } from "./src/daemon/snapshot_request.ts";
export type { CaptureMode, EngineEvent, EngineOptions } from "./src/replication/options.ts";
export type { StateOptions } from "./src/replication/state_directory.ts";
export type { Credentials, CredentialsProvider, Environment } from "./src/storage/credentials.ts";
export type { RetryPolicy } from "./src/storage/retry.ts";
export type * from "./src/runtime/types.ts";
export { version } from "./src/version.ts";
