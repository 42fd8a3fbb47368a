/** `walrust snapshot`: one full snapshot now, by ourselves or by the watch that runs on the database. */
import { checksumHex } from "../format/hadbp.ts";
import { snapshotNow } from "../daemon/snapshot_request.ts";
import { rootOf } from "../daemon/watch.ts";
import type { CommandCall, CommandContext } from "./context.ts";
import { chooseDatabase } from "./databases.ts";
import { holderOf, openDestination } from "./destination.ts";
import { formatBytes, formatDuration } from "./output.ts";
import { watchOptionsOf } from "./watch_options.ts";

/** Takes the snapshot and prints size, time and checksum. */
export async function run(context: CommandContext, call: CommandCall): Promise<number> {
  const { runtime, process, output, log, signal } = context;
  const database = chooseDatabase(context, call, call.positionals[0][0]);
  const { path, settings } = database;
  const { store, prefix } = openDestination(context);
  const options = watchOptionsOf(settings, call, process);
  const report = await snapshotNow({
    path,
    store,
    root: rootOf(prefix, database),
    runtime,
    options,
    log,
    signal,
    holder: holderOf(context),
    ownProcess: true,
  });
  output.json({ path, ...report, checksum: checksumHex(report.checksum) });
  output.line(`${path} → ${report.destination}`);
  output.line(`✓ snapshot seq ${report.seq}: ${formatBytes(report.bytes)} in ${formatDuration(report.durationMs)}`);
  output.line(`  checksum ${checksumHex(report.checksum)}`);
  return 0;
}
