/**
 * The gate: everything that must hold before a change is taken, in one command. Stops at the first step that fails;
 * words given are steps to run alone, such as `npm run gate -- format types`.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const project = fileURLToPath(new URL("..", import.meta.url));

function binary(name: string): string {
  const path = join(project, "node_modules", ".bin", name);
  return existsSync(path) ? path : name;
}

/** All our TypeScript, fixtures excepted. */
function sources(): string[] {
  const inside = (folder: string): string[] =>
    readdirSync(join(project, folder), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".ts") && !name.split("/").includes("fixtures"))
      .map((name) => `${folder}/${name}`);
  return ["mod.ts", "cli.ts", ...["src", "test", "scripts"].flatMap(inside)].sort();
}

const deno = binary("deno");
const node = [process.execPath, "--experimental-strip-types", "--disable-warning=ExperimentalWarning"];
const layers = node.concat("--test-reporter=spec", "test/layers_test.ts");

const asked = process.argv.slice(2);
/** Asked for by name, a step that can says all it has to say. */
const isAlone = asked.length === 1;

/** Steps in order, the quick ones first. */
const steps: [name: string, commands: () => string[][]][] = [
  ["format", () => [[deno, "fmt", "--check", "--quiet"]]],
  ["lint", () => [[deno, "lint", "--quiet"]]],
  ["layers", () => [layers]],
  ["scenarios", () => [node.concat("scripts/scenarios.ts", ...(isAlone ? [] : ["--quiet"]))]],
  ["types", () => [
    [deno, "check", "--quiet", ...sources()],
    [process.execPath, "node_modules/typescript/bin/tsc", "-p", "scripts/tsconfig.json", "--noEmit"],
  ]],
  ["documentation", () => [[deno, "doc", "--lint", "mod.ts", "src/runtime/system.ts", "src/runtime/edge.ts"]]],
  // Needs no network: nothing is sent, and the npm packages named in deno.json lie in node_modules.
  ["publish", () => [[deno, "publish", "--dry-run", "--allow-dirty", "--quiet"]]],
  ["build", () => [[...node, "scripts/build.ts"]]],
  ["tests", () => [[...node, "scripts/test.ts"]]],
];

function run(command: readonly string[]): boolean {
  const [program = "", ...args] = command;
  const { status, error } = spawnSync(program, args, {
    cwd: project,
    stdio: "inherit",
    env: { ...process.env, PATH: `${join(project, "node_modules", ".bin")}:${process.env.PATH ?? ""}` },
  });
  if (error !== undefined) console.error(error.message);
  return status === 0;
}

const unknown = asked.find((word) => !steps.some(([name]) => name === word));
if (unknown !== undefined) {
  console.error(`${unknown} is none of ${steps.map(([name]) => name).join(", ")}`);
  process.exit(2);
}
for (const [name, commands] of steps) {
  if (asked.length > 0 && !asked.includes(name)) continue;
  console.log(`== ${name}`);
  const started = performance.now();
  // The tests' last line is the last line of the gate: people and machines look for it there.
  if (!commands().every(run)) {
    if (name !== "tests") console.log(`== ${name}: FAILED`);
    process.exit(1);
  }
  if (name !== "tests") console.log(`== ${name}: ok (${((performance.now() - started) / 1000).toFixed(1)} s)`);
}
