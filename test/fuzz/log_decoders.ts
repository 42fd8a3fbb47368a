/** What SQLite writes: the log and the header of the database. */
import { parseSqliteHeader, sqliteHeaderSize } from "../../src/format/sqlite_header.ts";
import {
  beginWalScan,
  parseWalHeader,
  scanWalFrames,
  walFrameHeaderSize,
  type WalHeader,
  walHeaderSize,
  type WalScanEnd,
} from "../../src/format/wal.ts";
import { type FrameSpec, makeWal, plainChecksum, resum, type Visit } from "../format/wal_files.ts";
import type { SeededRandom } from "../simulation/random.ts";
import { type Decoder, law, type Trial } from "./fuzz.ts";
import type { BinarySample, Field, Mutator } from "./mutator.ts";

const pageSize = 512;
const frameSize = walFrameHeaderSize + pageSize;

function logOf(order: "little" | "big", frames: FrameSpec[]): BinarySample {
  const fields: Field[] = [0, 4, 8, 12, 16, 20, 24, 28].map((offset) => ({ offset, size: 4 }));
  frames.forEach((_, frame) => {
    const at = walHeaderSize + frame * frameSize;
    for (const offset of [0, 4, 8, 12, 16, 20, 24]) fields.push({ offset: at + offset, size: 4 });
  });
  return { bytes: makeWal(pageSize, order, frames), fields };
}

const logs: readonly BinarySample[] = [
  logOf("little", [{ pgno: 1 }, { pgno: 2, commit: 2, fill: 7 }]),
  logOf("big", [{ pgno: 1, fill: 1 }, { pgno: 2, commit: 2 }, { pgno: 2, commit: 1, fill: 9 }]),
  logOf("little", []),
];

function generateLog(mutator: Mutator): Uint8Array {
  const { random } = mutator;
  const bytes = mutator.binary(random.pick(logs), logs);
  if (bytes.length < walHeaderSize || random.chance(0.5)) return bytes;
  return resum(bytes, pageSize, random.pick(["little", "big"]));
}

/** Frames in pieces of whole frames and parts of them, as a reader with a small buffer hands them over. */
function scanInPieces(header: WalHeader, bytes: Uint8Array, random: SeededRandom, trial: Trial): [Visit[], WalScanEnd] {
  const visits: Visit[] = [];
  const state = beginWalScan(header);
  const size = walFrameHeaderSize + header.pageSize;
  let end: WalScanEnd;
  do {
    const at = state.frames * size;
    const piece = bytes.slice(at, at + Math.max(size, random.integer(3 * size)));
    const before = state.frames;
    end = scanWalFrames(header, state, piece, (frame, pgno, commit) => {
      trial.step();
      visits.push({ frame, pgno, commit });
    });
    if (state.frames === before) break;
  } while (end === "end" || end === "short");
  return [visits, end];
}

/** A log; what a scan accepts is what the format's words make of header and frames. */
export const walDecoder: Decoder = {
  name: "wal",
  reaches: ["empty", "short", "magic", "page-size", "checksum", "version", "salt", "page-zero"],
  generate: generateLog,
  decode(input, trial) {
    const header = parseWalHeader(input);
    if (typeof header === "string") return header;
    const body = input.subarray(walHeaderSize);
    const visits: Visit[] = [];
    const state = beginWalScan(header);
    const end = scanWalFrames(header, state, body, (frame, pgno, commit) => {
      trial.step();
      visits.push({ frame, pgno, commit });
    });
    const [inPieces, endInPieces] = scanInPieces(header, body, trial.random, trial);
    law(endInPieces === end, `${endInPieces} in pieces, ${end} at once`);
    law(JSON.stringify(inPieces) === JSON.stringify(visits), "the same frames in pieces");
    checkFrames(input, header, visits);
    law(state.frames === visits.length, "every frame visited");
    return end === "end" ? null : end;
  },
};

/** Reads what was accepted once more, by the words of the format and in plain arithmetic. */
function checkFrames(input: Uint8Array, header: WalHeader, visits: readonly Visit[]): void {
  const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
  const little = header.byteOrder === "little";
  law(view.getUint32(0) === (little ? 0x377f0682 : 0x377f0683) && view.getUint32(4) === 3007000, "magic and version");
  let sums = plainChecksum(little, [input.subarray(0, 24)], [0, 0]);
  law(sums[0] === view.getUint32(24) && sums[1] === view.getUint32(28), "the header's checksum");
  const size = walFrameHeaderSize + header.pageSize;
  visits.forEach(({ frame, pgno, commit }, index) => {
    const at = walHeaderSize + index * size;
    law(frame === index && pgno !== 0 && at + size <= input.length, "frames in order, whole, of a page");
    law(pgno === view.getUint32(at) && commit === view.getUint32(at + 4), "page number and commit");
    law(view.getUint32(at + 8) === header.salt1 && view.getUint32(at + 12) === header.salt2, "the header's salts");
    sums = plainChecksum(little, [input.subarray(at, at + 8), input.subarray(at + 24, at + size)], sums);
    law(sums[0] === view.getUint32(at + 16) && sums[1] === view.getUint32(at + 20), "the frame's checksum");
  });
}

function databaseHeader(): BinarySample {
  const bytes = new Uint8Array(sqliteHeaderSize + 12);
  const view = new DataView(bytes.buffer);
  bytes.set(new TextEncoder().encode("SQLite format 3\0"));
  view.setUint16(16, 4096);
  bytes.set([2, 2, 0, 64, 32, 32], 18);
  view.setUint32(24, 9);
  view.setUint32(28, 12);
  view.setUint32(92, 9);
  const fields: Field[] = [{ offset: 16, size: 2 }, { offset: 18, size: 1 }, { offset: 20, size: 1 }];
  for (const offset of [24, 28, 92]) fields.push({ offset, size: 4 });
  return { bytes, fields };
}

const databases: readonly BinarySample[] = [databaseHeader()];

/** The first page of a database; what is accepted says what stands where the format has it. */
export const sqliteHeaderDecoder: Decoder = {
  name: "sqlite-header",
  reaches: ["empty", "short", "magic", "page-size"],
  generate: (mutator) => mutator.binary(databases[0], databases),
  decode(input) {
    const header = parseSqliteHeader(input);
    if (typeof header === "string") return header;
    const view = new DataView(input.buffer, input.byteOffset, input.byteLength);
    law(input.length >= sqliteHeaderSize, "a whole header");
    law(view.getUint16(16) === (header.pageSize === 65536 ? 1 : header.pageSize), "page size");
    law(
      header.pageSize >= 512 && header.pageSize <= 65536 && Number.isInteger(Math.log2(header.pageSize)),
      "its range",
    );
    const numbers = [header.writeVersion, header.readVersion, header.reservedBytes];
    law(numbers.every((value, index) => value === input[18 + index]), "versions and reserved bytes");
    law(view.getUint32(24) === header.changeCounter && view.getUint32(28) === header.pageCount, "counter and pages");
    law(view.getUint32(92) === header.versionValidFor, "version valid for");
    return null;
  },
};
