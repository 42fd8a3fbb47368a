/**
 * Snapshot and restore of a large database: seconds, MB/s, peak resident memory, beside the runtime's own SHA-256 rate
 * and a plain copy. `--gigabytes N` (1), `--subjects …` and `--built` as in bench_subject.ts, `--s3`, `--directory D`.
 */
import { closeSync, copyFileSync, fsyncSync, openSync, rmSync, statSync } from "node:fs";
import process from "node:process";
import { parseArgs } from "node:util";
import { inBenchDirectory, megabytes, MeteredChild, printColumns } from "./bench_child.ts";
import { type BenchStore, openBenchStore } from "./bench_store.ts";
import { benchSubjects, hashRates, loadWords, type Subject } from "./bench_subject.ts";

const { values } = parseArgs({
  options: {
    gigabytes: { type: "string", default: "1" },
    subjects: { type: "string" },
    s3: { type: "boolean", default: false },
    built: { type: "boolean", default: false },
    directory: { type: "string" },
  },
});

function timed(database: string, name: string, ms: number, peakBytes?: number): Record<string, string> {
  const size = statSync(database).size;
  return {
    [`${name} s`]: (ms / 1000).toFixed(2),
    [`${name} MB/s`]: (size / 1e3 / ms).toFixed(0),
    ...(peakBytes === undefined ? {} : { [`${name} peak RSS MB`]: megabytes(peakBytes) }),
  };
}

async function measure(
  subject: Subject,
  database: string,
  store: BenchStore,
  directory: string,
): Promise<Record<string, string>> {
  const rates = subject.script === null ? null : hashRates(subject.script);
  const bucket = await store.bucket(`restore-${subject.name}`);
  const figures: Record<string, string> = rates === null ? {} : {
    "SHA-256 MB/s (1 MB pieces)": rates.stream.toFixed(0),
    "SHA-256 MB/s (4 KB pages)": rates.pages.toFixed(0),
  };
  for (const name of ["first snapshot", "second snapshot"]) {
    const child = new MeteredChild(subject.snapshot(database, bucket), store.environment);
    Object.assign(figures, timed(database, name, await child.ended, child.use().peakBytes));
  }
  const output = `${directory}/restored-${subject.name}.db`;
  const restore = new MeteredChild(subject.restore("big", output, bucket), store.environment);
  Object.assign(figures, timed(database, "restore", await restore.ended, restore.use().peakBytes));
  const rate = statSync(database).size / 1e3 / restore.ms;
  if (rates !== null) figures["restore, share of the SHA-256 rate"] = `${(100 * rate / rates.stream).toFixed(0)} %`;
  rmSync(output);
  // The next one starts as the first did.
  for (const suffix of ["-wal", "-shm"]) rmSync(database + suffix, { force: true });
  for (const trace of [".walrust-big.db", ".big.db-litestream"]) {
    rmSync(`${directory}/${trace}`, { recursive: true, force: true });
  }
  return figures;
}

await inBenchDirectory(values.directory, async (directory) => {
  const database = `${directory}/big.db`;
  const bytes = Number(values.gigabytes) * 1e9;
  await new MeteredChild(loadWords("create", database, String(bytes))).ended;
  const store = await openBenchStore(directory, values.s3);
  try {
    const begun = performance.now();
    copyFileSync(database, `${directory}/copy`);
    const copy = openSync(`${directory}/copy`, "r+");
    fsyncSync(copy);
    closeSync(copy);
    const columns: [string, Record<string, string>][] = [];
    const copied = timed(database, "copy + fsync", performance.now() - begun);
    rmSync(`${directory}/copy`);
    for (const subject of benchSubjects(values.subjects, values.built)) {
      columns.push([subject.name, { ...copied, ...await measure(subject, database, store, directory) }]);
    }
    printColumns(`${values.gigabytes} GB database, ${store.name}, ${process.platform}`, columns);
  } finally {
    await store.stop();
  }
});
