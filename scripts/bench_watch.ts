/**
 * Watching many databases: memory and processor time while nothing changes, requests to the bucket meanwhile, and the
 * lag from a commit to its delta in the bucket at one commit a second each. `--databases 1,100`, `--seconds 20`,
 * `--runtime node,bun,deno|all`, `--built` (dist/ instead of the source), `--s3` (counts requests), `--directory D`.
 */
import { mkdirSync } from "node:fs";
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
  pause,
  percentile,
  printColumns,
  walrustWords,
} from "./bench_child.ts";

const { values } = parseArgs({
  options: {
    databases: { type: "string", default: "1,100" },
    seconds: { type: "string", default: "20" },
    runtime: { type: "string" },
    s3: { type: "boolean", default: false },
    built: { type: "boolean", default: false },
    directory: { type: "string" },
  },
});
const seconds = Number(values.seconds);
/** Databases that were quiet this long are let go of. */
const settleMs = 6000;

/** From each acknowledged commit to the event of the first delta sealed after it. */
function lags(acknowledged: [string, number][], events: Record<string, unknown>[]): number[] {
  const deltas = new Map<string, { created: number; time: number }[]>();
  for (const event of events) {
    if (event.kind !== "delta") continue;
    const path = String(event.path);
    if (!deltas.has(path)) deltas.set(path, []);
    deltas.get(path)!.push({ created: Number(event.createdMs), time: Number(event.time) });
  }
  return acknowledged.map(([path, ms]) => {
    const delta = deltas.get(path)?.find(({ created }) => created >= ms);
    return delta === undefined ? Infinity : delta.time - ms;
  });
}

async function measure(
  runtime: BenchRuntime,
  count: number,
  store: BenchStore,
  directory: string,
): Promise<Record<string, string>> {
  const place = `${directory}/${runtime.name}-${count}`;
  mkdirSync(place);
  const paths = Array.from({ length: count }, (_, i) => `${place}/db${i}.db`);
  const load = runtime.command("scripts/bench_load.ts");
  await new MeteredChild([...load, "many", "1", ...paths]).ended;
  const bucket = await store.bucket(`watch-${runtime.name}-${count}`);
  const words = [...walrustWords(runtime, values.built), "watch", ...paths, ...bucket, "--json"];
  const watch = new MeteredChild(words, store.environment);
  await watch.until((events) => events.filter(({ kind }) => kind === "snapshot").length >= count);
  await pause(settleMs);
  const [before, requests, lines] = [watch.use(), store.requests(), watch.lines.length];
  const begun = performance.now();
  await pause(seconds * 1000);
  const idle = watch.use();
  const share = (a: number, b: number): string => `${(100 * (b - a) / (performance.now() - begun)).toFixed(2)} %`;
  const figures: Record<string, string> = {
    "idle: RSS MB": megabytes(idle.residentBytes),
    "idle: peak RSS MB (start included)": megabytes(idle.peakBytes),
    "idle: CPU": share(before.cpuMs, idle.cpuMs),
    "idle: events": String(watch.lines.length - lines),
    "idle: requests": requests === null ? "use --s3" : String(store.requests()! - requests),
  };
  const busyBegun = performance.now();
  const writer = new MeteredChild([...load, "many", String(seconds), ...paths]);
  await writer.ended;
  const busy = watch.use();
  figures["1 commit/s each: CPU"] = `${
    (100 * (busy.cpuMs - idle.cpuMs) / (performance.now() - busyBegun)).toFixed(1)
  } %`;
  figures["1 commit/s each: RSS MB"] = megabytes(busy.residentBytes);
  await pause(2500);
  const { acknowledged } = writer.events()[0] as { acknowledged: [string, number][] };
  const all = lags(acknowledged, watch.events());
  figures["lag p50 ms"] = percentile(all, 0.5).toFixed(0);
  figures["lag p99 ms"] = percentile(all, 0.99).toFixed(0);
  figures["lag max ms"] = percentile(all, 1).toFixed(0);
  await watch.stop();
  return figures;
}

await inBenchDirectory(values.directory, async (directory) => {
  const store = await openBenchStore(directory, values.s3);
  try {
    for (const count of values.databases.split(",").map(Number)) {
      const columns: [string, Record<string, string>][] = [];
      for (const runtime of benchRuntimes(values.runtime)) {
        columns.push([runtime.name, await measure(runtime, count, store, directory)]);
      }
      const kind = values.s3 ? "versitygw on loopback" : "file://";
      printColumns(`${count} databases, sync interval 1 s, ${kind}, ${process.platform}`, columns);
    }
    if (litestreamPath() === null) console.log("litestream: not on the PATH, not compared");
  } finally {
    await store.stop();
  }
});
