/** The start of a new lineage: claim, index and first snapshot, all of one image. */
import { assert, DatabaseError } from "../errors.ts";
import { hexOf } from "../format/bytes.ts";
import { renderKey } from "../format/keys.ts";
import type { Files, Runtime } from "../runtime/types.ts";
import type { Capture, FrozenAt } from "./capture.ts";
import { whenSteady } from "./image.ts";
import { removeJournal } from "./journal.ts";
import { claimLineage } from "./lineage.ts";
import { indexEntrySize, PageIndex } from "./page_index.ts";
import type { SnapshotPlan } from "./snapshot.ts";
import { Stream, type StreamParts } from "./stream.ts";

/** Bytes for journal and headers. */
const spareMin = 1024 * 1024;

/** A lineage whose first snapshot is still to be uploaded. */
export interface StartedLineage {
  readonly stream: Stream;
  readonly plan: SnapshotPlan;
  readonly frozen: FrozenAt;
  /** Seq of the parent's head, 0 without a parent. */
  readonly parentSeq: bigint;
}

/** Claims a lineage and fills its index from an image of the database; the caller uploads the snapshot. */
export async function startLineage(
  capture: Capture,
  shared: Omit<StreamParts, "lineage" | "index">,
  runtime: Runtime,
): Promise<StartedLineage> {
  const { store, root, directory } = shared;
  const { pageSize } = capture;
  assertRoom(capture, directory, runtime.files);
  const lineage = newLineageId(runtime.random.bytes(16));
  const { parentSeq } = await claimLineage(store, root, { lineage, createdMs: runtime.clock.now(), pageSize });
  shared.spool.clear();
  removeJournal(runtime.files, directory);
  const index = PageIndex.create(runtime.files, `${directory}/pages.idx`, {
    lineage,
    pageSize,
    random: runtime.random,
    sha256: runtime.sha256,
  });
  const options = { index, directory: `${directory}/spool`, sha256: runtime.sha256 };
  const freeze = (): Promise<FrozenAt | null> => capture.freeze(capture.beginSnapshot(null), options);
  const frozen = await whenSteady(capture.path, runtime.clock, freeze).catch((error) => {
    index.close();
    throw error;
  });
  const { image, rawHash, takenMs: createdMs } = frozen;
  const { pageCount } = image;
  const seq = parentSeq + 1n;
  const stream = new Stream({ ...shared, lineage, index }, { seq, chain: rawHash, createdMs, pageCount });
  stream.moveTo(frozen.end);
  const key = renderKey(root, { kind: "snapshot", lineage, seq });
  return { stream, plan: { key, seq, prevChecksum: 0n, createdMs, rawHash, image }, frozen, parentSeq };
}

/** A lineage whose index has no room is not claimed: each try would leave another one in the bucket. */
function assertRoom(capture: Capture, directory: string, files: Files): void {
  const pages = Math.ceil((files.stat(capture.path)?.size ?? 0) / capture.pageSize);
  const [need, free] = [pages * indexEntrySize + spareMin, files.freeBytes(directory)];
  if (free >= need) return;
  throw new DatabaseError("no_room", `${directory} needs ${need} bytes for the index, ${free} are free`, {
    hint: "make room there, or give a --state-dir on a larger disk",
    data: { path: capture.path, directory, need, free },
  });
}

/** UUID version 4 as 32 hex digits. */
function newLineageId(bytes: Uint8Array): string {
  assert(bytes.length === 16, "a UUID has 16 bytes");
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return hexOf(bytes);
}
