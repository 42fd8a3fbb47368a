import fc from "fast-check";
import assert from "node:assert/strict";
import { test } from "node:test";
import { ConfigError } from "../../src/errors.ts";
import {
  databaseName,
  lineagePrefix,
  type ObjectKey,
  parseBucketUrl,
  parseKey,
  printable,
  renderKey,
  seqHex,
} from "../../src/format/keys.ts";
import { checkProperty } from "../support/property.ts";
import { vectorObjects } from "../support/vectors.ts";

const root = "backups/app/";
const lineage = "d3dc938d604247e99e7d2d741a3ab94b";

test("parseKey: every key of the golden buckets is ours and is written the same again", () => {
  const kinds = new Map<string, number>();
  for (const { key } of vectorObjects()) {
    const parsed = parseKey(root, key);
    assert.ok(parsed !== null, key);
    assert.equal(renderKey(root, parsed), key);
    kinds.set(parsed.kind, (kinds.get(parsed.kind) ?? 0) + 1);
  }
  assert.deepEqual(Object.fromEntries(kinds), { delta: 48, snapshot: 8, level: 2, state: 4 });
});

test("renderKey: the layout of the format, with and without a lineage", () => {
  const cases: [ObjectKey, string][] = [
    [{ kind: "delta", lineage, seq: 26n }, `lineages/${lineage}/0000/000000000000001a.hadbp`],
    [{ kind: "snapshot", lineage: null, seq: 5n }, "0001/0000000000000005.hadbp"],
    [
      { kind: "level", lineage, level: 1, min: 12n, max: 13n },
      `lineages/${lineage}/levels/L1/000000000000000c-000000000000000d.hadbp`,
    ],
    [
      { kind: "level", lineage: null, level: 16, min: 1n, max: 1n },
      "levels/L16/0000000000000001-0000000000000001.hadbp",
    ],
    [{ kind: "lineage", lineage }, `lineages/${lineage}/lineage.json`],
    [{ kind: "retention", lineage }, `lineages/${lineage}/retention.json`],
    [{ kind: "retention", lineage: null }, "retention.json"],
    [{ kind: "state" }, "state.json"],
  ];
  for (const [key, text] of cases) {
    assert.equal(renderKey(root, key), root + text);
    assert.deepEqual(parseKey(root, root + text), key);
    assert.equal(parseKey("other/", root + text), null);
  }
  assert.equal(lineagePrefix(root, null), root);
  assert.equal(lineagePrefix(root, lineage), `${root}lineages/${lineage}/`);
});

test("renderKey: values that no key can hold are the caller's mistake", () => {
  assert.throws(() => seqHex(-1n), RangeError);
  assert.throws(() => seqHex(1n << 64n), RangeError);
  assert.equal(seqHex((1n << 64n) - 1n), "ffffffffffffffff");
  assert.throws(() => lineagePrefix(root, "../../etc"), RangeError);
  assert.throws(() => renderKey(root, { kind: "level", lineage, level: 0, min: 1n, max: 2n }), RangeError);
  assert.throws(() => renderKey(root, { kind: "level", lineage, level: 1, min: 3n, max: 2n }), RangeError);
});

const sound = `${root}lineages/${lineage}/0000/000000000000001a.hadbp`;

const hostile = [
  "",
  root,
  `${root}lineages/`,
  `${root}../0000/0000000000000001.hadbp`,
  `${root}0000/../0000000000000001.hadbp`,
  `${root}lineages/../0000/0000000000000001.hadbp`,
  `${root}0000/000000000000001A.hadbp`,
  `${root}0000/00000000000001.hadbp`,
  `${root}0000/00000000000000001.hadbp`,
  `${root}0000/0000000000000001.hadbp\n`,
  `${root}0000/0000000000000001.hadbp\r`,
  `${root}0000/0000000000000001.hadbp\0`,
  `${root}0000/0000000000000001.hadbp/`,
  `${root}0000/0000000000000001.hadbp.tmp`,
  `${root}0000/000000000000000\u0661.hadbp`,
  `${root}0002/0000000000000001.hadbp`,
  `${root}0000//0000000000000001.hadbp`,
  `${root}levels/L0/0000000000000001-0000000000000002.hadbp`,
  `${root}levels/L01/0000000000000001-0000000000000002.hadbp`,
  `${root}levels/L100/0000000000000001-0000000000000002.hadbp`,
  `${root}levels/L1/0000000000000003-0000000000000002.hadbp`,
  `${root}lineages/${lineage.toUpperCase()}/0000/0000000000000001.hadbp`,
  `${root}lineages/${lineage}0/0000/0000000000000001.hadbp`,
  `${root}lineages/__proto__/lineage.json`,
  `${root}lineages/${lineage}/state.json`,
  `${root}lineage.json`,
  `${root}state.json\u001b[2J`,
  `${root}STATE.JSON`,
  `${root}${"a/".repeat(512)}`,
  `${root}${"0".repeat(1024)}`,
  `backups/app\0/state.json`,
  "backups/application/state.json",
];

test("[S74] parseKey: keys that are not exactly ours are ignored", () => {
  for (const key of hostile) assert.equal(parseKey(root, key), null, printable(key));
});

test("[S74] printable: nothing that steers a terminal comes through", () => {
  assert.equal(printable("a\u001b[31m\r\n\0b"), "a\\u{1b}[31m\\u{d}\\u{a}\\u{0}b");
  assert.equal(printable("\u202egnp.exe\u2066"), "\\u{202e}gnp.exe\\u{2066}");
  assert.equal(printable("\ud800 \u0085"), "\\u{d800} \\u{85}");
  assert.equal(printable("Bücher/日本 😀.db"), "Bücher/日本 😀.db");
  checkProperty(
    // deno-lint-ignore no-control-regex
    fc.property(fc.string({ unit: "binary" }), (text) => !/[\u0000-\u001f\u007f-\u009f\u202e]/.test(printable(text))),
    300,
  );
});

test("[S74] parseKey: what it accepts is written back the same, whatever was changed in it", () => {
  checkProperty(
    fc.property(
      fc.nat({ max: sound.length - 1 }),
      fc.nat({ max: 3 }),
      fc.string({ unit: "binary", maxLength: 4 }),
      (at, removed, inserted) => {
        const text = sound.slice(0, at) + inserted + sound.slice(at + removed);
        const key = parseKey(root, text);
        return key === null || renderKey(root, key) === text;
      },
    ),
    2000,
  );
  checkProperty(
    fc.property(
      fc.bigInt({ min: 0n, max: (1n << 64n) - 1n }),
      fc.constantFrom("delta" as const, "snapshot" as const),
      fc.option(fc.constant(lineage)),
      (seq, kind, of) => {
        assert.deepEqual(parseKey(root, renderKey(root, { kind, lineage: of, seq })), { kind, lineage: of, seq });
      },
    ),
    200,
  );
});

test("databaseName: the file name without its last extension", () => {
  const cases: [string, string][] = [
    ["/var/lib/app.db", "app"],
    ["app", "app"],
    ["./a.b.sqlite", "a.b"],
    [".hidden", ".hidden"],
    ["dir.d/my data +%ü.db", "my data +%ü"],
  ];
  for (const [path, name] of cases) assert.equal(databaseName(path), name);
  for (const path of ["", "/", "..", "a/.", "..db", "a\nb.db", "dir/"]) {
    assert.throws(() => databaseName(path), ConfigError, JSON.stringify(path));
  }
});

test("parseBucketUrl: S3 with and without scheme and prefix, and directories", () => {
  const cases: [string, ReturnType<typeof parseBucketUrl>][] = [
    ["s3://bucket", { scheme: "s3", bucket: "bucket", prefix: "" }],
    ["s3://bucket/", { scheme: "s3", bucket: "bucket", prefix: "" }],
    ["S3://bucket/a/b//", { scheme: "s3", bucket: "bucket", prefix: "a/b/" }],
    ["my.bucket-1/pre fix+%", { scheme: "s3", bucket: "my.bucket-1", prefix: "pre fix+%/" }],
    ["file:///var/backups/", { scheme: "file", directory: "/var/backups", prefix: "" }],
    ["file:///var/my%20backups", { scheme: "file", directory: "/var/my backups", prefix: "" }],
    ["file:///a b#c?d", { scheme: "file", directory: "/a b#c?d", prefix: "" }],
    ["file:///", { scheme: "file", directory: "/", prefix: "" }],
  ];
  for (const [text, url] of cases) assert.deepEqual(parseBucketUrl(text), url);
});

test("parseBucketUrl: what is no bucket is refused with what to write instead", () => {
  const refused = [
    "",
    "s3://",
    "s3:///key",
    "ab",
    "gs://bucket",
    "https://bucket.s3.amazonaws.com",
    "/var/backups",
    "./backups",
    "../x",
    "s3://bucket/../other",
    "s3://bucket/a//b",
    "s3://bucket/./b",
    "s3://buc ket",
    "s3://bucket/a\nb",
    "file://relative/path",
    "file:///a%00b",
    "file:///a%2fb",
    "file:///100%",
  ];
  for (const text of refused) {
    assert.throws(
      () => parseBucketUrl(text),
      (error) => error instanceof ConfigError && error.exitCode === 2 && /s3:\/\/bucket/.test(error.hint ?? ""),
      JSON.stringify(text),
    );
  }
});

test("canary: the sound key that the hostile ones are made of is accepted", () => {
  assert.notEqual(parseKey(root, sound), null);
});
