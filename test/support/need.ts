/** Parts of the machine that some tests need: where one is missing the test says so and is skipped, in CI it fails. */
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { skipMark } from "../../scripts/test_results.ts";

/** What a test may need. */
export type Tool = "python3" | "sqlite3" | "versitygw" | "moto" | "gcc";

const probes: Record<Tool, readonly [string, ...string[]]> = {
  python3: ["python3", "-c", "import sqlite3"],
  sqlite3: ["sqlite3", "--version"],
  versitygw: ["versitygw", "--version"],
  moto: ["python3", "-c", "import moto.server, flask"],
  gcc: ["gcc", "--version"],
};

const found = new Map<Tool, boolean>();

// Where `go install` puts what it built.
const goBinaries = join(homedir(), "go", "bin");
if (existsSync(goBinaries) && !(process.env.PATH ?? "").split(":").includes(goBinaries)) {
  process.env.PATH = `${process.env.PATH ?? ""}:${goBinaries}`;
}

/** Why a test must be skipped, or false. With `CI=true` always false: a missing part is then a failure. */
export function need(tool: Tool): string | false {
  if (process.env.CI === "true") return false;
  let here = found.get(tool);
  if (here === undefined) {
    const [command, ...args] = probes[tool];
    here = spawnSync(command, args, { stdio: "ignore" }).status === 0;
    found.set(tool, here);
  }
  return here ? false : skipReason(`needs ${tool}, which is not installed`);
}

const told = new Set<string>();

/** The reason itself, told once for scripts/test.ts too: Bun and Deno keep no reason in their reports. */
export function skipReason(reason: string): string {
  if (!told.has(reason)) console.log(`${skipMark}${reason}`);
  told.add(reason);
  return reason;
}
