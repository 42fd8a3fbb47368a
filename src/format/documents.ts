/**
 * The JSON documents of a bucket. Unknown fields are ignored (a newer writer may add some), known ones must have
 * their type, and 64-bit numbers are `bigint` from the first to the last digit.
 *
 * | Document | Fields |
 * | --- | --- |
 * | `state.json` | the Rust field set: `current_seq`, `current_txid`, `db_checksum`, `last_snapshot`, `lineage_id`, `wal_checksum_chain`, `wal_generation`, `wal_offset`, `wal_salt`; ours: `claim` |
 * | `lineage.json` | `version` 1, `parent`, `parent_seq` (decimal string), `created_ms`, `page_size`, `writer` |
 * | `retention.json` | `version` 1, `ranges`: `min`, `max` (decimal strings), `reason`, `level`, `marked_ms`; `snapshots`: `seq` (decimal string), `marked_ms` |
 */

import { formatError, isPageSize, printable } from "./bytes.ts";
import { type JsonObject, type JsonValue, parseJson } from "./json.ts";
import { isLineage } from "./keys.ts";

/** Most bytes that a document of a bucket may have. */
export const documentSizeMax: number = 1 << 24;

const seqMax = 0xffff_ffff_ffff_ffffn;

/** `state.json`: points to the active lineage and its newest complete snapshot. */
export interface StateDocument {
  /** Active lineage; null for objects without one. */
  lineageId: string | null;
  /** Lineage that is being started and will replace the active one. */
  claim: string | null;
  /** Seq of the newest complete snapshot. */
  currentSeq: bigint | null;
  /** Chain value after it: hash of the raw database. */
  dbChecksum: bigint | null;
  /** When it was made, RFC 3339. */
  lastSnapshot: string | null;
}

/** `lineage.json`: where a lineage comes from. */
export interface LineageDocument {
  /** Lineage it was forked from, `bare` for objects without one, null for none. */
  parent: string | null;
  /** Last seq of the parent that belongs to the history. */
  parentSeq: bigint | null;
  /** When it was begun, Unix milliseconds. */
  createdMs: number;
  /** Bytes of a page of the database. */
  pageSize: number;
  /** `walrust/<version>`. */
  writer: string;
}

/** Seqs that were, or soon will be, removed on purpose. */
export interface RetentionRange {
  /** First. */
  min: bigint;
  /** Last. */
  max: bigint;
  /** Given up, or part of a merged object now. */
  reason: "retention" | "merge";
  /** Merged into this level: what lies below it goes. */
  level?: number;
  /** When that was decided, Unix milliseconds: nothing is deleted until readers under way had time to end. */
  markedMs?: number;
}

/** A snapshot that will soon be removed on purpose. */
export interface RetentionSnapshot {
  /** Its seq. */
  seq: bigint;
  /** When that was decided, Unix milliseconds. */
  markedMs: number;
}

/** `retention.json`: seqs removed on purpose; every other hole is damage. */
export interface RetentionDocument {
  /** Of the chain of deltas. */
  ranges: RetentionRange[];
  /** Marked and perhaps still there; absent for none. */
  snapshots?: RetentionSnapshot[];
}

/** Fields of one object, each asked for by name and type; refuses others. */
class Fields {
  readonly #fields: JsonObject;
  readonly #object: string;
  readonly #path: string;

  constructor(value: JsonValue, object: string, path: string) {
    this.#object = object;
    this.#path = path;
    if (!(value instanceof Map)) throw this.#refuse("", "an object", value);
    this.#fields = value;
  }

  #refuse(name: string, expected: string, found: JsonValue | undefined): Error {
    const shown = typeof found === "bigint" || typeof found === "number" || typeof found === "boolean"
      ? String(found)
      : typeof found === "string"
      ? printable(JSON.stringify(found.slice(0, 40)))
      : found === undefined
      ? "nothing"
      : found === null
      ? "null"
      : "another type";
    return formatError("field", this.#object, 0, `${this.#path}${name} to be ${expected}`, shown);
  }

  /** The value, or null when the field is absent or null; `read` gives undefined for a value it cannot take. */
  optional<T>(name: string, expected: string, read: (value: JsonValue) => T | undefined): T | null {
    const value = this.#fields.get(name) ?? null;
    if (value === null) return null;
    const result = read(value);
    if (result === undefined) throw this.#refuse(name, expected, value);
    return result;
  }

  required<T>(name: string, expected: string, read: (value: JsonValue) => T | undefined): T {
    const result = this.optional(name, expected, read);
    if (result === null) throw this.#refuse(name, expected, this.#fields.get(name));
    return result;
  }

  elements(name: string): Fields[] {
    const values = this.required(name, "an array", (value) => Array.isArray(value) ? value : undefined);
    return values.map((value, index) => new Fields(value, this.#object, `${this.#path}${name}[${index}].`));
  }

  /** {@linkcode Fields.elements}, or undefined when the field is absent or null. */
  optionalElements(name: string): Fields[] | undefined {
    return (this.#fields.get(name) ?? null) === null ? undefined : this.elements(name);
  }
}

function openDocument(bytes: Uint8Array, object: string): Fields {
  if (bytes.length > documentSizeMax) {
    throw formatError("too_large", object, documentSizeMax, "the end", `${bytes.length} bytes`);
  }
  return new Fields(parseJson(bytes, object), object, "");
}

const asLineage = (value: JsonValue): string | undefined =>
  typeof value === "string" && isLineage(value) ? value : undefined;
const asU64 = (value: JsonValue): bigint | undefined =>
  typeof value === "bigint" && value >= 0n && value <= seqMax ? value : undefined;
const asText = (value: JsonValue): string | undefined =>
  typeof value === "string" && value.length <= 256 ? value : undefined;
const asDecimal = (value: JsonValue): bigint | undefined =>
  typeof value === "string" && /^(?:0|[1-9][0-9]{0,19})$/.test(value) ? asU64(BigInt(value)) : undefined;
const asTime = (value: JsonValue): number | undefined =>
  typeof value === "bigint" && value >= 0n && value <= 8_640_000_000_000_000n ? Number(value) : undefined;
const asLevel = (value: JsonValue): number | undefined =>
  typeof value === "bigint" && value >= 1n && value <= 99n ? Number(value) : undefined;
const asVersion = (value: JsonValue): true | undefined => value === 1n ? true : undefined;

/** Reads `state.json`; every field may be absent. Throws `FormatError`. */
export function parseState(bytes: Uint8Array, object: string): StateDocument {
  const fields = openDocument(bytes, object);
  return {
    lineageId: fields.optional("lineage_id", "32 hexadecimal digits", asLineage),
    claim: fields.optional("claim", "32 hexadecimal digits", asLineage),
    currentSeq: fields.optional("current_seq", "an unsigned 64-bit number", asU64),
    dbChecksum: fields.optional("db_checksum", "an unsigned 64-bit number", asU64),
    lastSnapshot: fields.optional("last_snapshot", "a short text", asText),
  };
}

/** Writes `state.json` as the Rust library reads it: fields sorted, numbers that are not known left out. */
export function renderState(state: StateDocument): Uint8Array {
  return renderObject([
    ["claim", state.claim === null ? null : JSON.stringify(state.claim)],
    ["current_seq", state.currentSeq === null ? null : String(state.currentSeq)],
    ["current_txid", "0"],
    ["db_checksum", state.dbChecksum === null ? null : String(state.dbChecksum)],
    ["last_snapshot", JSON.stringify(state.lastSnapshot)],
    ["lineage_id", JSON.stringify(state.lineageId)],
    ["wal_checksum_chain", "null"],
    ["wal_generation", "0"],
    ["wal_offset", "0"],
    ["wal_salt", "null"],
  ]);
}

/** Reads `lineage.json`; throws `FormatError`. */
export function parseLineage(bytes: Uint8Array, object: string): LineageDocument {
  const fields = openDocument(bytes, object);
  fields.required("version", "1", asVersion);
  const parent = fields.optional(
    "parent",
    "a lineage, bare or null",
    (value) => value === "bare" ? value : asLineage(value),
  );
  const readParentSeq = parent === null ? fields.optional.bind(fields) : fields.required.bind(fields);
  return {
    parent,
    parentSeq: readParentSeq("parent_seq", "a decimal number in quotes", asDecimal),
    createdMs: fields.required("created_ms", "Unix milliseconds", asTime),
    pageSize: fields.required(
      "page_size",
      "a power of two 512..65536",
      (value) => typeof value === "bigint" && isPageSize(Number(value)) ? Number(value) : undefined,
    ),
    writer: fields.required("writer", "a short text", asText),
  };
}

/** Writes `lineage.json`. */
export function renderLineage(document: LineageDocument): Uint8Array {
  return renderObject([
    ["version", "1"],
    ["parent", JSON.stringify(document.parent)],
    ["parent_seq", document.parentSeq === null ? "null" : `"${document.parentSeq}"`],
    ["created_ms", String(document.createdMs)],
    ["page_size", String(document.pageSize)],
    ["writer", JSON.stringify(document.writer)],
  ]);
}

/** Reads `retention.json`; throws `FormatError`. */
export function parseRetention(bytes: Uint8Array, object: string): RetentionDocument {
  const fields = openDocument(bytes, object);
  fields.required("version", "1", asVersion);
  const ranges = fields.elements("ranges").map((range): RetentionRange => {
    const min = range.required("min", "a decimal number in quotes", asDecimal);
    const max = range.required("max", `a decimal number in quotes, at least ${min}`, (value) => {
      const last = asDecimal(value);
      return last !== undefined && last >= min ? last : undefined;
    });
    const reason = range.required(
      "reason",
      "retention or merge",
      (value): "retention" | "merge" | undefined => value === "retention" || value === "merge" ? value : undefined,
    );
    const level = range.optional("level", "a level 1..99", asLevel);
    const markedMs = range.optional("marked_ms", "Unix milliseconds", asTime);
    return { min, max, reason, ...(level === null ? {} : { level }), ...(markedMs === null ? {} : { markedMs }) };
  });
  const snapshots = fields.optionalElements("snapshots")?.map((snapshot): RetentionSnapshot => ({
    seq: snapshot.required("seq", "a decimal number in quotes", asDecimal),
    markedMs: snapshot.required("marked_ms", "Unix milliseconds", asTime),
  }));
  return snapshots === undefined ? { ranges } : { ranges, snapshots };
}

/** Writes `retention.json`. */
export function renderRetention(document: RetentionDocument): Uint8Array {
  const ranges = document.ranges.map(({ min, max, reason, level, markedMs }) => {
    const more = (level === undefined ? "" : `,"level":${level}`) +
      (markedMs === undefined ? "" : `,"marked_ms":${markedMs}`);
    return `{"min":"${min}","max":"${max}","reason":"${reason}"${more}}`;
  });
  const snapshots = document.snapshots?.map(({ seq, markedMs }) => `{"seq":"${seq}","marked_ms":${markedMs}}`);
  return renderObject([
    ["version", "1"],
    ["ranges", `[${ranges.join(",")}]`],
    ["snapshots", snapshots === undefined ? null : `[${snapshots.join(",")}]`],
  ]);
}

/** Compact JSON; a field whose text is null is left out. */
function renderObject(fields: [name: string, text: string | null][]): Uint8Array {
  const members = fields.filter(([, text]) => text !== null).map(([name, text]) => `"${name}":${text}`);
  return new TextEncoder().encode(`{${members.join(",")}}`);
}
