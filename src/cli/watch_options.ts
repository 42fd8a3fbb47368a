/** Settings as options of the daemon. */
import type { WatchOptions } from "../daemon/watch.ts";
import type { Process } from "../runtime/types.ts";
import type { CommandCall } from "./context.ts";
import type { Resolved } from "./resolved.ts";

/** Of one database, from its settings by name; `wait` and `adopt` are flags alone. */
export function watchOptionsOf(
  settings: ReadonlyMap<string, Resolved>,
  { options }: CommandCall,
  process: Process,
): WatchOptions {
  const number = (name: string): number => Number(settings.get(name)!.value);
  const mode = settings.get("mode")!.value;
  const stateDirectory = settings.get("stateDir")!.value;
  return {
    walSyncIntervalMs: number("walSyncInterval"),
    snapshotIntervalMs: number("snapshotInterval"),
    onStartup: settings.get("onStartup")!.value === true,
    checkpointIntervalMs: number("checkpointInterval"),
    minCheckpointPages: number("minCheckpointPages"),
    walTruncateThresholdPages: number("walTruncateThreshold"),
    spoolSizeMax: number("spoolMaxSize"),
    freeSpaceMin: number("minFreeSpace"),
    validationIntervalMs: number("validationInterval"),
    validationBudget: number("validationBudget"),
    compaction: {
      afterSnapshot: settings.get("compactAfterSnapshot")!.value === true,
      intervalMs: number("compactInterval"),
      tiers: {
        hourly: number("retainHourly"),
        daily: number("retainDaily"),
        weekly: number("retainWeekly"),
        monthly: number("retainMonthly"),
      },
    },
    mode: mode === "pin" || mode === "observe" ? mode : "auto",
    adopt: options.adopt === true,
    stateDirectory: typeof stateDirectory === "string" ? stateDirectory : null,
    fallbackStateDirectory: userStateDirectory(process),
    waitForDatabase: options.wait === true,
  };
}

/** Where the XDG Base Directory Specification wants the state of programs; it says that relative paths do not count. */
export function userStateDirectory(process: Process): string {
  const given = process.environment("XDG_STATE_HOME");
  return `${given?.startsWith("/") ? given : `${process.homeDirectory}/.local/state`}/walrust`;
}
