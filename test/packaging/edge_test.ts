/** The library and the edge adapter as one file for a worker: no Node built-in may be left in it. */
import assert from "node:assert/strict";
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { projectDirectory } from "../support/runtime.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { run } from "./clone.ts";

const folder = temporaryDirectory("edge");

/** Bundles a module of the clone for the browser; built-ins stay as imports. */
function bundle(name: string, modules: string[]): string {
  const entry = join(folder, `${name}.ts`);
  mkdirSync(folder, { recursive: true });
  writeFileSync(entry, modules.map((path) => `export * from "${join(projectDirectory, path)}";\n`).join(""));
  const out = join(folder, `${name}.js`);
  const words = ["bun", "build", entry, "--target=browser", "--format=esm", "--external=node:*", `--outfile=${out}`];
  const { code, output } = run(words, projectDirectory);
  assert.equal(code, 0, output);
  return readFileSync(out, "utf8");
}

function builtins(text: string): string[] {
  return [...text.matchAll(/["'](node:[\w/]+)["']/g)].map(([, name]) => name).sort();
}

test("mod.ts and edge.ts: bundle for the edge without any Node built-in", () => {
  const text = bundle("edge", ["mod.ts", "src/runtime/edge.ts"]);
  assert.deepEqual(builtins(text), []);
  assert.doesNotMatch(text, /\bBun\.|\bDeno\.|\bprocess\.(?!env\.NODE_ENV)|\brequire\(/);
  assert.ok(text.includes("WalrustError"));
});

test("edge bundle: loads where there is nothing but web standards", () => {
  bundle("edge", ["mod.ts", "src/runtime/edge.ts"]);
  const program = `for (const name of ["process", "Bun", "Buffer", "global", "require"]) delete globalThis[name];
    const { edgeRuntime, MemoryStore } = await import(${JSON.stringify(join(folder, "edge.js"))});
    const { sha256, random } = edgeRuntime();
    const hash = sha256();
    hash.update(new TextEncoder().encode("abc"));
    console.log([...hash.digest()].slice(0, 4), random.bytes(3).length, typeof MemoryStore);`;
  writeFileSync(join(folder, "load.mjs"), program);
  const { code, output } = run(["node", join(folder, "load.mjs")], folder);
  assert.equal(code, 0, output);
  assert.equal(output.trim(), "[ 186, 120, 22, 191 ] 3 function");
});

test("edge bundle: canary: the system adapter's built-ins are found", () => {
  const found = builtins(bundle("system", ["mod.ts", "src/runtime/system.ts"]));
  assert.ok(found.includes("node:fs") && found.includes("node:http"), found.join(" "));
});
