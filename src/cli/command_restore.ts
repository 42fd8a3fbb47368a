/** `walrust restore`: a database back out of the bucket, at its newest or at an earlier point. */
import { ConfigError } from "../errors.ts";
import { checksumHex } from "../format/hadbp.ts";
import { parsePointInTime, type RestoreTarget } from "../replication/point_in_time.ts";
import { type IntegrityLevel, restore, type RestoreReport } from "../replication/restore.ts";
import type { Log } from "../runtime/types.ts";
import type { CommandCall, CommandContext } from "./context.ts";
import { findRoot, openDestination } from "./destination.ts";
import { fallbackCheck } from "./fallback_check.ts";
import { count, formatBytes, formatDuration, formatTime, type Output } from "./output.ts";
import { progressOf } from "./progress.ts";

/** Restores and prints what was done; 0 when the file stands, checked. */
export async function run(context: CommandContext, call: CommandCall): Promise<number> {
  const { runtime, output, log, signal } = context;
  const { options } = call;
  if (typeof options.output !== "string") {
    throw new ConfigError("no_output", "no output file was given", { hint: "add -o restored.db" });
  }
  const target = targetOf(options);
  const destination = openDestination(context);
  const { name, root } = await findRoot(destination, call.positionals[0][0], signal);
  const progress = progressOf(context);
  // People must see them whatever the log's level: on the way, so that they also stand before an error.
  const warn: Log = (level, message, data) => {
    if (level !== "warning") return log(level, message, data);
    progress.clear();
    output.warning(message);
  };
  const beganMs = runtime.clock.monotonic();
  let report: RestoreReport;
  try {
    report = await restore({
      store: destination.store,
      root,
      target,
      outputPath: options.output,
      runtime,
      dryRun: options.dryRun === true,
      force: options.force === true,
      integrityCheck: options.integrityCheck as IntegrityLevel,
      parallel: Number(options.parallel),
      signal,
      onProgress: ({ bytes, bytesTotal }) => progress.update(bytes, bytesTotal),
      log: warn,
      check: fallbackCheck,
    });
  } finally {
    progress.clear();
  }
  const durationMs = runtime.clock.monotonic() - beganMs;
  output.json({
    name,
    ...report,
    createdTime: report.createdMs === null ? null : formatTime(report.createdMs),
    chain: report.chain === null ? null : checksumHex(report.chain),
    durationMs: Math.round(durationMs),
  });
  printReport(output, name, report, durationMs);
  return 0;
}

function targetOf(options: Record<string, unknown>): RestoreTarget {
  const { pointInTime, seq } = options;
  if (typeof pointInTime === "string" && typeof seq === "bigint") {
    throw new ConfigError("two_targets", "--point-in-time and --seq were both given", { hint: "give one of them" });
  }
  if (typeof pointInTime === "string") return { kind: "time", ms: parsePointInTime(pointInTime) };
  return typeof seq === "bigint" ? { kind: "seq", seq } : { kind: "latest" };
}

function printReport(output: Output, name: string, report: RestoreReport, durationMs: number): void {
  const lineage = report.lineage === null ? "" : `, lineage ${report.lineage.slice(0, 8)}`;
  const time = report.createdMs === null ? "" : ` of ${formatTime(report.createdMs)}`;
  if (report.dryRun) {
    output.line(`${name} → ${report.outputPath} (dry run, nothing written)`);
    output.line(`  would restore seq ${report.seq}${time}${lineage}`);
    output.line(`  snapshot seq ${report.snapshotSeq}, ${formatBytes(report.snapshotBytes)}`);
    output.line(`  ${count(report.changesets, "changeset")} after it`);
    output.line(`  ${formatBytes(report.bytes)} in ${count(report.requests, "request")} at least`);
    return;
  }
  output.line(`${name} → ${report.outputPath}`);
  output.line(`  snapshot seq ${report.snapshotSeq}, ${formatBytes(report.snapshotBytes)}`);
  output.line(`  ${count(report.changesets, "changeset")} applied`);
  if (report.chain !== null) output.line(`  checksum ${checksumHex(report.chain)} verified`);
  if (report.integrity === "ok") output.line("  integrity check ok");
  const size = (report.pageSize ?? 0) * (report.pageCount ?? 0);
  output.line(`✓ seq ${report.seq}${time}${lineage}: ${formatBytes(size)} in ${formatDuration(durationMs)}`);
  if (report.undo === null) return;
  output.line(`what was there before is now ${report.movedAside.join(", ")}`);
  output.line(`undo: ${report.undo}`);
}
