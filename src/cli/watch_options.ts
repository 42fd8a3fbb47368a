/** The flags of `watch` and `snapshot` as options of the daemon. */
import type { WatchOptions } from "../daemon/watch.ts";
import type { Process } from "../runtime/types.ts";

/** Parsed flags → options; a flag that the command does not have takes the documented default. */
export function watchOptionsOf(options: Record<string, unknown>, process: Process): WatchOptions {
  const number = (name: string, fallback: number): number => {
    const value = options[name];
    return typeof value === "number" ? value : fallback;
  };
  return {
    walSyncIntervalMs: number("walSyncInterval", 1000),
    snapshotIntervalMs: number("snapshotInterval", 3_600_000),
    onStartup: options.onStartup !== false,
    checkpointIntervalMs: number("checkpointInterval", 60_000),
    minCheckpointPages: number("minCheckpointPages", 1000),
    walTruncateThresholdPages: number("walTruncateThreshold", 121_359),
    spoolSizeMax: number("spoolMaxSize", 1024 ** 3),
    freeSpaceMin: number("minFreeSpace", 128 * 1024 ** 2),
    mode: options.mode === "pin" || options.mode === "observe" ? options.mode : "auto",
    adopt: options.adopt === true,
    stateDirectory: typeof options.stateDir === "string" ? options.stateDir : null,
    fallbackStateDirectory: userStateDirectory(process),
    waitForDatabase: options.wait === true,
  };
}

/** Where the XDG Base Directory Specification wants the state of programs; it says that relative paths do not count. */
function userStateDirectory(process: Process): string {
  const given = process.environment("XDG_STATE_HOME");
  return `${given?.startsWith("/") ? given : `${process.homeDirectory}/.local/state`}/walrust`;
}
