/**
 * Runs the test suite under Node, Bun and Deno: every file in a process of its own, two at a time.
 *
 *   npm test                              everything
 *   npm test -- --runtime bun             under one runtime (repeatable)
 *   npm test -- format storage/s3         files whose path holds one of the words
 *   npm test -- --directory DIR           the tests of another folder
 *
 * A file that crashes, hangs or holds no test counts as a failure. The last line is `N passed, N failed, N skipped`.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { availableParallelism, tmpdir } from "node:os";
import { join, relative, resolve } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { parseJunit, skippedLines, type TestCase } from "./test_results.ts";

const project = fileURLToPath(new URL("..", import.meta.url));
const runtimes = ["node", "bun", "deno"] as const;
type RuntimeName = typeof runtimes[number];

/** A file that runs longer than this hangs. */
const fileTimeoutMs = Number(process.env.WALRUST_TEST_TIMEOUT_MS ?? 900_000);
/** Limit of one test that sets none; Bun's own is 5 s. */
const testTimeoutMs = 300_000;

interface Job {
  readonly runtime: RuntimeName;
  readonly file: string;
}

interface Result extends Job {
  readonly cases: readonly TestCase[];
  readonly output: string;
  readonly seconds: number;
  /** What went wrong with the file as a whole. */
  readonly problem: string | null;
}

/** Words that run one file and write a JUnit file. */
function commandOf({ runtime, file }: Job, junit: string): string[] {
  const binary = join(project, "node_modules", ".bin", runtime);
  const program = existsSync(binary) ? binary : runtime;
  if (runtime === "node") {
    const reporters = [["spec", "stdout"], ["junit", junit]];
    const flags = reporters.flatMap(([name, to]) => [`--test-reporter=${name}`, `--test-reporter-destination=${to}`]);
    return [program, "--disable-warning=ExperimentalWarning", ...flags, file];
  }
  if (runtime === "bun") {
    return [program, "test", `--timeout=${testTimeoutMs}`, "--reporter=junit", `--reporter-outfile=${junit}`, file];
  }
  return [program, "test", "-A", "--no-check", `--junit-path=${junit}`, file];
}

const running: Set<ChildProcess> = new Set();

/** Ends the process and everything it started (it leads a group of its own). */
function end(child: ChildProcess): void {
  try {
    if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
  } catch {
    // It is gone already.
  }
}

function runFile(job: Job, junit: string): Promise<Result> {
  const [program = "", ...args] = commandOf(job, junit);
  const started = performance.now();
  return new Promise((done) => {
    const child = spawn(program, args, {
      cwd: project,
      detached: true,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...process.env, NO_COLOR: "1", FORCE_COLOR: undefined, NODE_TEST_CONTEXT: undefined },
    });
    running.add(child);
    let output = "";
    let isLate = false;
    const collect = (chunk: string): void => void (output = (output + chunk).slice(-400_000));
    child.stdout.setEncoding("utf8").on("data", collect);
    child.stderr.setEncoding("utf8").on("data", collect);
    const timer = setTimeout(() => {
      isLate = true;
      end(child);
    }, fileTimeoutMs);
    const finish = (code: number | null, signal: string | null, error?: Error): void => {
      clearTimeout(timer);
      running.delete(child);
      end(child);
      const cases = existsSync(junit) ? parseJunit(readFileSync(junit, "utf8")) : [];
      const hasFailed = cases.some(({ outcome }) => outcome === "failed");
      let problem: string | null = null;
      if (error !== undefined) problem = error.message;
      else if (isLate) problem = `hangs: ended after ${fileTimeoutMs / 1000} s`;
      else if (signal !== null) problem = `ended by ${signal}`;
      else if (cases.length === 0) problem = `ran no test (exit code ${code})`;
      else if (code !== 0 && !hasFailed) problem = `exit code ${code} although no test failed`;
      done({ ...job, cases, output, problem, seconds: (performance.now() - started) / 1000 });
    };
    child.on("error", (error) => finish(null, null, error));
    child.on("close", (code, signal) => finish(code, signal));
  });
}

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

function countsOf(results: readonly Result[]): Counts {
  const counts = { passed: 0, failed: 0, skipped: 0 };
  for (const { cases, problem } of results) {
    for (const { outcome } of cases) counts[outcome]++;
    if (problem !== null) counts.failed++;
  }
  return counts;
}

function line({ passed, failed, skipped }: Counts): string {
  return `${passed} passed, ${failed} failed, ${skipped} skipped`;
}

/** What Node, Bun and Deno print of a test that passed: it would bury the one that failed. */
const passedLine = /^\s*✔ |^\(pass\) |\.\.\. ok \(/;

function report(result: Result): void {
  const { runtime, file, problem, cases, seconds } = result;
  const counts = countsOf([result]);
  const mark = counts.failed > 0 ? "FAIL" : "ok  ";
  console.log(`${mark} ${runtime.padEnd(4)} ${relative(project, file)}: ${line(counts)} (${seconds.toFixed(1)} s)`);
  if (counts.failed === 0) return;
  if (problem !== null) console.log(`     ${problem}`);
  for (const { name, outcome } of cases) if (outcome === "failed") console.log(`     failed: ${name}`);
  for (const text of result.output.trimEnd().split("\n")) if (!passedLine.test(text)) console.log(`     | ${text}`);
}

/** Test files below a folder; the longest-running kinds first, so that none of them is left alone at the end. */
function findTests(directory: string, words: readonly string[]): string[] {
  const isSlow = (file: string): number => (/\/(e2e|packaging)\//.test(file) ? 0 : 1);
  return readdirSync(directory, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith("_test.ts") && !name.split("/").includes("fixtures"))
    .map((name) => join(directory, name))
    .filter((file) => words.length === 0 || words.some((word) => relative(project, file).includes(word)))
    .sort((a, b) => isSlow(a) - isSlow(b) || (a < b ? -1 : 1));
}

async function runAll(jobs: readonly Job[]): Promise<Result[]> {
  const scratch = mkdtempSync(join(tmpdir(), "walrust-results-"));
  const results: Result[] = [];
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < jobs.length) {
      const index = next++;
      const result = await runFile(jobs[index], join(scratch, `${index}.xml`));
      report(result);
      results.push(result);
    }
  };
  try {
    await Promise.all(Array.from({ length: Math.min(2, availableParallelism()) }, worker));
  } finally {
    rmSync(scratch, { recursive: true, force: true });
  }
  return results;
}

function runtimesAsked(asked: readonly string[]): readonly RuntimeName[] {
  const names = asked.length > 0 ? asked : (process.env.WALRUST_TEST_RUNTIMES ?? "").split(",").filter(Boolean);
  for (const name of names) {
    if (!(runtimes as readonly string[]).includes(name)) throw new Error(`${name} is none of ${runtimes.join(", ")}`);
  }
  return names.length > 0 ? runtimes.filter((runtime) => names.includes(runtime)) : runtimes;
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { runtime: { type: "string", multiple: true }, directory: { type: "string" } },
});
for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
  process.on(signal, () => {
    for (const child of running) end(child);
    process.exit(code);
  });
}
const chosen = runtimesAsked(values.runtime ?? []);
const tests = findTests(
  values.directory === undefined ? join(project, "test") : resolve(values.directory),
  positionals,
);
const results = await runAll(chosen.flatMap((runtime) => tests.map((file) => ({ runtime, file }))));
for (const result of results) {
  for (const text of skippedLines(result.runtime, relative(project, result.file), result)) console.log(text);
}
for (const runtime of chosen) {
  console.log(`${runtime.padEnd(4)}: ${line(countsOf(results.filter((result) => result.runtime === runtime)))}`);
}
const total = countsOf(results);
if (tests.length === 0) {
  console.log("no test file found");
  total.failed++;
}
console.log(line(total));
process.exitCode = total.failed === 0 ? 0 : 1;
