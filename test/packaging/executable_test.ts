/** `npm run build:exe`: one file that runs anywhere, and reads nothing of the folder it is started in. */
import assert from "node:assert/strict";
import { existsSync, mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { version } from "../../src/version.ts";
import { skipReason } from "../support/need.ts";
import { runtimeName } from "../support/runtime.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { copyClone, fileSha256, golden, type Outcome, run } from "./clone.ts";

const folder = temporaryDirectory("executable");
let clone = "";
let executable = "";
let built: Outcome;

before(() => {
  clone = copyClone();
  built = run(["npm", "run", "build:exe"], clone);
  executable = join(clone, "dist", "walrust");
}, { timeout: 120_000 });

test("build:exe: the executable restores the golden bytes", { timeout: 60_000 }, () => {
  assert.equal(built.code, 0, built.output);
  const out = join(folder, "restored.db");
  const { code, output } = run([executable, "restore", "app", "-o", out, "-b", golden.bucket], folder);
  assert.equal(code, 0, output);
  assert.equal(fileSha256(out), golden.sha256);
});

test(
  "build:exe: the executable runs the demo, with writer and watch as processes of itself",
  { timeout: 180_000 },
  () => {
    const place = join(folder, "demo");
    // No runtime in the path: it must find itself.
    const { code, output } = run([executable, "demo", "--seconds", "7", "--directory", place], folder, {
      PATH: "/usr/bin:/bin",
    });
    assert.equal(code, 0, output);
    assert.match(output, /proven/);
  },
);

test("build:exe: neither .env nor bunfig.toml of the working directory is read", () => {
  const place = join(folder, "hostile");
  mkdirSync(place);
  writeFileSync(join(place, ".env"), "WALRUST_LOG=no-such-level\n");
  writeFileSync(join(place, "bunfig.toml"), `preload = ["./evil.ts"]\n`);
  writeFileSync(join(place, "evil.ts"), `await Bun.write("evil", ""); throw new Error("preloaded");\n`);
  const words = [executable, "list", "-b", golden.bucket];
  const { code, output } = run(words, place);
  assert.equal(code, 0, output);
  assert.ok(!existsSync(join(place, "evil")));
  // Canary: the variable, had it been read, would have shown.
  assert.equal(run(words, place, { WALRUST_LOG: "no-such-level" }).code, 2);
});

/** Why `deno compile` cannot be tried: the base binary is downloaded from the network. */
function denoCompile(): { skip: string | false; program: string } {
  if (runtimeName !== "deno") return { skip: skipReason("tried under Deno only"), program: "" };
  const place = copyClone();
  const { code, output } = run(["deno", "task", "compile"], place);
  const isOffline = code !== 0 && /download|fetch|dns|connect|lookup|resolve|network/i.test(output);
  return { skip: isOffline && skipReason(`the base binary cannot be fetched: ${lastCause(output)}`), program: place };
}

/** The innermost cause that Deno names. */
function lastCause(output: string): string {
  return output.match(/^\s*\d+: .*$/gm)?.at(-1)?.replace(/^\s*\d+: /, "") ?? output.trim().slice(-200);
}

const compiled = denoCompile();

test("deno task compile: the executable restores the golden bytes", { skip: compiled.skip, timeout: 120_000 }, () => {
  const program = join(compiled.program, "dist", "walrust-deno");
  assert.equal(run([program, "--version"], folder).output.trim(), version);
  const out = join(folder, "restored-deno.db");
  const { code, output } = run([program, "restore", "app", "-o", out, "-b", golden.bucket], folder);
  assert.equal(code, 0, output);
  assert.equal(fileSha256(out), golden.sha256);
});
