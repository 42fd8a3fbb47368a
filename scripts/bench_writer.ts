/**
 * What an application feels: commit latency of a writer without and with walrust beside it, the WAL it ends with and
 * how long barriers held it. `--seconds 20`, `--rate 0` (commits a second; 0 = flat out), `--subjects …` and `--built`
 * as in bench_subject.ts, `--s3`, `--directory D`. The writer always runs under the runtime that runs this script.
 */
import { statSync } from "node:fs";
import process from "node:process";
import { parseArgs } from "node:util";
import { inBenchDirectory, megabytes, MeteredChild, percentile, printColumns } from "./bench_child.ts";
import { type BenchStore, openBenchStore } from "./bench_store.ts";
import { benchSubjects, loadWords, type Subject } from "./bench_subject.ts";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "20" },
    rate: { type: "string", default: "0" },
    subjects: { type: "string" },
    s3: { type: "boolean", default: false },
    built: { type: "boolean", default: false },
    directory: { type: "string" },
  },
});

interface WriterFigures {
  commits: number;
  perSecond: number;
  p50: number;
  p99: number;
  p999: number;
  max: number;
}

async function write(database: string): Promise<WriterFigures> {
  const child = new MeteredChild(loadWords("writer", database, values.seconds, values.rate));
  await child.ended;
  return child.events()[0] as unknown as WriterFigures;
}

function describe(figures: WriterFigures, database: string): Record<string, string> {
  return {
    "commits/s": figures.perSecond.toFixed(0),
    "commit p50 ms": figures.p50.toFixed(3),
    "commit p99 ms": figures.p99.toFixed(3),
    "commit p99.9 ms": figures.p999.toFixed(3),
    "commit max ms": figures.max.toFixed(1),
    "final WAL MB": megabytes(statSync(`${database}-wal`).size),
  };
}

async function measure(
  subject: Subject,
  store: BenchStore,
  directory: string,
  alone: WriterFigures,
): Promise<Record<string, string>> {
  const database = `${directory}/app-${subject.name}.db`;
  await new MeteredChild(loadWords("create", database, "1000000")).ended;
  const bucket = await store.bucket(`writer-${subject.name}`);
  const watch = await subject.watch([database], bucket, store);
  const beside = await write(database);
  const figures = describe(beside, database);
  figures["p99.9 against alone"] = `${(beside.p999 / alone.p999).toFixed(2)} ×`;
  const rollovers = watch.events().filter(({ kind }) => kind === "rollover");
  if (rollovers.length > 0) {
    const held = rollovers.filter(({ barrier }) => barrier).map(({ heldMs }) => Number(heldMs));
    figures["rollovers, by barrier"] = `${rollovers.length}, ${held.length}`;
    figures["barrier held median ms"] = percentile(held, 0.5).toFixed(2);
    figures["barrier held max ms"] = percentile(held, 1).toFixed(2);
  }
  const deltaLags = watch.events().filter(({ kind }) => kind === "delta").map(({ lagMs }) => Number(lagMs));
  if (deltaLags.length > 0) figures["upload p99 ms"] = percentile(deltaLags, 0.99).toFixed(0);
  figures["watch peak RSS MB"] = megabytes(watch.use().peakBytes);
  figures["watch CPU s"] = (watch.use().cpuMs / 1000).toFixed(1);
  await watch.stop();
  return figures;
}

await inBenchDirectory(values.directory, async (directory) => {
  const store = await openBenchStore(directory, values.s3);
  try {
    const database = `${directory}/alone.db`;
    await new MeteredChild(loadWords("create", database, "1000000")).ended;
    const alone = await write(database);
    const columns: [string, Record<string, string>][] = [["alone", describe(alone, database)]];
    for (const subject of benchSubjects(values.subjects, values.built)) {
      columns.push([`beside ${subject.name}`, await measure(subject, store, directory, alone)]);
    }
    const rate = Number(values.rate) > 0 ? `${values.rate} commits/s` : "flat out";
    printColumns(`Writer, ${rate}, ${values.seconds} s, ${store.name}, ${process.platform}`, columns);
  } finally {
    await store.stop();
  }
});
