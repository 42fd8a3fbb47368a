/** Restores into memory: the same plan and the same walk as a restore to a file, without the file. */
import { createHash } from "node:crypto";
import { type History, readHistory } from "../../src/replication/history.ts";
import { planRestore } from "../../src/replication/plan.ts";
import { resolveTarget, type RestoreTarget } from "../../src/replication/point_in_time.ts";
import { type ChangesetSink, ChangesetWalk, type VerifiedChangeset } from "../../src/replication/walk.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";
import { sha256 } from "../support/vectors.ts";

/** A database image in memory. */
class MemoryImage implements ChangesetSink {
  bytes: Uint8Array = new Uint8Array(0);
  #size = 0;

  pages(first: number, bytes: Uint8Array, pageSize: number): void {
    const start = (first - 1) * pageSize;
    this.#resize(Math.max(this.#size, start + bytes.length));
    this.bytes.set(bytes, start);
  }

  end({ pageCount, header }: VerifiedChangeset): void {
    this.#resize(pageCount * header.pageSize);
  }

  imageDigest(): Uint8Array {
    return new Uint8Array(createHash("sha256").update(this.bytes.subarray(0, this.#size)).digest());
  }

  #resize(size: number): void {
    if (size > this.bytes.length) {
      const larger = new Uint8Array(Math.max(size, 2 * this.bytes.length));
      larger.set(this.bytes.subarray(0, this.#size));
      this.bytes = larger;
    }
    if (size < this.#size) this.bytes.fill(0, size, this.#size);
    this.#size = size;
  }

  get content(): Uint8Array {
    return this.bytes.subarray(0, this.#size);
  }
}

/** The bytes of a point; throws what a restore throws. `history` saves the listing. */
export async function restoreToMemory(
  store: ObjectStore,
  root: string,
  target: RestoreTarget | bigint,
  history?: History,
): Promise<Uint8Array> {
  const wanted = typeof target === "bigint" ? { kind: "seq", seq: target } as const : target;
  const read = history ?? await readHistory(store, root);
  const { segment, seq } = await resolveTarget(store, read, wanted, Number.MAX_SAFE_INTEGER);
  const image = new MemoryImage();
  const plan = planRestore(segment, seq);
  await new ChangesetWalk({ store, root, plan, sha256, parallel: 4 }, image).run();
  return image.content;
}
