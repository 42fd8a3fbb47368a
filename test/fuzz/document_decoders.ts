/** The bucket's JSON documents, and names: keys, buckets and databases. */
import {
  parseLineage,
  parseRetention,
  parseState,
  renderLineage,
  renderRetention,
  renderState,
} from "../../src/format/documents.ts";
import { type JsonValue, parseJson } from "../../src/format/json.ts";
import { type BucketUrl, databaseName, parseBucketUrl, parseKey, renderKey } from "../../src/format/keys.ts";
import { type Decoder, law } from "./fuzz.ts";
import { jsonPieces, type Mutator, pathPieces, type TextSample, type Vocabulary } from "./mutator.ts";

const lineage = "d3dc938d604247e99e7d2d741a3ab94b";
const object = "app/state.json";

/** Any value as a text that tells any two apart. */
export function shown(value: unknown): string {
  return JSON.stringify(value, (_, member) => typeof member === "bigint" ? `${member}n` : member);
}

const jsonWords: readonly string[] = [
  ...["{", "}", "[", "]", ",", ":", "null", "true", "false", "[]", "{}", '"', " ", "\n", "\ufeff"],
  ...["0", "-0", "-1", "1.0", "1e3", "1e999", "01", "18446744073709551615", "18446744073709551616", "NaN"],
  ...['""', '"__proto__"', '"constructor"', '"toString"', '"bare"', `"${lineage}"`, '"\\u0000"', '"\\ud800"', '"\\n"'],
  ...['"parent"', '"parent_seq"', '"ranges"', '"min"', '"max"', '"merge"', '"version"', '"1"', '"007"', '"-1"'],
];

/** JSON with more words. */
export function jsonVocabulary(words: readonly string[] = []): Vocabulary {
  return { words: [...jsonWords, ...words], brackets: [["[", "]"], ['{"a":', "}"]] };
}

const texts = {
  json: ['{"a":[1,-2.5e3,true,null,"x\\n\\u00e9"],"b":{"c":18446744073709551615,"d":""},"e":[]}', "[[1,2],[{}]]", "0"],
  state: [
    new TextDecoder().decode(renderState({
      lineageId: lineage,
      claim: "0".repeat(32),
      currentSeq: 12n,
      dbChecksum: 0xffff_ffff_ffff_ffffn,
      lastSnapshot: "2026-01-15T10:30:00Z",
    })),
    '{"wal_offset":0,"wal_salt":[1,2],"current_seq":7,"lineage_id":null}',
  ],
  lineage: [
    `{"version":1,"parent":"${lineage}","parent_seq":"18446744073709551615","created_ms":1760000000000,` +
    '"page_size":65536,"writer":"walrust/0.1.0"}',
    '{"version":1,"parent":null,"parent_seq":null,"created_ms":0,"page_size":512,"writer":""}',
  ],
  retention: [
    '{"version":1,"ranges":[{"min":"1","max":"12","reason":"retention"},{"min":"14","max":"14","reason":"merge"}]}',
    '{"version":1,"ranges":[]}',
    '{"version":1,"ranges":[{"min":"1","max":"9","reason":"merge","level":1,"marked_ms":1}],' +
    '"snapshots":[{"seq":"5","marked_ms":1760000000000}]}',
  ],
};

const samples = Object.fromEntries(Object.entries(texts).map(([name, own]) => [name, own.map(jsonPieces)]));

function generator(name: keyof typeof texts): (mutator: Mutator) => Uint8Array {
  const all = Object.values(samples).flat();
  const vocabulary = jsonVocabulary();
  return (mutator) => mutator.utf8(mutator.random.pick(samples[name]), all, vocabulary);
}

function rendered(value: JsonValue): string {
  if (value instanceof Map) {
    return `{${[...value].map(([name, member]) => `${JSON.stringify(name)}:${rendered(member)}`).join(",")}}`;
  }
  if (Array.isArray(value)) return `[${value.map(rendered).join(",")}]`;
  if (typeof value !== "number") return typeof value === "bigint" ? String(value) : JSON.stringify(value);
  // Without a fraction or an exponent it would come back as a bigint.
  return Number.isFinite(value) ? value.toExponential() : "1e999";
}

/** JSON; what is accepted is JSON to `JSON.parse`, too, and is read again as the same. */
export const jsonDecoder: Decoder = {
  name: "json",
  generate: generator("json"),
  decode(input) {
    const text = rendered(parseJson(input, object));
    law(rendered(parseJson(new TextEncoder().encode(text), object)) === text, "read again as the same");
    JSON.parse(new TextDecoder("utf-8", { ignoreBOM: false }).decode(input));
    return null;
  },
};

function documentDecoder<T>(
  name: "state" | "lineage" | "retention",
  parse: (bytes: Uint8Array, object: string) => T,
  render: (document: T) => Uint8Array,
): Decoder {
  return {
    name: `${name}.json`,
    reaches: ["json", "field"],
    generate: generator(name),
    decode(input) {
      const document = parse(input, object);
      law(shown(parse(render(document), object)) === shown(document), "rendered and read again as the same");
      return null;
    },
  };
}

/** Pointer, origin of a lineage, and what was removed; what is accepted is rendered and read again as the same. */
export const documentDecoders: readonly Decoder[] = [
  documentDecoder("state", parseState, renderState),
  documentDecoder("lineage", parseLineage, renderLineage),
  documentDecoder("retention", parseRetention, renderRetention),
];

/** Text as its UTF-16 units, big-endian: lone surrogates, which UTF-8 has no bytes for, reach the decoder. */
function unitsOf(text: string): Uint8Array {
  const bytes = new Uint8Array(2 * text.length);
  for (let index = 0; index < text.length; index++) {
    bytes[2 * index] = text.charCodeAt(index) >> 8;
    bytes[2 * index + 1] = text.charCodeAt(index);
  }
  return bytes;
}

function textOfUnits(bytes: Uint8Array): string {
  let text = "";
  for (let index = 0; index + 1 < bytes.length; index += 2) {
    text += String.fromCharCode(bytes[index] << 8 | bytes[index + 1]);
  }
  return text;
}

const root = "backups/app/";
const keySamples = [
  `lineages/${lineage}/0000/000000000000001a.hadbp`,
  "0001/0000000000000005.hadbp",
  `lineages/${lineage}/levels/L1/000000000000000c-000000000000000d.hadbp`,
  "levels/L16/0000000000000001-ffffffffffffffff.hadbp",
  `lineages/${lineage}/lineage.json`,
  `lineages/${lineage}/retention.json`,
  "retention.json",
  "state.json",
].map((key) => pathPieces(root + key));

const pathWords: readonly string[] = [
  ...["/", "//", ".", "..", "../", "./", "\0", "\r", "\n", "\u001b[2J", "\u202e", "\u0661", "\ud800", "\udc00", "😀"],
  ...[
    "0000",
    "0001",
    "0002",
    "levels",
    "L0",
    "L99",
    "L100",
    "lineages",
    lineage,
    lineage.toUpperCase(),
    "hadbp",
    "json",
  ],
  ...["s3", "S3", "file", "gs", ":", "://", "%", "%2f", "%00", "%25", "%zz", "%c3%bc", "?", "#", " ", "+", "-", "@"],
  ...[root, "__proto__", "ffffffffffffffff", "0000000000000000", "state", "bucket"],
];

const pathVocabulary: Vocabulary = { words: pathWords, brackets: [] };

function pathGenerator(own: readonly TextSample[]): (mutator: Mutator) => Uint8Array {
  return (mutator) => unitsOf(mutator.text(mutator.random.pick(own), own, pathVocabulary));
}

/** A key of a listing; what is accepted is exactly what would have been written. */
export const keyDecoder: Decoder = {
  name: "key",
  generate: pathGenerator(keySamples),
  decode(input) {
    const text = textOfUnits(input);
    const key = parseKey(root, text);
    if (key === null) return "not ours";
    law(renderKey(root, key) === text, "written the same");
    return null;
  },
};

const urlSamples = [
  "s3://bucket/pre fix/b+%",
  "my.bucket-1",
  "file:///var/my%20backups/",
  "S3://bucket//",
  "file:///",
].map(pathPieces);

function renderUrl(url: BucketUrl): string {
  return url.scheme === "s3" ? `s3://${url.bucket}/${url.prefix}` : `file://${url.directory.replaceAll("%", "%25")}`;
}

/** `--bucket`; what is accepted names a place that can be written down and found again. */
export const bucketUrlDecoder: Decoder = {
  name: "bucket-url",
  generate: pathGenerator(urlSamples),
  decode(input) {
    const url = parseBucketUrl(textOfUnits(input));
    law(url.prefix === "" || /^[^/]([^]*[^/])?\/$/.test(url.prefix), `the prefix ${JSON.stringify(url.prefix)}`);
    law(shown(parseBucketUrl(renderUrl(url))) === shown(url), "written down and found again");
    return null;
  },
};

const nameSamples = ["/var/lib/app.db", "./a.b.sqlite", "dir.d/my data +%ü.db", ".hidden", "app"].map(pathPieces);

/** The name of a database in the bucket: one segment of a key, which can stand below a prefix. */
export const databaseNameDecoder: Decoder = {
  name: "database-name",
  generate: pathGenerator(nameSamples),
  decode(input) {
    const name = databaseName(textOfUnits(input));
    law(name !== "" && name !== "." && name !== ".." && !name.includes("/"), "one segment");
    law(name.isWellFormed() && shown(parseKey(`${name}/`, `${name}/state.json`)) === '{"kind":"state"}', "found again");
    return null;
  },
};
