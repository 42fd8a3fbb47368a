/** What an application leaves that dies after its commit frame and before the wal-index knows of it. */
import { beginWalScan, walChecksum, walFrameHeaderSize, walFrameOffset } from "../../src/format/wal.ts";
import { readWalHeader, scanLog } from "../../src/replication/wal_log.ts";
import { system } from "./engine_scene.ts";

/** Writes a frame that is valid in every respect behind the first `frames` frames of the log. */
export function appendPhantom(walPath: string, frames: number): void {
  const wal = system.files.open(walPath, "update");
  try {
    const header = readWalHeader(wal)!;
    const { commit } = scanLog(wal, header, beginWalScan(header), frames);
    const { pageCount, checksum1, checksum2 } = commit!;
    const frame = new Uint8Array(walFrameHeaderSize + header.pageSize).fill(0xee);
    const view = new DataView(frame.buffer);
    view.setUint32(0, 2);
    view.setUint32(4, pageCount);
    view.setUint32(8, header.salt1);
    view.setUint32(12, header.salt2);
    const first = walChecksum(header.byteOrder, frame.subarray(0, 8), checksum1, checksum2);
    const [a, b] = walChecksum(header.byteOrder, frame.subarray(walFrameHeaderSize), ...first);
    view.setUint32(16, a);
    view.setUint32(20, b);
    wal.write(frame, walFrameOffset(header.pageSize, frames));
  } finally {
    wal.close();
  }
}
