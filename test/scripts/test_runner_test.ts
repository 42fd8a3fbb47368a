import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import process from "node:process";
import { test } from "node:test";
import { parseJunit, skippedLines } from "../../scripts/test_results.ts";
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

const needy = `import { skipReason } from "${projectDirectory}/test/support/need.ts";
  const skip = skipReason("needs abacus, which is not installed");
  test("one", { skip }, () => {}); test("two", { skip }, () => {}); skipReason("needs abacus, which is not installed");`;

test("scripts/test.ts: says why tests were skipped, also when a whole file was", { timeout: 60_000 }, () => {
  const { code, lines } = run({ "a_test.ts": `${needy} test("good", () => {});`, "b_test.ts": needy });
  const skipped = lines.slice(lines.findIndex((line) => line.startsWith("skipped")), -2);
  const from = skipped.findIndex((line) => line.includes("a_test.ts"));
  const order = from === 0 ? ["a_test.ts", "b_test.ts"] : ["b_test.ts", "a_test.ts"];
  assert.deepEqual(
    skipped.map((line) => line.replace(/tests of .*\/(\w+\.ts)/, "tests of $1")),
    order.flatMap((file) => [
      `skipped under ${runtimeName}: 2 of ${
        file === "a_test.ts" ? 3 : 2
      } tests of ${file}: needs abacus, which is not installed`,
      "  one",
      "  two",
    ]),
  );
  assert.equal(lines.at(-1), "1 passed, 0 failed, 4 skipped");
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

test("scripts/test.ts: prints what a file says of its failure, not its tests that passed", { timeout: 60_000 }, () => {
  const text = `test("sound", () => {}); test("bad", () => { throw new Error("the reason"); });`;
  const { lines } = run({ "bad_test.ts": text });
  assert.ok(lines.includes("     failed: bad"), lines.join("\n"));
  assert.ok(lines.some((line) => line.includes("| ") && line.includes("the reason")), lines.join("\n"));
  assert.ok(!lines.some((line) => /✔ sound|\(pass\) sound|sound \.\.\./.test(line)), lines.join("\n"));
});

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
    <testcase name="t"><skipped type="skipped" message="true"/></testcase>
    <testcase name="u"><skipped type="skipped" message="needs &lt;x>"/></testcase>
    <testcase name="g" line="1"></testcase><testcase name="g &gt; inner"></testcase></testsuites>`);
  assert.deepEqual(cases, [
    { name: 'a <b> "c"', outcome: "passed" },
    { name: "f", outcome: "failed" },
    { name: "s", outcome: "skipped" },
    { name: "t", outcome: "skipped" },
    { name: "u", outcome: "skipped", reason: "needs <x>" },
    { name: "g > inner", outcome: "passed" },
  ]);
});

test("skippedLines: by the report's reason, else by those that the file told, each once", () => {
  const skipped = (name: string, reason?: string) =>
    ({ name, outcome: "skipped", ...(reason ? { reason } : {}) }) as const;
  const cases = [
    skipped("a", "needs x"),
    skipped("b"),
    skipped("c", "needs x"),
    { name: "d", outcome: "passed" } as const,
  ];
  const output = "skip: needs x\nother skip: no\nskip: needs y\r\nskip: needs x\n";
  assert.deepEqual(skippedLines("bun", "f.ts", { cases, output }), [
    "skipped under bun: 2 of 4 tests of f.ts: needs x",
    "  a",
    "  c",
    "skipped under bun: 1 of 4 tests of f.ts: needs x; needs y",
    "  b",
  ]);
  assert.deepEqual(skippedLines("deno", "f.ts", { cases: [skipped("b")], output: "" }), [
    "skipped under deno: 1 of 1 tests of f.ts: no reason given",
    "  b",
  ]);
  assert.deepEqual(skippedLines("node", "f.ts", { cases: cases.slice(3), output }), []);
});
