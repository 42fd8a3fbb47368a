/** `walrust replicate`: flags → the follower, its events → lines. */
import { ConfigError } from "../errors.ts";
import { printable } from "../format/keys.ts";
import { follow } from "../replication/follower.ts";
import type { FollowEvent } from "../replication/follow_options.ts";
import type { CommandCall, CommandContext } from "./context.ts";
import { findRoot, openDestination } from "./destination.ts";
import { count, formatDuration, formatLocalTime, messageOf, type Output } from "./output.ts";
import { progressOf } from "./progress.ts";

/** Follows until stopped, or with `--once` to the head; 0 unless something stands in the way. */
export async function run(context: CommandContext, call: CommandCall): Promise<number> {
  const { runtime, output, log, signal, shared } = context;
  const { options } = call;
  if (typeof options.local !== "string") {
    throw new ConfigError("no_local", "no local file was given", { hint: "add --local replica.db" });
  }
  if (shared.bucket !== undefined) {
    throw new ConfigError("two_buckets", "a replica's bucket stands before its name, and --bucket was given too", {
      hint: "leave out -b: walrust replicate s3://my-bucket/backups/app --local replica.db",
    });
  }
  const { bucket, name } = sourceOf(call.positionals[0][0]);
  const destination = openDestination({ ...context, shared: { ...shared, bucket } });
  const { root } = await findRoot(destination, name, signal);
  const intervalMs = Number(options.interval);
  const where = `${destination.store.location}/${root.slice(0, -1)}`;
  const pace = options.once === true ? "once" : `every ${formatDuration(intervalMs)}`;
  output.line(`Replicating ${printable(where)} → ${printable(options.local)}, ${pace}`);
  const progress = progressOf(context);
  await follow({
    store: destination.store,
    root,
    localPath: options.local,
    runtime,
    intervalMs,
    followLineage: options.followLineage === true,
    rebootstrap: options.rebootstrap === true,
    once: options.once === true,
    ownProcess: true,
    signal,
    onProgress: ({ bytes, bytesTotal }) => progress.update(bytes, bytesTotal),
    onEvent(event) {
      progress.clear();
      printEvent(output, event, runtime.clock.now());
    },
    log,
  });
  return 0;
}

/** The bucket and the name in it; throws `ConfigError` where the last part is missing. */
function sourceOf(text: string): { bucket: string; name: string } {
  const [, bucket, last] = /^(.*[^/:])\/+([^/]+)\/*$/.exec(text) ?? [];
  const name = last === undefined || !/^file:/i.test(text) ? last : decoded(last);
  if (name === undefined) {
    throw new ConfigError("no_name", `${JSON.stringify(text)} names no database in a bucket`, {
      hint: "write s3://my-bucket/backups/app, with the name that walrust list shows",
    });
  }
  return { bucket, name };
}

/** Undefined where a % stands for nothing. */
function decoded(part: string): string | undefined {
  try {
    return decodeURIComponent(part);
  } catch {
    return undefined;
  }
}

/** One event as a line for people, or as JSON. */
export function printEvent(output: Output, event: FollowEvent, nowMs: number): void {
  output.json({ time: nowMs, ...event });
  const sentence = sentenceOf(event);
  if (sentence === null) return;
  const [text, isTrouble] = sentence;
  if (event.kind === "warning") return output.warning(text);
  const isDated = !["resumed", "bootstrapped", "stopped"].includes(event.kind);
  const line = isDated ? `[${formatLocalTime(nowMs).slice(11)}] ${text}` : text;
  if (isTrouble && !output.isJson) output.trouble(line);
  else output.line(line);
}

/** What happened, and whether it is trouble that people must see although they asked for quiet; null: nothing to say. */
function sentenceOf(event: FollowEvent): [text: string, isTrouble: boolean] | null {
  switch (event.kind) {
    case "resumed":
      return [`Going on at seq ${event.seq}`, false];
    case "bootstrapped": {
      const undo = event.undo === null ? "" : `\nwhat was there before is kept; undo: ${event.undo}`;
      return [`Bootstrapped from snapshot: ${count(event.pages, "page")}, seq ${event.seq}${undo}`, false];
    }
    case "applied": {
      if (event.changesets === 0 && event.pages === 0) return null;
      const lag = formatDuration(event.lagMs);
      return [`Applied ${count(event.changesets, "changeset")}, now at seq ${event.seq}, ${lag} behind`, false];
    }
    case "bridged":
      return [`Went on from snapshot seq ${event.snapshotSeq}: ${printable(event.reason)}`, true];
    case "readers_busy": {
      const waited = formatDuration(event.waitedMs);
      return [`an update waits for readers to end (${waited} so far), again in ${formatDuration(event.retryMs)}`, true];
    }
    case "poll_failed":
      return [`not reached, again in ${formatDuration(event.retryMs)}: ${printable(messageOf(event.error))}`, true];
    case "warning":
      return [event.message, true];
    case "stopped":
      return event.seq === null
        ? ["stopped before there was a replica", false]
        : [`stopped at seq ${event.seq}`, false];
  }
}
