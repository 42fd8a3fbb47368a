/** Reads the JUnit file that each of the three test runners writes, and says what was skipped and why. */

/** One test that ran or was skipped. */
export interface TestCase {
  readonly name: string;
  readonly outcome: "passed" | "failed" | "skipped";
  /** Why it was skipped, where the report says so: Node's does. */
  readonly reason?: string;
}

/** Begins a line in the output of a test file that gives a reason for skipping tests. */
export const skipMark = "skip: ";

const entities: Record<string, string> = { amp: "&", lt: "<", gt: ">", quot: '"', apos: "'", "#10": " ", "#39": "'" };

function unescape(text: string): string {
  return text.replace(/&(#?\w+);/g, (whole, name: string) => entities[name] ?? whole);
}

/** The tests of a JUnit file. Deno also lists each `describe` as a test of its own; those are left out. */
export function parseJunit(xml: string): TestCase[] {
  const cases: TestCase[] = [];
  for (const part of xml.split("<testcase ").slice(1)) {
    const name = unescape(/^[^]*?\bname="([^"]*)"/.exec(part)?.[1] ?? "?");
    const tag = part.slice(0, endOfTag(part));
    const body = tag.endsWith("/") ? "" : part.slice(tag.length, part.indexOf("</testcase>"));
    const isFailed = /<(failure|error)\b/.test(body);
    const skipped = isFailed ? null : /<skipped\b(?:[^>]*?\bmessage="([^"]*)")?/.exec(body);
    // Without a reason Node writes `true`.
    const said = skipped?.[1] === undefined || skipped[1] === "true" ? {} : { reason: unescape(skipped[1]) };
    cases.push({ name, outcome: isFailed ? "failed" : skipped !== null ? "skipped" : "passed", ...said });
  }
  return cases.filter(({ name }) => !cases.some((other) => other.name.startsWith(`${name} > `)));
}

/** What was skipped of a file: for each reason a line that people look for, and below it the tests' names. */
export function skippedLines(
  runtime: string,
  file: string,
  { cases, output }: { cases: readonly TestCase[]; output: string },
): string[] {
  const marked = output.split("\n").filter((line) => line.startsWith(skipMark)).map((line) =>
    line.slice(skipMark.length).trimEnd()
  );
  // Without a report that knows, each test of the file may have been skipped for each of the file's reasons.
  const otherwise = [...new Set(marked)].join("; ") || "no reason given";
  const groups = new Map<string, string[]>();
  for (const { name, outcome, reason = otherwise } of cases) {
    if (outcome === "skipped") groups.set(reason, [...groups.get(reason) ?? [], name]);
  }
  return [...groups].flatMap(([reason, names]) => [
    `skipped under ${runtime}: ${names.length} of ${cases.length} tests of ${file}: ${reason}`,
    ...names.map((name) => `  ${name}`),
  ]);
}

/** Where the opening tag ends: the first `>` outside of quotes (Node does not escape `>` within them). */
function endOfTag(text: string): number {
  let isQuoted = false;
  for (let i = 0; i < text.length; i++) {
    if (text[i] === '"') isQuoted = !isQuoted;
    else if (text[i] === ">" && !isQuoted) return i;
  }
  return text.length;
}
