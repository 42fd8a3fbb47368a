/**
 * Care of a backup: `verify` beside the runtime's own SHA-256 rate, merging, and a replica that catches up: MB/s, peak
 * resident memory, how long readers were kept out; and how long after a commit a program reads it in a replica behind a
 * live watch, both with one second between two looks (`--s3`: over a real S3 server). `--megabytes N` (48, at most 60) of database, `--changesets N` (120) of about
 * one MB each behind its snapshot, `--subjects …` and `--built` as in bench_subject.ts, `--directory D`.
 */
import { cpSync, readdirSync, statSync, utimesSync } from "node:fs";
import { join } from "node:path";
import { DatabaseSync } from "node:sqlite";
import process from "node:process";
import { parseArgs } from "node:util";
import { systemRuntime } from "../src/runtime/system.ts";
import { DirectoryStore } from "../src/storage/directory.ts";
import { SqliteSource } from "../test/replication/sqlite_source.ts";
import { inBenchDirectory, megabytes, MeteredChild, pause, percentile, printColumns } from "./bench_child.ts";
import { type BenchStore, openBenchStore } from "./bench_store.ts";
import { benchSubjects, hashRates, type Subject } from "./bench_subject.ts";

const { values } = parseArgs({
  options: {
    megabytes: { type: "string", default: "48" },
    changesets: { type: "string", default: "120" },
    subjects: { type: "string" },
    s3: { type: "boolean", default: false },
    built: { type: "boolean", default: false },
    directory: { type: "string" },
  },
});
const rows = Number(values.megabytes) * 1024;
/** Looks at the replica, 20 ms apart. */
const lagTurns = 1200;

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

/** Milliseconds from each commit of the primary to the moment at which a program reads it in the replica. */
async function lags(subject: Subject, store: BenchStore, directory: string): Promise<number[]> {
  const path = `${directory}/live-${subject.name}.db`;
  const local = `${directory}/replica-${subject.name}.db`;
  const primary = new DatabaseSync(path);
  primary.exec("PRAGMA journal_mode = WAL; CREATE TABLE t (id INTEGER PRIMARY KEY, at REAL)");
  const bucket = await store.bucket(`live-${subject.name}`);
  const watch = await subject.watch([path], bucket, store);
  const [, url, ...words] = bucket.words;
  const source = `${url}/live-${subject.name}`;
  const follow = subject.command!("replicate", source, "--local", local, "--interval", "1s", "--json", ...words);
  const replica = new MeteredChild(follow, store.environment);
  await replica.until((events) => events.some(({ kind }) => kind === "bootstrapped"));
  const reader = new DatabaseSync(local);
  reader.exec("PRAGMA busy_timeout = 1000");
  const [insert, read] = [
    primary.prepare("INSERT INTO t (at) VALUES (?)"),
    reader.prepare("SELECT id, at FROM t WHERE id > ? ORDER BY id"),
  ];
  const found: number[] = [];
  let last = 0;
  for (let turn = 0; turn < lagTurns; turn++) {
    if (turn % 3 === 0) insert.run(Date.now());
    for (const row of read.all(last) as { id: number; at: number }[]) {
      found.push(Date.now() - row.at);
      last = row.id;
    }
    await pause(20);
  }
  await replica.stop();
  await watch.stop();
  reader.close();
  primary.close();
  return found;
}

await inBenchDirectory(values.directory, async (directory) => {
  const [first, whole] = [`${directory}/first`, `${directory}/whole`];
  await makeBuckets(first, whole, directory);
  const columns: [string, Record<string, string>][] = [];
  const store = await openBenchStore(directory, values.s3);
  for (const subject of benchSubjects(values.subjects, values.built).filter(({ command }) => command !== null)) {
    const figures = await measure(subject, first, whole, directory);
    const behind = await lags(subject, store, directory);
    columns.push([subject.name, {
      ...figures,
      [`lag of the replica, ${store.name}, median ms`]: percentile(behind, 0.5).toFixed(0),
      "… 99 of 100 within, ms": percentile(behind, 0.99).toFixed(0),
    }]);
  }
  await store.stop();
  printColumns(`${values.megabytes} MB and ${values.changesets} changesets, file://, ${process.platform}`, columns);
});
