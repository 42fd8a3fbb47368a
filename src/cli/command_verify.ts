/** `walrust verify`: what a backup is worth, and what is wrong with it. */
import { printable } from "../format/keys.ts";
import type { DrilledRun } from "../replication/drill.ts";
import { type Finding, verify, verifyExitCode, type VerifyLevel, type VerifyReport } from "../replication/verify.ts";
import type { CommandCall, CommandContext } from "./context.ts";
import { findRoot, openDestination } from "./destination.ts";
import { fallbackCheck } from "./fallback_check.ts";
import { count, formatBytes, formatDuration, formatTime, type Output } from "./output.ts";
import { progressOf } from "./progress.ts";

/** Verifies and prints what was found; 0 clean, 1 warnings only, 5 damage or loss, 6 nothing restorable. */
export async function run(context: CommandContext, call: CommandCall): Promise<number> {
  const { runtime, process, output, signal } = context;
  const { options } = call;
  const destination = openDestination(context);
  const { name, root } = await findRoot(destination, call.positionals[0][0], signal);
  const progress = progressOf(context);
  const directory = typeof options.scratch === "string" ? options.scratch : process.temporaryDirectory;
  const beganMs = runtime.clock.monotonic();
  let report: VerifyReport;
  try {
    report = await verify({
      store: destination.store,
      root,
      level: options.level as VerifyLevel,
      runtime,
      scratchPath: `${directory}/walrust-drill`,
      fix: options.fix === true,
      parallel: Number(options.parallel),
      signal,
      onProgress: (bytes, total) => progress.update(bytes, total),
      check: fallbackCheck,
    });
  } finally {
    progress.clear();
  }
  const durationMs = Math.round(runtime.clock.monotonic() - beganMs);
  const exitCode = verifyExitCode(report);
  output.json({ name, exitCode, durationMs, ...report });
  printReport(output, name, report, durationMs);
  return exitCode;
}

const looks: Readonly<Record<VerifyLevel, string>> = {
  list: "listed, nothing was read",
  headers: "have sound headers",
  full: "verified byte for byte, chain included",
  drill: "verified byte for byte, chain included",
};

function printReport(output: Output, name: string, report: VerifyReport, durationMs: number): void {
  const { snapshots, deltas, levels, level, soundObjects, readBytes, restorable, counts, findings, removed } = report;
  const objects = snapshots + deltas + levels;
  const parts = [count(snapshots, "snapshot"), count(deltas, "delta"), ...(levels > 0 ? [`${levels} merged`] : [])];
  output.line(`${printable(name)}: ${parts.join(", ")}, ${formatBytes(report.bytes)}`);
  if (objects > 0) {
    const read = level === "list" ? "" : `, ${formatBytes(readBytes)} read`;
    output.line(`  ${soundObjects} of ${count(objects, "object")} ${looks[level]}${read}`);
  }
  for (const run of report.drilled) printRun(output, run);
  if (restorable !== null) {
    const [first, last] = [restorable.first, restorable.last].map(({ seq, createdMs }) =>
      `seq ${seq}${createdMs === null ? "" : ` of ${formatTime(createdMs)}`}`
    );
    output.line(`  ${count(restorable.points, "point")} can be restored, ${first} to ${last}`);
  }
  for (const finding of findings) printFinding(output, finding);
  const unseen = counts.error + counts.warning + counts.info - findings.length;
  if (unseen > 0) output.line(`  and ${count(unseen, "finding")} more`);
  for (const key of removed) output.line(`  removed ${printable(key)}`);
  const time = formatDuration(durationMs);
  if (counts.error > 0) {
    output.line(`✗ ${count(counts.error, "error")}, ${count(counts.warning, "warning")}, in ${time}`);
  } else if (counts.warning > 0) output.line(`! ${count(counts.warning, "warning")}, nothing is lost, in ${time}`);
  else output.line(`✓ nothing is missing and nothing is damaged, in ${time}`);
}

function printRun(output: Output, { first, last, images, failure, isChecked }: DrilledRun): void {
  if (failure !== null) return;
  const compared = images === 0 ? "" : `, the whole image compared ${images === 1 ? "once" : `${images} times`}`;
  const checked = isChecked ? ", integrity check ok" : "";
  output.line(`  rebuilt from seq ${first} to seq ${last}${compared}${checked}`);
}

function printFinding(output: Output, { severity, message, hint }: Finding): void {
  output.line(`  ${severity}: ${printable(message)}`);
  if (hint !== null) output.line(`    ${printable(hint)}`);
}
