import assert from "node:assert/strict";
import { readFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import { pragmas, pragmaSql } from "../../src/cli/command_pragma.ts";
import { exitCodes } from "../../src/errors.ts";
import { openDatabase } from "../../src/runtime/system_database.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { walrustInProcess } from "./in_process.ts";

const folder = temporaryDirectory("pragma");

/** What SQLite says of each setting, after `sql` was run in a new database. */
function settingsAfter(name: string, sql: string): Record<string, string> {
  const database = openDatabase(join(folder, name));
  try {
    database.exec(sql);
    database.exec("CREATE TABLE t (n); INSERT INTO t VALUES (1)");
    return Object.fromEntries(pragmas.map((pragma) => {
      const [row] = database.prepare(`PRAGMA ${pragma.name}`).all() as Record<string, unknown>[];
      return [pragma.name, String(Object.values(row)[0])];
    }));
  } finally {
    database.close();
  }
}

const expected = {
  page_size: "4096",
  journal_mode: "wal",
  synchronous: "1",
  wal_autocheckpoint: "1000",
  busy_timeout: "5000",
  cache_size: "-16000",
  mmap_size: "134217728",
};

for (const comments of ["true", "false"]) {
  test(`pragma: SQLite takes what is printed and has it afterwards, --comments ${comments}`, async () => {
    const { code, stdout, stderr } = await walrustInProcess(["pragma", "--comments", comments]);
    assert.deepEqual([code, stderr], [0, ""]);
    assert.equal(stdout.includes("--"), comments === "true");
    assert.deepEqual(settingsAfter(`${comments}.db`, `PRAGMA page_size = 512;\n${stdout}`), expected);
  });
}

test("pragma: the order counts, and what is said to be kept is kept", () => {
  settingsAfter("kept.db", pragmaSql(true));
  const database = openDatabase(join(folder, "kept.db"));
  const now = (name: string): string => {
    const [row] = database.prepare(`PRAGMA ${name}`).all() as Record<string, unknown>[];
    return String(Object.values(row)[0]);
  };
  database.exec("PRAGMA cache_size = 7; PRAGMA busy_timeout = 7");
  for (const { name, isKept } of pragmas) {
    if (isKept) assert.equal(now(name), expected[name as keyof typeof expected], name);
  }
  database.close();
  const reversed = pragmaSql(false).trimEnd().split("\n").reverse().join("\n");
  assert.notDeepEqual(settingsAfter("reversed.db", `PRAGMA page_size = 512;\n${reversed}`), expected, "canary");
});

test("pragma -o: a new file, never one that is there", async () => {
  const file = join(folder, "out.sql");
  assert.equal((await walrustInProcess(["pragma", "-o", file, "--quiet"])).stdout, "");
  assert.equal(readFileSync(file, "utf8"), pragmaSql(true));
  writeFileSync(file, "mine");
  for (const words of [[], ["--json"]]) {
    const { code, stdout, stderr } = await walrustInProcess(["pragma", "-o", file, ...words]);
    assert.deepEqual([code, stdout], [exitCodes.config, ""]);
    assert.match(stderr, /already exists[^]*hint/);
  }
  assert.equal(readFileSync(file, "utf8"), "mine");
  const nowhere = await walrustInProcess(["pragma", "-o", join(folder, "nowhere/out.sql")]);
  assert.deepEqual([nowhere.code, nowhere.stdout], [exitCodes.config, ""]);
  assert.match(nowhere.stderr, /cannot be written: .*ENOENT[^]*hint: /);
  assert.ok(statSync(file).size > 0);
});

test("pragma --json: the SQL, and each setting with its meaning", async () => {
  const { stdout } = await walrustInProcess(["pragma", "--json"]);
  const { file, sql, pragmas: listed } = JSON.parse(stdout);
  assert.equal(file, null);
  assert.equal(sql, pragmaSql(true));
  assert.deepEqual(listed.map(({ name }: { name: string }) => name), Object.keys(expected));
  for (const { meaning } of listed) assert.ok(meaning.join(" ").length > 40);
});
