/** `walrust compact` as people run it, on a directory as the bucket. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, utimesSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { test } from "node:test";
import { systemRuntime } from "../../src/runtime/system.ts";
import { DirectoryStore } from "../../src/storage/directory.ts";
import { BucketWriter } from "../replication/bucket_writer.ts";
import { walrustCommand } from "../support/runtime.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";

const timeout = 120_000;
const dayMs = 86_400_000;
const fewTiers = ["--hourly", "1", "--daily", "1", "--weekly", "1", "--monthly", "1"];

interface Ended {
  code: number | null;
  stdout: string;
  stderr: string;
}

function walrust(...words: string[]): Ended {
  const [program, ...args] = [...walrustCommand(), ...words];
  const env = { ...process.env, WALRUST_LOG: "", RUST_LOG: "" };
  const { status, stdout, stderr } = spawnSync(program, args, { encoding: "utf8", env });
  return { code: status, stdout, stderr };
}

/** Snapshots 60, 40, 20 and 2 days old with 70 deltas after the third and three after the others. */
async function bucket(directory: string, name: string): Promise<BucketWriter> {
  mkdirSync(directory, { recursive: true });
  const store = new DirectoryStore({ ...systemRuntime(), directory });
  const writer = new BucketWriter({ store, root: `${name}/` });
  await writer.begin();
  for (const days of [60, 40, 20, 2]) {
    writer.nowMs = Date.now() - days * dayMs;
    await writer.snapshot();
    await writer.deltas(days === 20 ? 70 : 3);
  }
  // The store's clock is that of the files.
  for (const path of filesOf(directory)) {
    utimesSync(join(directory, path), Date.now() / 1000, Date.now() / 1000 - 20 * 86400);
  }
  return writer;
}

function filesOf(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".hadbp"))
    .map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1)).sort();
}

test(
  "compact: the plan without --force changes nothing; marked, then deleted, and what stays restores",
  { timeout },
  async () => {
    const directory = temporaryDirectory("compact");
    const writer = await bucket(directory, "app");
    const url = `file://${directory}`;
    const before = filesOf(directory);
    const plan = walrust("compact", "app", "-b", url, "--merge", ...fewTiers);
    assert.deepEqual([plan.code, plan.stderr], [0, ""], plan.stderr);
    assert.match(plan.stdout, /^app: 2 snapshots of 4 stay \(dry run\)\n/);
    assert.match(
      plan.stdout,
      /stays +seq 80 .* 2 d 0 h old .* newest, hourly, daily, weekly, monthly\n +stays +seq 9 .* second\n +goes +seq 5 .*\n +goes +seq 1 /,
    );
    assert.match(plan.stdout, /goes +changes in seqs 2 to 8: 7 objects/);
    assert.match(plan.stdout, /lost +8 points, seqs 1 to 8, before seq 9 of /);
    assert.match(plan.stdout, /merge +71 objects, .* into 2 objects\n/);
    assert.match(plan.stdout, /would free .*: 9 objects, .*\nnothing was deleted: add --force to do it\n$/);
    assert.deepEqual(filesOf(directory), before);

    const marked = walrust("compact", "app", "-b", url, "--merge", ...fewTiers, "--force");
    assert.deepEqual([marked.code, marked.stderr], [0, ""], marked.stderr);
    assert.match(
      marked.stdout,
      /merged 71 objects into 2, [^]*✓ deleted 0 objects, 0 B\n +80 objects, .* marked; run it again after 20/,
    );
    assert.equal(filesOf(directory).length, before.length + 2);

    const swept = walrust("prune", "app", "-b", url, "--merge", ...fewTiers, "--force", "--grace", "0", "--json");
    assert.equal(swept.code, 0, swept.stderr);
    const report = JSON.parse(swept.stdout);
    assert.deepEqual([report.name, report.dryRun, report.deleted.objects, report.waiting.objects], [
      "app",
      false,
      79,
      2,
    ]);
    assert.deepEqual(report.lost.map((lost: { points: number }) => lost.points), [8]);
    for (const [seq, code] of [[9n, 0], [69n, 0], [72n, 6], [80n, 0], [83n, 0], [5n, 6], [40n, 6]] as const) {
      const output = join(directory, `restored-${seq}`);
      const restored = walrust(
        "restore",
        "app",
        "-b",
        url,
        "-o",
        output,
        "--seq",
        String(seq),
        "--integrity-check",
        "none",
      );
      assert.equal(restored.code, code, restored.stderr);
      if (code !== 0) continue;
      const [ours, model] = [readFileSync(output), writer.images.get(seq)!].map((bytes) =>
        createHash("sha256").update(bytes).digest("hex")
      );
      assert.equal(ours, model);
    }
  },
);

test(
  "compact: of all databases; a failure of one is named and keeps the others from nothing",
  { timeout },
  async () => {
    const directory = temporaryDirectory("compact-all");
    const url = `file://${directory}`;
    const broken = await bucket(directory, "broken");
    await bucket(directory, "sound");
    mkdirSync(join(directory, "notes"));
    writeFileSync(join(directory, `broken/lineages/${broken.lineage}/retention.json`), "{");
    const few = walrust("compact", "-b", url, ...fewTiers, "--force", "--grace", "0", "--max-delete", "3");
    assert.equal(few.code, 2, few.stdout);
    assert.match(
      few.stderr,
      /broken\/: 9 objects would go, more than 3[^]*sound\/: 9 objects would go, more than 3[^]*hint:/,
    );
    const { code, stdout, stderr } = walrust("compact", "-b", url, ...fewTiers, "--force", "--grace", "0");
    assert.equal(code, 5, stderr);
    assert.match(stderr, /broken\/lineages\/.*\/retention\.json/);
    assert.match(stdout, /^sound: 2 snapshots of 4 stay\n[^]*✓ deleted 9 objects, /);
  },
);
