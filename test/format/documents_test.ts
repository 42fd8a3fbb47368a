import fc from "fast-check";
import assert from "node:assert/strict";
import { test } from "node:test";
import {
  documentSizeMax,
  parseLineage,
  parseRetention,
  parseState,
  renderLineage,
  renderRetention,
  renderState,
} from "../../src/format/documents.ts";
import { type JsonValue, parseJson } from "../../src/format/json.ts";
import { checkProperty } from "../support/property.ts";
import { vectorObjects } from "../support/vectors.ts";
import { refusal } from "./changesets.ts";

const object = "app/state.json";
const lineage = "d3dc938d604247e99e7d2d741a3ab94b";

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

test("parseState: the golden pointers, with a checksum above 2^53 to its last digit", () => {
  const states = vectorObjects().filter(({ key }) => key.endsWith("state.json"));
  assert.equal(states.length, 4);
  for (const { vector, key, bytes } of states) {
    const state = parseState(bytes, key);
    const digits = /"db_checksum":([0-9]+)/.exec(new TextDecoder().decode(bytes))?.[1];
    assert.equal(String(state.dbChecksum), digits);
    assert.ok((state.dbChecksum ?? 0n) > 1n << 53n);
    assert.equal(state.currentSeq, vector === "owned-renumbered" ? 17n : 20n);
    assert.equal(state.lineageId === null, vector === "owned-bare" || vector === "owned-leveled");
    assert.match(state.lastSnapshot ?? "", /^2026-/);
    assert.deepEqual(parseState(renderState(state), key), state);
  }
});

test("renderState: compact, sorted, the Rust field set; the claim only while there is one", () => {
  const state = {
    lineageId: lineage,
    claim: null,
    currentSeq: 12n,
    dbChecksum: 0xffff_ffff_ffff_ffffn,
    lastSnapshot: "2026-01-15T10:30:00Z",
  };
  const text = new TextDecoder().decode(renderState(state));
  assert.equal(
    text,
    '{"current_seq":12,"current_txid":0,"db_checksum":18446744073709551615,"last_snapshot":"2026-01-15T10:30:00Z",' +
      `"lineage_id":"${lineage}","wal_checksum_chain":null,"wal_generation":0,"wal_offset":0,"wal_salt":null}`,
  );
  const claimed = renderState({ ...state, claim: "0".repeat(32) });
  assert.equal(parseState(claimed, object).claim, "0".repeat(32));
});

test("parseState: every field may be absent, unknown ones are ignored", () => {
  const empty = { lineageId: null, claim: null, currentSeq: null, dbChecksum: null, lastSnapshot: null };
  assert.deepEqual(parseState(utf8("{}"), object), empty);
  assert.deepEqual(parseState(utf8('{"new":{"deep":[1,2.5e3]},"lineage_id":null}'), object), empty);
  assert.deepEqual(parseState(renderState(empty), object), empty);
});

test("[S77] parseState: wrong types, identities and sizes are refused", () => {
  const cases = [
    '{"lineage_id":"../../etc"}',
    `{"lineage_id":"${lineage.toUpperCase()}"}`,
    '{"lineage_id":7}',
    '{"claim":["x"]}',
    '{"current_seq":-1}',
    '{"current_seq":18446744073709551616}',
    '{"current_seq":1.0}',
    '{"current_seq":1e3}',
    '{"current_seq":"1"}',
    '{"db_checksum":true}',
    `{"last_snapshot":"${"x".repeat(300)}"}`,
    "[]",
    "null",
    '"text"',
  ];
  for (const text of cases) assert.equal(refusal(() => parseState(utf8(text), object)), "field", text);
  const large = new Uint8Array(documentSizeMax + 1).fill(0x20);
  assert.equal(refusal(() => parseState(large, object)), "too_large");
});

test("[S77] parseJson: duplicates, depth, overlong numbers and what is no JSON are refused", () => {
  const cases = [
    "",
    "{",
    '{"a":1,"a":2}',
    '{"a":1,"\\u0061":2}',
    '{"a":1,}',
    "[1,]",
    "[1 2]",
    "01",
    "-",
    "+1",
    ".5",
    "1.",
    "NaN",
    "nul",
    "'a'",
    '"a',
    '"\\',
    '"\n"',
    '"\\x"',
    "1 1",
    "{}x",
    "\u00a01",
    `${"[".repeat(100_000)}`,
    `${"[".repeat(40)}${"]".repeat(40)}`,
    "1".repeat(41),
    `1e${"9".repeat(60)}`,
    "// comment\n1",
    "{a:1}",
  ];
  for (const text of cases) assert.equal(refusal(() => parseJson(utf8(text), object)), "json", text.slice(0, 60));
  assert.equal(refusal(() => parseJson(new Uint8Array([0x22, 0xff, 0x22]), object)), "json");
});

test("[S77] parseJson: __proto__ is a name like any other", () => {
  const value = parseJson(utf8('{"__proto__":{"lineage_id":"x"},"constructor":1}'), object);
  assert.ok(value instanceof Map);
  assert.equal(({} as Record<string, unknown>).lineage_id, undefined);
  assert.deepEqual([...value.keys()], ["__proto__", "constructor"]);
  assert.equal(parseState(utf8(`{"__proto__":{"lineage_id":"${lineage}"}}`), object).lineageId, null);
});

/** The same value as `JSON.parse` gives it, where it can. */
function plain(value: JsonValue): unknown {
  if (typeof value === "bigint") return Number(value);
  if (Array.isArray(value)) return value.map(plain);
  if (!(value instanceof Map)) return value;
  // Entries and not assignment, so that __proto__ stays a name.
  return Object.fromEntries([...value].map(([name, member]) => [name, plain(member)]));
}

test("parseJson: agrees with JSON.parse on whatever JSON.stringify writes", () => {
  checkProperty(
    fc.property(fc.jsonValue({ maxDepth: 6 }), fc.constantFrom(undefined, 1, "\t"), (value, indent) => {
      const text = JSON.stringify(value, null, indent);
      assert.deepEqual(
        plain(parseJson(utf8(text), object)),
        JSON.parse(text, (_, member) => Object.is(member, -0) ? 0 : member),
      );
    }),
    300,
  );
});

test("parseJson: refuses exactly the damaged texts that JSON.parse refuses, duplicates aside", () => {
  const base = '{"a":[1,-2.5e3,true,null,"x\\n\\u00e9"],"b":{"c":18446744073709551615}}';
  checkProperty(
    fc.property(fc.nat({ max: base.length - 1 }), fc.nat({ max: 2 }), fc.string({ maxLength: 2 }), (at, gone, more) => {
      const text = base.slice(0, at) + more + base.slice(at + gone);
      const code = refusal(() => parseJson(utf8(text), object));
      let legal = true;
      try {
        JSON.parse(text);
      } catch {
        legal = false;
      }
      if (code === "sound") assert.ok(legal, text);
      else assert.ok(!legal || /"([ab])".*"\1"/.test(text), text);
    }),
    1500,
  );
});

test("parseLineage, renderLineage: parent, fork point and page size", () => {
  const document = {
    parent: lineage,
    parentSeq: 18446744073709551615n,
    createdMs: 1_760_000_000_000,
    pageSize: 65536,
    writer: "walrust/0.1.0",
  };
  const text = new TextDecoder().decode(renderLineage(document));
  assert.equal(
    text,
    `{"version":1,"parent":"${lineage}","parent_seq":"18446744073709551615","created_ms":1760000000000,` +
      '"page_size":65536,"writer":"walrust/0.1.0"}',
  );
  assert.deepEqual(parseLineage(utf8(text), object), document);
  for (const parent of ["bare", null]) {
    const other = { ...document, parent, parentSeq: parent === null ? null : 3n };
    assert.deepEqual(parseLineage(renderLineage(other), object), other);
  }
  const changes: [string, string][] = [
    ['"version":1', '"version":2'],
    ['"version":1,', ""],
    [`"${lineage}"`, '"other"'],
    ['"18446744073709551615"', '"18446744073709551616"'],
    ['"18446744073709551615"', "7"],
    ['"18446744073709551615"', '"007"'],
    ['"18446744073709551615"', "null"],
    ["65536", "1000"],
    ["65536", "0"],
    ["1760000000000", "-1"],
    ["1760000000000", "1e12"],
    ["1760000000000", "99999999999999999"],
    ['"walrust/0.1.0"', "null"],
  ];
  for (const [from, to] of changes) {
    assert.ok(text.includes(from));
    assert.equal(refusal(() => parseLineage(utf8(text.replace(from, to)), object)), "field", `${from} → ${to}`);
  }
});

test("parseRetention, renderRetention: ranges removed on purpose", () => {
  const document = {
    ranges: [
      { min: 1n, max: 12n, reason: "retention" as const },
      { min: 14n, max: 0xffff_ffff_ffff_ffffn, reason: "merge" as const },
    ],
  };
  const text = new TextDecoder().decode(renderRetention(document));
  assert.equal(
    text,
    '{"version":1,"ranges":[{"min":"1","max":"12","reason":"retention"},' +
      '{"min":"14","max":"18446744073709551615","reason":"merge"}]}',
  );
  assert.deepEqual(parseRetention(utf8(text), object), document);
  assert.deepEqual(parseRetention(renderRetention({ ranges: [] }), object), { ranges: [] });
  const marked = {
    ranges: [
      { min: 1n, max: 12n, reason: "retention" as const, markedMs: 1_760_000_000_000 },
      { min: 14n, max: 73n, reason: "merge" as const, level: 1, markedMs: 0 },
    ],
    snapshots: [{ seq: 5n, markedMs: 1_760_000_000_000 }],
  };
  const more = new TextDecoder().decode(renderRetention(marked));
  assert.equal(
    more,
    '{"version":1,"ranges":[{"min":"1","max":"12","reason":"retention","marked_ms":1760000000000},' +
      '{"min":"14","max":"73","reason":"merge","level":1,"marked_ms":0}],' +
      '"snapshots":[{"seq":"5","marked_ms":1760000000000}]}',
  );
  assert.deepEqual(parseRetention(utf8(more), object), marked);
  for (
    const [from, to] of [
      ['"level":1', '"level":0'],
      ['"level":1', '"level":100'],
      ['"level":1', '"level":"1"'],
      ['"marked_ms":0', '"marked_ms":-1'],
      ['"snapshots":[', '"snapshots":[7,'],
      ['"seq":"5"', '"seq":5'],
      [',"marked_ms":1760000000000}]}', "}]}"],
    ]
  ) {
    assert.ok(more.includes(from));
    assert.equal(refusal(() => parseRetention(utf8(more.replace(from, to)), object)), "field", `${from} → ${to}`);
  }
  for (const [from, to] of [['"12"', '"0"'], ['"merge"', '"other"'], ['"1"', "1"], ['"ranges"', '"range"']]) {
    assert.equal(refusal(() => parseRetention(utf8(text.replace(from, to)), object)), "field", `${from} → ${to}`);
  }
});

test("canary: refusal tells a sound document from a damaged one", () => {
  assert.equal(refusal(() => parseState(utf8('{"current_seq":1}'), object)), "sound");
  assert.equal(refusal(() => parseState(utf8('{"current_seq":1'), object)), "json");
});
