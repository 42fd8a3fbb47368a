/**
 * What a replica is: the file `<local>-replica-state`, one line of JSON. It names two points, before and after the
 * newest update, and is durable before that update touches the database: whichever step a crash hits, the database is
 * at one of the two, and its page 1 says at which.
 */
import { isPageSize } from "../format/bytes.ts";
import type { Files } from "../runtime/types.ts";
import { textOf, u64Of, wholeOf } from "./journal.ts";
import { directoryOf, nameOf } from "./paths.ts";
import { readSmallFile, writeFileAtomically } from "./small_file.ts";

/** A state of the replica: the point of the source's history, and the file by which it is recognised. */
export interface ReplicaPoint {
  /** Null is the layout without lineages. */
  readonly lineage: string | null;
  /** Newest seq applied. */
  readonly seq: bigint;
  /** Chain value after it. */
  readonly chain: bigint;
  /** Its created_ms. */
  readonly createdMs: number;
  /** Bytes. */
  readonly pageSize: number;
  /** Pages of the file. */
  readonly pageCount: number;
  /** Change counter of the file: ours, not the source's. */
  readonly counter: number;
  /** SHA-256 of page 1 as it is in the file, hexadecimal. */
  readonly firstPageSha256: string;
  /** The first 100 bytes as the source has them, hexadecimal. */
  readonly sourceHeader: string;
}

/** The document. */
export interface ReplicaState {
  /** Bucket and key prefix of the database. */
  readonly source: string;
  /** Where the newest update began. */
  readonly before: ReplicaPoint;
  /** Where it leads, or led. */
  readonly after: ReplicaPoint;
}

const version = 1;
const sizeMax = 64 * 1024;

/** Path of the document of the replica at `localPath`. */
export function replicaStatePath(localPath: string): string {
  return `${localPath}-replica-state`;
}

/** Writes the document durably. */
export function writeReplicaState(files: Files, localPath: string, state: ReplicaState): void {
  const text = JSON.stringify(
    { version, ...state },
    (_, value) => typeof value === "bigint" ? `${value}n` : value,
  );
  const path = replicaStatePath(localPath);
  writeFileAtomically(files, directoryOf(path), nameOf(path), new TextEncoder().encode(`${text}\n`));
}

/** Reads the document; `null` when there is none, `"damaged"` when it is not what was written. */
export function readReplicaState(files: Files, localPath: string): ReplicaState | "damaged" | null {
  const path = replicaStatePath(localPath);
  if (files.stat(path) === null) return null;
  const bytes = readSmallFile(files, path, sizeMax);
  if (bytes === null) return "damaged";
  try {
    const fields = JSON.parse(new TextDecoder().decode(bytes));
    if (fields.version !== version) return "damaged";
    return { source: textOf(fields.source), before: pointOf(fields.before), after: pointOf(fields.after) };
  } catch {
    return "damaged";
  }
}

function pointOf(fields: Record<string, unknown>): ReplicaPoint {
  const pageSize = wholeOf(fields.pageSize);
  if (!isPageSize(pageSize)) throw new TypeError("no page size");
  return {
    lineage: fields.lineage === null ? null : textOf(fields.lineage),
    seq: u64Of(fields.seq),
    chain: u64Of(fields.chain),
    createdMs: wholeOf(fields.createdMs),
    pageSize,
    pageCount: wholeOf(fields.pageCount),
    counter: wholeOf(fields.counter),
    firstPageSha256: hexOfLength(fields.firstPageSha256, 64),
    sourceHeader: hexOfLength(fields.sourceHeader, 200),
  };
}

function hexOfLength(value: unknown, digits: number): string {
  const text = textOf(value);
  if (text.length !== digits || !/^[0-9a-f]*$/.test(text)) throw new TypeError(`not ${digits} hexadecimal digits`);
  return text;
}
