import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import { dirname, join, normalize } from "node:path";
import { test } from "node:test";
import { projectDirectory } from "./support/runtime.ts";

/** Lower layers first: an import may skip layers, never go up. */
const layers = ["errors", "format", "storage", "replication", "daemon", "cli"];

interface Source {
  /** Path from the top of the clone. */
  readonly path: string;
  readonly text: string;
}

interface Import {
  readonly target: string;
  readonly isType: boolean;
}

const sources: Source[] = [
  ...readdirSync(join(projectDirectory, "src"), { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts")).map((name) => `src/${name}`),
  "mod.ts",
  "cli.ts",
].map((path) => ({ path, text: readFileSync(join(projectDirectory, path), "utf8") }));

/** Without comments; line breaks stay, and so do strings. */
function code(text: string): string {
  return text.replace(/("(?:[^"\\\n]|\\.)*"|`(?:[^`\\]|\\.)*`)|\/\*[^]*?\*\/|\/\/.*/g, (whole, string) => {
    return string ?? whole.replace(/[^\n]/g, "");
  });
}

function importsOf({ path, text }: Source): Import[] {
  const found: Import[] = [];
  const statement = /\b(?:im|ex)port\s+(type\s+)?(?:[\w$*{][^;"]*?\sfrom\s+)?"([^"]+)"|\bimport\(\s*"([^"]+)"\s*\)/g;
  for (const [, type, fixed, lazy] of code(text).matchAll(statement)) {
    const name = fixed ?? lazy ?? "";
    const target = name.startsWith(".") ? normalize(join(dirname(path), name)) : name;
    found.push({ target, isType: type !== undefined });
  }
  return found;
}

function layerOf(path: string): string | null {
  return /^src\/(\w+)/.exec(path)?.[1] ?? null;
}

/** What is wrong with one import, or null. */
function problemOf(path: string, { target, isType }: Import): string | null {
  const from = layerOf(path);
  if (from === null) return target.startsWith("src/runtime/") && path === "mod.ts" && !isType ? "an adapter" : null;
  if (target.startsWith("node:")) return from === "runtime" ? null : "a Node built-in";
  if (!target.includes("/") || !target.startsWith("src/")) {
    return /^(src|test|scripts|mod\.ts|cli\.ts)/.test(target) ? "not below src" : null;
  }
  if (!target.endsWith(".ts")) return "without .ts";
  const to = layerOf(target);
  if (to === from || to === "version") return null;
  if (to === "runtime") return from === "cli" || (isType && target === "src/runtime/types.ts") ? null : "an adapter";
  if (from === "runtime") return to === "errors" ? null : `${to} from the runtime`;
  const [lower, upper] = [layers.indexOf(to ?? ""), layers.indexOf(from)];
  if (lower < 0 || upper < 0) return "in no known layer";
  return lower < upper ? null : `${to} from ${from}`;
}

const forbidden: Record<string, RegExp> = {
  "Deno or Bun": /\b(?:Deno|Bun)\s*[.[]/,
  "the clock": /\bDate\.now\b|\bnew Date\(\s*\)|\bperformance\.now\b/,
  "a timer": /\bset(?:Timeout|Interval|Immediate)\b|\bAbortSignal\.timeout\b/,
  "randomness": /\bMath\.random\b|\bgetRandomValues\b|\brandomUUID\b/,
  "the network": /\bglobalThis\.fetch\b|\bnew WebSocket\b/,
  "Buffer": /\bBuffer\./,
};

function wordProblems({ path, text }: Source): string[] {
  if (path.startsWith("src/runtime/") || path === "cli.ts") return [];
  const clean = code(text).replace(/(["'])(?:[^"'\\\n]|\\.)*\1/g, '""');
  const words = Object.entries(forbidden).filter(([, pattern]) => pattern.test(clean)).map(([what]) => what);
  // `fetch` is fine where it is the one handed in: a property, parameter or function of this file.
  const isOwn = /\bfetch\s*[,}:]|\b(?:const|let|function\*?)\s+fetch\b/.test(clean);
  if (/(?<![\w.#])fetch\(/.test(clean) && !isOwn) words.push("the network");
  return words.map((what) => `${path} uses ${what}`);
}

function importProblems(source: Source): string[] {
  return importsOf(source).flatMap((item) => {
    const problem = problemOf(source.path, item);
    return problem === null ? [] : [`${source.path} imports ${item.target}: ${problem}`];
  });
}

test("layers: no import goes up, and none reaches an adapter that is not the command line's", () => {
  assert.deepEqual(sources.flatMap(importProblems), []);
});

test("layers: outside src/runtime and cli.ts there is no clock, timer, randomness, network or runtime's name", () => {
  assert.deepEqual(sources.flatMap(wordProblems), []);
});

test("layers: the imports are really read", () => {
  const count = sources.flatMap(importsOf).length;
  assert.ok(sources.length > 20 && count > 50, `${count} imports in ${sources.length} files`);
  const unread = sources.filter((source) => /^import /m.test(code(source.text)) && importsOf(source).length === 0);
  assert.deepEqual(unread.map(({ path }) => path), []);
});

// Canaries: each of these must be found.
const wrong: [string, string][] = [
  ["src/format/a.ts", `import { S3Store } from "../storage/s3.ts";`],
  ["src/format/a.ts", `import type { Store } from "../storage/object_store.ts";`],
  ["src/storage/a.ts", `import {\n  restore,\n} from "../replication/restore.ts";`],
  ["src/replication/a.ts", `export * from "../daemon/watch.ts";`],
  ["src/daemon/a.ts", `const x = await import("../cli/main.ts");`],
  ["src/storage/a.ts", `import { systemFiles } from "../runtime/system_files.ts";`],
  ["src/storage/a.ts", `import { Clock } from "../runtime/types.ts";`],
  ["src/storage/a.ts", `import type { X } from "../runtime/system.ts";`],
  ["src/cli/a.ts", `import fs from "node:fs";`],
  ["src/cli/a.ts", `import x from "../../mod.ts";`],
  ["src/format/a.ts", `import { WalrustError } from "../errors";`],
  ["src/runtime/a.ts", `import { parseKey } from "../format/keys.ts";`],
  ["src/helpers/a.ts", `import { WalrustError } from "../errors.ts";`],
  ["mod.ts", `export { systemRuntime } from "./src/runtime/system.ts";`],
];

for (const [path, text] of wrong) {
  test(`layers: canary: ${path}: ${text.replace(/\s+/g, " ")}`, () => {
    assert.equal(importProblems({ path, text }).length, 1);
  });
}

test("layers: canary: forbidden words are found, but not in comments and strings", () => {
  for (const word of ["Date.now()", "new Date()", "setTimeout(f)", "Math.random()", "Deno.args", "await fetch(url)"]) {
    assert.equal(wordProblems({ path: "src/format/a.ts", text: `const x = ${word};` }).length, 1, word);
    assert.equal(
      wordProblems({ path: "src/format/a.ts", text: `// ${word}\n/* ${word} */ const x = "${word}";` }).length,
      0,
    );
    assert.equal(wordProblems({ path: "src/runtime/a.ts", text: `const x = ${word};` }).length, 0);
  }
});
