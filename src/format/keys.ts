/**
 * Where objects lie. Keys are part of the wire format; below the root `{prefix}{db}/`:
 *
 * | Key | What |
 * | --- | --- |
 * | `lineages/{lineage}/0000/{seq}.hadbp` | delta, or the bridge beside a snapshot |
 * | `lineages/{lineage}/0001/{seq}.hadbp` | snapshot |
 * | `lineages/{lineage}/levels/L{n}/{min}-{max}.hadbp` | merged deltas, n ≥ 1 |
 * | `lineages/{lineage}/lineage.json`, `retention.json` | see documents.ts |
 * | `state.json` | pointer to the active lineage |
 * | `0000/…`, `0001/…`, `levels/…`, `retention.json` | the same without a lineage: read, never newly begun |
 *
 * Numbers are 16 lower-case hexadecimal digits, lineages 32. A key that is not exactly what `renderKey` writes is not
 * ours: it is ignored and counted, never used as a path.
 */

import { ConfigError } from "../errors.ts";
import { printable } from "./bytes.ts";

export { printable };

/** What a key below the root names. */
export type ObjectKey =
  | { kind: "delta" | "snapshot"; lineage: string | null; seq: bigint }
  | { kind: "level"; lineage: string | null; level: number; min: bigint; max: bigint }
  | { kind: "lineage"; lineage: string }
  | { kind: "retention"; lineage: string | null }
  | { kind: "state" };

const lineagePattern = /^[0-9a-f]{32}$/;
const relativePattern =
  /^(?:lineages\/([0-9a-f]{32})\/)?(?:(0000|0001)\/([0-9a-f]{16})|levels\/L([1-9][0-9]?)\/([0-9a-f]{16})-([0-9a-f]{16}))\.hadbp$/;
const documentPattern = /^lineages\/([0-9a-f]{32})\/(lineage|retention)\.json$/;
const levelMax = 99;
// The longest relative key has 88 characters; longer ones need no further look.
const relativeLengthMax = 128;

/** A sequence number as 16 hexadecimal digits; throws `RangeError` beyond 64 bits. */
export function seqHex(seq: bigint): string {
  if (seq < 0n || seq > 0xffff_ffff_ffff_ffffn) throw new RangeError(`seq ${seq} is not an unsigned 64-bit number`);
  return seq.toString(16).padStart(16, "0");
}

/** True for 32 lower-case hexadecimal digits. */
export function isLineage(text: string): boolean {
  return lineagePattern.test(text);
}

/** Beginning of all keys of a lineage, or the root itself for objects without one. */
export function lineagePrefix(root: string, lineage: string | null): string {
  if (lineage === null) return root;
  if (!isLineage(lineage)) throw new RangeError(`lineage is not 32 hexadecimal digits: ${printable(lineage)}`);
  return `${root}lineages/${lineage}/`;
}

/** The key of an object. */
export function renderKey(root: string, key: ObjectKey): string {
  switch (key.kind) {
    case "state":
      return `${root}state.json`;
    case "lineage":
    case "retention":
      return `${lineagePrefix(root, key.lineage)}${key.kind}.json`;
    case "delta":
    case "snapshot":
      return `${lineagePrefix(root, key.lineage)}${key.kind === "delta" ? "0000" : "0001"}/${seqHex(key.seq)}.hadbp`;
    case "level":
      if (!Number.isInteger(key.level) || key.level < 1 || key.level > levelMax || key.min > key.max) {
        throw new RangeError(`no such level or range: L${key.level} ${key.min}-${key.max}`);
      }
      return `${lineagePrefix(root, key.lineage)}levels/L${key.level}/${seqHex(key.min)}-${seqHex(key.max)}.hadbp`;
  }
}

/** What a key names, or null when it is not ours. */
export function parseKey(root: string, text: string): ObjectKey | null {
  if (!text.startsWith(root) || text.length > root.length + relativeLengthMax) return null;
  const relative = text.slice(root.length);
  if (relative === "state.json") return { kind: "state" };
  if (relative === "retention.json") return { kind: "retention", lineage: null };
  const document = documentPattern.exec(relative);
  if (document !== null) return { kind: document[2] === "lineage" ? "lineage" : "retention", lineage: document[1] };
  const match = relativePattern.exec(relative);
  if (match === null) return null;
  const lineage = match[1] ?? null;
  if (match[2] !== undefined) {
    return { kind: match[2] === "0000" ? "delta" : "snapshot", lineage, seq: BigInt(`0x${match[3]}`) };
  }
  const min = BigInt(`0x${match[5]}`);
  const max = BigInt(`0x${match[6]}`);
  return min > max ? null : { kind: "level", lineage, level: Number(match[4]), min, max };
}

// A listing answers in XML 1.0, which cannot carry these.
// deno-lint-ignore no-control-regex
const controls = /[\u0000-\u001f\u007f-\u009f\ufffe\uffff\ud800-\udfff]/u;

/** Name of a database in the bucket: the file name without its last extension; throws `ConfigError` when none is left. */
export function databaseName(path: string): string {
  const file = path.slice(path.lastIndexOf("/") + 1);
  const dot = file.lastIndexOf(".");
  const name = dot > 0 ? file.slice(0, dot) : file;
  if (name === "" || name === "." || name === ".." || controls.test(name)) {
    throw new ConfigError("database_name", `no name for the bucket can be made from ${printable(path)}`, {
      hint: "Give the database a file name such as app.db.",
      data: { path },
    });
  }
  return name;
}

/** Where a bucket is: S3 with a prefix that is empty or ends with `/`, or a directory of this machine. */
export type BucketUrl =
  | { scheme: "s3"; bucket: string; prefix: string }
  | { scheme: "file"; directory: string; prefix: "" };

/** Reads `s3://bucket[/prefix]`, `bucket[/prefix]` or `file:///directory`; throws `ConfigError`. */
export function parseBucketUrl(text: string): BucketUrl {
  if (controls.test(text)) throw bucketError(text, "it contains a control character");
  const scheme = /^([A-Za-z][A-Za-z0-9+.-]*):\/\//.exec(text)?.[1].toLowerCase() ?? null;
  if (scheme === "file") return parseFileUrl(text);
  if (scheme !== null && scheme !== "s3") throw bucketError(text, `${scheme}:// is not supported`);
  const path = scheme === null ? text : text.slice(5);
  const slash = path.indexOf("/");
  const bucket = slash === -1 ? path : path.slice(0, slash);
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{2,254}$/.test(bucket)) {
    throw bucketError(text, "a bucket name has three or more letters, digits, dots and hyphens");
  }
  const trimmed = slash === -1 ? "" : path.slice(slash + 1).replace(/\/+$/, "");
  if (trimmed === "") return { scheme: "s3", bucket, prefix: "" };
  for (const segment of trimmed.split("/")) {
    if (segment === "" || segment === "." || segment === "..") {
      throw bucketError(text, "the prefix has an empty, '.' or '..' segment");
    }
  }
  return { scheme: "s3", bucket, prefix: `${trimmed}/` };
}

function parseFileUrl(text: string): BucketUrl {
  const path = text.slice("file://".length);
  if (!path.startsWith("/")) throw bucketError(text, "file:// needs an absolute path: file:///var/backups");
  let directory: string;
  try {
    directory = decodeURIComponent(path);
  } catch {
    throw bucketError(text, "a % in a file:// URL is written %25");
  }
  if (controls.test(directory) || /%2f/i.test(path)) throw bucketError(text, "it escapes a character no path has");
  return { scheme: "file", directory: directory.replace(/\/+$/, "") || "/", prefix: "" };
}

function bucketError(text: string, reason: string): ConfigError {
  return new ConfigError("bucket_url", `not a bucket: ${printable(text)}: ${reason}`, {
    hint: "Write s3://bucket, s3://bucket/prefix or file:///directory.",
    data: { bucket: text },
  });
}
