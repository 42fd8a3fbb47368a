/**
 * What an application feels: commit latency of a writer without and with walrust beside it, the WAL it ends with and
 * how long barriers held it. `--seconds 20`, `--rate 0` (commits a second; 0 = flat out), `--runtime node,bun,deno|all`,
 * `--built` (dist/ instead of the source), `--s3`, `--directory D`. The writer always runs under the runtime that runs this script.
 */
import { statSync } from "node:fs";
import process from "node:process";
import { parseArgs } from "node:util";
import {
  type BenchRuntime,
  benchRuntimes,
  type BenchStore,
  inBenchDirectory,
  litestreamPath,
  megabytes,
  MeteredChild,
  openBenchStore,
  percentile,
  printColumns,
  walrustWords,
} from "./bench_child.ts";

const { values } = parseArgs({
  options: {
    seconds: { type: "string", default: "20" },
    rate: { type: "string", default: "0" },
    runtime: { type: "string" },
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
  const [own] = benchRuntimes(undefined);
  const words = [...own.command("scripts/bench_load.ts"), "writer", database, values.seconds, values.rate];
  const child = new MeteredChild(words);
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
  runtime: BenchRuntime,
  store: BenchStore,
  directory: string,
  alone: WriterFigures,
): Promise<Record<string, string>> {
  const database = `${directory}/${runtime.name}.db`;
  await new MeteredChild([...runtime.command("scripts/bench_load.ts"), "create", database, "1000000"]).ended;
  const bucket = await store.bucket(`writer-${runtime.name}`);
  const words = [...walrustWords(runtime, values.built), "watch", database, ...bucket, "--json"];
  const watch = new MeteredChild(words, store.environment);
  await watch.until((events) => events.some(({ kind }) => kind === "snapshot"));
  const beside = await write(database);
  const figures = describe(beside, database);
  figures["p99.9 against alone"] = `${(beside.p999 / alone.p999).toFixed(2)} ×`;
  const rollovers = watch.events().filter(({ kind }) => kind === "rollover");
  const held = rollovers.filter(({ barrier }) => barrier).map(({ heldMs }) => Number(heldMs));
  figures["rollovers, by barrier"] = `${rollovers.length}, ${held.length}`;
  figures["barrier held median ms"] = percentile(held, 0.5).toFixed(2);
  figures["barrier held max ms"] = percentile(held, 1).toFixed(2);
  const deltaLags = watch.events().filter(({ kind }) => kind === "delta").map(({ lagMs }) => Number(lagMs));
  figures["lag p99 ms"] = percentile(deltaLags, 0.99).toFixed(0);
  figures["watch peak RSS MB"] = megabytes(watch.use().peakBytes);
  figures["watch CPU s"] = (watch.use().cpuMs / 1000).toFixed(1);
  await watch.stop();
  return figures;
}

await inBenchDirectory(values.directory, async (directory) => {
  const store = await openBenchStore(directory, values.s3);
  try {
    const database = `${directory}/alone.db`;
    const [own] = benchRuntimes(undefined);
    await new MeteredChild([...own.command("scripts/bench_load.ts"), "create", database, "1000000"]).ended;
    const alone = await write(database);
    const columns: [string, Record<string, string>][] = [["alone", describe(alone, database)]];
    for (const runtime of benchRuntimes(values.runtime)) {
      columns.push([`beside ${runtime.name}`, await measure(runtime, store, directory, alone)]);
    }
    const rate = Number(values.rate) > 0 ? `${values.rate} commits/s` : "flat out";
    const kind = values.s3 ? "versitygw on loopback" : "file://";
    printColumns(`Writer, ${rate}, ${values.seconds} s, ${kind}, ${process.platform}`, columns);
    if (litestreamPath() === null) console.log("litestream: not on the PATH, not compared");
  } finally {
    await store.stop();
  }
});
