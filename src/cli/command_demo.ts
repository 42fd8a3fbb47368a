/**
 * `walrust demo`: a live database, a writer and a watch, each a process of its own; both are killed, then the newest
 * point and one five seconds earlier are restored and proven against the writer's own log. Nothing is staged.
 */
import { exitCodes, WalrustError } from "../errors.ts";
import { hexOf, shellQuoted } from "../format/bytes.ts";
import { restore } from "../replication/restore.ts";
import type { ChildProcess } from "../runtime/types.ts";
import { DirectoryStore } from "../storage/directory.ts";
import { deltaText } from "./command_watch.ts";
import type { CommandCall, CommandContext } from "./context.ts";
import { type CommitTimes, parseWriterLog } from "./demo_writer.ts";
import { type Proof, proveRestored, publishedPoints } from "./demo_proof.ts";
import { count, formatBytes, formatDuration, formatLocalTime, formatTime } from "./output.ts";

/** How far back the second restore goes. */
const earlierMs = 5000;

interface Demo {
  readonly context: CommandContext;
  readonly folder: string;
  readonly database: string;
  readonly bucket: string;
  readonly writerLog: string;
  readonly store: DirectoryStore;
}

/** Runs the demo; 0 only if both restores were proven, else 5. */
export async function run(context: CommandContext, call: CommandCall): Promise<number> {
  const { output, runtime, process } = context;
  const demo = prepare(context, call.options.directory);
  const { folder } = demo;
  output.line(`folder    ${folder}`);
  const stopped = await runLive(demo, Number(call.options.seconds));
  const log = parseWriterLog(process.readText(demo.writerLog) ?? "");
  output.line("");
  const targets = [
    { title: "the newest point", file: `${folder}/newest.db`, timeMs: null },
    { title: "a point five seconds earlier", file: `${folder}/earlier.db`, timeMs: stopped.killedMs - earlierMs },
  ];
  const results = [];
  for (const target of targets) results.push({ ...target, ...await restoreAndProve(demo, target, log) });
  const isProven = results.every((result) => result.proof.findings.every((finding) => finding.isProven));
  const objects = await countObjects(demo);
  output.line(`database  ${demo.database} (as the kill left it)`);
  output.line(`bucket    file://${demo.bucket} (${count(objects.number, "object")}, ${formatBytes(objects.bytes)})`);
  output.line(`restored  ${targets.map((target) => target.file).join(", ")}`);
  output.line(`writer    ${demo.writerLog}`);
  output.line(`try it    ${shellWords([...process.selfCommand, "list", "-b", `file://${demo.bucket}`])}`);
  output.line("");
  output.line(isProven ? "proven: both restores are exact" : "NOT PROVEN: see the lines marked ✗");
  output.json({
    proven: isProven,
    folder,
    commits: log.length,
    deltas: stopped.deltas,
    objects: objects.number,
    bytes: objects.bytes,
    killedMs: stopped.killedMs,
    restores: results.map(({ title, file, seq, createdMs, proof }) => ({ title, file, seq, createdMs, ...proof })),
    clockMs: runtime.clock.now(),
  });
  return isProven ? 0 : exitCodes.integrity;
}

function prepare(context: CommandContext, directory: unknown): Demo {
  const { runtime, process } = context;
  const name = hexOf(runtime.random.bytes(4));
  const asked = typeof directory === "string" ? directory : `${process.temporaryDirectory}/walrust-demo-${name}`;
  const absolute = asked.startsWith("/") ? asked : `${process.directory}/${asked}`;
  if (runtime.files.list(absolute).length > 0) {
    throw new WalrustError("config", "directory_not_empty", `${absolute} is not empty`, {
      hint: "give --directory a new directory",
    });
  }
  runtime.files.makeDirectory(`${absolute}/bucket`);
  const folder = runtime.files.realPath(absolute);
  const bucket = `${folder}/bucket`;
  return {
    context,
    folder,
    database: `${folder}/app.db`,
    bucket,
    writerLog: `${folder}/writer.log`,
    store: new DirectoryStore({
      directory: bucket,
      files: runtime.files,
      random: runtime.random,
      clock: runtime.clock,
    }),
  };
}

interface LiveResult {
  readonly killedMs: number;
  readonly deltas: number;
}

/** Starts writer and watch, shows what the watch says for `seconds` after its first snapshot, and kills both. */
async function runLive(demo: Demo, seconds: number): Promise<LiveResult> {
  const { process, runtime, signal, output } = demo.context;
  const self = process.selfCommand;
  const children: ChildProcess[] = [];
  try {
    const writer = process.spawn([...self, "demo-writer", demo.database, demo.writerLog]);
    children.push(writer);
    output.line(`writer    process ${writer.pid}, commits to ${demo.database}`);
    await until(demo, children, 15_000, () => (process.readText(demo.writerLog) ?? "").includes("done 1 "));
    const watchWords = ["watch", demo.database, "-b", `file://${demo.bucket}`, "--state-dir", `${demo.folder}/state`];
    let deltas = 0;
    let hasSnapshot = false;
    const watch = process.spawn([...self, ...watchWords, "--json", "--with-parent", "--no-config"], {
      onStdout: byLine((line) => {
        const event = parseEvent(line);
        if (event?.kind === "snapshot") hasSnapshot = true;
        if (event?.kind === "delta") deltas++;
        if (event !== null) showEvent(demo, event);
      }),
    });
    children.push(watch);
    output.line(`watch     process ${watch.pid}: ${shellWords(["walrust", ...watchWords])}`);
    output.line("");
    await until(demo, children, 30_000, () => hasSnapshot);
    const endMs = runtime.clock.monotonic() + seconds * 1000;
    await until(demo, children, seconds * 1000 + 30_000, () => runtime.clock.monotonic() >= endMs);
    const killedMs = runtime.clock.now();
    for (const child of [writer, watch]) child.kill("SIGKILL");
    await Promise.all([writer.ended, watch.ended]);
    output.line(`[${formatLocalTime(killedMs)}] SIGKILL to writer and watch`);
    return { killedMs, deltas };
  } finally {
    // Also on an error or an interrupt: no process of ours stays behind.
    for (const child of children) child.kill("SIGKILL");
    await Promise.all(children.map((child) => child.ended));
    signal.throwIfAborted();
  }
}

/** Waits until `isDone`; throws when a child ended by itself or the time is over. */
async function until(
  demo: Demo,
  children: readonly ChildProcess[],
  limitMs: number,
  isDone: () => boolean,
): Promise<void> {
  const { clock } = demo.context.runtime;
  let ended: number | null = null;
  for (const child of children) {
    const note = (): void => void (ended ??= child.pid);
    child.ended.then(note, note);
  }
  const endMs = clock.monotonic() + limitMs;
  while (!isDone()) {
    if (ended !== null || clock.monotonic() > endMs) {
      const what = ended === null
        ? `nothing happened for ${formatDuration(limitMs)}`
        : `process ${ended} ended by itself`;
      throw new WalrustError("general", "demo_process", what, {
        hint: `see its messages above, and ${demo.folder}`,
      });
    }
    await clock.sleep(50, demo.context.signal);
  }
}

/** Collects text into whole lines. */
function byLine(onLine: (line: string) => void): (text: string) => void {
  let rest = "";
  return (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) onLine(line);
  };
}

/** An event of the watch as it comes as JSON: bigints are decimal strings there. */
interface ShownEvent {
  readonly time: number;
  readonly kind: string;
  readonly seq?: string;
  readonly frames?: number;
  readonly bytes?: number;
  readonly lagMs?: number;
  readonly barrier?: boolean;
  readonly heldMs?: number;
  readonly error?: { message: string };
}

function parseEvent(line: string): ShownEvent | null {
  try {
    return JSON.parse(line) as ShownEvent;
  } catch {
    return null;
  }
}

function showEvent(demo: Demo, event: ShownEvent): void {
  const { number, bytes } = countFiles(demo, demo.bucket);
  const facts = {
    delta: `${deltaText({ frames: event.frames ?? 0, bytes: event.bytes ?? 0, seq: event.seq ?? "" })}, ` +
      `lag ${formatDuration(event.lagMs ?? 0)}`,
    rollover: `checkpoint (${count(event.frames ?? 0, "frame")}, ` +
      (event.barrier ? `writers held for ${formatDuration(event.heldMs ?? 0)})` : "no writer held)"),
    snapshot: `snapshot (${formatBytes(event.bytes ?? 0)}) seq ${event.seq}`,
    failed: `failed: ${event.error?.message}`,
  }[event.kind];
  if (facts === undefined) return;
  const store = `bucket: ${count(number, "object")}, ${formatBytes(bytes)}`;
  demo.context.output.line(`[${formatLocalTime(event.time)}] app.db: ${facts.padEnd(56)} ${store}`);
}

async function restoreAndProve(
  demo: Demo,
  target: { title: string; file: string; timeMs: number | null },
  log: readonly CommitTimes[],
): Promise<{ seq: bigint; createdMs: number; proof: Proof }> {
  const { context, store } = demo;
  const { runtime, output } = context;
  const beganMs = runtime.clock.monotonic();
  const report = await restore({
    store,
    root: "app/",
    target: target.timeMs === null ? { kind: "latest" } : { kind: "time", ms: target.timeMs },
    outputPath: target.file,
    runtime,
    dryRun: false,
    force: false,
    integrityCheck: "full",
    parallel: 4,
    signal: context.signal,
    log: context.log,
  });
  const tookMs = runtime.clock.monotonic() - beganMs;
  const points = await publishedPoints(store, "app/");
  const createdMs = points.find((point) => point.seq === report.seq)?.createdMs ?? 0;
  const proof = proveRestored({ path: target.file, seq: report.seq, askedMs: target.timeMs }, points, log);
  output.line(`restore of ${target.title} into ${target.file}`);
  output.line(`  again: ${shellWords([...context.process.selfCommand, ...restoreWords(demo, target)])}`);
  output.line(`  seq ${report.seq} of ${formatTime(createdMs)}, in ${formatDuration(tookMs)}`);
  for (const finding of proof.findings) output.line(`  ${finding.isProven ? "✓" : "✗"} ${finding.text}`);
  const lost = log.filter((c) => c.acknowledgedMs !== null).length - proof.commits;
  if (target.timeMs === null) {
    output.line(`  the kill cost ${count(Math.max(0, lost), "commit")}: those younger than the last sync`);
  }
  output.line("");
  return { seq: report.seq, createdMs, proof };
}

/** The same restore by hand, beside the file that is there already. */
function restoreWords(demo: Demo, { file, timeMs }: { file: string; timeMs: number | null }): string[] {
  const time = timeMs === null ? [] : ["--point-in-time", formatTime(timeMs)];
  const output = file.replace(/\.db$/, "-again.db");
  return ["restore", "app", "-o", output, "-b", `file://${demo.bucket}`, ...time];
}

async function countObjects(demo: Demo): Promise<{ number: number; bytes: number }> {
  let number = 0;
  let bytes = 0;
  for await (const object of demo.store.list("")) {
    number++;
    bytes += object.size;
  }
  return { number, bytes };
}

/** The same while the watch writes: what is just being renamed away does not count. */
function countFiles(demo: Demo, directory: string): { number: number; bytes: number } {
  const { files } = demo.context.runtime;
  let number = 0;
  let bytes = 0;
  for (const { name, type } of files.list(directory)) {
    if (name.startsWith(".")) continue;
    if (type === "directory") {
      const inner = countFiles(demo, `${directory}/${name}`);
      number += inner.number;
      bytes += inner.bytes;
    } else {
      number++;
      bytes += files.stat(`${directory}/${name}`)?.size ?? 0;
    }
  }
  return { number, bytes };
}

function shellWords(words: readonly string[]): string {
  return words.map(shellQuoted).join(" ");
}
