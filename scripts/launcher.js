#!/usr/bin/env node
// What `walrust` starts in the npm package: looks at the Node it runs under before anything newer is loaded.
import { spawn } from "node:child_process";
import { existsSync, realpathSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const needed = [22, 13];
const [major, minor] = process.versions.node.split(".").map(Number);

if (major > needed[0] || (major === needed[0] && minor >= needed[1])) {
  await import("./walrust.js");
} else {
  const node = newerNode();
  if (node === null) {
    process.stderr.write(
      `error: walrust needs Node ${
        needed.join(".")
      } or newer, this is ${process.versions.node} (${process.execPath})\n` +
        "hint: install a newer Node, or use bunx walrust or Deno\n",
    );
    process.exit(1);
  }
  runWith(node);
}

/** The Node that npm installed beside us (as it does on Linux), if any: in a clone, or where we are a dependency. */
function newerNode() {
  for (let at = dirname(fileURLToPath(import.meta.url)); at !== dirname(at); at = dirname(at)) {
    const node = join(at, "node_modules", ".bin", "node");
    if (existsSync(node) && realpathSync(node) !== realpathSync(process.execPath)) return node;
  }
  return null;
}

/** Runs this file again under another Node; signals pass through. */
function runWith(node) {
  const child = spawn(node, [fileURLToPath(import.meta.url), ...process.argv.slice(2)], { stdio: "inherit" });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"]) process.on(signal, () => child.kill(signal));
  child.on("error", (error) => {
    process.stderr.write(`error: ${node}: ${error.message}\n`);
    process.exit(1);
  });
  child.on("close", (code) => process.exit(code ?? 1));
}
