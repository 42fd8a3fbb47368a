import assert from "node:assert/strict";
import test from "node:test";
import { printEvent } from "../../src/cli/command_watch.ts";
import { Output } from "../../src/cli/output.ts";
import type { WatchEvent } from "../../src/daemon/watch.ts";
import { StorageError } from "../../src/errors.ts";

const path = "/data/app.db";

function printed(
  event: WatchEvent,
  flags: { json?: boolean; quiet?: boolean } = {},
): { stdout: string; stderr: string } {
  const text = { stdout: "", stderr: "" };
  const streams = { stdout: (part: string) => text.stdout += part, stderr: (part: string) => text.stderr += part };
  printEvent(new Output(streams, { json: false, quiet: false, ...flags }), event, 0);
  return text;
}

test("printEvent: what a short-lived writer causes is said plainly", () => {
  const delta = { kind: "delta", path, pages: 1, bytes: 4096, seq: 5n, createdMs: 0, lagMs: 0 } as const;
  assert.match(printed({ ...delta, frames: 3 }).stdout, /app\.db: WAL sync \(3 frames, 4 KB\) seq 5\n$/);
  assert.match(printed({ ...delta, frames: 0 }).stdout, /app\.db: sync \(4 KB\) seq 5\n$/);
  const reason = "written while it was not held open";
  const difference = { kind: "difference", path, reason, bytes: 4096, databaseBytes: 8192, seq: 5n } as const;
  const compared = /app\.db: compared with the bucket \(written while it was not held open\): /;
  for (
    const [pages, found] of [[0, /: nothing to send, seq 5\n$/], [
      1,
      /: 1 page to send \(4 KB of 8 KB\), seq 5\n$/,
    ]] as const
  ) {
    const { stdout } = printed({ ...difference, pages });
    assert.match(stdout, compared);
    assert.match(stdout, found);
  }
});

test("[S31] printEvent: trouble is on stderr, also with --quiet; waiting for a first table is none", () => {
  const waiting = { kind: "waiting", path, reason: "app.db is not in WAL mode" } as const;
  for (const quiet of [false, true]) {
    const trouble = printed({ ...waiting, trouble: true }, { quiet });
    assert.match(trouble.stderr, /app\.db: waiting: app\.db is not in WAL mode\n$/);
    assert.equal(trouble.stdout, "");
    assert.equal(printed({ ...waiting, trouble: false }, { quiet }).stderr, "");
  }
});

test("[S63] printEvent: a bucket that ignores conditions is trouble, also with --quiet", () => {
  const { stderr } = printed({ kind: "conditions_ignored", path, ignored: ["If-None-Match"] }, { quiet: true });
  assert.match(stderr, /app\.db: the bucket ignores If-None-Match: another walrust .* would not be noticed/);
});

test("printEvent: a failure names what is missing, with its hint; --json holds all of it", () => {
  const error = new StorageError("not_published", "1 changeset kept in /spool", {
    hint: "start again",
    data: { objects: 1 },
  });
  const { stderr } = printed({ kind: "failed", path, error }, { quiet: true });
  assert.match(stderr, /app\.db: stopped by an error:\nerror: 1 changeset kept in \/spool\nhint: start again\n$/);
  const object = JSON.parse(printed({ kind: "failed", path, error }, { json: true }).stdout);
  assert.deepEqual([object.error.exitCode, object.error.data.objects], [4, 1]);
});

test("printEvent: an adopted lineage is named with the reason and what was read for it", () => {
  const lineage = "a".repeat(32);
  const event = { kind: "adopted", path, lineage, seq: 9n, reason: "the journal is lost", bytes: 1024 * 1024 } as const;
  assert.match(
    printed(event).stdout,
    /app\.db: going on at seq 9 of lineage a{32} \(the journal is lost\): 1 MB read from the bucket\n$/,
  );
});

test("printEvent: what a compaction did, and that a failed one is tried again", () => {
  const event = { kind: "compacted", path, objects: 3, bytes: 2048, merged: 60, waiting: 61, warnings: [] } as const;
  assert.match(printed(event).stdout, /app\.db: compacted: deleted 3 objects \(2 KB\), merged 60, 61 marked\n$/);
  const idle = printed({ ...event, objects: 0, bytes: 0, merged: 0, waiting: 0 }).stdout;
  assert.match(idle, /app\.db: compacted: nothing to do\n$/);
  const warned = printed({ ...event, merged: 0, waiting: 0, warnings: ["seqs 2 to 9 were not merged"] }, {
    quiet: true,
  });
  assert.match(warned.stderr, /deleted 3 objects \(2 KB\); seqs 2 to 9 were not merged\n$/);
  const failed = printed({ kind: "compaction_failed", path, error: new StorageError("SlowDown", "slow") }, {
    quiet: true,
  });
  assert.match(failed.stderr, /app\.db: not compacted, again when it is due: slow\n$/);
});

test("printEvent: verification says what is sound, and damage is trouble, also with --quiet", () => {
  const validated = { kind: "validated", path, bytes: 4096, points: 7, lastVerifiedMs: null } as const;
  assert.match(printed(validated).stdout, /app\.db: verified 4 KB, 7 points can be restored\n$/);
  assert.match(printed({ ...validated, lastVerifiedMs: 0 }).stdout, /; all that was stored at 19.* is sound\n$/);
  const found = { severity: "error", code: "checksum_mismatch", object: null, seqs: null, hint: null } as const;
  const findings = [1, 2, 3, 4, 5].map((n) => ({ ...found, message: `object ${n} is damaged` }));
  const { stderr, stdout } = printed({ kind: "corruption_detected", path, findings }, { quiet: true });
  assert.equal(stdout, "");
  assert.match(
    stderr,
    /damage in the bucket: object 1 is damaged; .*object 3 is damaged and 2 more; see walrust verify\n$/,
  );
  const error = new StorageError("SlowDown", "503 SlowDown");
  assert.match(printed({ kind: "validation_failed", path, error }).stderr, /could not be verified: 503 SlowDown; /);
});
