import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { test } from "node:test";
import { coverageOf, parseCatalogue, problemsOf, scenariosOf, testNames } from "../../scripts/scenario_coverage.ts";
import { projectDirectory } from "../support/runtime.ts";

/** A mark that scripts/scenarios.ts does not find in this file. */
const mark = (number: string): string => `[${number}]`;

const markdown = `# Scenarios
- no scenario: it stands before the groups

## A. First

- **S1** Something → an answer
  on two lines.
- **S30** Another → exit 3.

## K. Not due

- **S91** Later → later.

## Waiting

- **S30** waits for a command.
`;
const catalogue = parseCatalogue(markdown);
const file = "test/a_test.ts";
const one = { file, name: `${mark("S1")} thing: does it` };

test("parseCatalogue: numbers, groups and whole texts, and what is waited for", () => {
  assert.deepEqual(catalogue.scenarios, [
    { number: "S1", group: "A", text: "Something → an answer on two lines." },
    { number: "S30", group: "A", text: "Another → exit 3." },
    { number: "S91", group: "K", text: "Later → later." },
  ]);
  assert.deepEqual([...catalogue.waiting], [["S30", "waits for a command."]]);
});

test("parseCatalogue: a number given twice, without text or only among those that wait is refused", () => {
  assert.throws(() => parseCatalogue(markdown.replace("**S30** Another", "**S1** Another")), /S1 stands twice/);
  assert.throws(() => parseCatalogue(markdown.replace("Another → exit 3.", "")), /S30 has no text/);
  assert.throws(() => parseCatalogue(markdown.replace("**S30** waits", "**S31** waits")), /S31 waits/);
  assert.throws(() => parseCatalogue(markdown.replace("**S30** Another", "S30 Another")), /no scenario: - S30/);
});

test("testNames: names on the same line, on the next, in templates and in tables; no comments, no other strings", () => {
  const source = `
    test("plain \\"quoted\\"", () => {});
    test(
      "on the next line",
    );
    test(\`template \${value}\`, { timeout }, async () => {});
    const cases = [{ name: "of a row", code: 3 }];
    // test("in a comment", () => {});
    /** test("in a docstring") */
    assert.ok(true, "a message ${mark("S1")}");
    latest("not a test");`;
  assert.deepEqual(testNames(source), [
    `plain \\"quoted\\"`,
    "on the next line",
    "template ${value}",
    "of a row",
  ]);
});

test("scenariosOf: every mark of a name, wherever it stands", () => {
  assert.deepEqual(scenariosOf(`${mark("S1")} ${mark("SC")} thing: ${mark("S30")} does [it]`), ["S1", "SC", "S30"]);
});

test("coverageOf: shown, waiting, missing and not due", () => {
  const status = (...tests: typeof one[]): string[] => coverageOf(catalogue, tests).map(({ status }) => status);
  assert.deepEqual(status(one), ["shown", "waits", "later"]);
  assert.deepEqual(status({ file, name: mark("S91") }), ["missing", "waits", "shown"]);
  assert.deepEqual(coverageOf(catalogue, [one])[0].tests, [one]);
});

test("problemsOf: canary: a scenario without test, an unknown number and one that need not wait are named", () => {
  assert.deepEqual(problemsOf(catalogue, [one]), []);
  assert.deepEqual(problemsOf(catalogue, []), ["S1 is shown by no test: Something → an answer on two lines."]);
  const unknown = { file, name: `${mark("S777")} thing` };
  assert.deepEqual(problemsOf(catalogue, [one, unknown]), [
    `S777 is not in the catalogue: ${file}: ${unknown.name}`,
  ]);
  const [late] = problemsOf(catalogue, [one, { file, name: mark("S30") }]);
  assert.match(late, /^S30 is shown by test\/a_test\.ts and still stands/);
});

test("test/scenarios.md: all 123 numbers, each once, and the group without numbers", () => {
  const { scenarios } = parseCatalogue(readFileSync(`${projectDirectory}/test/scenarios.md`, "utf8"));
  const expected = Array.from({ length: 123 }, (_, i) => `S${i + 1}`);
  assert.deepEqual(new Set(scenarios.map(({ number }) => number)), new Set([...expected, "SC"]));
});
