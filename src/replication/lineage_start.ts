/** The start of a new lineage: claim, index and first snapshot, all of one image. */
import { assert } from "../errors.ts";
import { hexOf } from "../format/bytes.ts";
import { renderKey } from "../format/keys.ts";
import type { Runtime, SqliteConnection } from "../runtime/types.ts";
import type { ImageAt } from "./capture.ts";
import { freezeImage, type FrozenImage } from "./frozen_image.ts";
import { removeJournal } from "./journal.ts";
import { claimLineage } from "./lineage.ts";
import type { LiveDatabase } from "./live_database.ts";
import { PageIndex } from "./page_index.ts";
import type { SnapshotPlan } from "./snapshot.ts";
import { Stream, type StreamParts } from "./stream.ts";

/** A lineage whose first snapshot is still to be uploaded. */
export interface StartedLineage {
  readonly stream: Stream;
  readonly plan: SnapshotPlan;
  readonly frozen: FrozenImage;
  /** Seq of the parent's head, 0 without a parent. */
  readonly parentSeq: bigint;
}

/** Claims a lineage for the image that `pin` holds and fills its index; the caller uploads the snapshot. */
export async function startLineage(
  live: LiveDatabase,
  shared: Omit<StreamParts, "lineage" | "index">,
  taken: ImageAt,
  pin: SqliteConnection,
  runtime: Runtime,
): Promise<StartedLineage> {
  const { store, root, directory } = shared;
  const lineage = newLineageId(runtime.random.bytes(16));
  const createdMs = runtime.clock.now();
  const { parentSeq } = await claimLineage(store, root, { lineage, createdMs, pageSize: live.pageSize });
  shared.spool.clear();
  removeJournal(runtime.files, directory);
  const index = PageIndex.create(runtime.files, `${directory}/pages.idx`, {
    lineage,
    pageSize: live.pageSize,
    random: runtime.random,
    sha256: runtime.sha256,
  });
  const spool = `${directory}/spool`;
  const frozen = await freezeImage(taken.image, { live, pin, directory: spool, index, ...runtime }).catch((error) => {
    index.close();
    throw error;
  });
  const { image, rawHash } = frozen;
  const { pageCount } = image;
  const seq = parentSeq + 1n;
  const stream = new Stream({ ...shared, lineage, index }, { seq, chain: rawHash, createdMs, pageCount });
  stream.moveTo(taken.end);
  const key = renderKey(root, { kind: "snapshot", lineage, seq });
  return { stream, plan: { key, seq, prevChecksum: 0n, createdMs, rawHash, image }, frozen, parentSeq };
}

/** UUID version 4 as 32 hex digits. */
function newLineageId(bytes: Uint8Array): string {
  assert(bytes.length === 16, "a UUID has 16 bytes");
  bytes[6] = (bytes[6] & 0x0f) | 0x40;
  bytes[8] = (bytes[8] & 0x3f) | 0x80;
  return hexOf(bytes);
}
