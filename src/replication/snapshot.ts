/**
 * A snapshot: every page of one commit as one object, uploaded beside the deltas that flow on.
 *
 * Two passes over the pinned image: the first gives the raw-file hash, which the delta chain continues from (through
 * the bridge); the second encodes and hashes again on the way out, and completes only if both agree.
 */
import { IntegrityError } from "../errors.ts";
import { type ChangesetHeader, changesetSize, checksumOfDigest, encodeChangeset, type Entry } from "../format/hadbp.ts";
import type { Clock, NewSha256, OpenFile } from "../runtime/types.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import type { ImageSource } from "./image.ts";
import type { PageIndex } from "./page_index.ts";

const runSize = 1024 * 1024;

/** A snapshot that may be uploaded. */
export interface SnapshotPlan {
  readonly key: string;
  readonly seq: bigint;
  readonly prevChecksum: bigint;
  readonly createdMs: number;
  /** First 8 bytes of the SHA-256 over pages 1..N. */
  readonly rawHash: bigint;
  readonly image: ImageSource;
}

/** The image from its first page to its last, in runs of whole pages; `bytes` are valid until the next one. */
function* runsOf(image: ImageSource): Generator<{ first: number; bytes: Uint8Array }> {
  const { pageSize, pageCount } = image;
  const perRun = Math.max(1, Math.min(runSize / pageSize, pageCount));
  const buffer = new Uint8Array(perRun * pageSize);
  for (let first = 1; first <= pageCount; first += perRun) {
    const count = Math.min(perRun, pageCount - first + 1);
    image.read(first, count, buffer);
    yield { first, bytes: buffer.subarray(0, count * pageSize) };
  }
}

/** Hashes the image; fills `index` and `copy` on the way where given. Other work gets a turn now and then. */
export async function hashImage(
  image: ImageSource,
  options: { sha256: NewSha256; clock: Clock; index?: PageIndex; copy?: OpenFile },
): Promise<bigint> {
  const { pageSize } = image;
  const hash = options.sha256();
  for (const { first, bytes } of runsOf(image)) {
    hash.update(bytes);
    options.copy?.write(bytes, (first - 1) * pageSize);
    options.index?.writePages(first, bytes);
    await options.clock.sleep(0);
  }
  return checksumOfDigest(hash.digest());
}

/**
 * Uploads the snapshot; `ready` resolves when its bridge is confirmed. Returns the object's size in bytes.
 * Throws `IntegrityError` when the second pass read another image than the first.
 */
export async function uploadSnapshot(
  plan: SnapshotPlan,
  options: { store: ObjectStore; sha256: NewSha256; ready: Promise<void>; signal: AbortSignal },
): Promise<number> {
  const { image } = plan;
  const header: ChangesetHeader = {
    version: 1,
    flags: 0,
    pageSize: image.pageSize,
    seq: plan.seq,
    prevChecksum: plan.prevChecksum,
    pageCount: image.pageCount,
    createdMs: plan.createdMs,
    declaredEnd: null,
  };
  const hash = options.sha256();
  function* entries(): Generator<Entry> {
    const { pageSize } = image;
    for (const { first, bytes } of runsOf(image)) {
      hash.update(bytes);
      for (let i = 0; i * pageSize < bytes.length; i++) {
        yield { pgno: first + i, data: bytes.subarray(i * pageSize, (i + 1) * pageSize) };
      }
    }
  }
  const size = changesetSize(header);
  async function* chunks(): AsyncGenerator<Uint8Array> {
    let sent = 0;
    const chunkSize = Math.min(size, runSize);
    for (const chunk of encodeChangeset(header, entries(), { sha256: options.sha256, chunkSize })) {
      options.signal.throwIfAborted();
      sent += chunk.length;
      // The last bytes complete the object: only behind its bridge, and only if it is what the bridge declares.
      if (sent === size) {
        await options.ready;
        options.signal.throwIfAborted();
        if (checksumOfDigest(hash.digest()) !== plan.rawHash) {
          throw new IntegrityError("snapshot_changed", `the image of ${plan.key} changed while it was read`, {
            hint: "please report this: a pinned image must not change",
            data: { key: plan.key },
          });
        }
      }
      yield chunk;
    }
  }
  await options.store.putStream(plan.key, chunks(), { ifAbsent: true, signal: options.signal });
  return size;
}
