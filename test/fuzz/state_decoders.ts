/** What lies in the state directory: journal, page index, and what another process answers. */
import { type Journal, readJournal, writeJournal } from "../../src/replication/journal.ts";
import { PageIndex } from "../../src/replication/page_index.ts";
import {
  readReplicaState,
  type ReplicaPoint,
  type ReplicaState,
  writeReplicaState,
} from "../../src/replication/replica_state.ts";
import { decodeAnswer } from "../../src/daemon/snapshot_request.ts";
import { sha256 } from "../support/vectors.ts";
import { jsonVocabulary, shown } from "./document_decoders.ts";
import { type Decoder, law } from "./fuzz.ts";
import { fileOf } from "./memory_files.ts";
import { type BinarySample, jsonPieces } from "./mutator.ts";

const lineage = "0123456789abcdef0123456789abcdef";
const encoder = new TextEncoder();

const journal: Journal = {
  destination: "s3://bucket/app/",
  lineage,
  seq: 0xfedcba9876543210n,
  chain: 0xffffffffffffffffn,
  createdMs: 1_768_000_000_123,
  pageSize: 4096,
  pageCount: 7,
  device: 9_007_199_254_740_993n,
  inode: 3n,
  machine: "m",
  position: { salt1: 1, salt2: 0xffffffff, frames: 12, checksum1: 3, checksum2: 4 },
  snapshotMs: 5,
  snapshotSeq: 6n,
};

/** The first line of a journal, as it is written. */
function lineOf(of: Journal): string {
  const { files, content } = fileOf(new Uint8Array(0));
  writeJournal(files, "/state", of, sha256);
  return new TextDecoder().decode(content()).split("\n")[0];
}

const journals = [journal, { ...journal, position: null, machine: "5n" }].map(lineOf).map(jsonPieces);
const journalVocabulary = jsonVocabulary([
  '"5n"',
  '"-1n"',
  '"n"',
  '"18446744073709551616n"',
  '"pageSize"',
  '"position"',
]);

function digestOf(line: Uint8Array): string {
  const hash = sha256();
  hash.update(line);
  return Array.from(hash.digest(), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** The types that the rest of the program counts on. */
function checkJournal(read: Journal): void {
  const { position } = read;
  const bigints = [read.seq, read.chain, read.snapshotSeq];
  const numbers = [read.createdMs, read.pageSize, read.pageCount, read.snapshotMs];
  if (position !== null) {
    numbers.push(position.salt1, position.salt2, position.frames, position.checksum1, position.checksum2);
  }
  law(bigints.every((value) => typeof value === "bigint" && value >= 0n && value < 2n ** 64n), "64-bit numbers");
  law(typeof read.device === "bigint" && typeof read.inode === "bigint", "identity of the file");
  law(numbers.every((value) => Number.isSafeInteger(value) && value >= 0), "whole numbers");
  law([read.destination, read.lineage, read.machine].every((value) => typeof value === "string"), "texts");
}

/** The journal; whatever is read is complete, and written and read again the same. */
export const journalDecoder: Decoder = {
  name: "journal",
  generate(mutator) {
    const { random } = mutator;
    const line = mutator.utf8(random.pick(journals), journals, journalVocabulary);
    const end = encoder.encode(`\n${random.chance(0.1) ? "0".repeat(64) : digestOf(line)}\n`);
    const bytes = new Uint8Array(line.length + end.length);
    bytes.set(line);
    bytes.set(end, line.length);
    return random.chance(0.1) ? bytes.subarray(0, random.integer(bytes.length + 1)) : bytes;
  },
  decode(input) {
    const read = readJournal(fileOf(input).files, "/state", sha256);
    if (read === null) return "lost";
    checkJournal(read);
    const { files } = fileOf(new Uint8Array(0));
    writeJournal(files, "/state", read, sha256);
    law(shown(readJournal(files, "/state", sha256)) === shown(read), "written and read again the same");
    return null;
  },
};

const point: ReplicaPoint = {
  lineage,
  seq: 0xfedcba9876543210n,
  chain: 0xffffffffffffffffn,
  createdMs: 1_768_000_000_123,
  pageSize: 4096,
  pageCount: 7,
  counter: 0xffffffff,
  firstPageSha256: "5".repeat(64),
  sourceHeader: "ab".repeat(100),
};

/** The document of a replica, as it is written. */
function documentOf(of: ReplicaState): string {
  const { files, content } = fileOf(new Uint8Array(0));
  writeReplicaState(files, "/state/replica.db", of);
  return new TextDecoder().decode(content());
}

const replicaStates = [
  { source: "s3://bucket/app/", before: point, after: { ...point, seq: 1n } },
  { source: "5n", before: { ...point, lineage: null }, after: point },
].map(documentOf).map(jsonPieces);

function checkPoint({ lineage, seq, chain, ...rest }: ReplicaPoint): void {
  law([seq, chain].every((value) => typeof value === "bigint" && value >= 0n && value < 2n ** 64n), "64-bit numbers");
  const numbers = [rest.createdMs, rest.pageSize, rest.pageCount, rest.counter];
  law(numbers.every((value) => Number.isSafeInteger(value) && value >= 0), "whole numbers");
  law([512, 1024, 2048, 4096, 8192, 16384, 32768, 65536].includes(rest.pageSize), "a page size");
  law(lineage === null || typeof lineage === "string", "the lineage");
  law(/^[0-9a-f]{64}$/.test(rest.firstPageSha256) && /^[0-9a-f]{200}$/.test(rest.sourceHeader), "hexadecimal digits");
}

/** The document of a replica; whatever is read is complete, and written and read again the same. */
export const replicaStateDecoder: Decoder = {
  name: "replica-state",
  generate: (mutator) => mutator.utf8(mutator.random.pick(replicaStates), replicaStates, journalVocabulary),
  decode(input) {
    const read = readReplicaState(fileOf(input).files, "/state/replica.db");
    if (read === null || read === "damaged") return "lost";
    law(typeof read.source === "string", "the source");
    checkPoint(read.before);
    checkPoint(read.after);
    const again = readReplicaState(fileOf(encoder.encode(documentOf(read))).files, "/state/replica.db");
    law(shown(again) === shown(read), "written and read again the same");
    return null;
  },
};

function indexHeader(): BinarySample {
  const bytes = new Uint8Array(64 + 16);
  bytes.set(encoder.encode("WRIDX001"));
  bytes.set(Array.from({ length: 16 }, (_, index) => Number.parseInt(lineage.slice(2 * index, 2 * index + 2), 16)), 8);
  new DataView(bytes.buffer).setUint32(24, 4096);
  const fields = [24, 28].map((offset) => ({ offset, size: 4 as const }));
  return { bytes, fields: [...fields, { offset: 0, size: 8 }, { offset: 8, size: 8 }] };
}

const indexes = [indexHeader()];

/** The page index; one that is opened has our lineage and a page size that there is, and takes and gives hashes. */
export const pageIndexDecoder: Decoder = {
  name: "page-index",
  generate: (mutator) => mutator.binary(indexes[0], indexes),
  decode(input) {
    const { files, path } = fileOf(input.slice());
    const index = PageIndex.open(files, path, lineage, sha256);
    if (index === null) return "lost";
    law(
      index.lineage === lineage && [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536].includes(index.pageSize),
      "header",
    );
    const hash = new Uint8Array(8);
    index.hashPage(new Uint8Array(index.pageSize), hash, 0);
    index.apply({ pgnos: [2], hashes: hash }, 2);
    law(shown([...index.read(2, 1)]) === shown([...hash]), "an entry is read as it was written");
    return null;
  },
};

const answers = [
  '{"done":{"seq":"7","bytes":4096,"durationMs":12.5,"checksum":"18446744073709551615"}}',
  '{"error":{"kind":"storage","code":"AccessDenied","message":"access denied","hint":"allow it"}}',
  '{"error":{"kind":"general","message":"x"}}',
].map(jsonPieces);
const answerVocabulary = jsonVocabulary([
  '"done"',
  '"error"',
  '"seq"',
  '"kind"',
  '"hint"',
  '"message"',
  '"storage"',
  '"0x10"',
]);

/** What a running watch answers to a request for a snapshot. */
export const snapshotAnswerDecoder: Decoder = {
  name: "snapshot-answer",
  reaches: ["bad_answer", "snapshot_failed", "AccessDenied"],
  generate: (mutator) => mutator.utf8(mutator.random.pick(answers), answers, answerVocabulary),
  decode(input) {
    const done = decodeAnswer(input);
    law(typeof done.seq === "bigint" && typeof done.checksum === "bigint" && done.seq >= 0n, "64-bit numbers");
    law(Number.isFinite(done.bytes) && Number.isFinite(done.durationMs), "size and duration");
    return null;
  },
};
