/** Makes WAL files by the words of the format alone, and says what a scan must make of them: the tests' own oracle. */
import { beginWalScan, parseWalHeader, scanWalFrames, type WalScanEnd } from "../../src/format/wal.ts";

/** The two sums, word by word in plain arithmetic. */
export function plainChecksum(little: boolean, parts: Uint8Array[], sums: [number, number]): [number, number] {
  let [first, second] = sums;
  for (const part of parts) {
    const view = new DataView(part.buffer, part.byteOffset, part.byteLength);
    for (let offset = 0; offset < part.length; offset += 8) {
      first = (first + view.getUint32(offset, little) + second) % 2 ** 32;
      second = (second + view.getUint32(offset + 4, little) + first) % 2 ** 32;
    }
  }
  return [first, second];
}

/** A frame to write. */
export interface FrameSpec {
  pgno: number;
  commit?: number;
  /** The page is filled with this byte. */
  fill?: number;
}

/** Rewrites magic and all checksums, header included, for a byte order; frames stay as they are. */
export function resum(
  wal: Uint8Array<ArrayBuffer>,
  pageSize: number,
  order: "little" | "big",
): Uint8Array<ArrayBuffer> {
  const bytes = wal.slice();
  const view = new DataView(bytes.buffer);
  const little = order === "little";
  view.setUint32(0, little ? 0x377f0682 : 0x377f0683);
  let sums = plainChecksum(little, [bytes.subarray(0, 24)], [0, 0]);
  view.setUint32(24, sums[0]);
  view.setUint32(28, sums[1]);
  for (let at = 32; at + 24 + pageSize <= bytes.length; at += 24 + pageSize) {
    sums = plainChecksum(little, [bytes.subarray(at, at + 8), bytes.subarray(at + 24, at + 24 + pageSize)], sums);
    view.setUint32(at + 16, sums[0]);
    view.setUint32(at + 20, sums[1]);
  }
  return bytes;
}

/** A whole log with salts 0x01020304 and 0x05060708 from 0. */
export function makeWal(
  pageSize: number,
  order: "little" | "big",
  frames: FrameSpec[],
  salts: [number, number] = [0x01020304, 0x85060708],
): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(32 + frames.length * (24 + pageSize));
  const view = new DataView(bytes.buffer);
  view.setUint32(4, 3007000);
  view.setUint32(8, pageSize);
  view.setUint32(12, 9);
  view.setUint32(16, salts[0]);
  view.setUint32(20, salts[1]);
  frames.forEach(({ pgno, commit = 0, fill = 0 }, index) => {
    const at = 32 + index * (24 + pageSize);
    view.setUint32(at, pgno);
    view.setUint32(at + 4, commit);
    view.setUint32(at + 8, salts[0]);
    view.setUint32(at + 12, salts[1]);
    bytes.fill(fill, at + 24, at + 24 + pageSize);
  });
  return resum(bytes, pageSize, order);
}

/** What `scanWalFrames` visited. */
export interface Visit {
  frame: number;
  pgno: number;
  commit: number;
}

/** Scans the frames of a whole file whose header is sound. */
export function scan(wal: Uint8Array): { visits: Visit[]; end: WalScanEnd } {
  const header = parseWalHeader(wal);
  if (typeof header === "string") throw new Error(`no header: ${header}`);
  const visits: Visit[] = [];
  const end = scanWalFrames(
    header,
    beginWalScan(header),
    wal.subarray(32),
    (frame, pgno, commit) => visits.push({ frame, pgno, commit }),
  );
  return { visits, end };
}

/** What a database must hold after recovery: the file with the committed frames of its log applied. */
export function recover(database: Uint8Array, wal: Uint8Array): Uint8Array {
  const header = parseWalHeader(wal);
  if (typeof header === "string") return database;
  const { visits } = scan(wal);
  const last = visits.findLastIndex(({ commit }) => commit !== 0);
  if (last === -1) return database;
  const { pageSize } = header;
  const result = new Uint8Array(visits[last].commit * pageSize);
  result.set(database.subarray(0, result.length));
  for (const { frame, pgno } of visits.slice(0, last + 1)) {
    if (pgno > visits[last].commit) continue;
    const at = 32 + frame * (24 + pageSize) + 24;
    result.set(wal.subarray(at, at + pageSize), (pgno - 1) * pageSize);
  }
  return result;
}
