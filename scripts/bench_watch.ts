/**
 * Watching many databases: memory and processor time while nothing changes, requests to the bucket meanwhile, and the
 * lag from a commit to its delta in the bucket at one commit a second each. `--databases 1,100`, `--seconds 20` for each
 * measurement, `--settle 60` seconds before the first (runtimes go on compiling and collecting for a while after the
 * start), `--subjects …` and `--built` as in bench_subject.ts, `--s3` (counts requests), `--directory D`.
 */
import { mkdirSync } from "node:fs";
import process from "node:process";
import { parseArgs } from "node:util";
import { inBenchDirectory, megabytes, MeteredChild, pause, percentile, printColumns } from "./bench_child.ts";
import { type BenchStore, openBenchStore } from "./bench_store.ts";
import { benchSubjects, type Delta, loadWords, type Subject } from "./bench_subject.ts";

const { values } = parseArgs({
  options: {
    databases: { type: "string", default: "1,100" },
    seconds: { type: "string", default: "20" },
    settle: { type: "string", default: "60" },
    subjects: { type: "string" },
    s3: { type: "boolean", default: false },
    built: { type: "boolean", default: false },
    directory: { type: "string" },
  },
});
const seconds = Number(values.seconds);

/** From a commit to the arrival of the first delta sealed after it. */
function lag(committedMs: number, deltas: readonly Delta[]): number {
  const delta = deltas.find(({ sealed }) => sealed >= committedMs);
  return delta === undefined ? Infinity : delta.arrived - committedMs;
}

async function measure(
  subject: Subject,
  count: number,
  store: BenchStore,
  directory: string,
): Promise<Record<string, string>> {
  const place = `${directory}/databases-${subject.name}-${count}`;
  mkdirSync(place);
  const paths = Array.from({ length: count }, (_, i) => `${place}/db${i}.db`);
  await new MeteredChild(loadWords("many", "1", ...paths)).ended;
  const bucket = await store.bucket(`watch-${subject.name}-${count}`);
  const watch = await subject.watch(paths, bucket, store);
  await pause(Number(values.settle) * 1000);
  const [before, requests] = [watch.use(), store.requests()];
  const begun = performance.now();
  await pause(seconds * 1000);
  const idle = watch.use();
  const share = (a: number, b: number, ms: number): string => `${(100 * (b - a) / ms).toFixed(2)} %`;
  const figures: Record<string, string> = {
    "idle: RSS MB": megabytes(idle.residentBytes),
    "idle: peak RSS MB (start included)": megabytes(idle.peakBytes),
    "idle: CPU": share(before.cpuMs, idle.cpuMs, performance.now() - begun),
    "idle: requests": requests === null ? "use --s3" : String(store.requests()! - requests),
  };
  const busyBegun = performance.now();
  const writer = new MeteredChild(loadWords("many", String(seconds), ...paths));
  await writer.ended;
  const busy = watch.use();
  figures["1 commit/s each: CPU"] = share(idle.cpuMs, busy.cpuMs, performance.now() - busyBegun);
  figures["1 commit/s each: RSS MB"] = megabytes(busy.residentBytes);
  await pause(2500);
  const { acknowledged } = writer.events()[0] as { acknowledged: [path: string, ms: number][] };
  const deltas = new Map(paths.map((path) => [path, subject.deltas(path, watch, bucket)]));
  const lags = acknowledged.flatMap(([path, ms]) => deltas.get(path) === null ? [] : [lag(ms, deltas.get(path)!)]);
  for (const p of [50, 99, 100]) {
    figures[`lag p${p} ms`] = lags.length === 0 ? "use file://" : percentile(lags, p / 100).toFixed(0);
  }
  await watch.stop();
  return figures;
}

await inBenchDirectory(values.directory, async (directory) => {
  const store = await openBenchStore(directory, values.s3);
  try {
    for (const count of values.databases.split(",").map(Number)) {
      const columns: [string, Record<string, string>][] = [];
      for (const subject of benchSubjects(values.subjects, values.built)) {
        columns.push([subject.name, await measure(subject, count, store, directory)]);
      }
      printColumns(`${count} databases, sync interval 1 s, ${store.name}, ${process.platform}`, columns);
    }
  } finally {
    await store.stop();
  }
});
