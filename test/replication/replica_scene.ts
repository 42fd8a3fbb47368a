/** Replicas of a source in memory: followed to its head, compared with its images. */
import { Buffer } from "node:buffer";
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import { follow } from "../../src/replication/follower.ts";
import type { FollowEvent, FollowOptions } from "../../src/replication/follow_options.ts";
import { systemRuntime } from "../../src/runtime/system.ts";
import type { Runtime } from "../../src/runtime/types.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import type { BucketWriter } from "./bucket_writer.ts";
import { SqliteSource } from "./sqlite_source.ts";

const system = systemRuntime();

/** The machine without waiting for the disk: no test takes its power away. */
export const runtime: Runtime = {
  ...system,
  sqlite: system.sqlite,
  files: {
    ...system.files,
    open: (path, mode) => Object.assign(system.files.open(path, mode), { sync: () => {} }),
    syncDirectory: () => {},
  },
};
const directory = temporaryDirectory("replica");
let scenes = 0;

/** A source and the path of its replica, in a folder of their own. */
export interface ReplicaScene {
  readonly source: SqliteSource;
  readonly folder: string;
  readonly local: string;
}

/** Runs `body` in a folder of its own. */
export async function withSource(
  body: (scene: ReplicaScene) => Promise<void>,
  options: { pageSize?: number; lineage?: string | null } = {},
): Promise<void> {
  const folder = join(directory, String(++scenes));
  runtime.files.makeDirectory(folder);
  const source = new SqliteSource(new MemoryStore(), join(folder, "source.db"), options.pageSize, options);
  try {
    await body({ source, folder, local: join(folder, "replica.db") });
  } finally {
    source.close();
  }
}

/** Follows to the head and ends; returns what happened. */
export async function catchUp(
  { source, local }: Pick<ReplicaScene, "source" | "local">,
  options: Partial<FollowOptions> = {},
): Promise<FollowEvent[]> {
  const events: FollowEvent[] = [];
  const { store, root } = source.writer;
  const onEvent = (event: FollowEvent): void => void events.push(event);
  await follow({ store, root, localPath: local, runtime, once: true, ownProcess: true, onEvent, ...options });
  return events;
}

/** The events of one kind. */
export function of<K extends FollowEvent["kind"]>(events: FollowEvent[], kind: K): Extract<FollowEvent, { kind: K }>[] {
  return events.filter((event): event is Extract<FollowEvent, { kind: K }> => event.kind === kind);
}

/** The image as a replica holds it, but for its change counters. */
function asReplica(image: Uint8Array, pageSize: number): Uint8Array {
  const bytes = image.slice();
  bytes.set([1, 1], 18);
  for (const at of [24, 92]) bytes.fill(0, at, at + 4);
  new DataView(bytes.buffer).setUint32(28, bytes.length / pageSize);
  return bytes;
}

/** The seq whose image the file is, or null; any SQLite reader must have looked at it first. */
export function seqOf(writer: BucketWriter, local: string): bigint | null {
  const bytes = new Uint8Array(readFileSync(local));
  for (const at of [24, 92]) bytes.fill(0, at, at + 4);
  for (const [seq, image] of [...writer.images].reverse()) {
    if (image.length === bytes.length && Buffer.compare(asReplica(image, writer.pageSize), bytes) === 0) return seq;
  }
  return null;
}

/** Asserts that the replica is byte for byte the source's image of `seq`, and that SQLite finds it sound. */
export function assertAt(writer: BucketWriter, local: string, seq: bigint): void {
  assert.deepEqual(ask(local, "PRAGMA integrity_check"), { integrity_check: "ok" });
  assert.equal(seqOf(writer, local), seq);
}

/** One row, by a connection of its own. */
export function ask(local: string, sql: string): Record<string, unknown> {
  const reader = new DatabaseSync(local);
  try {
    return { ...reader.prepare(sql).get() };
  } finally {
    reader.close();
  }
}
