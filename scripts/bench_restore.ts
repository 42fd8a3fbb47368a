/**
 * Snapshot and restore of a large database: seconds, MB/s, peak resident memory, beside the runtime's own SHA-256 rate
 * and a plain copy. `--gigabytes N` (1), `--runtime node,bun,deno|all`, `--built` (dist/ instead of the source), `--s3`, `--directory D`.
 */
import { closeSync, copyFileSync, fsyncSync, openSync, rmSync, statSync } from "node:fs";
import process from "node:process";
import { parseArgs } from "node:util";
import {
  type BenchRuntime,
  benchRuntimes,
  type BenchStore,
  hashRates,
  inBenchDirectory,
  litestreamPath,
  megabytes,
  MeteredChild,
  openBenchStore,
  printColumns,
  walrustWords,
} from "./bench_child.ts";

const { values } = parseArgs({
  options: {
    gigabytes: { type: "string", default: "1" },
    runtime: { type: "string" },
    s3: { type: "boolean", default: false },
    built: { type: "boolean", default: false },
    directory: { type: "string" },
    "integrity-check": { type: "string", default: "none" },
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
  runtime: BenchRuntime,
  database: string,
  store: BenchStore,
  directory: string,
): Promise<Record<string, string>> {
  const rates = hashRates(runtime);
  const bucket = await store.bucket(`restore-${runtime.name}`);
  const words = walrustWords(runtime, values.built);
  const stateDirectory = ["--state-dir", `${directory}/state-${runtime.name}`];
  const figures: Record<string, string> = {
    "SHA-256 MB/s (1 MB pieces)": rates.stream.toFixed(0),
    "SHA-256 MB/s (4 KB pages)": rates.pages.toFixed(0),
  };
  for (const name of ["first snapshot", "snapshot"]) {
    const child = new MeteredChild([...words, "snapshot", database, ...bucket, ...stateDirectory], store.environment);
    Object.assign(figures, timed(database, name, await child.ended, child.use().peakBytes));
  }
  const output = `${directory}/restored-${runtime.name}.db`;
  const check = ["--integrity-check", values["integrity-check"]];
  const restore = new MeteredChild([...words, "restore", "big", "-o", output, ...bucket, ...check], store.environment);
  Object.assign(figures, timed(database, "restore", await restore.ended, restore.use().peakBytes));
  const rate = statSync(database).size / 1e3 / restore.ms;
  figures["restore, share of the SHA-256 rate"] = `${(100 * rate / rates.stream).toFixed(0)} %`;
  rmSync(output);
  return figures;
}

await inBenchDirectory(values.directory, async (directory) => {
  const database = `${directory}/big.db`;
  const runtimes = benchRuntimes(values.runtime);
  const bytes = Number(values.gigabytes) * 1e9;
  await new MeteredChild([...runtimes[0].command("scripts/bench_load.ts"), "create", database, String(bytes)]).ended;
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
    for (const runtime of runtimes) {
      columns.push([runtime.name, { ...copied, ...await measure(runtime, database, store, directory) }]);
    }
    const kind = values.s3 ? "versitygw on loopback" : "file://";
    printColumns(`${values.gigabytes} GB database, ${kind}, ${process.platform}`, columns);
    if (litestreamPath() === null) console.log("litestream: not on the PATH, not compared");
  } finally {
    await store.stop();
  }
});
