/** The command line with the gauge replaced by what the WAL file looks like: what walrust would be without it. */
import { closeSync, fstatSync, openSync, readSync } from "node:fs";
import { main } from "../../src/cli/main.ts";
import { beginWalScan, parseWalHeader, scanWalFrames } from "../../src/format/wal.ts";
import { systemProcess } from "../../src/runtime/system_process.ts";
import { systemRuntime } from "../../src/runtime/system.ts";
import type { Sqlite } from "../../src/runtime/types.ts";

/** Frames up to the last valid commit frame in the file. */
function committedByTheFile(path: string): number {
  // The WAL, unlike the database, may be opened and closed without losing a lock.
  const file = openSync(`${path}-wal`, "r");
  try {
    const bytes = new Uint8Array(fstatSync(file).size);
    readSync(file, bytes, 0, bytes.length, 0);
    const header = parseWalHeader(bytes);
    if (typeof header === "string") return 0;
    let frames = 0;
    scanWalFrames(header, beginWalScan(header), bytes.subarray(32), (frame, _, commit) => {
      if (commit > 0) frames = frame + 1;
    });
    return frames;
  } finally {
    closeSync(file);
  }
}

const runtime = systemRuntime();
const sqlite = runtime.sqlite!;
const blind: Sqlite = {
  version: sqlite.version,
  open(path, options) {
    const connection = sqlite.open(path, options);
    const gauge = connection.gauge.bind(connection);
    connection.gauge = () => ({ ...gauge(), log: committedByTheFile(path) });
    return connection;
  },
};
const self = systemProcess();
self.exit(await main(self, { ...runtime, sqlite: blind }));
