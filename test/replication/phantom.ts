/** What an application leaves that dies after its commit frame and before the wal-index knows of it. */
import { beginWalScan, walChecksum, walFrameHeaderSize, walFrameOffset } from "../../src/format/wal.ts";
import { readWalHeader, scanLog } from "../../src/replication/wal_log.ts";
import { system } from "./engine_scene.ts";

/** Writes a transaction of `length` frames, valid in every respect, behind the first `frames` frames of the log. */
export function appendPhantom(walPath: string, frames: number, length: number = 1): void {
  const wal = system.files.open(walPath, "update");
  try {
    const header = readWalHeader(wal)!;
    const { commit } = scanLog(wal, header, beginWalScan(header), frames);
    const { pageCount } = commit!;
    let [a, b] = [commit!.checksum1, commit!.checksum2];
    const frame = new Uint8Array(walFrameHeaderSize + header.pageSize).fill(0xee);
    const view = new DataView(frame.buffer);
    view.setUint32(8, header.salt1);
    view.setUint32(12, header.salt2);
    for (let at = 0; at < length; at++) {
      view.setUint32(0, 2 + at);
      view.setUint32(4, at === length - 1 ? pageCount : 0);
      [a, b] = walChecksum(header.byteOrder, frame.subarray(0, 8), a, b);
      [a, b] = walChecksum(header.byteOrder, frame.subarray(walFrameHeaderSize), a, b);
      view.setUint32(16, a);
      view.setUint32(20, b);
      wal.write(frame, walFrameOffset(header.pageSize, frames + at));
    }
  } finally {
    wal.close();
  }
}
