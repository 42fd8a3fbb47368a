import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import test from "node:test";
import fc from "fast-check";
import { type Configuration, readConfiguration } from "../../src/cli/config.ts";
import { fileSettings, laterKeys } from "../../src/cli/settings.ts";
import { nearestWord } from "../../src/cli/suggestion.ts";
import { ConfigError } from "../../src/errors.ts";
import { systemFiles } from "../../src/runtime/system_files.ts";
import { checkProperty } from "../support/property.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";

const folder = temporaryDirectory("config");
const file = join(folder, "walrust.toml");
const secret = "hunter2-canary";

function read(text: string | Uint8Array, environment: Record<string, string> = {}): Configuration {
  writeFileSync(file, text);
  return readConfiguration({ file, files: systemFiles, environment: (name) => environment[name] })!;
}

interface Refusal {
  name: string;
  text: string | Uint8Array;
  /** `line:column`, or nothing where the file as a whole is refused. */
  at?: string;
  message: RegExp;
  hint?: RegExp;
  environment?: Record<string, string>;
}

const refusals: Refusal[] = [
  {
    name: "unknown key [S81]",
    text: "[sync]\n  wal_sync_intervall = 1",
    at: "2:3",
    message: /: unknown key wal_sync_intervall in \[sync\]$/,
    hint: /^did you mean wal_sync_interval\?$/,
  },
  {
    name: "the flag's name as a key [S81]",
    text: "[sync]\nmin-checkpoint-pages = 1",
    at: "2:1",
    message: /unknown key/,
    hint: /min_checkpoint_page_count\?/,
  },
  {
    name: "unknown key that resembles nothing [S81]",
    text: '[s3]\nbucket = "abc"\nxyz = 1',
    at: "3:1",
    message: /unknown key xyz/,
    hint: /^\[s3\] has bucket, endpoint, region$/,
  },
  {
    name: "unknown key in a database [S81]",
    text: '[[databases]]\npath = "a"\n[[databases]]\npth = "b"\npath = "b"',
    at: "4:1",
    message: /unknown key pth in \[\[databases\]\]/,
    hint: /did you mean path/,
  },
  {
    name: "unknown key in an inline table [S81]",
    text: 'databases = [{ path = "a" }, { path = "b", prefx = "]" }]',
    at: "1:44",
    message: /unknown key prefx/,
    hint: /did you mean prefix/,
  },
  {
    name: "key of another table [S81]",
    text: "[sync]\nhourly = 3",
    at: "2:1",
    message: /unknown key hourly/,
    hint: /belongs into \[retention\]/,
  },
  {
    name: "key outside its table [S81]",
    text: 'bucket = "x"',
    at: "1:1",
    message: /outside its table/,
    hint: /\[s3\]/,
  },
  {
    name: "retention in a database [S81]",
    text: '[[databases]]\npath = "a"\ndaily = 2',
    at: "3:1",
    message: /unknown key/,
  },
  {
    name: "unknown table [S81]",
    text: "\n[snyc]\n",
    at: "2:2",
    message: /unknown table \[snyc\]/,
    hint: /mean sync\?/,
  },
  {
    name: "unknown list [S81]",
    text: "[[database]]",
    at: "1:3",
    message: /\[\[database\]\]/,
    hint: /mean databases\?/,
  },
  { name: "prototype as a table [S81]", text: "[__proto__]\nx = 1", at: "1:2", message: /unknown table/ },
  {
    name: "prototype as a key [S81]",
    text: "[sync]\nconstructor = 1\n",
    at: "2:1",
    message: /unknown key constructor/,
  },
  { name: "table twice [S81]", text: '[s3]\nbucket = "abc"\n[sync]\n[s3]\n', at: "4:2", message: /redefine/ },
  { name: "key twice [S81]", text: "[sync]\non_startup = true\non_startup = false", at: "3:1", message: /redefine/ },
  { name: "no TOML [S81]", text: "[s3]\nbucket = s3://abc", at: "2:10", message: /invalid value/, hint: /in "quotes"/ },
  {
    name: "text for a number [S81]",
    text: '[sync]\nwal_sync_interval = "1s"',
    at: "2:21",
    message: /wal_sync_interval is a text, not a number$/,
    hint: /wal_sync_interval = 1$/,
  },
  {
    name: "number for a text [S81]",
    text: "[s3]\nbucket = 5",
    at: "2:10",
    message: /bucket is a whole number, not a text/,
  },
  { name: "fraction [S81]", text: "[retention]\ndaily = 1.5", at: "2:9", message: /fraction, not a whole number/ },
  {
    name: "text for truth [S81]",
    text: '[sync]\non_startup = "true"',
    at: "2:14",
    message: /a text, not true or false/,
  },
  {
    name: "date for a number [S81]",
    text: "[sync]\nsnapshot_interval=2026-01-01",
    at: "2:19",
    message: /a date or time/,
  },
  { name: "nan [S81]", text: "[sync]\nsnapshot_interval = nan", at: "2:21", message: /"NaN" is not seconds/ },
  {
    name: "value for a table [S81]",
    text: "sync = 5",
    at: "1:8",
    message: /sync is a whole number, not a table: write \[sync\]/,
  },
  { name: "list for a table [S81]", text: "[[s3]]", at: "1:3", message: /s3 is an array/ },
  { name: "table for a list [S81]", text: '[databases]\npath = "a"', at: "1:2", message: /write \[\[databases\]\]/ },
  { name: "table for a text [S81]", text: "[s3.bucket]\nx = 1", at: "1:5", message: /bucket is a table, not a text/ },
  {
    name: "text for a database [S81]",
    text: 'databases = ["a.db"]',
    at: "1:14",
    message: /a text, not a table with a path/,
  },
  {
    name: "no path [S81]",
    text: '[[databases]]\npath = "a"\n[[databases]]',
    at: "3:3",
    message: /has no path/,
    hint: /path = /,
  },
  { name: "empty path", text: '[[databases]]\npath = ""', at: "2:8", message: /path is empty/ },
  { name: "path of two lines", text: '[[databases]]\npath = "a\\nb"', at: "2:8", message: /more than one line/ },
  ...["..", "a//b", "/a", "/", "a/./b", "a\\u007fb"].map((prefix): Refusal => ({
    name: `prefix ${prefix}`,
    text: `[[databases]]\npath = "a"\nprefix = "${prefix}"`,
    at: "3:10",
    message: /is no name for a database/,
  })),
  {
    name: "zero interval [S89]",
    text: "[sync]\nwal_sync_interval = 0",
    at: "2:21",
    message: /is not seconds, at least 0\.01/,
  },
  {
    name: "negative interval [S89]",
    text: "[sync]\nsnapshot_interval = -1",
    at: "2:21",
    message: /"-1" is not seconds/,
  },
  { name: "huge interval [S89]", text: "[sync]\ncheckpoint_interval = 1e300", at: "2:23", message: /is not seconds/ },
  { name: "zero pages [S89]", text: "[sync]\nmin_checkpoint_page_count = 0", at: "2:29", message: /at least 1/ },
  { name: "zero threshold [S89]", text: "[sync]\nwal_truncate_threshold_pages = 0", at: "2:32", message: /at least 1/ },
  { name: "zero retention [S89]", text: "[retention]\nhourly = 0", at: "2:10", message: /at least 1/ },
  { name: "negative retention [S89]", text: "[retention]\nmonthly = -12", at: "2:11", message: /at least 1/ },
  {
    name: "zero interval of one database [S89]",
    text: '[[databases]]\npath = "a"\ncheckpoint_interval = 0',
    at: "3:23",
    message: /at least 0\.1/,
  },
  {
    name: "no bucket",
    text: '[s3]\nbucket = "ftp://x"',
    at: "2:10",
    message: /bucket: not a bucket: .*ftp/,
    hint: /s3:\/\//,
  },
  { name: "no URL", text: '[s3]\nendpoint = "localhost:9000"', at: "2:12", message: /endpoint: not an http/ },
  { name: "no region", text: '[s3]\nregion = "eu west"', at: "2:10", message: /region: .* is no region/ },
  {
    name: "password in the endpoint [S84]",
    text: `[s3]\nendpoint = "https://user:${secret}@host"`,
    at: "2:12",
    message: /endpoint: the endpoint holds more/,
  },
  {
    name: "credentials in the file [S84]",
    text: `[s3]\nsecret_access_key = "${secret}"`,
    at: "2:1",
    message: /unknown key/,
    hint: /AWS_SECRET_ACCESS_KEY/,
  },
  { name: "secret in what is no TOML [S84]", text: `[s3]\nkey = "${secret}`, at: "2:7", message: /unfinished string/ },
  {
    name: "secret in a variable [S84]",
    text: '[s3]\nendpoint = "${ENDPOINT}"\n',
    at: "2:12",
    message: /endpoint: "\$\{ENDPOINT\}" gives nothing that can be used/,
    environment: { ENDPOINT: `ftp://${secret}` },
  },
  {
    name: "secret in a variable for a prefix [S84]",
    text: '[[databases]]\npath = "a"\nprefix = "../${NAME}"\n',
    at: "3:10",
    message: /"\.\.\/\$\{NAME\}" is no name/,
    environment: { NAME: secret },
  },
  {
    name: "unset variable [S83]",
    text: '[s3]\nbucket = "s3://${BUCKET}/x"',
    at: "2:10",
    message: /bucket: the variable BUCKET is not set/,
    hint: /set BUCKET/,
  },
  {
    name: "empty variable [S83]",
    text: '[[databases]]\npath = "${DIR}/app.db"',
    at: "2:8",
    message: /path: the variable DIR is not set/,
    environment: { DIR: "" },
  },
  {
    name: "unset variable of one of two [S83]",
    text: '[s3]\nbucket = "${A}${B}"',
    at: "2:10",
    message: /variable B/,
    environment: { A: "x" },
  },
  {
    name: "variable without end [S83]",
    text: '[s3]\nbucket = "${A"',
    at: "2:10",
    message: /names no variable/,
    environment: { A: "x" },
  },
  {
    name: "variable of a shell [S83]",
    text: '[s3]\nbucket = "${A:-b}"',
    at: "2:10",
    message: /names no variable/,
    environment: { A: "x" },
  },
  {
    name: "retry, not yet",
    text: "[sync]\n[retry]\nmax_retries = 5",
    at: "2:2",
    message: /\[retry\] is not supported by this version/,
  },
  {
    name: "webhooks, not yet [S84]",
    text: `\n\n[[webhooks]]\nurl = "https://x"\nsecret = "${secret}"`,
    at: "3:3",
    message: /\[\[webhooks\]\] is not supported by this version/,
  },
  ...Object.keys(laterKeys).map((key): Refusal => ({
    name: `${key}, not yet`,
    text: `[sync]\n${key} = ${key === "compact_after_snapshot" ? "true" : "60"}`,
    at: "2:1",
    message: new RegExp(`${key} is not supported by this version`),
    hint: new RegExp(`remove it, or write ${key} = (0|false)$`),
  })),
  { name: "not UTF-8", text: new Uint8Array([0x61, 0xff, 0xfe]), message: /cannot be read: it is not UTF-8/ },
  { name: "too large", text: "#".repeat(1024 * 1024 + 1), message: /no file of at most 1024 KB/ },
];

for (const { name, text, at, message, hint, environment } of refusals) {
  test(`readConfiguration: refused with its place: ${name}`, () => {
    assert.throws(() => read(text, environment), (error) => {
      assert.ok(error instanceof ConfigError, String(error));
      assert.equal(error.exitCode, 2);
      if (at !== undefined) {
        assert.equal(error.message.slice(0, `${file}:${at}: `.length), `${file}:${at}: `, error.message);
        assert.equal(error.data.place, `${file}:${at}`);
      } else assert.ok(error.message.startsWith(file), error.message);
      assert.match(error.message, message);
      assert.match(error.hint ?? "", hint ?? /./);
      assert.ok(
        !`${error.message} ${error.hint} ${JSON.stringify(error.data)}`.includes(secret),
        "secrets stay unseen",
      );
      return true;
    });
  });
}

test("readConfiguration: everything that may stand in it, with its place", () => {
  const { settings, databases } = read(
    `[s3]\nbucket = "s3://\${BUCKET}/x"\nendpoint = "https://s3.example.com"\nregion = "eu-central-1"\n` +
      "[sync]\nwal_sync_interval = 0.25\nsnapshot_interval = 0\ncheckpoint_interval = 5\non_startup = false\n" +
      "min_checkpoint_page_count = 1_500\nwal_truncate_threshold_pages = 0x100\nvalidation_interval = 86400\n" +
      "compact_after_snapshot = true\ncompact_interval = 7200\n" +
      Object.entries(laterKeys).map(([key, value]) => `${key} = ${value}\n`).join("") +
      "[retention]\nhourly = 1\ndaily = 2\nweekly = 3\nmonthly = 4\n" +
      `[[databases]]\npath = "/data/*.db"\n[[databases]]\npath = 'b$\${x}.db'\nprefix = "team/b/"\nsnapshot_interval = 60\n`,
    { BUCKET: "my-bucket" },
  );
  const values = Object.fromEntries([...settings].map(([name, { value }]) => [name, value]));
  assert.deepEqual(values, {
    bucket: "s3://my-bucket/x",
    endpoint: "https://s3.example.com",
    region: "eu-central-1",
    walSyncInterval: 250,
    snapshotInterval: 0,
    checkpointInterval: 5000,
    onStartup: false,
    minCheckpointPages: 1500,
    walTruncateThreshold: 256,
    validationInterval: 86_400_000,
    compactAfterSnapshot: true,
    compactInterval: 7_200_000,
    hourly: 1,
    daily: 2,
    weekly: 3,
    monthly: 4,
  });
  assert.equal(Object.keys(values).length, fileSettings.length, "each of the table is tried here");
  assert.equal(settings.get("region")!.place, `${file}:4:10`);
  assert.deepEqual(databases.map(({ path, prefix }) => [path.value, prefix?.value ?? null]), [
    ["/data/*.db", null],
    ["b${x}.db", "team/b"],
  ]);
  assert.equal(databases[1].settings.get("snapshotInterval")!.value, 60_000);
  assert.deepEqual(databases[0].settings.size, 0);
});

test("readConfiguration: an empty file says nothing, an absent one is none, a named one must be there", () => {
  assert.deepEqual(read(""), { file, settings: new Map(), databases: [] });
  const source = { files: systemFiles, environment: () => undefined };
  const before = process.cwd();
  const elsewhere = join(folder, "elsewhere");
  mkdirSync(elsewhere);
  process.chdir(elsewhere);
  try {
    assert.equal(readConfiguration({ ...source, file: undefined }), null);
    writeFileSync("walrust.toml", "[sync]\non_startup = 1");
    assert.throws(() => readConfiguration({ ...source, file: undefined }), /^ConfigError: walrust\.toml:2:14: /);
  } finally {
    process.chdir(before);
  }
  for (const [path, message] of [["absent.toml", /no such file/], ["elsewhere", /no file of at most/]] as const) {
    assert.throws(() => readConfiguration({ ...source, file: join(folder, path) }), (error) => {
      assert.ok(error instanceof ConfigError && message.test(error.message), String(error));
      return true;
    });
  }
});

test("readConfiguration: a file that this user may not read", () => {
  writeFileSync(file, "");
  const open = (): never => {
    throw Object.assign(new Error("EACCES: permission denied"), { code: "EACCES" });
  };
  assert.throws(
    () => readConfiguration({ file, files: { ...systemFiles, open }, environment: () => undefined }),
    /^ConfigError: .*walrust\.toml cannot be read: EACCES/,
  );
});

test("readConfiguration: any text ends in a configuration or in an error of ours with its place", () => {
  const good =
    `[s3]\nbucket = "s3://\${STAGE}/x"\nregion = "r-1"\n[sync]\nwal_sync_interval = 0.5\non_startup = true\n` +
    `max_changes = 0\n[retention]\nhourly = 3\n[[databases]]\npath = "a\${STAGE}.db"\nprefix = "p"\n`;
  const words = [
    "[",
    "]",
    "=",
    ".",
    '"',
    "'",
    "${",
    "}",
    "\n",
    "#",
    "1",
    "-",
    "true",
    "{",
    ",",
    "[[retry]]",
    "x",
    "\\",
  ];
  const edit = fc.tuple(fc.nat(good.length), fc.nat(4), fc.constantFrom(...words, "[sync]", '"""', "\u0000", "é"));
  const seen = { good: 0, refused: 0 };
  checkProperty(
    fc.property(fc.array(edit, { minLength: 1, maxLength: 3 }), (edits) => {
      let text = good;
      for (const [at, length, word] of edits) text = text.slice(0, at) + word + text.slice(at + length);
      try {
        read(text, { STAGE: "stage" });
        seen.good++;
      } catch (error) {
        assert.ok(error instanceof ConfigError, String(error));
        assert.match(error.message.slice(file.length), /^:\d+:\d+: \S/, error.message);
        assert.equal(typeof error.hint, "string");
        seen.refused++;
      }
    }),
    1500,
  );
  assert.ok(seen.good > 10 && seen.refused > 500, JSON.stringify(seen));
});

test("readConfiguration: a file as large as one may be, with fifteen thousand databases", () => {
  const entry = (i: number): string => `[[databases]]\npath = "/data/${i}.db"\nwal_sync_interval = 5\n`;
  const { databases } = read(Array.from({ length: 15_000 }, (_, i) => entry(i)).join(""));
  assert.equal(databases.length, 15_000);
  assert.equal(databases[14_999].path.place, `${file}:${14_999 * 3 + 2}:8`);
});

test("readConfiguration: canary, a good file is not refused", () => {
  assert.doesNotThrow(() => read('[s3]\nbucket = "abc"\n[[databases]]\npath = "a"\nprefix = "ok"'));
});

test("nearestWord: slips of the fingers are found, other words are not", () => {
  const known = ["path", "prefix", "wal_sync_interval", "snapshot_interval"];
  for (
    const [word, meant] of [
      ["paht", "path"],
      ["PATH", "path"],
      ["prefixes", "prefix"],
      ["wal-sync-interval", "wal_sync_interval"],
      ["sync_interval", "wal_sync_interval"],
      ["snapshot", "snapshot_interval"],
      ["x", null],
      ["", null],
      ["retention", null],
      ["quite_something_else", null],
    ] as const
  ) {
    assert.equal(nearestWord(word, known), meant, word);
  }
});
