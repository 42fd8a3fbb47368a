import { PreconditionError, StorageError } from "../errors.ts";
import type { ByteRange } from "./object_store.ts";

/** Keys as every store understands them: which are allowed, how they sort, where their directories end. */

/** Longest key, UTF-8 bytes; the limit of S3. */
export const keySizeMax = 1024;

/** Largest body of one `put`, bytes. */
export const putSizeMax: number = 64 * 1024 * 1024;

const encoder = new TextEncoder();

/** Throws `StorageError` (code `InvalidKey`) unless all stores can hold `key`. */
export function checkKey(key: string): void {
  const problem = keyProblem(key);
  if (problem !== null) throw invalidKey(key, problem);
}

/** Like {@linkcode checkKey} for the beginning of a key; the last segment may be cut short. */
export function checkPrefix(prefix: string): void {
  const slash = prefix.lastIndexOf("/");
  if (slash < 0) return;
  const problem = keyProblem(prefix.slice(0, slash));
  if (problem !== null) throw invalidKey(prefix, problem);
}

/** Throws `RangeError` unless the range is made of safe integers in order. */
export function checkRange(range: ByteRange): void {
  if (!Number.isSafeInteger(range.start) || !Number.isSafeInteger(range.end)) {
    throw new RangeError(`byte range ${range.start}…${range.end} is not made of whole numbers`);
  }
  if (range.start < 0 || range.end < range.start) {
    throw new RangeError(`byte range ${range.start}…${range.end} is not in order`);
  }
}

/** Throws `RangeError` when a body is larger than one `put` takes. */
export function checkPutSize(key: string, size: number): void {
  if (size > putSizeMax) throw new RangeError(`${key}: put takes at most ${putSizeMax} bytes; use putStream`);
}

/** Order of two keys by their UTF-8 bytes, which differs from that of UTF-16 units above U+D7FF. */
export function compareKeys(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const x = a.charCodeAt(i);
    const y = b.charCodeAt(i);
    if (x === y) continue;
    const xHigh = x >= 0xd800 && x <= 0xdfff;
    const yHigh = y >= 0xd800 && y <= 0xdfff;
    return xHigh === yHigh ? x - y : xHigh ? 1 : -1;
  }
  return a.length - b.length;
}

/** The error of a conditional write that lost, the same for every store. */
export function preconditionFailed(
  key: string,
  condition: { ifAbsent?: boolean; ifMatch?: string },
  details: { bucket?: string; status?: number; requestId?: string; cause?: unknown } = {},
): PreconditionError {
  const what = condition.ifAbsent ? "an object with this key exists" : "the object is not the one expected";
  return new PreconditionError("PreconditionFailed", `${key}: not written, ${what}`, { ...details, key });
}

function invalidKey(key: string, problem: string): StorageError {
  return new StorageError("InvalidKey", `object key ${JSON.stringify(key)} ${problem}`, { key });
}

function keyProblem(key: string): string | null {
  if (key === "") return "is empty";
  if (key.length > keySizeMax || encoder.encode(key).length > keySizeMax) return `is longer than ${keySizeMax} bytes`;
  if (key.includes("\0")) return "contains a NUL character";
  if (!key.isWellFormed()) return "is not well-formed Unicode";
  for (const segment of key.split("/")) {
    if (segment === "") return "has an empty path segment";
    if (segment === "." || segment === "..") return `has the path segment "${segment}"`;
  }
  return null;
}
