import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { parseJunit } from "../../scripts/test_results.ts";
import { projectDirectory, runtimeName } from "../support/runtime.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";

const directory = temporaryDirectory("runner");
const imports = `import { describe, test } from "node:test";\n`;
let suites = 0;

/** Runs the test runner on a folder with these files, under this runtime. */
function run(
  files: Record<string, string>,
  env: Record<string, string> = {},
): { code: number | null; lines: string[] } {
  const suite = `${directory}/${++suites}`;
  mkdirSync(suite);
  for (const [name, text] of Object.entries(files)) writeFileSync(`${suite}/${name}`, imports + text);
  const script = `${projectDirectory}/scripts/test.ts`;
  const { status, stdout } = spawnSync("node", [script, "--runtime", runtimeName, "--directory", suite], {
    encoding: "utf8",
    env: { ...process.env, PATH: `${projectDirectory}/node_modules/.bin:${process.env.PATH}`, ...env },
  });
  return { code: status, lines: stdout.trimEnd().split("\n") };
}

const good = `test("good", () => {}); test("left out", { skip: "why not" }, () => {});
  describe("group", () => { test("inner", () => {}); });`;

test("scripts/test.ts: counts what passed and what was skipped", { timeout: 60_000 }, () => {
  const { code, lines } = run({ "a_test.ts": good, "b_test.ts": `test("also", () => {});`, "c.ts": "throw 1;" });
  assert.equal(lines.at(-1), "3 passed, 0 failed, 1 skipped");
  assert.equal(code, 0);
});

// The canary of the whole suite: a failing test, whatever its form, must be counted and end the run with 1.
const failures = {
  "a thrown error": `test("bad", () => { throw new Error("x"); });`,
  "a rejected promise": `test("bad", async () => { await Promise.reject(new Error("x")); });`,
  "a failing test in a group": `describe("group", () => { test("bad", () => { throw new Error("x"); }); });`,
  "a crash while loading": `throw new Error("x");`,
  "an exit in the middle": `import process from "node:process"; test("bad", () => { process.exit(0); });`,
  "a file without tests": ``,
  "a syntax error": `test("bad", () => {`,
};

for (const [name, text] of Object.entries(failures)) {
  test(`scripts/test.ts: canary: ${name} is a failure`, { timeout: 60_000 }, () => {
    const { code, lines } = run({ "bad_test.ts": text });
    assert.equal(lines.at(-1), "0 passed, 1 failed, 0 skipped", lines.join("\n"));
    assert.equal(code, 1);
  });
}

test("scripts/test.ts: canary: a file that hangs is a failure", { timeout: 60_000 }, () => {
  const hang = `test("hangs", async () => { await new Promise((done) => setTimeout(done, 60_000)); });`;
  const { code, lines } = run({ "hang_test.ts": hang }, { WALRUST_TEST_TIMEOUT_MS: "2000" });
  assert.match(lines.at(-1) ?? "", /^0 passed, [12] failed, 0 skipped$/);
  assert.equal(code, 1);
});

test("scripts/test.ts: a folder without tests is a failure", { timeout: 60_000 }, () => {
  const { code, lines } = run({});
  assert.equal(lines.at(-1), "0 passed, 1 failed, 0 skipped");
  assert.equal(code, 1);
});

test("parseJunit: names with markup, failures and skips of all three runners", () => {
  const cases = parseJunit(`<testsuites><testcase name="a &lt;b> &quot;c&quot;" failure="x > y"/>
    <testcase name="f"><failure message="m">text <skipped/></failure></testcase>
    <testcase name="s"><skipped /></testcase>
    <testcase name="g" line="1"></testcase><testcase name="g &gt; inner"></testcase></testsuites>`);
  assert.deepEqual(cases, [
    { name: 'a <b> "c"', outcome: "passed" },
    { name: "f", outcome: "failed" },
    { name: "s", outcome: "skipped" },
    { name: "g > inner", outcome: "passed" },
  ]);
});
