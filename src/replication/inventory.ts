/**
 * What lies in a bucket below one database's root: objects of a lineage sorted into pools, and the layout of
 * buckets that other programs wrote. Keys are untrusted: one that does not parse is counted, never used.
 */
import { isAbsentObject } from "../errors.ts";
import type { LineageDocument, RetentionDocument } from "../format/documents.ts";
import { parseLineage, parseRetention } from "../format/documents.ts";
import { lineagePrefix, type ObjectKey, parseKey, renderKey } from "../format/keys.ts";
import { getBytes, type ObjectStore } from "../storage/object_store.ts";

/** One object of a pool; `min` and `max` are equal for deltas and snapshots. The key is rendered from it, never kept. */
export interface PoolObject {
  /** Pool it lies in. */
  readonly kind: "delta" | "snapshot" | "level";
  /** Null in the layout without lineages. */
  readonly lineage: string | null;
  /** 0 for deltas and snapshots, n for `levels/Ln`. */
  readonly level: number;
  /** First seq it covers. */
  readonly min: bigint;
  /** Last seq it covers. */
  readonly max: bigint;
  /** Bytes. */
  readonly size: number;
  /** By the store's clock. */
  readonly lastModifiedMs: number;
}

/** Everything stored of one lineage (or, with `lineage` null, of the layout without lineages). */
export interface LineageObjects {
  /** Null is the layout without lineages. */
  readonly lineage: string | null;
  /** `lineage.json`; only our own lineages have one, and only theirs are strict about holes. */
  readonly document: LineageDocument | null;
  /** Ascending by seq. */
  readonly deltas: PoolObject[];
  /** Ascending by seq. */
  readonly snapshots: PoolObject[];
  /** Ascending by min, then max. */
  readonly levels: PoolObject[];
  /** `retention.json`: ranges removed on purpose. */
  readonly retention: RetentionDocument | null;
  /** Keys that mean nothing to us. */
  readonly ignoredKeys: number;
  /** Of deltas, snapshots and levels. */
  readonly bytes: number;
  /** Documents that could not be read, in words. */
  readonly warnings: string[];
}

/** Who wrote a bucket: `walrust` is the layout of formats.md §2, the others those of §3. */
export type Layout =
  | "walrust"
  | "walrust-ltx"
  | "walrust-0.3.0"
  | "litestream-0.5"
  | "litestream-0.3"
  | "walsync-0.1";

/** Layouts in words, for messages. */
export const layoutNames: Readonly<Record<Layout, string>> = {
  "walrust": "walrust",
  "walrust-ltx": "walrust 0.3.1 to 0.7 (LTX files)",
  "walrust-0.3.0": "walrust 0.3.0 (LTX files)",
  "litestream-0.5": "Litestream 0.5",
  "litestream-0.3": "Litestream 0.3",
  "walsync-0.1": "walsync 0.1",
};

/** What the reading functions share. */
export interface ReadOptions {
  /** Cancels. */
  signal?: AbortSignal;
}

/** One database found below a prefix. */
export interface DatabaseEntry {
  /** Name as stored. */
  readonly name: string;
  /** `${prefix}${name}/` */
  readonly root: string;
  /** Null where nothing known lies below the root. */
  readonly layout: Layout | null;
  /** What else lies below the same root: another program writes, or wrote, there too. */
  readonly otherLayouts: Layout[];
}

/** A document is a few hundred bytes; retention.json may list many ranges. */
const documentSizeMax = 4 * 1024 * 1024;

/** Bytes of a bridge: a header of version 2, one entry without data, the checksum. */
const bridgeSize = 64;

/** Keys looked at to recognise a layout. */
const layoutKeysMax = 64;

/** Key of a pool object below `root`. */
export function objectKey(root: string, object: PoolObject): string {
  const { lineage, kind } = object;
  const key: ObjectKey = kind === "level"
    ? { kind, lineage, level: object.level, min: object.min, max: object.max }
    : { kind, lineage, seq: object.max };
  return renderKey(root, key);
}

/** True for a bridge, by its size: every delta has a page, or no declared end. */
export function isBridgeObject(object: PoolObject): boolean {
  return object.kind === "delta" && object.size === bridgeSize;
}

/** Bytes of a small document, or null when there is none. */
export async function readDocument(
  store: ObjectStore,
  key: string,
  options: ReadOptions = {},
): Promise<Uint8Array | null> {
  try {
    return (await getBytes(store, key, documentSizeMax, options)).bytes;
  } catch (error) {
    if (isAbsentObject(error)) return null;
    throw error;
  }
}

/** The databases below `prefix` (empty, or ending with `/`), ascending by name. */
export async function listDatabases(
  store: ObjectStore,
  prefix: string,
  options: ReadOptions = {},
): Promise<DatabaseEntry[]> {
  const entries: DatabaseEntry[] = [];
  for (const root of await store.listDirectories(prefix, options)) {
    const name = root.slice(prefix.length).replace(/\/$/, "");
    if (name === "") continue;
    const [layout = null, ...otherLayouts] = await detectLayouts(store, root, options);
    entries.push({ name, root, layout, otherLayouts });
  }
  return entries;
}

/** Recognises who wrote what lies below `root`; null when it is nobody we know, or nothing. */
export async function detectLayout(
  store: ObjectStore,
  root: string,
  options: ReadOptions = {},
): Promise<Layout | null> {
  return (await detectLayouts(store, root, options))[0] ?? null;
}

/** Everyone who wrote below `root`, walrust first; empty when it is nobody we know, or nothing. */
export async function detectLayouts(store: ObjectStore, root: string, options: ReadOptions = {}): Promise<Layout[]> {
  const folders = new Set((await store.listDirectories(root, options)).map((path) => path.slice(root.length)));
  const firstKey = async (folder: string, test: (tail: string) => boolean): Promise<string | null> => {
    if (folder !== "" && !folders.has(folder)) return null;
    let seen = 0;
    for await (const object of store.list(root + folder, options)) {
      if (test(object.key.slice(root.length))) return object.key;
      if (++seen >= layoutKeysMax) break;
    }
    return null;
  };
  const holds = async (folder: string, test: (tail: string) => boolean): Promise<boolean> =>
    await firstKey(folder, test) !== null;
  const found: Layout[] = [];
  let ours = folders.has("lineages/");
  for (const pool of ["0000/", "0001/", "levels/"]) ours ||= await holds(pool, (tail) => tail.endsWith(".hadbp"));
  if (ours) found.push("walrust");
  if (await holds("generations/", isLitestream03)) found.push("litestream-0.3");
  if (await holds("ltx/", (tail) => tail.endsWith(".ltx"))) found.push("litestream-0.5");
  if (await holds("snapshots/", isWalsync)) found.push("walsync-0.1");
  for (const folder of [...folders].filter((name) => /^[0-9a-f]{4}\/$/.test(name)).sort()) {
    const key = await firstKey(folder, (tail) => /\/[0-9a-f]{16}-[0-9a-f]{16}\.ltx$/.test(tail));
    if (key === null) continue;
    found.push(await ltxWriter(store, key, options));
    break;
  }
  if (await holds("", (tail) => /^\d{8}-\d{8}\.ltx$/.test(tail))) found.push("walrust-0.3.0");
  if (found.length === 0 && await store.head(renderKey(root, { kind: "state" }), options)) found.push("walrust");
  return [...new Set(found)];
}

function isLitestream03(tail: string): boolean {
  return /^generations\/[0-9a-f]{16}\/(snapshots|wal)\/[0-9a-f_]+\.(snapshot|wal)\.lz4$/.test(tail);
}

function isWalsync(tail: string): boolean {
  return /^snapshots\/\d{14}\.db$/.test(tail);
}

/** Litestream 0.5 and walrust 0.7 share keys; the header's flag 1 (one compressed block) is walrust's. */
async function ltxWriter(store: ObjectStore, key: string, options: ReadOptions): Promise<Layout> {
  const { bytes } = await getBytes(store, key, 8, { ...options, range: { start: 0, end: 8 } });
  return bytes.length === 8 && bytes[7] === 1 ? "walrust-ltx" : "litestream-0.5";
}

/** Lists the lineages below `root`, ascending by id. */
export async function listLineages(store: ObjectStore, root: string, options: ReadOptions = {}): Promise<string[]> {
  const prefix = `${root}lineages/`;
  const names = (await store.listDirectories(prefix, options)).map((path) => path.slice(prefix.length, -1));
  return names.filter((name) => /^[0-9a-f]{32}$/.test(name));
}

/** Lists all objects of a lineage (null: the layout without lineages) and reads its documents. */
export async function readLineage(
  store: ObjectStore,
  root: string,
  lineage: string | null,
  options: ReadOptions = {},
): Promise<LineageObjects> {
  const pools: Record<PoolObject["kind"], PoolObject[]> = { delta: [], snapshot: [], level: [] };
  const warnings: string[] = [];
  const documents = new Set<string>();
  let ignoredKeys = 0;
  let bytes = 0;
  const base = lineagePrefix(root, lineage);
  // Without a lineage the root also holds lineages/, which may be large: list the three pools only.
  const prefixes = lineage === null ? [`${base}0000/`, `${base}0001/`, `${base}levels/`] : [base];
  for (const prefix of prefixes) {
    for await (const info of store.list(prefix, options)) {
      const key = parseKey(root, info.key);
      if (key === null || key.kind === "state" || key.lineage !== lineage) {
        ignoredKeys++;
      } else if (!("seq" in key) && !("level" in key)) {
        documents.add(key.kind);
      } else {
        const [level, min, max] = "seq" in key ? [0, key.seq, key.seq] : [key.level, key.min, key.max];
        const { size, lastModifiedMs } = info;
        pools[key.kind].push({ kind: key.kind, lineage, level, min, max, size, lastModifiedMs });
        bytes += size;
      }
    }
  }
  for (const pool of Object.values(pools)) pool.sort(bySeq);
  const read = async <Doc>(name: ObjectKey, parse: (bytes: Uint8Array, object: string) => Doc) => {
    // Without a lineage it lies beside the pools, where nothing was listed.
    if (lineage !== null && !documents.has(name.kind)) return null;
    const key = renderKey(root, name);
    try {
      const text = await readDocument(store, key, options);
      return text === null ? null : parse(text, key);
    } catch (error) {
      if (!(error instanceof Error) || !("kind" in error) || error.kind !== "integrity") throw error;
      warnings.push(`${key} is not readable and was ignored: ${error.message}`);
      return null;
    }
  };
  const document = lineage === null ? null : await read({ kind: "lineage", lineage }, parseLineage);
  const retention = await read({ kind: "retention", lineage }, parseRetention);
  const { delta: deltas, snapshot: snapshots, level: levels } = pools;
  return { lineage, document, deltas, snapshots, levels, retention, ignoredKeys, bytes, warnings };
}

/** The highest seq of some objects; 0 for none. */
export function lastSeqOf(objects: readonly { readonly max: bigint }[]): bigint {
  return objects.reduce((last, { max }) => max > last ? max : last, 0n);
}

/** Ascending by min, then max, then level. */
export function bySeq(a: PoolObject, b: PoolObject): number {
  if (a.min !== b.min) return a.min < b.min ? -1 : 1;
  if (a.max !== b.max) return a.max < b.max ? -1 : 1;
  return a.level - b.level;
}
