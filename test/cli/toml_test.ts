/** The places of keys and values, against the parsing library: what it reads at a path must stand at that place. */
import assert from "node:assert/strict";
import test from "node:test";
import fc from "fast-check";
import { parse } from "smol-toml";
import { isTable, kindOf, TomlDocument } from "../../src/cli/toml.ts";
import { locateToml, placeId, type TomlPath } from "../../src/cli/toml_places.ts";
import { ConfigError } from "../../src/errors.ts";
import { checkProperty } from "../support/property.ts";

const options = { integersAsBigInt: true } as const;
const unquote = (quoted: string): string => Object.keys(parse(`${quoted} = 0`))[0];

/** Every path below `value` that a key or a bracket names. */
function pathsOf(value: unknown, path: TomlPath = []): { path: TomlPath; value: unknown }[] {
  const children: [string | number, unknown][] = Array.isArray(value)
    ? [...value.entries()]
    : isTable(value)
    ? Object.entries(value)
    : [];
  return children.flatMap(([name, child]) => [
    { path: [...path, name], value: child },
    ...pathsOf(child, [...path, name]),
  ]);
}

/** Throws where a place is missing, is one too many, or is not where key and value stand; `located` is looked through. */
function checkPlaces(text: string, located: string = text): void {
  const places = locateToml(located, unquote);
  const expected = pathsOf(parse(text, options));
  assert.deepEqual([...places.keys()].sort(), expected.map(({ path }) => placeId(path)).sort());
  for (const { path, value } of expected) {
    const place = places.get(placeId(path))!;
    const name = path[path.length - 1];
    if (typeof name === "string") assert.equal(keyAt(text, place.key), name);
    if (place.value === null) assert.ok(kindOf(value) === "a table" || kindOf(value) === "an array");
    else assert.deepEqual(parse(`x = ${text.slice(place.value.start, place.value.end)}`, options).x, value);
  }
}

/** The key that begins at `start`. */
function keyAt(text: string, start: number): string {
  const spelling = /^(?:"(?:[^"\\]|\\.)*"|'[^']*'|[A-Za-z0-9_-]+)/.exec(text.slice(start));
  assert.ok(spelling, `no key at ${start} of ${JSON.stringify(text)}`);
  return Object.keys(parse(`${spelling[0]} = 0`))[0];
}

const pieces = [
  "]",
  "[",
  "[[",
  "{",
  "}",
  "=",
  "#",
  ",",
  ".",
  "'",
  '\\"',
  "\\\\",
  "é",
  "😀",
  " ",
  "\\n",
  "a",
  "${A}",
  "\t",
];
const inside = (left: readonly string[]): fc.Arbitrary<string> =>
  fc.array(fc.constantFrom(...pieces.filter((piece) => !left.includes(piece))), { maxLength: 6 }).map((all) =>
    all.join("")
  );
const basicText = inside([]);
const literalText = inside(["'"]);
const scalar = fc.oneof(
  fc.constantFrom("true", "false", "0", "-17", "1_000", "0xDEAD_beef", "3.5e-2", "inf", "nan", "+nan"),
  fc.constantFrom("1979-05-27 07:32:00", "1979-05-27T07:32:00.5-07:00", "1979-05-27", "07:32:00"),
  basicText.map((text) => `"${text}"`),
  literalText.map((text) => `'${text}'`),
  basicText.map((text) => `"""\n${text} "" \n${text}\\\n   ${text}"""`),
  fc.constantFrom('""""""', '"""""a"""""', '"""\\""""', "''''''", "'''''a'''''", "'''\\'''", `""" "" ' [x] # """"`),
  literalText.map((text) => `'''${text}\r\n'' ${text}'''`),
);
const gap = fc.constantFrom("", " ", "\n", "\t# ]}\"'\n", "\r\n  ");
const blank = fc.constantFrom("", " ", "\t ");

/** A name that no other has, spelled in one of the ways there are. */
const spelled = (name: string): fc.Arbitrary<string> =>
  fc.oneof(
    fc.constant(name),
    basicText.filter((text) => !text.includes("\t")).map((text) => `"${name}${text}"`),
    literalText.map((text) => `'${text}${name}'`),
  );

function value(depth: number): fc.Arbitrary<string> {
  if (depth === 0) return scalar;
  const item = value(depth - 1);
  const array = fc.tuple(fc.array(fc.tuple(gap, item, gap), { maxLength: 3 }), fc.boolean()).map(([items, hasComma]) =>
    `[${items.map((parts) => parts.join("")).join(",")}${hasComma && items.length > 0 ? "," : ""}]`
  );
  const pair = fc.integer({ min: 0, max: 2 }).chain((i) => fc.tuple(gap, pairLine(`i${i}`, item), gap));
  const table = fc.uniqueArray(pair, { maxLength: 3, selector: ([, text]) => /i\d/.exec(text)?.[0] }).map((pairs) =>
    `{${pairs.map((parts) => parts.join("")).join(",")}}`
  );
  return fc.oneof(scalar, array, table);
}

function pairLine(name: string, itsValue: fc.Arbitrary<string>): fc.Arbitrary<string> {
  const key = fc.tuple(fc.array(spelled(name), { minLength: 1, maxLength: 3 }), blank)
    .map(([parts, around]) => parts.join(`${around}.${around}`));
  return fc.tuple(key, blank, itsValue, blank).map(([text, before, its, after]) => `${text}${before}=${after}${its}`);
}

/** Tables `t0`, `t1`, … and arrays of tables, each with a few pairs and perhaps a table inside. */
const document = fc.array(
  fc.tuple(
    fc.constantFrom("table", "array", "inside"),
    fc.nat(3),
    fc.array(fc.nat(3).chain((i) => pairLine(`k${i}`, value(2))), { maxLength: 3 }),
    gap,
  ),
  { maxLength: 6 },
).map((tables) =>
  tables.map(([kind, i, pairs, end]) => {
    const header = kind === "table" ? `[t${i}]` : kind === "array" ? `[[ a${i} ]] # [x]` : `[a${i}."in.side"]`;
    return `${header}\n${pairs.join("\n")}\n${end}\n`;
  }).join("")
);

/** True where the library takes the text. */
function isToml(text: string): boolean {
  try {
    parse(text, options);
    return true;
  } catch {
    return false;
  }
}

test("locateToml: texts that look like something else, dotted and quoted keys, arrays of tables", () => {
  const texts = [
    "",
    "# only a comment",
    "a = 1",
    "\n\n[a]\n b . 'c.d' . \"e\\u0041\" = { f = [1, [2, { g.h = '#' }]], } # x\n",
    '[[d]]\nx = "[y]"\n[d.e]\nz=1\n[[d.f]]\n[[d.f]]\nv = """\n[no]\n= """"\n[[d]]\nx = \'#\'\n[[d.f]]',
    "p = '''\n[[databases]]\npath = 1\n'''\nq = 1979-05-27 07:32:00 # ,\nr = [\n# ]\n1, # ]\n]\n",
    '"" = 1\n[" "]\n"" = ""',
    "a.b.c = 1\na.b.d = 2\n[a.e]\n",
    "# \u2028 x = 1\ny = '\u2028'",
    'k = """""a"""""\nl = \'\'\'\'\'b\'\'\'\'\'\nm = """\\""""\nn = 2',
  ];
  for (const text of texts) {
    checkPlaces(text);
    checkPlaces(text.replaceAll(/(?<!\r)\n/g, "\r\n"));
  }
});

test("locateToml: whatever the library takes, every key and value is found where it stands", () => {
  let taken = 0;
  checkProperty(
    fc.property(document, (text) => {
      if (!isToml(text)) return;
      if (text.trim() !== "") taken++;
      checkPlaces(text);
    }),
    1500,
  );
  assert.ok(taken > 300, `only ${taken} of the texts were TOML`);
});

test("locateToml: texts with a piece removed, doubled or put in end in an error of the library or in right places", () => {
  let taken = 0;
  checkProperty(
    fc.property(
      document,
      fc.nat(),
      fc.nat(4),
      fc.constantFrom(...pieces, '"""', "'''", "\n"),
      (text, at, length, piece) => {
        const start = at % (text.length + 1);
        const changed = text.slice(0, start) + piece + text.slice(start + length);
        if (!isToml(changed)) return;
        taken++;
        checkPlaces(changed);
      },
    ),
    1500,
  );
  assert.ok(taken > 50, `only ${taken} of the texts were TOML`);
});

test("locateToml: any text ends, valid or not", () => {
  checkProperty(
    fc.property(fc.array(fc.constantFrom(...pieces, '"', "\n", "'''", "k"), { maxLength: 40 }), (parts) => {
      locateToml(parts.join(""), (quoted) => quoted);
    }),
    3000,
  );
});

test("locateToml: canary, places of another text are noticed", () => {
  assert.throws(() => checkPlaces("a = 1\nb = 2", "a = 1\n\nb = 2"));
  assert.throws(() => checkPlaces("a = '[b]'", "a = 2\n[b]"));
});

test("TomlDocument: line and column from 1, of keys and of values", () => {
  const document = new TomlDocument("x.toml", "[s3]\r\n  bucket = 'b'\n\n[[d]]\n[[d]]\n'é'.\"ü\" = [1,\n 2]\n");
  assert.equal(document.where(["s3"]), "x.toml:1:2");
  assert.equal(document.where(["s3", "bucket"], "key"), "x.toml:2:3");
  assert.equal(document.where(["s3", "bucket"]), "x.toml:2:12");
  assert.equal(document.where(["d", 1]), "x.toml:5:3");
  assert.equal(document.where(["d", 1, "é", "ü"], "key"), "x.toml:6:5");
  assert.equal(document.where(["d", 1, "é", "ü", 1]), "x.toml:7:2");
  assert.equal(document.where(["nowhere"]), "x.toml");
});

test("TomlDocument: what is no TOML is refused with its place, without the file's lines [S81] [S84]", () => {
  const cases: [text: string, place: string][] = [
    ["[s3]\nbucket = s3://x", "x.toml:2:10: "],
    ["[s3]\na = 1\n\n[s3]\n", "x.toml:4:2: "],
    ["a = 1\na = 2", "x.toml:2:1: "],
    ["[a]\nb.c = 1\n[a.b]", "x.toml:3:2: "],
    ['secret = "hunter2', "x.toml:1:10: "],
    ["secret = hunter2", "x.toml:1:10: "],
    ["a =  x1:y", "x.toml:1:6: "],
    [`a = ${"[".repeat(100)}`, "x.toml:1:"],
  ];
  for (const [text, place] of cases) {
    assert.throws(() => new TomlDocument("x.toml", text), (error) => {
      assert.ok(error instanceof ConfigError, text);
      assert.equal(error.exitCode, 2);
      assert.ok(error.message.startsWith(place), `${text}: ${error.message}`);
      assert.ok(!/hunter2|\n/.test(error.message + error.hint + JSON.stringify(error.data)), error.message);
      return true;
    });
  }
});
