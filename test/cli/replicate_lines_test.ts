import assert from "node:assert/strict";
import test from "node:test";
import { printEvent } from "../../src/cli/command_replicate.ts";
import { Output } from "../../src/cli/output.ts";
import { StorageError } from "../../src/errors.ts";
import type { FollowEvent } from "../../src/replication/follow_options.ts";

function printed(
  event: FollowEvent,
  flags: { json?: boolean; quiet?: boolean } = {},
): { stdout: string; stderr: string } {
  const text = { stdout: "", stderr: "" };
  const streams = { stdout: (part: string) => text.stdout += part, stderr: (part: string) => text.stderr += part };
  printEvent(new Output(streams, { json: false, quiet: false, ...flags }), event, 0);
  return text;
}

const lineage = "a".repeat(32);
const applied = {
  kind: "applied",
  changesets: 2,
  pages: 3,
  bytes: 9000,
  lineage,
  seq: 103n,
  createdMs: 0,
  lagMs: 1240,
  heldMs: 3,
} as const;

test("printEvent: the lines of a replica as they are documented", () => {
  const source = "s3://bucket/app/";
  const made = { kind: "bootstrapped", source, lineage, snapshotSeq: 90n, seq: 100n, pages: 1024, bytes: 5 } as const;
  assert.equal(printed({ ...made, undo: null }).stdout, "Bootstrapped from snapshot: 1024 pages, seq 100\n");
  assert.match(printed({ ...made, undo: "mv a b" }).stdout, /seq 100\nwhat was there before is kept; undo: mv a b\n$/);
  assert.equal(printed({ kind: "resumed", source, lineage, seq: 100n }).stdout, "Going on at seq 100\n");
  assert.match(printed(applied).stdout, /^\[\d\d:\d\d:\d\d\] Applied 2 changesets, now at seq 103, 1\.2 s behind\n$/);
  assert.equal(printed({ ...applied, changesets: 0, pages: 0 }).stdout, "", "a snapshot passed is no news");
  assert.equal(printed({ kind: "stopped", seq: 103n }).stdout, "stopped at seq 103\n");
});

test("printEvent: what people must know of a replica is on stderr, also with --quiet", () => {
  const error = new StorageError("SlowDown", "slow \u001b[2Jdown");
  const failed = printed({ kind: "poll_failed", error, retryMs: 500 }, { quiet: true });
  assert.match(failed.stderr, /^\[[\d:]{8}\] not reached, again in 500 ms: slow \\u\{1b\}\[2Jdown\n$/);
  assert.equal(failed.stdout, "");
  const bridged = { kind: "bridged", reason: "seq 7 is gone", from: 6n, lineage, snapshotSeq: 10n, seq: 12n } as const;
  assert.match(printed(bridged, { quiet: true }).stderr, /Went on from snapshot seq 10: seq 7 is gone\n$/);
  assert.match(printed({ kind: "readers_busy", waitedMs: 1000, retryMs: 500 }).stderr, /waits for readers to end/);
  assert.equal(printed({ kind: "warning", message: "x" }, { quiet: true }).stderr, "warning: x\n");
});

test("printEvent: with --json all events are objects on stdout, numbers of 64 bits without loss", () => {
  const { stdout, stderr } = printed({ ...applied, seq: 2n ** 63n }, { json: true });
  assert.equal(stderr, "");
  const { seq, kind, lagMs, time } = JSON.parse(stdout);
  assert.deepEqual([seq, kind, lagMs, time], [String(2n ** 63n), "applied", 1240, 0]);
});
