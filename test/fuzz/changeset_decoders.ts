/** Changesets: from the bucket in chunks of any size, and into the page index. */
import {
  ChangesetDecoder,
  type ChangesetExpectation,
  type ChangesetHeader,
  decodeChangeset,
  type DecodeOptions,
  type Entry,
} from "../../src/format/hadbp.ts";
import { IndexedDecoder } from "../../src/replication/indexed_decoder.ts";
import { indexEntrySize, PageIndex } from "../../src/replication/page_index.ts";
import { encode, header, marker, object, page } from "../format/changesets.ts";
import type { SeededRandom } from "../simulation/random.ts";
import { sha256 } from "../support/vectors.ts";
import { type Decoder, law, type Trial } from "./fuzz.ts";
import { fileOf } from "./memory_files.ts";
import type { BinarySample, Field, Mutator } from "./mutator.ts";

const trailerSize = 8;

function sampleOf(fields: Partial<ChangesetHeader>, entries: readonly Entry[]): BinarySample {
  const of = header({ ...fields, pageCount: entries.length });
  const start = of.version === 1 ? 40 : 48;
  const numbers: Field[] = [
    ...[5, 6, 7].map((offset) => ({ offset, size: 1 as const })),
    ...[8, 28].map((offset) => ({ offset, size: 4 as const })),
    ...[12, 20, 32].map((offset) => ({ offset, size: 8 as const })),
  ];
  if (of.version === 2) numbers.push({ offset: 40, size: 8 });
  let at = start;
  for (const { data } of entries) {
    numbers.push({ offset: at, size: 4 }, { offset: at + 4, size: 4 });
    at += 8 + data.length;
  }
  numbers.push({ offset: at, size: 8 });
  return { bytes: encode(of, entries).bytes, fields: numbers };
}

const merged = { version: 2 as const, flags: 0x81, declaredEnd: 0x0123456789abcdefn };

const samples: readonly BinarySample[] = [
  sampleOf({}, [page(1), marker(1)]),
  sampleOf({}, [page(1), page(3), marker(3)]),
  sampleOf({}, [page(2), page(0xffff_fffe), marker(0xffff_fffe)]),
  sampleOf({}, [marker(4)]),
  sampleOf({ flags: 0 }, [page(1)]),
  sampleOf({ flags: 0 }, [page(1), page(2), page(3)]),
  sampleOf({ flags: 0, pageSize: 1024 }, [page(1, 1024)]),
  sampleOf(merged, [marker(2)]),
  sampleOf(merged, [page(2), marker(2)]),
];

/** A damaged changeset whose checksum is right more often than not: what is behind that check must hold, too. */
function generate(mutator: Mutator): Uint8Array {
  const bytes = mutator.binary(mutator.random.pick(samples), samples);
  const start = bytes[5] === 2 ? 48 : 40;
  if (bytes.length < start + trailerSize || mutator.random.chance(0.4)) return bytes;
  const hash = sha256();
  hash.update(bytes.subarray(20, 28));
  hash.update(bytes.subarray(start, bytes.length - trailerSize));
  bytes.set(hash.digest().subarray(0, trailerSize), bytes.length - trailerSize);
  return bytes;
}

/** What a caller may know beforehand, rightly or not. */
function expectation(random: SeededRandom): ChangesetExpectation {
  const expect: ChangesetExpectation = {};
  if (random.chance(0.2)) expect.seq = random.chance(0.9) ? 7n : 8n;
  if (random.chance(0.2)) expect.pageSize = random.chance(0.9) ? 512 : 4096;
  if (random.chance(0.2)) expect.prevChecksum = random.chance(0.9) ? 0x1122334455667788n : 0n;
  if (random.chance(0.2)) expect.kind = random.pick(["snapshot", "delta"]);
  return expect;
}

/** Chunks of any size, each in a buffer that is overwritten as soon as it was used up. */
function feed(input: Uint8Array, { random, step }: Trial, push: (chunk: Uint8Array) => void): void {
  const largest = random.pick([1, 8, 64, 600, 4096]);
  for (let at = 0; at < input.length;) {
    // Small chunks would only ever reach the first page of a long object.
    const size = at < 64 ? 1 + random.integer(largest) : Math.max(largest, 64);
    const chunk = input.slice(at, at + size);
    at += chunk.length;
    step();
    push(chunk);
    chunk.fill(0xee);
  }
}

function streamed(
  input: Uint8Array,
  trial: Trial,
  options: DecodeOptions,
): { header: ChangesetHeader; entries: Entry[] } {
  const decoder = new ChangesetDecoder(options);
  const entries: Entry[] = [];
  feed(input, trial, (chunk) => {
    for (const { pgno, data } of decoder.push(chunk)) {
      trial.step();
      entries.push({ pgno, data: data.slice() });
    }
  });
  decoder.finish();
  return { header: decoder.header!, entries };
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((byte, index) => byte === b[index]);
}

/** What `action` gives, or what it throws. */
function outcome<T>(action: () => T): { value: T } | { error: unknown } {
  try {
    return { value: action() };
  } catch (error) {
    return { error };
  }
}

/** Whole and in chunks; what is accepted is what its own entries encode to. */
export const changesetDecoder: Decoder = {
  name: "hadbp",
  reaches: [
    ...["magic", "version", "flags", "page_id_width", "page_size", "page_count", "created_ms", "short", "trailing"],
    ...["page_zero", "page_order", "marker", "data_length", "checksum_mismatch"],
    ...["seq_mismatch", "page_size_mismatch", "chain_mismatch", "kind_mismatch"],
  ],
  generate,
  decode(input, trial) {
    const expect = expectation(trial.random);
    const whole = outcome(() => decodeChangeset(input, { object, sha256, expect }));
    const size = trial.random.chance(0.5) ? input.length : undefined;
    const chunks = outcome(() => streamed(input, trial, { object, sha256, expect, ...(size ? { size } : {}) }));
    if ("error" in chunks) {
      law("error" in whole, `refused in chunks only: ${chunks.error}`);
      // Both are judged; the law above has read neither.
      throw trial.random.chance(0.5) ? chunks.error : whole.error;
    }
    if ("error" in whole) throw new Error("law broken: accepted in chunks only", { cause: whole.error });
    const { header, entries, size: said } = whole.value;
    law(said === input.length && header.pageCount === entries.length, "size and number of entries");
    law(chunks.value.entries.length === entries.length, "as many entries in chunks");
    const again = encode(header, chunks.value.entries, 1 << 12).bytes;
    law(equal(again, input), "entries encode to the same bytes");
    return null;
  },
};

const lineage = "d3dc938d604247e99e7d2d741a3ab94b";

/** An object found at a resume: its size is what the bucket says, which need not be true. */
export const indexedDecoder: Decoder = {
  name: "hadbp-index",
  reaches: ["short", "trailing", "page_count", "data_length", "checksum_mismatch"],
  generate,
  decode(input, trial) {
    const { random } = trial;
    const { files, path } = fileOf(new Uint8Array(0));
    const index = PageIndex.create(files, path, { lineage, pageSize: 512, random, sha256 });
    const claimed = random.pick([input.length, input.length + 1, 2 ** 40, sizeClaimed(input)]);
    const decoder = new IndexedDecoder(index, { object, sha256, size: claimed, expect: { pageSize: 512 } });
    feed(input, trial, (chunk) => decoder.push(chunk));
    const { header, end, hashes } = decoder.finish();
    const pages = header.pageCount - (end.endPageCount === null ? 0 : 1);
    law(hashes.pgnos.length === pages && hashes.hashes.length === pages * indexEntrySize, "a hash for each page");
    index.apply(hashes, end.endPageCount ?? pages);
    return null;
  },
};

/** The size that the header asks for, as a bucket would say it that wants its header believed. */
function sizeClaimed(input: Uint8Array): number {
  if (input.length < 48) return input.length;
  const view = new DataView(input.buffer, input.byteOffset);
  const [pageSize, pageCount] = [view.getUint32(8), view.getUint32(28)];
  const pages = pageCount - (input[6] & 1);
  return (input[5] === 2 ? 48 : 40) + pageCount * 8 + pages * pageSize + trailerSize;
}
