import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import test from "node:test";
import { projectDirectory, runtimeCommand, runtimeName } from "./support/runtime.ts";
import { temporaryDirectory } from "./support/temporary_directory.ts";

const entry = join(projectDirectory, "mod.ts");

test("mod.ts: the example of its documentation runs as it stands", () => {
  const match = /^ \* ```ts\n([^]*?)^ \* ```$/m.exec(readFileSync(entry, "utf8"));
  assert.ok(match !== null);
  const code = match[1].replace(/^ \* ?/gm, "").replace('"@walrust/walrust"', JSON.stringify(entry));
  assert.ok(code.includes(entry));
  const script = join(temporaryDirectory("mod"), "example.ts");
  writeFileSync(script, code);
  const [program, ...args] = runtimeCommand(script);
  // Deno looks for its configuration beside the script.
  if (runtimeName === "deno") args.splice(1, 0, "--config", join(projectDirectory, "deno.json"));
  const { stdout, stderr, status } = spawnSync(program, args, { cwd: projectDirectory, encoding: "utf8" });
  assert.equal(status, 0, stderr);
  assert.equal(stdout, "app walrust\n");
});

/** Every file reached by imports that run (types vanish), and what they import from outside. */
function reach(file: string, files: Set<string>, outside: Set<string>): void {
  if (files.has(file)) return;
  files.add(file);
  const text = readFileSync(file, "utf8");
  for (const [, isType, from] of text.matchAll(/^(?:import|export)\s+(type\s)?[^"';]*?\bfrom\s+"([^"]+)";$/gm)) {
    if (isType !== undefined) continue;
    if (from.startsWith(".")) reach(resolve(dirname(file), from), files, outside);
    else outside.add(from);
  }
  for (const [, from] of text.matchAll(/^import\s+"([^"]+)";$/gm)) outside.add(from);
}

test("mod.ts: reaches no adapter and no built-in of a runtime", () => {
  const files = new Set<string>();
  const outside = new Set<string>();
  reach(entry, files, outside);
  assert.ok(files.size > 20);
  assert.deepEqual([...outside].filter((from) => from.startsWith("node:") || from.startsWith("bun:")), []);
  assert.deepEqual([...files].filter((file) => /\/src\/(runtime\/system|cli\/)/.test(file)), []);
});

test("mod.ts: canary, the same search finds the adapter of cli.ts", () => {
  const files = new Set<string>();
  const outside = new Set<string>();
  reach(join(projectDirectory, "cli.ts"), files, outside);
  assert.ok([...outside].some((from) => from.startsWith("node:")));
  assert.ok([...files].some((file) => file.endsWith("/src/runtime/system.ts")));
});
