/**
 * Whether a bucket keeps the conditions of a write: where it does not, two writers would not notice each other.
 * Asked with writes that must be refused, of the one document of a lineage that never changes.
 */
import { PreconditionError } from "../errors.ts";
import { documentSizeMax } from "../format/documents.ts";
import { renderKey } from "../format/keys.ts";
import { getBytes, type ObjectStore, type PutOptions } from "../storage/object_store.ts";

/** A condition of a write, by its HTTP header. */
export type WriteCondition = "If-None-Match" | "If-Match";

const newline = 0x0a;
const strangeEtag = `"${"0".repeat(32)}"`;

/** The conditions that the bucket ignores, asked below `root` of a `lineage` that is there; empty when all is well. */
export async function ignoredConditions(
  store: ObjectStore,
  root: string,
  lineage: string,
  signal?: AbortSignal,
): Promise<WriteCondition[]> {
  const key = renderKey(root, { kind: "lineage", lineage });
  const { bytes } = await getBytes(store, key, documentSizeMax, { signal });
  // Other bytes, else it would count as our own write repeated; the same document to everybody who reads it meanwhile.
  const other = bytes.at(-1) === newline ? bytes.slice(0, -1) : Uint8Array.of(...bytes, newline);
  const ignored: WriteCondition[] = [];
  const conditions: [WriteCondition, PutOptions][] = [
    ["If-None-Match", { ifAbsent: true }],
    ["If-Match", { ifMatch: strangeEtag }],
  ];
  for (const [name, condition] of conditions) {
    try {
      await store.put(key, other, { ...condition, signal });
      ignored.push(name);
      await store.put(key, bytes, { signal });
    } catch (error) {
      if (!(error instanceof PreconditionError)) throw error;
    }
  }
  return ignored;
}
