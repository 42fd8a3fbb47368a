/** Makes and reads changesets for the tests beside it. */
import { FormatError } from "../../src/errors.ts";
import {
  ChangesetDecoder,
  type ChangesetEnd,
  type ChangesetHeader,
  type DecodeOptions,
  encodeChangeset,
  type Entry,
} from "../../src/format/hadbp.ts";
import { sha256 } from "../support/vectors.ts";

export const object = "backups/app/0000/0000000000000001.hadbp";

/** Header of a delta of so many entries. */
export function header(fields: Partial<ChangesetHeader> = {}): ChangesetHeader {
  return {
    version: 1,
    flags: 1,
    pageSize: 512,
    seq: 7n,
    prevChecksum: 0x1122334455667788n,
    pageCount: 2,
    createdMs: 1_760_000_000_000,
    declaredEnd: null,
    ...fields,
  };
}

export function page(pgno: number, size: number = 512): Entry {
  const data = new Uint8Array(size);
  for (let index = 0; index < size; index++) data[index] = (pgno * 31 + index * 7) & 0xff;
  return { pgno, data };
}

export function marker(pages: number): Entry {
  return { pgno: pages + 1, data: new Uint8Array(0) };
}

/** The whole object, put together from chunks that are copied as a caller must. */
export function encode(
  of: ChangesetHeader,
  entries: Iterable<Entry>,
  chunkSize: number = 1 << 16,
): { bytes: Uint8Array<ArrayBuffer>; end: ChangesetEnd; chunks: number[] } {
  const parts: Uint8Array[] = [];
  const steps = encodeChangeset(of, entries, { sha256, chunkSize });
  let step = steps.next();
  for (; step.done !== true; step = steps.next()) parts.push(step.value.slice());
  const bytes = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let filled = 0;
  for (const part of parts) {
    bytes.set(part, filled);
    filled += part.length;
  }
  return { bytes, end: step.value, chunks: parts.map((part) => part.length) };
}

/** Decodes through chunks that are overwritten as soon as they are used up, as a socket's buffer is. */
export function decodeStream(
  bytes: Uint8Array,
  chunkSizes: Iterable<number>,
  options: Partial<DecodeOptions> = {},
): { header: ChangesetHeader; entries: Entry[]; end: ChangesetEnd } {
  const decoder = new ChangesetDecoder({ object, sha256, ...options });
  const entries: Entry[] = [];
  let at = 0;
  for (const size of chunkSizes) {
    const chunk = bytes.slice(at, at + size);
    at += chunk.length;
    for (const { pgno, data } of decoder.push(chunk)) entries.push({ pgno, data: data.slice() });
    chunk.fill(0xee);
    if (at >= bytes.length) break;
  }
  const end = decoder.finish();
  return { header: decoder.header!, entries, end };
}

/** For ever the same chunk size. */
export function* every(size: number): Generator<number, never> {
  while (true) yield size;
}

/** The code of the `FormatError` that `action` throws; "sound" when it throws none. Other errors pass. */
export function refusal(action: () => unknown): string {
  try {
    action();
  } catch (error) {
    if (!(error instanceof FormatError)) throw error;
    const { object: named, offset, expected } = error.data as { object: unknown; offset: unknown; expected: unknown };
    if (typeof named !== "string" || typeof offset !== "number" || typeof expected !== "string") {
      throw new Error(`FormatError ${error.code} lacks object, offset or expectation`, { cause: error });
    }
    return error.code;
  }
  return "sound";
}
