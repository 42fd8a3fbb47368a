/**
 * The journal: what was published when it was last written, so that a restart compares instead of uploading.
 * Two lines of text: JSON, then the SHA-256 of the first line in hex. Anything else is a lost journal.
 * Written as temp, fsync, rename, fsync of the directory; always after the page index it describes.
 */
import type { Files, NewSha256 } from "../runtime/types.ts";
import { hexOf } from "../format/bytes.ts";
import { readSmallFile, writeFileAtomically } from "./small_file.ts";

/** Where in the WAL the published history ends. */
export interface JournalPosition {
  readonly salt1: number;
  readonly salt2: number;
  /** Frames published. */
  readonly frames: number;
  /** Running checksum of the last one. */
  readonly checksum1: number;
  readonly checksum2: number;
}

/** See capture.md, "What is on disk". */
export interface Journal {
  /** `location` of the store and the key prefix of the database. */
  readonly destination: string;
  readonly lineage: string;
  /** Newest published seq. */
  readonly seq: bigint;
  /** Chain value after it. */
  readonly chain: bigint;
  /** Its created_ms. */
  readonly createdMs: number;
  /** Bytes. */
  readonly pageSize: number;
  /** Pages after it. */
  readonly pageCount: number;
  readonly device: bigint;
  readonly inode: bigint;
  /** Names this machine where it has a name, else empty. */
  readonly machine: string;
  /** `null` when the WAL was empty. */
  readonly position: JournalPosition | null;
  /** created_ms of the newest complete snapshot. */
  readonly snapshotMs: number;
  /** Seq of the newest complete snapshot: nothing changed since when it equals `seq`. */
  readonly snapshotSeq: bigint;
}

const version = 1;
const sizeMax = 64 * 1024;

function digestHex(sha256: NewSha256, bytes: Uint8Array): string {
  const hash = sha256();
  hash.update(bytes);
  return hexOf(hash.digest());
}

/** Writes the journal durably. */
export function writeJournal(files: Files, directory: string, journal: Journal, sha256: NewSha256): void {
  const text = JSON.stringify(
    { version, ...journal },
    (_, value) => typeof value === "bigint" ? `${value}n` : value,
  );
  const line = new TextEncoder().encode(text);
  const digest = digestHex(sha256, line);
  writeFileAtomically(files, directory, "journal", new TextEncoder().encode(`${text}\n${digest}\n`));
}

/** Reads the journal; `null` when there is none or it is not whole. */
export function readJournal(files: Files, directory: string, sha256: NewSha256): Journal | null {
  const bytes = readSmallFile(files, `${directory}/journal`, sizeMax);
  if (bytes === null) return null;
  const [text, digest, rest] = new TextDecoder().decode(bytes).split("\n");
  if (text === undefined || digest !== digestHex(sha256, new TextEncoder().encode(text)) || rest !== "") return null;
  return parseJournal(text);
}

/** The journal of its first line; `null` when a field is missing or is not what it must be. */
function parseJournal(line: string): Journal | null {
  try {
    const fields = JSON.parse(line);
    const at = fields.position;
    if (fields.version !== version) return null;
    return {
      destination: textOf(fields.destination),
      lineage: textOf(fields.lineage),
      seq: u64Of(fields.seq),
      chain: u64Of(fields.chain),
      createdMs: wholeOf(fields.createdMs),
      pageSize: wholeOf(fields.pageSize),
      pageCount: wholeOf(fields.pageCount),
      device: bigintOf(fields.device),
      inode: bigintOf(fields.inode),
      machine: textOf(fields.machine),
      position: at === null ? null : {
        salt1: wholeOf(at.salt1),
        salt2: wholeOf(at.salt2),
        frames: wholeOf(at.frames),
        checksum1: wholeOf(at.checksum1),
        checksum2: wholeOf(at.checksum2),
      },
      snapshotMs: wholeOf(fields.snapshotMs),
      snapshotSeq: u64Of(fields.snapshotSeq),
    };
  } catch {
    return null;
  }
}

/** A text; throws `TypeError` for anything else. */
export function textOf(value: unknown): string {
  if (typeof value !== "string") throw new TypeError("no text");
  return value;
}

/** A whole number of at least 0; throws `TypeError`. */
export function wholeOf(value: unknown): number {
  if (typeof value !== "number" || !Number.isSafeInteger(value) || value < 0) throw new TypeError("no whole number");
  return value;
}

/** Texts may look like these numbers, so only fields that are numbers are read as such. */
function bigintOf(value: unknown): bigint {
  const digits = /^(-?\d{1,20})n$/.exec(textOf(value))?.[1];
  if (digits === undefined) throw new TypeError("no 64-bit number");
  return BigInt(digits);
}

/** An unsigned 64-bit number as it is written, such as `7n`; throws `TypeError`. */
export function u64Of(value: unknown): bigint {
  const number = bigintOf(value);
  if (BigInt.asUintN(64, number) !== number) throw new TypeError("no unsigned 64-bit number");
  return number;
}

/** Forgets the journal, before a new lineage begins. */
export function removeJournal(files: Files, directory: string): void {
  files.remove(`${directory}/journal`);
  files.syncDirectory(directory);
}
