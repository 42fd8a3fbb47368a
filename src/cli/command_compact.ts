/** `walrust compact`: the plan of retention and merging, and with `--force` what was done of it. */
import { StorageError, WalrustError } from "../errors.ts";
import { compact, type CompactReport, type ObjectSum } from "../replication/compact.ts";
import {
  type DatabaseEntry,
  layoutNames,
  listDatabases,
  objectKey,
  type PoolObject,
} from "../replication/inventory.ts";
import { type Point, type SeqRange, seqRangeText } from "../replication/plan.ts";
import type { PlannedSnapshot } from "../replication/retention_plan.ts";
import { type RetentionTiers, type TierName, tierNames } from "../replication/retention_tiers.ts";
import type { Log } from "../runtime/types.ts";
import type { CommandCall, CommandContext } from "./context.ts";
import { type Destination, findRoot, openDestination } from "./destination.ts";
import { count, formatBytes, formatDuration, formatTime, type Output, table } from "./output.ts";
import { resolveSettings } from "./resolved.ts";
import { retentionSettings } from "./settings.ts";

/** Compacts one database, or all below the prefix; a failure of one does not keep the others from it. */
export async function run(context: CommandContext, call: CommandCall): Promise<number> {
  const { output, signal } = context;
  const destination = openDestination(context);
  const [name] = call.positionals[0];
  if (name !== undefined) {
    const found = await findRoot(destination, name, signal);
    return await compactOne(context, call, destination, found);
  }
  const { store, prefix } = destination;
  const entries = await listDatabases(store, prefix, { signal });
  const ours = entries.filter(({ layout }) => layout === "walrust");
  if (ours.length === 0) output.line(`nothing to compact in ${store.location}${prefix === "" ? "" : `/${prefix}`}`);
  for (const entry of entries) skipForeign(output, entry);
  let exitCode = 0;
  for (const entry of ours) {
    let code: number;
    try {
      code = await compactOne(context, call, destination, entry);
    } catch (error) {
      if (!(error instanceof WalrustError)) throw error;
      code = output.error(error);
    }
    if (exitCode === 0) exitCode = code;
  }
  return exitCode;
}

function skipForeign(output: Output, { name, layout }: DatabaseEntry): void {
  if (layout === null || layout === "walrust") return;
  output.line(`${name}: written by ${layoutNames[layout]}, left alone`);
}

async function compactOne(
  context: CommandContext,
  call: CommandCall,
  { store }: Destination,
  { name, root }: { name: string; root: string },
): Promise<number> {
  const { runtime, output, log, signal } = context;
  const { options } = call;
  const warn: Log = (level, message, data) => {
    if (level !== "warning") return log(level, message, data);
    output.warning(`${name}: ${message}`);
  };
  const report = await compact({
    store,
    root,
    runtime,
    force: options.force === true,
    merge: options.merge === true,
    tiers: tiersOf(context, call),
    graceMs: Number(options.grace),
    maxDelete: options.maxDelete === undefined ? undefined : Number(options.maxDelete),
    signal,
    log: warn,
  });
  output.json(asJson(name, root, report));
  print(output, name, report, runtime.clock.now());
  if (report.failed.length === 0) return 0;
  const [{ key, error }] = report.failed;
  const message = `${count(report.failed.length, "object")} could not be deleted, ${key} first: ${error.message}`;
  return output.error(new StorageError(error.code, message, { key, hint: "allow s3:DeleteObject, then run it again" }));
}

function tiersOf({ configuration }: CommandContext, call: CommandCall): RetentionTiers {
  const settings = resolveSettings(retentionSettings, call, configuration?.settings);
  const snapshots = (tier: TierName): number => Number(settings.get(tier)!.value);
  const [hourly, daily, weekly, monthly] = tierNames.map(snapshots);
  return { hourly, daily, weekly, monthly };
}

/** The report without what the listing says anyway. */
function asJson(name: string, root: string, report: CompactReport): Record<string, unknown> {
  const { plan, runs, ...rest } = report;
  return {
    name,
    root,
    ...rest,
    snapshots: plan.snapshots.map(({ object, createdMs, keptBy }) => ({
      key: objectKey(root, object),
      seq: object.max,
      bytes: object.size,
      createdMs,
      createdTime: createdMs === null ? null : formatTime(createdMs),
      keptBy,
    })),
    allPointsFrom: plan.fineFrom,
    lost: plan.lost,
    runs: runs.map(({ level, min, max, sources }) => ({ level, min, max, sources: sources.length })),
  };
}

function print(output: Output, name: string, report: CompactReport, nowMs: number): void {
  const { plan, dryRun, merged, runs } = report;
  const kept = plan.snapshots.filter(({ keptBy }) => keptBy.length > 0);
  const [title] = table([[name]]);
  output.line(
    `${title}: ${count(kept.length, "snapshot")} of ${plan.snapshots.length} stay${dryRun ? " (dry run)" : ""}`,
  );
  for (const row of table(plan.snapshots.map((snapshot) => snapshotRow(snapshot, nowMs)))) output.line(`  ${row}`);
  for (const { segment, remove } of plan.segments) {
    const changes = remove.filter(({ kind }) => kind !== "snapshot");
    if (changes.length === 0) continue;
    const lineage = plan.segments.length === 1 ? "" : ` of lineage ${segment.lineage?.slice(0, 8) ?? "none"}`;
    output.line(`  goes   ${spanText(changes)}${lineage}: ${sumText(sumOf(changes))}`);
  }
  for (const lost of plan.lost) {
    output.line(`  lost   ${count(lost.points, "point")}, ${seqRangeText(lost)}${betweenText(lost)}`);
  }
  if (plan.fineFrom !== null) {
    output.line(
      `  every point from ${pointText(plan.fineFrom)} on stays${runs.length > 0 ? ", but for what is merged" : ""}`,
    );
  }
  if (dryRun && runs.length > 0) {
    const sources = runs.flatMap((run) => run.sources);
    output.line(`  merge  ${sumText(sumOf(sources))} into ${count(runs.length, "object")}`);
  }
  if (merged.length > 0) {
    const sources = merged.reduce((sum, object) => sum + object.sources, 0);
    const bytes = merged.reduce((sum, object) => sum + object.size, 0);
    output.line(`  merged ${count(sources, "object")} into ${merged.length}, ${formatBytes(bytes)}`);
  }
  printEnd(output, report);
}

function printEnd(output: Output, { dryRun, removable, deleted, waiting, waitingUntilMs }: CompactReport): void {
  if (dryRun) {
    output.line(
      `  would free ${formatBytes(removable.bytes)}: ${sumText(removable)}, of which ${deleted.objects} at once`,
    );
    output.line("nothing was deleted: add --force to do it");
    return;
  }
  output.line(`✓ deleted ${sumText(deleted)}`);
  if (waiting.objects === 0) return;
  const until = waitingUntilMs === null ? "" : ` after ${formatTime(waitingUntilMs)}`;
  output.line(`  ${sumText(waiting)} marked; run it again${until} to delete what is marked`);
}

function snapshotRow({ object, createdMs, keptBy }: PlannedSnapshot, nowMs: number): string[] {
  const age = createdMs === null
    ? "?"
    : createdMs > nowMs
    ? "in the future"
    : `${formatDuration(nowMs - createdMs)} old`;
  const time = createdMs === null ? "?" : formatTime(createdMs);
  const what = keptBy.length > 0 ? "stays" : "goes ";
  return [what, `seq ${object.max}`, time, age, formatBytes(object.size), keptBy.join(", ")];
}

function sumOf(objects: readonly PoolObject[]): ObjectSum {
  return { objects: objects.length, bytes: objects.reduce((sum, { size }) => sum + size, 0) };
}

function sumText({ objects, bytes }: ObjectSum): string {
  return `${count(objects, "object")}, ${formatBytes(bytes)}`;
}

/** Objects that go, the highest seq first. */
function spanText(objects: readonly PoolObject[]): string {
  const range: SeqRange = { min: objects.at(-1)!.min, max: objects[0].max };
  return `changes in ${seqRangeText(range)}`;
}

function pointText({ seq, createdMs }: Point): string {
  return createdMs === null ? `seq ${seq}` : `seq ${seq} of ${formatTime(createdMs)}`;
}

function betweenText({ before, after }: { before: Point | null; after: Point | null }): string {
  if (after === null) return before === null ? "" : `, after ${pointText(before)}`;
  if (before === null) return `, before ${pointText(after)}`;
  const known = before.createdMs !== null && after.createdMs !== null;
  const apart = known ? `, ${formatDuration(Math.max(0, after.createdMs! - before.createdMs!))} apart` : "";
  return `, between ${pointText(before)} and ${pointText(after)}${apart}`;
}
