/**
 * Breaks the safety code in one deliberate way after another and demands that a test or the simulation notices.
 *
 *   node scripts/mutate.ts                 all of mutations.ts
 *   node scripts/mutate.ts --only REGEXP   those whose name it matches
 *
 * Works on a copy of the tree; ends with 1 when a breakage stays unnoticed or no longer fits the code.
 */
import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { type Mutation, mutations } from "./mutations.ts";

const { values } = parseArgs({ options: { only: { type: "string", default: "" } } });
const project = fileURLToPath(new URL("..", import.meta.url));
const flags = ["--experimental-strip-types", "--disable-warning=ExperimentalWarning"];

/** Who looks, the quick ones first. */
const hunters: readonly (readonly [name: string, words: readonly string[]])[] = [
  ...[
    ...["capture", "engine", "resume", "spool", "publisher", "page_index", "journal", "restore"],
    ...["observe", "image", "fencing", "adopt", "database_file", "snapshot_task", "rollover", "replaced_database"],
    ...["replica_file", "replica_power", "replica_shapes", "follower"],
  ].map((name) => [`${name}_test`, ["--test", "--test-isolation=none", `test/replication/${name}_test.ts`]] as const),
  ["simulation", ["scripts/simulate.ts", "--seeds", "600", "--steps", "20", "--stop"]],
  ["wal_test", ["--test", "--test-isolation=none", "test/format/wal_test.ts"]],
];

/** A breakage may also show as a process that never ends, or eats all memory (bytes). */
const [timeMaxMs, memoryMax] = [180_000, 4e9];

function residentBytes(pid: number): number {
  try {
    return Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? 0) * 1024;
  } catch {
    return 0;
  }
}

/** True when it ends well. */
function passes(cwd: string, words: readonly string[]): Promise<boolean> {
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [...flags, ...words], { cwd, stdio: "ignore" });
    const beganMs = performance.now();
    const guard = setInterval(() => {
      const late = performance.now() - beganMs > timeMaxMs;
      if (late || residentBytes(child.pid!) > memoryMax) child.kill("SIGKILL");
    }, 100);
    child.on("close", (code) => {
      clearInterval(guard);
      resolve(code === 0);
    });
  });
}

/** The first hunter that fails in the broken copy, or null. */
async function noticedBy(copy: string): Promise<string | null> {
  for (const [name, words] of hunters) if (!await passes(copy, words)) return name;
  return null;
}

async function tryOne(copy: string, { file, find, replace }: Mutation): Promise<string | null> {
  const path = join(copy, file);
  const whole = readFileSync(path, "utf8");
  writeFileSync(path, whole.replace(find, () => replace));
  try {
    return await noticedBy(copy);
  } finally {
    writeFileSync(path, whole);
  }
}

const copy = mkdtempSync(join(tmpdir(), "walrust-mutate-"));
try {
  for (const part of ["src", "test", "scripts", "mod.ts", "cli.ts", "package.json", "deno.json"]) {
    cpSync(join(project, part), join(copy, part), { recursive: true });
  }
  symlinkSync(join(project, "node_modules"), join(copy, "node_modules"));
  const healthy = await noticedBy(copy);
  if (healthy !== null) throw new Error(`${healthy} fails without any breakage`);
  const chosen = mutations.filter(({ name }) => new RegExp(values.only).test(name));
  let unnoticed = 0;
  for (const mutation of chosen) {
    const stands = readFileSync(join(project, mutation.file), "utf8").split(mutation.find).length - 1;
    const by = stands === 1 ? await tryOne(copy, mutation) : null;
    if (by === null) unnoticed++;
    const result = stands !== 1 ? `NOT APPLIED: its text stands ${stands} times` : by ?? "UNNOTICED";
    console.log(`${mutation.name.padEnd(72)} ${result}`);
  }
  console.log(`${chosen.length} breakages, ${unnoticed} unnoticed`);
  if (unnoticed > 0) process.exitCode = 1;
} finally {
  rmSync(copy, { recursive: true, force: true });
}
