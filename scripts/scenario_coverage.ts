/** Which tests show which scenario of test/scenarios.md: reads the catalogue and the names of tests. */

/** A thing that goes wrong, and what must happen then. */
export interface Scenario {
  /** `S37`; `SC` for the group without numbers. */
  readonly number: string;
  /** Letter of its group. */
  readonly group: string;
  readonly text: string;
}

/** test/scenarios.md. */
export interface Catalogue {
  readonly scenarios: readonly Scenario[];
  /** What a scenario that no test shows waits for, by number. */
  readonly waiting: ReadonlyMap<string, string>;
}

/** Name of a test, and where it stands. */
export interface NamedTest {
  readonly file: string;
  readonly name: string;
}

/** One scenario with what shows it. */
export interface Coverage extends Scenario {
  readonly tests: readonly NamedTest[];
  /** `later`: its group is not due. */
  readonly status: "shown" | "missing" | "waits" | "later";
}

/** Groups of which every scenario must be shown. */
export const dueGroups = "ABCDEFGHJLMN";

/** Reads the catalogue; throws for a number given twice and a waiting one that is not in it. */
export function parseCatalogue(markdown: string): Catalogue {
  const scenarios = new Map<string, Scenario>();
  const waiting = new Map<string, string>();
  for (const section of markdown.split(/^## /m).slice(1)) {
    const group = /^([A-Z])\. /.exec(section)?.[1];
    for (const item of section.split(/^- /m).slice(1)) {
      const [, number, text] = /^\*\*(S\w+)\*\*\s+([^]*)$/.exec(item) ?? [];
      if (number === undefined) throw new Error(`no scenario: - ${item.trim()}`);
      const words = text.trim().replace(/\s+/g, " ");
      if (words === "") throw new Error(`${number} has no text`);
      const isKnown = scenarios.has(number);
      if (group === undefined) {
        if (!isKnown) throw new Error(`${number} waits and is not in the catalogue`);
        waiting.set(number, words);
      } else if (isKnown) throw new Error(`${number} stands twice in the catalogue`);
      else scenarios.set(number, { number, group, text: words });
    }
  }
  return { scenarios: [...scenarios.values()], waiting };
}

/** What may become the name of a test: the first argument of `test`, or the `name` of a row in a table of tests. */
const testName = /(?:\btest\(\s*|\bname:\s*)(?:"((?:[^"\\\n]|\\.)*)"|`((?:[^`\\]|\\.)*)`)/g;

/** A line of a comment: a test that stands there does not run. */
const commentLine = /^\s*(?:\/\/|\/?\*).*$/gm;

/** Names of the tests of a file. */
export function testNames(source: string): string[] {
  return [...source.replace(commentLine, "").matchAll(testName)].map(([, plain, template]) => plain ?? template);
}

/** The scenarios that a test's name claims to show, such as `S37`. */
export function scenariosOf(name: string): string[] {
  return [...name.matchAll(/\[(S\w+)\]/g)].map(([, number]) => number);
}

/** Every scenario of the catalogue with the tests that name it. */
export function coverageOf({ scenarios, waiting }: Catalogue, tests: readonly NamedTest[]): Coverage[] {
  return scenarios.map((scenario) => {
    const own = tests.filter(({ name }) => scenariosOf(name).includes(scenario.number));
    let status: Coverage["status"] = "later";
    if (own.length > 0) status = "shown";
    else if (waiting.has(scenario.number)) status = "waits";
    else if (dueGroups.includes(scenario.group)) status = "missing";
    return { ...scenario, tests: own, status };
  });
}

/** What must not be: empty when all is well. */
export function problemsOf(catalogue: Catalogue, tests: readonly NamedTest[]): string[] {
  const known = new Set(catalogue.scenarios.map(({ number }) => number));
  const coverage = coverageOf(catalogue, tests);
  const unknown = tests.flatMap(({ file, name }) =>
    scenariosOf(name).filter((number) => !known.has(number)).map((number) =>
      `${number} is not in the catalogue: ${file}: ${name}`
    )
  );
  const missing = coverage.filter(({ status }) => status === "missing").map(({ number, text }) =>
    `${number} is shown by no test: ${text}`
  );
  const late = coverage.filter(({ number, status }) => status === "shown" && catalogue.waiting.has(number)).map((
    { number, tests: [{ file }] },
  ) => `${number} is shown by ${file} and still stands among those that wait in test/scenarios.md`);
  return [...unknown, ...missing, ...late];
}
