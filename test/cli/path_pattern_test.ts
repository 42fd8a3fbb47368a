import assert from "node:assert/strict";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import process from "node:process";
import test from "node:test";
import fc from "fast-check";
import { expandPattern, isPattern, matchesPart } from "../../src/cli/path_pattern.ts";
import { ConfigError } from "../../src/errors.ts";
import { systemFiles } from "../../src/runtime/system_files.ts";
import { checkProperty } from "../support/property.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";

const folder = temporaryDirectory("pattern");
for (
  const path of [
    "a.db",
    "a.db-wal",
    "a.db-shm",
    "b.db",
    "b.db-journal",
    ".hidden.db",
    "[x].db",
    "notes.txt",
    "only/c.db-wal",
    "one/d.db",
    "one/two/e.db",
    "one/two/.git/f.db",
    "one/.walrust-d.db/index.db",
    ".walrust-a.db/index.db",
    "state/a.db-0011/index.db",
    "bucket/app/0001/x.db",
  ]
) {
  mkdirSync(dirname(join(folder, path)), { recursive: true });
  writeFileSync(join(folder, path), "");
}
mkdirSync(join(folder, "directory.db"));
symlinkSync(folder, join(folder, "one/loop"));
symlinkSync(join(folder, "a.db"), join(folder, "one/link.db"));
symlinkSync(join(folder, "nowhere"), join(folder, "one/dangling.db"));

/** Paths below the folder. */
function found(pattern: string, excluded: string[] = []): string[] {
  const { paths } = expandPattern(systemFiles, `${folder}/${pattern}`, excluded.map((name) => join(folder, name)));
  return paths.map((path) => path.slice(folder.length + 1));
}

test("expandPattern: files only, no sidecars, no hidden names, no dangling links [S88]", () => {
  assert.deepEqual(found("*.db"), ["[x].db", "a.db", "b.db"]);
  assert.deepEqual(found("*"), ["[x].db", "a.db", "b.db", "notes.txt"]);
  assert.deepEqual(found("?.db"), ["a.db", "b.db"]);
  assert.deepEqual(found("[x].d?"), ["[x].db"]);
  assert.deepEqual(found(".h*"), [".hidden.db"]);
  assert.deepEqual(found("one/*.db"), ["one/d.db", "one/link.db"]);
  assert.deepEqual(found("o*/t*/e.db"), ["one/two/e.db"]);
  assert.deepEqual(found("o*//./d.db"), ["one/d.db"]);
  assert.deepEqual(found("nowhere/*.db"), []);
  assert.deepEqual(found("a.db/*"), []);
});

test("expandPattern: never a file of our own state, however it is asked for [S88]", () => {
  for (const pattern of [".walrust-*/*", ".walrust-a.db/*.db", "one/.walrust-*/*", "**/.walrust-d.db/*"]) {
    assert.deepEqual(found(pattern), [], pattern);
  }
});

test("expandPattern: ** is any number of directories; links that lead back end, excluded directories are left out", () => {
  assert.deepEqual(found("one/**/*.db", ["state", "bucket"]), [
    "one/d.db",
    "one/link.db",
    "one/loop/[x].db",
    "one/loop/a.db",
    "one/loop/b.db",
    "one/two/e.db",
  ]);
  assert.deepEqual(found("**/e.db"), ["one/two/e.db"]);
  assert.deepEqual(found("**/one/**/**/e.db"), found("**/e.db"));
  assert.deepEqual(found("state/**"), ["state/a.db-0011/index.db"]);
  assert.deepEqual(found("s*/**", ["state"]), []);
  assert.deepEqual(found("*/**/x.db", ["bucket"]), []);
  // A directory that the pattern itself names is where its author wants to look.
  assert.deepEqual(found("bucket/**/x.db", ["bucket"]), ["bucket/app/0001/x.db"]);
});

test("expandPattern: from the working directory, and from the root", () => {
  const before = process.cwd();
  process.chdir(folder);
  try {
    assert.deepEqual(expandPattern(systemFiles, "*.db").paths, ["[x].db", "a.db", "b.db"]);
    assert.deepEqual(expandPattern(systemFiles, "./one/d.*").paths, ["./one/d.db"]);
    assert.deepEqual(expandPattern(systemFiles, "one/../?.db").paths, ["one/../a.db", "one/../b.db"]);
  } finally {
    process.chdir(before);
  }
  assert.deepEqual(expandPattern(systemFiles, "/*").paths.filter((path) => !/^\/[^/]+$/.test(path)), []);
});

test("expandPattern: a sidecar that matches alone is named", () => {
  assert.deepEqual(expandPattern(systemFiles, `${folder}/only/*`), {
    paths: [],
    sidecar: join(folder, "only/c.db-wal"),
  });
  assert.deepEqual(expandPattern(systemFiles, `${folder}/*.sqlite`), { paths: [], sidecar: null });
});

test("expandPattern: a directory that cannot be read is no empty one, and there is an end of names", () => {
  const denied = { ...systemFiles };
  denied.list = (path) => {
    if (path.includes("two")) throw new Error(`EACCES: permission denied, scandir '${path}'`);
    return systemFiles.list(path);
  };
  const refused = (pattern: string, files: typeof systemFiles, code: string): void => {
    assert.throws(() => expandPattern(files, pattern), (error) => {
      assert.ok(error instanceof ConfigError && error.code === code, String(error));
      assert.equal(typeof error.hint, "string");
      return true;
    });
  };
  refused(`${folder}/one/**/*.db`, denied, "pattern_unreadable");
  const endless = { ...systemFiles };
  endless.list = (path) =>
    path.endsWith("only/") ? Array(200_001).fill({ name: "x", type: "other" }) : systemFiles.list(path);
  refused(`${folder}/only/*`, endless, "pattern_too_wide");
});

test("isPattern: only * and ?", () => {
  for (const path of ["*.db", "a/?.db", "**"]) assert.equal(isPattern(path), true);
  for (const path of ["a.db", "[a].db", "{a,b}.db", "a\\b"]) assert.equal(isPattern(path), false);
});

/** The same by regular expression. */
function expected(pattern: string, name: string): boolean {
  if (name.startsWith(".") && !pattern.startsWith(".")) return false;
  const source = pattern.replace(/[.[\]()+^$|\\{}]/g, "\\$&").replaceAll("?", ".").replace(/\*+/g, ".*");
  return new RegExp(`^${source}$`, "su").test(name);
}

test("matchesPart: as a regular expression says, for any pattern and name", () => {
  const letters = fc.constantFrom("a", "b", ".", "*", "?", "😀", "[", "\\");
  const word = fc.array(letters, { maxLength: 8 }).map((all) => all.join(""));
  let matched = 0;
  checkProperty(
    fc.property(
      word,
      fc.array(fc.constantFrom("a", "b", ".", "😀", "[", "\\", "*"), { maxLength: 8 }),
      (pattern, name) => {
        const text = name.join("");
        assert.equal(matchesPart(pattern, text), expected(pattern, text), `${pattern} ${text}`);
        if (expected(pattern, text)) matched++;
      },
    ),
    5000,
  );
  assert.ok(matched > 100, `${matched} matches`);
});

test("matchesPart: canary, a pattern that would keep a backtracking engine busy for years ends", () => {
  assert.equal(matchesPart("*a".repeat(100), `${"a".repeat(254)}b`), false);
  assert.equal(matchesPart("*a".repeat(100), "a".repeat(254)), true);
});
