/**
 * Prints which tests show which scenario of test/scenarios.md.
 *
 *   node scripts/scenarios.ts           a line for each scenario, then its tests
 *   node scripts/scenarios.ts --quiet   only what is wrong, and the sum
 *
 * Ends with 1 when a scenario that is due has no test, or a test names one that is not in the catalogue.
 */
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { coverageOf, type NamedTest, parseCatalogue, problemsOf, testNames } from "./scenario_coverage.ts";

const project = fileURLToPath(new URL("..", import.meta.url));
const textMax = 60;

/** Every test of the project; suites that several files run stand in files of their own, so all of them are read. */
function namedTests(): NamedTest[] {
  const files = readdirSync(join(project, "test"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts") && !name.split("/").includes("fixtures")).sort();
  return files.flatMap((name) => {
    const file = `test/${name}`;
    return testNames(readFileSync(join(project, file), "utf8")).map((name) => ({ file, name }));
  });
}

const { values } = parseArgs({ options: { quiet: { type: "boolean", default: false } } });
const catalogue = parseCatalogue(readFileSync(join(project, "test/scenarios.md"), "utf8"));
const tests = namedTests();
const coverage = coverageOf(catalogue, tests);
const counts = { shown: 0, waits: 0, missing: 0, later: 0 };
for (const { number, group, text, tests: own, status } of coverage) {
  counts[status]++;
  if (values.quiet) continue;
  const short = text.length > textMax ? `${text.slice(0, textMax - 1)}…` : text;
  console.log(`${number.padEnd(5)}${group}  ${status.padEnd(8)}${short}`);
  for (const { file, name } of own) console.log(`             ${file}: ${name}`);
  const reason = catalogue.waiting.get(number);
  if (reason !== undefined) console.log(`             ${reason}`);
}
const problems = problemsOf(catalogue, tests);
for (const problem of problems) console.log(`PROBLEM: ${problem}`);
const sums = Object.entries(counts).map(([status, count]) => `${count} ${status}`).join(", ");
console.log(`${coverage.length} scenarios: ${sums}`);
if (problems.length > 0) process.exitCode = 1;
