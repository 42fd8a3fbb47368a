/** `npm pack`, installed into an empty folder, used from there under this runtime. */
import assert from "node:assert/strict";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { before, test } from "node:test";
import { version } from "../../src/version.ts";
import { projectDirectory, runtimeName } from "../support/runtime.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { copyClone, fileSha256, golden, type Outcome, run } from "./clone.ts";

const folder = temporaryDirectory("installed");
let packed: Outcome;
let installed: Outcome;

before(() => {
  const clone = copyClone();
  packed = run(["npm", "pack", "--pack-destination", folder], clone);
  writeFileSync(join(folder, "package.json"), "{}");
  // Without the optional Node (100 MB): the one in the path serves here.
  const flags = ["--no-audit", "--no-fund", "--prefer-offline", "--omit=optional"];
  installed = run(["npm", "install", ...flags, `./walrust-${version}.tgz`], folder);
}, { timeout: 120_000 });

/** How a user of this runtime starts the installed program. */
const commands = {
  node: [["npx", "--no-install", "walrust"]],
  bun: [["bunx", "--no-install", "walrust"], ["bunx", "--bun", "--no-install", "walrust"]],
  deno: [["deno", "run", "-A", "node_modules/walrust/dist/cli.js"]],
}[runtimeName];

test("npm pack: holds the program, its declarations, README and LICENSE, and no source or test", () => {
  assert.equal(packed.code, 0, packed.output);
  const tar = run(["tar", "-tzf", `walrust-${version}.tgz`], folder);
  const names = tar.output.trim().split("\n");
  for (const name of ["dist/cli.js", "dist/walrust.js", "dist/mod.js", "dist/mod.d.ts", "README.md", "LICENSE"]) {
    assert.ok(names.includes(`package/${name}`), `${name} is missing`);
  }
  const strange = names.filter((name) =>
    !/^package\/(dist\/.*\.(js|d\.ts)|README\.md|LICENSE|package\.json)$/.test(name)
  );
  assert.deepEqual(strange, []);
});

for (const [index, words] of commands.entries()) {
  test(`installed package: ${words.join(" ")} restore gives the golden bytes`, { timeout: 60_000 }, () => {
    assert.equal(installed.code, 0, installed.output);
    const out = join(folder, `restored-${index}.db`);
    const restored = run([...words, "restore", "app", "-o", out, "-b", golden.bucket], folder);
    assert.equal(restored.code, 0, restored.output);
    assert.equal(fileSha256(out), golden.sha256);
  });
}

test("installed package: canary: a target that is not in the bucket ends with 6", { timeout: 60_000 }, () => {
  const out = join(folder, "nothing.db");
  const words = [...commands[0] ?? [], "restore", "app", "-o", out, "-b", golden.bucket, "--seq", "1"];
  assert.equal(run(words, folder).code, 6);
});

test("installed package: the library imports by its name, with the system adapter", () => {
  const program = `import { errors, WalrustError } from "walrust";
    import { systemRuntime } from "walrust/system";
    if (typeof WalrustError !== "function" || systemRuntime().clock.now() < 1) throw new Error("no");
    console.log("fine");`.replace("errors, ", "");
  writeFileSync(join(folder, "use.mjs"), program);
  const words = { node: ["node", "use.mjs"], bun: ["bun", "use.mjs"], deno: ["deno", "run", "-A", "use.mjs"] };
  const { code, output } = run(words[runtimeName], folder);
  assert.equal(code, 0, output);
  assert.match(output, /fine/);
});

test("package.json: the same version everywhere, and exact dependencies", () => {
  const read = (name: string): Record<string, unknown> =>
    JSON.parse(readFileSync(join(projectDirectory, name), "utf8"));
  const manifest = read("package.json");
  const deno = read("deno.json");
  assert.equal(manifest.version, version);
  assert.equal(deno.version, version);
  assert.equal(read("package-lock.json").version, version);
  const dependencies = manifest.dependencies as Record<string, string>;
  const development = manifest.devDependencies as Record<string, string>;
  for (const [name, wanted] of Object.entries({ ...dependencies, ...development })) {
    assert.match(wanted, /^\d+\.\d+\.\d+$/, name);
  }
  for (const [name, target] of Object.entries(deno.imports as Record<string, string>)) {
    const [, packageName = "", wanted] = /^npm:((?:@[^/]+\/)?[^@]+)@([^/]+)/.exec(target) ?? [];
    assert.equal({ ...dependencies, ...development }[packageName], wanted, name);
  }
});
