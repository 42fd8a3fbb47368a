/** The steps of walrust that a kill may hit, as moments of kill_hook.ts: group C of the scenarios, step by step. */

/** How watch runs, so that a step comes soon and often. */
export type Pace = "deltas" | "rollovers" | "barriers" | "snapshots" | "held snapshots";

/** One place to be killed at. */
export interface KillStep {
  /** The step in the words of the scenarios. */
  readonly group: string;
  /** Where exactly. */
  readonly name: string;
  readonly pace: Pace;
  /** See `KillPlan`. */
  readonly moments: readonly string[];
  /** One transaction of many megabytes leads there. */
  readonly isLarge?: boolean;
}

const always = ["--wal-sync-interval", "0.05"];
const noSnapshots = [...always, "--snapshot-interval", "0", "--on-startup", "false"];
const snapshots = [...always, "--snapshot-interval", "0.2"];

/** Flags of watch for each pace. */
export const paceFlags: Readonly<Record<Pace, readonly string[]>> = {
  deltas: noSnapshots,
  rollovers: [...noSnapshots, "--checkpoint-interval", "0.1", "--min-checkpoint-pages", "60"],
  // Beyond the threshold a barrier is due at every step, not once a second.
  barriers: [...noSnapshots, "--min-checkpoint-pages", "3", "--wal-truncate-threshold", "48"],
  snapshots,
  "held snapshots": snapshots,
};

function steps(group: string, pace: Pace, places: Readonly<Record<string, string | readonly string[]>>): KillStep[] {
  return Object.entries(places).map(([name, moments]) => ({
    group,
    name,
    pace,
    moments: typeof moments === "string" ? [moments] : moments,
  }));
}

/** Steps that a bucket on a file system has. */
export const fileSteps: readonly KillStep[] = [
  ...steps("after WAL read", "deltas", { "frames scanned": "^after read wal log" }),
  ...steps("mid seal", "deltas", { "two pages of the object read": ["^after read wal page", "^after read wal page"] }),
  ...steps("PUT in flight", "deltas", {
    "half of its bytes sent": "^amid write upload",
    "all of its bytes sent": "^before link delta",
  }),
  ...steps("PUT done, reply lost", "deltas", { "in the bucket": "^after link delta" }),
  ...steps("PUT confirmed, index not", "deltas", {
    "before the index": "^before write index",
    "half of an index entry": "^amid write index",
  }),
  ...steps("index written, journal not", "deltas", { "after the index": "^after truncate index" }),
  ...steps("mid journal", "snapshots", {
    "half of the file": "^amid write journal.tmp",
    "temporary file whole, before its rename": "^before rename journal ",
    "renamed, directory not synced": "^after rename journal ",
  }),
  ...steps("mid spool write", "barriers", {
    "half of the file": "^amid write spool.tmp",
    "temporary file whole, before its rename": "^before rename spool ",
    "renamed, directory not synced": "^after rename spool ",
    "object in the bucket and still in the spool": "^before remove spool ",
    "removed from the spool": "^after remove spool ",
  }),
  ...steps("each step of the rollover, without barrier", "rollovers", {
    "second pin taken": "^after pin . 2 pins, 0 writers",
    "first pin released": "^after unpin . 1 pins, 0 writers",
    "before the checkpoint": "^before checkpoint . 1 pins, 1 writers",
    "checkpoint done": "^after checkpoint . 1 pins, 1 writers, free, copied",
    "pin on mark 0 taken": "^after pin . 2 pins, 1 writers, free, copied",
    "old pin released": ["^after pin . 2 pins, 1 writers, free, copied", "^after unpin . 1 pins, 1 writers"],
    "writer closed": ["^after checkpoint . 1 pins, 1 writers, free, copied", "^after close writer . 1 pins, 0 writers"],
  }),
  ...steps("each step of the rollover, with barrier", "barriers", {
    "second pin taken": "^after pin . 2 pins, 2 writers, free",
    "first pin released": "^after unpin . 1 pins, 2 writers, free",
    "checkpoint beside the writer": "^after checkpoint . 1 pins, 2 writers, free",
    "database synced before the lock": "^after sync database",
    "write lock taken": "^after lock",
    "rest sealed under the lock": "^after read wal page . . pins, 2 writers, locked",
    "pin taken under the lock": "^after pin . 2 pins, 2 writers, locked$",
    "old pin released under the lock": "^after unpin . 1 pins, 2 writers, locked$",
    "checkpoint under the lock": "^after checkpoint . 1 pins, 2 writers, locked",
    "pin on mark 0 taken under the lock": "^after pin . 2 pins, 2 writers, locked, copied",
    "pin moved to mark 0, lock still held": "^before unlock . 1 pins, 2 writers, locked$",
    "lock released, rest in memory only": "^after unlock",
    "rest spooled": "^after rename spool . 1 pins, 2 writers, unlocked",
    "writers closed": ["^after unlock", "^after close writer . 1 pins, 0 writers"],
  }),
  ...steps("during the hash pass", "snapshots", {
    "half of the copy written": ["^after write copy", "^amid write copy"],
  }),
  ...steps("during the hash pass", "held snapshots", {
    "image held by its pin": ["^after pin . 2 pins, 0 writers", "^after read database . 2 pins"],
  }),
  ...steps("bridge up, snapshot not", "snapshots", {
    "bridge in the bucket, reply lost": "^after link bridge",
    "bridge confirmed": ["^after link bridge", "^after truncate index"],
    "snapshot sent, not named": ["^after link bridge", "^before link snapshot"],
  }),
  ...steps("mid snapshot", "snapshots", { "half of a piece": ["^after link bridge", "^amid write upload"] }),
  ...steps("mid snapshot", "held snapshots", {
    "image held by its pin": ["^after link bridge", "^after write upload . 2 pins"],
  }),
  ...steps("mid snapshot", "snapshots", {
    "in the bucket, pointer not": "^after link snapshot",
    "pointer's lock held": "^before rename state",
    "pointer swapped, journal not": "^after rename state",
  }),
];

const largeDelta = (group: string, name: string, ...moments: string[]): KillStep => ({
  group,
  name,
  pace: "deltas",
  moments,
  isLarge: true,
});

/** Steps of uploads to a server. */
export const serverSteps: readonly KillStep[] = [
  ...steps("PUT in flight", "deltas", { "request sent": "^amid put delta" }),
  ...steps("PUT done, reply lost", "deltas", { "answered": "^after put delta" }),
  largeDelta("between multipart parts", "upload of a delta begun", "^after create delta"),
  largeDelta("between multipart parts", "first part of a delta stored", "^after part 1 delta"),
  largeDelta("between multipart parts", "second part of a delta sent", "^amid part 2 delta"),
  largeDelta("between multipart parts", "last part of a delta stored, not completed", "^before complete delta"),
  largeDelta("PUT in flight", "completion of a delta sent", "^amid complete delta"),
  largeDelta("PUT done, reply lost", "completion of a delta answered", "^after complete delta"),
  ...steps("between multipart parts", "snapshots", { "first part of a snapshot stored": "^after part 1 snapshot" }),
  ...steps("mid snapshot", "snapshots", {
    "second part sent": "^amid part 2 snapshot",
    "completion sent": "^amid complete snapshot",
    "completed, pointer not": "^after complete snapshot",
    "pointer sent": ["^after complete snapshot", "^amid put state"],
    "pointer answered": ["^after complete snapshot", "^after put state"],
  }),
];

/** The first start, before its lineage can be resumed: the next start begins another one. */
export const startSteps: readonly KillStep[] = steps("first start", "snapshots", {
  "lineage.json stored, not claimed": "^after link lineage",
  "claimed": "^after link state",
  "half of the index": ["^after link state", "^amid write index"],
  "half of the snapshot sent": ["^after link state", "^amid write upload"],
  "snapshot in the bucket, pointer not": "^after link snapshot",
  "pointer's lock held": "^before rename state",
  "pointer swapped, journal not": "^after rename state",
  "half of the journal": "^amid write journal.tmp",
});

/** Restore: the output gets its name when all is proven. */
export const restoreSteps: readonly KillStep[] = steps("mid restore", "deltas", {
  "temporary file made": "^after open output",
  "half of a page run": "^amid write output",
  "all written, not synced": "^before sync output",
  "proven, not named": "^before link database",
  "named, temporary name left": "^after link database",
});
