/** Reads the JUnit file that each of the three test runners writes. */

/** One test that ran or was skipped. */
export interface TestCase {
  readonly name: string;
  readonly outcome: "passed" | "failed" | "skipped";
}

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
    cases.push({ name, outcome: isFailed ? "failed" : /<skipped\b/.test(body) ? "skipped" : "passed" });
  }
  return cases.filter(({ name }) => !cases.some((other) => other.name.startsWith(`${name} > `)));
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
