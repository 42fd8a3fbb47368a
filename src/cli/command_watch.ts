/** `walrust watch`: settings → the daemon, its events → lines. */
import { exitCodeOf } from "../errors.ts";
import { checksumHex } from "../format/hadbp.ts";
import { printable } from "../format/keys.ts";
import { watch, type WatchEvent } from "../daemon/watch.ts";
import { nameOf } from "../replication/paths.ts";
import type { Log } from "../runtime/types.ts";
import type { CommandCall, CommandContext } from "./context.ts";
import { chooseDatabases } from "./databases.ts";
import { count, formatBytes, formatDuration, formatLocalTime, messageOf, type Output } from "./output.ts";
import { holderOf, openDestination } from "./destination.ts";
import { readersOf } from "./lock_holders.ts";
import { watchOptionsOf } from "./watch_options.ts";

const parentIntervalMs = 250;

/** Replicates until stopped; the exit code is that of the first database that failed. */
export async function run(context: CommandContext, call: CommandCall): Promise<number> {
  const { runtime, process, output, log, signal } = context;
  const databases = chooseDatabases(context, call).map(({ settings, ...database }) => ({
    ...database,
    options: watchOptionsOf(settings, call, process),
  }));
  const { store, prefix } = openDestination(context);
  output.line(
    `watching ${count(databases.length, "database")} → ${store.location}${prefix === "" ? "" : `/${prefix}`}`,
  );
  const { failures } = await watch({
    databases,
    store,
    prefix,
    runtime,
    // Each database brings its own.
    options: databases[0].options,
    onEvent: (event) => printEvent(output, event, runtime.clock.now(), readersBehind(event, context)),
    log: output.isJson ? log : quieter(log),
    signal: call.options.withParent === true ? AbortSignal.any([signal, orphaned(context)]) : signal,
    holder: holderOf(context),
    ownProcess: true,
  });
  // The errors were printed as they came; here only the code is left to tell.
  return failures.length === 0 ? 0 : exitCodeOf(failures[0].error);
}

/** Aborts when the process that started us is gone: the demo leaves nothing behind, however it ends. */
function orphaned({ process, runtime }: CommandContext): AbortSignal {
  const gone = new AbortController();
  const parent = process.parentPid;
  const look = async (): Promise<void> => {
    while (process.parentPid === parent) await runtime.clock.sleep(parentIntervalMs);
    gone.abort();
  };
  void look();
  return gone.signal;
}

/** People read of trouble in its line; the log, which shares stderr with it, says it again only where all is said. */
function quieter(log: Log): Log {
  return (level, message, data) => log(level === "trace" ? level : "debug", message, data);
}

/** Who is reading the database, where that may be what an event is about. */
function readersBehind({ kind, path }: WatchEvent, { process, runtime }: CommandContext): string[] {
  return kind === "barrier_in_vain" || kind === "wal_size_exceeded" ? readersOf(process, runtime.files, path) : [];
}

/** One event as a line for people, or as JSON. */
export function printEvent(output: Output, event: WatchEvent, nowMs: number, readers: readonly string[] = []): void {
  const checksum = "checksum" in event ? { checksum: checksumHex(event.checksum) } : {};
  output.json({ time: nowMs, ...event, ...checksum, ...(readers.length > 0 ? { readers } : {}) });
  const name = nameOf(event.path);
  const [text, isTrouble] = sentenceOf(event);
  const reading = readers.length > 0 ? `; reading now: ${readers.join(", ")}` : "";
  const line = `[${formatLocalTime(nowMs)}] ${printable(name)}: ${text}${reading}`;
  if (isTrouble && !output.isJson) output.trouble(line);
  else output.line(line);
  if (event.kind === "failed" && !output.isJson) output.error(event.error);
}

/** What happened, and whether it is trouble that people must see although they asked for quiet. */
function sentenceOf(event: WatchEvent): [text: string, isTrouble: boolean] {
  switch (event.kind) {
    case "started":
      return [`watching → ${event.destination}, at seq ${event.seq}`, false];
    case "old_sqlite":
      return [
        `written by SQLite ${event.version}: before 3.51.3 a checkpoint that meets a commit may lose it; ` +
        "update the application's SQLite",
        true,
      ];
    case "validated":
      return [
        `verified ${formatBytes(event.bytes)}, ${count(event.points, "point")} can be restored` +
        (event.lastVerifiedMs === null
          ? ""
          : `; all that was stored at ${formatLocalTime(event.lastVerifiedMs)} is sound`),
        false,
      ];
    case "corruption_detected":
      return [
        `damage in the bucket: ${event.findings.map(({ message }) => printable(message)).slice(0, 3).join("; ")}` +
        (event.findings.length > 3 ? ` and ${event.findings.length - 3} more` : "") + "; see walrust verify",
        true,
      ];
    case "validation_failed":
      return [`could not be verified: ${printable(messageOf(event.error))}; tried again later`, true];
    case "unsafe_place":
      return [printable(event.reason), true];
    case "observing":
      return [`observing its files only, points in time may be missed: ${printable(event.reason)}`, true];
    case "wal_gap":
      return [`points in time after seq ${event.seq} may be missing: ${printable(event.reason)}`, true];
    case "waiting":
      return [`waiting: ${printable(event.reason)}`, event.trouble];
    case "new_lineage":
      return [`new lineage ${event.lineage}: ${printable(event.reason)}`, false];
    case "adopted":
      return [
        `going on at seq ${event.seq} of lineage ${event.lineage} (${printable(event.reason)}): ` +
        `${formatBytes(event.bytes)} read from the bucket`,
        false,
      ];
    case "difference": {
      const size = `${formatBytes(event.bytes)} of ${formatBytes(event.databaseBytes)}`;
      const found = event.pages === 0 ? "nothing to send" : `${count(event.pages, "page")} to send (${size})`;
      return [`compared with the bucket (${printable(event.reason)}): ${found}, seq ${event.seq}`, false];
    }
    case "delta":
      return [deltaText(event), false];
    case "bridge":
      return [`snapshot begun, seq ${event.seq}`, false];
    case "snapshot":
      return [
        `snapshot (${formatBytes(event.bytes)}, ${formatDuration(event.durationMs)}) seq ${event.seq}, ` +
        `checksum ${checksumHex(event.checksum)}`,
        false,
      ];
    case "snapshot_abandoned":
      return [`snapshot seq ${event.seq} abandoned: ${printable(event.reason)}`, true];
    case "barrier_in_vain":
      return [`checkpoint not finished, writers held ${formatDuration(event.heldMs)}`, true];
    case "rollover":
      return [
        `checkpoint (${count(event.frames, "frame")}${
          event.barrier ? `, writers held ${formatDuration(event.heldMs)}` : ""
        })`,
        false,
      ];
    case "wal_size_exceeded":
      return [
        `the WAL has grown to ${count(event.frames, "frame")}: a reader or writer keeps it from being reset`,
        true,
      ];
    case "spool_full":
      return [
        `the spool is full (${formatBytes(event.bytes)}${
          event.reason === "disk" ? ", little is free on its disk" : ""
        }): ` +
        "the WAL keeps what follows and grows until the bucket can be reached",
        true,
      ];
    case "database_replaced":
      return ["the database file was replaced by another", true];
    case "sync_failed":
      return [`sync failed, again in ${formatDuration(event.retryMs)}: ${printable(messageOf(event.error))}`, true];
    case "fenced":
      return ["another walrust replicates to this place now; what was not published stays here", true];
    case "stopped":
      return [`stopped at seq ${event.seq}`, false];
    case "conditions_ignored":
      return [
        `the bucket ignores ${event.ignored.join(" and ")}: another walrust that writes to the same place would not ` +
        "be noticed, so make sure that there is none",
        true,
      ];
    case "compacted": {
      const done = [
        ...(event.objects === 0 ? [] : [`deleted ${count(event.objects, "object")} (${formatBytes(event.bytes)})`]),
        ...(event.merged === 0 ? [] : [`merged ${event.merged}`]),
        ...(event.waiting === 0 ? [] : [`${event.waiting} marked`]),
      ];
      const warnings = event.warnings.map((text) => `; ${printable(text)}`).join("");
      return [`compacted: ${done.join(", ") || "nothing to do"}${warnings}`, event.warnings.length > 0];
    }
    case "compaction_failed":
      return [`not compacted, again when it is due: ${printable(messageOf(event.error))}`, true];
    case "failed":
      return ["stopped by an error:", true];
  }
}

/** A changeset that is in the bucket; what a comparison found has passed no frames of the WAL. */
export function deltaText(delta: { frames: number; bytes: number; seq: bigint | string }): string {
  const what = delta.frames === 0 ? "sync (" : `WAL sync (${count(delta.frames, "frame")}, `;
  return `${what}${formatBytes(delta.bytes)}) seq ${delta.seq}`;
}
