/** What the benchmarks share: a child process under a meter, a temporary folder, tables of figures. */
import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import process from "node:process";

/** Peak and present resident memory (bytes) and processor time (milliseconds) of a living process. */
export interface ProcessUse {
  readonly peakBytes: number;
  readonly residentBytes: number;
  readonly cpuMs: number;
}

/** What `/proc` says of a process and, through the wrappers that npm puts before a binary, of its only child. */
export function processUse(pid: number): ProcessUse | null {
  try {
    const status = readFileSync(`/proc/${pid}/status`, "utf8");
    const kilobytes = (name: string): number => Number(new RegExp(`${name}:\\s+(\\d+)`).exec(status)?.[1] ?? 0) * 1024;
    // Nanoseconds of each thread: the ticks in `stat` are too coarse for an idle process.
    let cpuNs = 0;
    for (const task of readdirSync(`/proc/${pid}/task`)) {
      cpuNs += Number(readFileSync(`/proc/${pid}/task/${task}/schedstat`, "utf8").split(" ")[0]);
    }
    return { peakBytes: kilobytes("VmHWM"), residentBytes: kilobytes("VmRSS"), cpuMs: cpuNs / 1e6 };
  } catch {
    return null;
  }
}

/** The process that does the work: a launcher script of npm starts the real binary as its child. */
function workerOf(pid: number): number {
  try {
    const children = readFileSync(`/proc/${pid}/task/${pid}/children`, "utf8").trim().split(" ").filter(Boolean);
    return children.length === 1 && basename(readFileSync(`/proc/${pid}/comm`, "utf8").trim()) === "node" &&
        readFileSync(`/proc/${pid}/cmdline`, "utf8").includes("/.bin/")
      ? Number(children[0])
      : pid;
  } catch {
    return pid;
  }
}

/** A child under the meter. */
export class MeteredChild {
  readonly child: ChildProcess;
  readonly lines: string[] = [];
  readonly ended: Promise<number>;
  #last: ProcessUse = { peakBytes: 0, residentBytes: 0, cpuMs: 0 };
  /** What it said on stderr. */
  errors = "";

  constructor(command: readonly string[], environment: Record<string, string> = {}) {
    const begun = performance.now();
    this.child = spawn(command[0], command.slice(1), {
      env: { ...process.env, ...environment },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let rest = "";
    this.child.stdout!.setEncoding("utf8").on("data", (text: string) => {
      const parts = (rest + text).split("\n");
      rest = parts.pop()!;
      this.lines.push(...parts);
    });
    this.child.stderr!.setEncoding("utf8").on("data", (text: string) => this.errors += text);
    const timer = setInterval(() => this.use(), 20);
    this.ended = new Promise((resolve, reject) => {
      this.child.on("error", reject);
      this.child.on("close", (code) => {
        clearInterval(timer);
        this.ms = performance.now() - begun;
        if (code === 0) resolve(this.ms);
        else reject(new Error(`${command.join(" ")} ended with ${code}: ${this.errors}`));
      });
    });
    this.ended.catch(() => {});
  }

  /** How long it ran. */
  ms = 0;

  /** The newest figures; the last ones when it has ended. */
  use(): ProcessUse {
    const now = processUse(workerOf(this.child.pid!));
    if (now !== null && now.peakBytes > 0) this.#last = now;
    return this.#last;
  }

  /** Its lines as JSON, from the line `first` on. */
  events(first: number = 0): Record<string, unknown>[] {
    return this.lines.slice(first).filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
  }

  /** Waits until its events satisfy `test`. */
  async until(test: (events: Record<string, unknown>[]) => boolean, limitMs = 120_000): Promise<void> {
    for (const begun = performance.now(); !test(this.events());) {
      if (performance.now() - begun > limitMs) throw new Error(`waited in vain; the child said:\n${this.errors}`);
      if (this.child.exitCode !== null) throw new Error(`the child ended: ${this.errors}`);
      await pause(100);
    }
  }

  /** Ends it as a service manager does. */
  async stop(): Promise<void> {
    const pid = workerOf(this.child.pid!);
    if (this.child.exitCode === null) process.kill(pid, "SIGTERM");
    await this.ended;
  }
}

/** A temporary folder, removed after `work` unless it fails. */
export async function inBenchDirectory(
  under: string | undefined,
  work: (directory: string) => Promise<void>,
): Promise<void> {
  const directory = mkdtempSync(join(under ?? tmpdir(), "walrust-bench-"));
  await work(directory);
  rmSync(directory, { recursive: true, force: true });
}

/** The value below which the fraction `p` of the numbers lies; NaN when there are none. */
export function percentile(numbers: readonly number[], p: number): number {
  const sorted = [...numbers].sort((a, b) => a - b);
  return sorted.length === 0 ? NaN : sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * p) - 1)];
}

/** Megabytes (10⁶) with one decimal. */
export function megabytes(bytes: number): string {
  return (bytes / 1e6).toFixed(1);
}

/** Prints figures side by side: one row per figure, one column per name. */
export function printColumns(title: string, columns: readonly [name: string, figures: Record<string, string>][]): void {
  const rows = [...new Set(columns.flatMap(([, figures]) => Object.keys(figures)))];
  const cells = [["", ...columns.map(([name]) => name)]];
  for (const row of rows) cells.push([row, ...columns.map(([, figures]) => figures[row] ?? "–")]);
  const widths = cells[0].map((_, i) => Math.max(...cells.map((line) => line[i].length)));
  console.log(`\n${title}`);
  for (const line of cells) {
    console.log(line.map((cell, i) => i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i])).join("  "));
  }
}

/** Resolves after `ms` milliseconds. */
export function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
