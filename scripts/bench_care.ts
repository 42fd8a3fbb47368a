/**
 * Care of a backup: `verify` beside the runtime's own SHA-256 rate, merging, and a replica that catches up: MB/s, peak
 * resident memory, how long readers were kept out. `--megabytes N` (48, at most 60) of database, `--changesets N` (120) of about
 * one MB each behind its snapshot, `--subjects …` and `--built` as in bench_subject.ts, `--directory D`.
 */
import { cpSync, readdirSync, statSync, utimesSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { parseArgs } from "node:util";
import { systemRuntime } from "../src/runtime/system.ts";
import { DirectoryStore } from "../src/storage/directory.ts";
import { SqliteSource } from "../test/replication/sqlite_source.ts";
import { inBenchDirectory, megabytes, MeteredChild, printColumns } from "./bench_child.ts";
import { benchSubjects, hashRates, type Subject } from "./bench_subject.ts";

const { values } = parseArgs({
  options: {
    megabytes: { type: "string", default: "48" },
    changesets: { type: "string", default: "120" },
    subjects: { type: "string" },
    built: { type: "boolean", default: false },
    directory: { type: "string" },
  },
});
const rows = Number(values.megabytes) * 1024;

/** A bucket with a snapshot in `first`, and in `whole` the changesets behind it and one more snapshot. */
async function makeBuckets(first: string, whole: string, directory: string): Promise<void> {
  const { files, random, clock } = systemRuntime();
  files.makeDirectory(whole);
  const source = new SqliteSource(
    new DirectoryStore({ directory: whole, files, random, clock }),
    `${directory}/app.db`,
  );
  source.writer.nowMs = clock.now();
  const numbers = `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${rows})`;
  await source.begin(`CREATE TABLE t (id INTEGER PRIMARY KEY, data BLOB); ${numbers}
    INSERT INTO t SELECT i, randomblob(900) FROM n`);
  cpSync(whole, first, { recursive: true });
  for (let i = 0; i < Number(values.changesets); i++) {
    await source.commit(
      `UPDATE t SET data = randomblob(900) WHERE id % ${rows} BETWEEN ${i * 400 % rows} AND ${i * 400 % rows + 1000}`,
    );
    // Only the newest image is needed.
    source.writer.images.clear();
  }
  await source.writer.snapshot();
  await source.writer.point({ lineageId: source.writer.lineage, claim: null });
  source.close();
}

/** What lies in a folder, bytes; with `ageMs` its files were written so long ago. */
function sizeOf(folder: string, ageMs = 0): number {
  let bytes = 0;
  for (const entry of readdirSync(folder, { recursive: true, withFileTypes: true })) {
    if (!entry.isFile()) continue;
    const path = join(entry.parentPath, entry.name);
    const { size, mtimeMs } = statSync(path);
    bytes += size;
    if (ageMs > 0) utimesSync(path, (mtimeMs - ageMs) / 1000, (mtimeMs - ageMs) / 1000);
  }
  return bytes;
}

async function metered(words: string[]): Promise<MeteredChild> {
  const child = new MeteredChild(words);
  await child.ended;
  return child;
}

function figuresOf(name: string, bytes: number, ms: number, child: MeteredChild): Record<string, string> {
  return {
    [`${name} MB/s`]: (bytes / 1e3 / ms).toFixed(0),
    [`${name} peak RSS MB`]: megabytes(child.use().peakBytes),
  };
}

async function measure(
  subject: Subject,
  first: string,
  whole: string,
  directory: string,
): Promise<Record<string, string>> {
  const command = subject.command!;
  const rates = subject.script === null ? null : hashRates(subject.script);
  const figures: Record<string, string> = rates === null ? {} : { "SHA-256 MB/s": rates.stream.toFixed(0) };
  const full = await metered(command("verify", "app", "-b", `file://${whole}`, "--json"));
  const [report] = full.events();
  Object.assign(figures, figuresOf("verify, full", Number(report.readBytes), Number(report.durationMs), full));
  const drill = await metered(command("verify", "app", "-b", `file://${whole}`, "--json", "--level", "drill"));
  Object.assign(figures, { "verify, drill s": (Number(drill.events()[0].durationMs) / 1000).toFixed(2) });

  const place = `${directory}/${subject.name}`;
  cpSync(first, `${place}/bucket`, { recursive: true });
  const replicate = command(
    "replicate",
    `file://${place}/bucket/app`,
    "--local",
    `${place}/replica.db`,
    "--once",
    "--json",
  );
  await metered(replicate);
  cpSync(whole, `${place}/bucket`, { recursive: true });
  const caughtUp = await metered(replicate);
  const applied = caughtUp.events().filter(({ kind }) => kind === "applied");
  const sum = (name: string): number => applied.reduce((total, event) => total + Number(event[name]), 0);
  Object.assign(figures, figuresOf("replica catching up", sum("bytes"), caughtUp.ms, caughtUp), {
    "… updates": String(applied.length),
    "… readers kept out at most, ms": Math.max(...applied.map(({ heldMs }) => Number(heldMs))).toFixed(1),
  });

  const before = sizeOf(`${place}/bucket`, 3 * 86_400_000);
  const compact = command(
    "compact",
    "app",
    "-b",
    `file://${place}/bucket`,
    "--merge",
    "--force",
    "--grace",
    "0",
    "--json",
  );
  const merging = await metered(compact);
  // What was merged in one run goes in the next.
  await metered(compact);
  const [{ merged }] = merging.events() as { merged: { sourceBytes: number; sources: number }[] }[];
  const merge = (name: "sourceBytes" | "sources"): number => merged.reduce((total, object) => total + object[name], 0);
  return {
    ...figures,
    ...figuresOf("merge", merge("sourceBytes"), merging.ms, merging),
    "… changesets into objects": `${merge("sources")} → ${merged.length}`,
    "… bucket before and after, MB": `${megabytes(before)} → ${megabytes(sizeOf(`${place}/bucket`))}`,
  };
}

await inBenchDirectory(values.directory, async (directory) => {
  const [first, whole] = [`${directory}/first`, `${directory}/whole`];
  await makeBuckets(first, whole, directory);
  const columns: [string, Record<string, string>][] = [];
  for (const subject of benchSubjects(values.subjects, values.built).filter(({ command }) => command !== null)) {
    columns.push([subject.name, await measure(subject, first, whole, directory)]);
  }
  printColumns(`${values.megabytes} MB and ${values.changesets} changesets, file://, ${process.platform}`, columns);
});
