import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { writeFileSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { systemProcess } from "../../src/runtime/system_process.ts";
import { projectDirectory, runtimeCommand, runtimeName } from "../support/runtime.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";

const directory = temporaryDirectory("process");
const ours = systemProcess();

/** Writes a program that has `p`, the process under test, and returns the words that run it. */
function program(name: string, body: string): string[] {
  const path = `${directory}/${name}.ts`;
  const source = `import { systemProcess } from ${
    JSON.stringify(`${projectDirectory}/src/runtime/system_process.ts`)
  };`;
  writeFileSync(path, `${source}\nconst p = systemProcess();\n${body}\n`);
  return runtimeCommand(path);
}

function run(words: string[]): { code: number | null; out: string } {
  const [command = "", ...args] = words;
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: "utf8", maxBuffer: 1 << 28 });
  if (stderr !== "") process.stderr.write(stderr);
  return { code: status, out: stdout };
}

test("systemProcess: knows its surroundings", () => {
  assert.equal(ours.pid, process.pid);
  assert.equal(ours.runtime.split(" ")[0]?.toLowerCase(), runtimeName);
  assert.ok(ours.directory.startsWith("/") && ours.homeDirectory.startsWith("/"));
  assert.ok(ours.temporaryDirectory.startsWith("/") && ours.hostname !== "");
  assert.equal(ours.readText(`${directory}/nothing`), null);
  assert.equal(ours.isAlive(process.pid), true);
  assert.equal(ours.environment("WALRUST_NEVER_SET"), undefined);
});

/** A program that starts itself again by these words, with an argument. */
function checkSelf(selfCommand: string): void {
  const words = program(
    "self",
    `if (p.args[0] === "again") p.stdout.write("again " + p.args[1]);
     else { const c = p.spawn([...${selfCommand}, "again", "x y"], { onStdout: (t) => p.stdout.write("<" + t + ">") });
       p.exit((await c.ended).code === 0 ? 7 : 8); }`,
  );
  assert.deepEqual(run(words), { code: 7, out: "<again x y>" });
}

test("Process.args and selfCommand: a program starts itself again", () => checkSelf("p.selfCommand"));

test("canary: a program that starts another one is found out", () => {
  assert.throws(() => checkSelf(`["true"]`), assert.AssertionError);
});

test("TextOutput.write: whole before exit, whatever the size", () => {
  const { code, out } = run(program("large", `p.stdout.write("x".repeat(5_000_000)); p.exit(3);`));
  assert.equal(code, 3);
  assert.equal(out.length, 5_000_000);
});

test("TextOutput.write: silent when nobody reads any more", () => {
  const words = program("pipe", `for (let i = 0; i < 1e5; i++) p.stdout.write("line " + i + "\\n"); p.exit(0);`);
  const quoted = words.map((word) => `'${word}'`).join(" ");
  const { stdout } = spawnSync("sh", ["-c", `{ ${quoted}; echo $? >&3; } 3>&1 1>&4 4>&- | cat`], { encoding: "utf8" });
  assert.ok(stdout !== null);
  const headed = spawnSync("sh", ["-c", `( ${quoted}; echo "code $?" >&2 ) | head -n 1`], { encoding: "utf8" });
  assert.equal(headed.stdout, "line 0\n");
  assert.equal(headed.stderr.trim(), "code 0");
});

test("Process.spawn: a program that cannot be started rejects", async () => {
  await assert.rejects(ours.spawn([`${directory}/no such program`]).ended, { code: "ENOENT" });
});

test("Process.spawn: says which signal ended it", { timeout: 20_000 }, async () => {
  const child = ours.spawn(program("sleeper", `p.stdout.write("ready"); setInterval(() => {}, 1000);`), {
    onStdout: () => child.kill("SIGKILL"),
  });
  assert.ok(child.pid > 0);
  assert.deepEqual(await child.ended, { code: null, signal: "SIGKILL" });
});

test("ChildProcess.kill: every signal arrives, and none after the end", { timeout: 20_000 }, async () => {
  const words = program(
    "twice",
    `let seen = 0; p.onSignal("SIGTERM", () => { p.stdout.write("x"); if (++seen === 2) p.exit(4); });
     setInterval(() => {}, 1000); p.stdout.write("x");`,
  );
  const child = ours.spawn(words, { onStdout: () => child.kill("SIGTERM") });
  assert.deepEqual(await child.ended, { code: 4, signal: null });
  child.kill("SIGKILL");
});

test("Process.onSignal: handled every time instead of ending", { timeout: 20_000 }, async () => {
  const [command = "", ...args] = program(
    "signal",
    `let seen = 0; const handle = (name: string) => () => { p.stdout.write(name + " "); if (++seen === 2) p.exit(9); };
     for (const name of ["SIGTERM", "SIGINT"] as const) p.onSignal(name, handle(name));
     setInterval(() => {}, 1000); p.stdout.write("ready ");`,
  );
  const child = spawn(command, args, { stdio: ["ignore", "pipe", "inherit"] });
  let out = "";
  child.stdout.on("data", (chunk) => {
    out += chunk;
    if (out === "ready ") process.kill(child.pid ?? 0, "SIGTERM");
    if (out === "ready SIGTERM ") process.kill(child.pid ?? 0, "SIGINT");
  });
  const code = await new Promise((resolve) => child.on("close", resolve));
  assert.equal(out, "ready SIGTERM SIGINT ");
  assert.equal(code, 9);
});
