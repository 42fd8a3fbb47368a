/** The program in a clone: built by `npm ci`, started by npx, and what it says under a Node that is too old. */
import assert from "node:assert/strict";
import { chmodSync, mkdirSync, readFileSync, symlinkSync, unlinkSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { before, test } from "node:test";
import { version } from "../../src/version.ts";
import { projectDirectory } from "../support/runtime.ts";
import { copyClone, run } from "./clone.ts";

let clone = "";

before(() => {
  clone = copyClone();
  const built = run(["npm", "run", "build"], clone);
  assert.equal(built.code, 0, built.output);
}, { timeout: 60_000 });

/** The launcher as it runs under a Node of that version. */
function launcherUnder(node: string): string[] {
  const path = join(clone, "dist", `under-${node}.mjs`);
  const text = readFileSync(join(clone, "dist", "cli.js"), "utf8");
  assert.ok(text.includes("process.versions.node.split"));
  writeFileSync(path, text.replaceAll("process.versions.node", `"${node}"`));
  return ["node", path];
}

test("npx walrust: works in a clone where npm ci has run", { timeout: 60_000 }, () => {
  const { code, output } = run(["npx", "--no-install", "walrust", "--version"], projectDirectory);
  assert.equal(code, 0, output);
  assert.ok(output.includes(version), output);
});

test("launcher: starts under the Node versions that package.json allows", () => {
  for (const node of ["22.13.0", "22.99.0", "24.0.0"]) {
    const { code, output } = run([...launcherUnder(node), "--version"], clone);
    assert.deepEqual([code, output.trim()], [0, version], node);
  }
});

test("launcher: under an older Node takes the newer one that is installed beside it, code and arguments kept", () => {
  // The copy's own node_modules, with a Node that says what it was asked.
  unlinkSync(join(clone, "node_modules"));
  const programs = join(clone, "node_modules", ".bin");
  mkdirSync(programs, { recursive: true });
  try {
    writeFileSync(join(programs, "node"), `#!/bin/sh\nshift\necho "newer $*"\nexit 5\n`);
    chmodSync(join(programs, "node"), 0o755);
    const { code, output } = run([...launcherUnder("20.19.0"), "a b", "c"], clone);
    assert.deepEqual([code, output], [5, "newer a b c\n"]);
    unlinkSync(join(programs, "node"));
    const alone = run([...launcherUnder("22.12.0"), "--version"], clone);
    assert.equal(alone.code, 1);
    assert.match(alone.output, /needs Node 22\.13 or newer, this is 22\.12\.0/);
  } finally {
    run(["rm", "-r", join(clone, "node_modules")], clone);
    symlinkSync(join(projectDirectory, "node_modules"), join(clone, "node_modules"));
  }
});

test("dist/cli.js: is executable and says node", () => {
  const text = readFileSync(join(clone, "dist", "cli.js"), "utf8");
  assert.ok(text.startsWith("#!/usr/bin/env node\n"));
  const direct = run([join(clone, "dist", "cli.js"), "--version"], process.cwd());
  assert.deepEqual([direct.code, direct.output.trim()], [0, version]);
});
