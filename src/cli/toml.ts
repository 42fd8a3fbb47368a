/** TOML with the places of its keys and values. This is the one file that knows the parsing library (smol-toml). */
import { parse, TomlDate, TomlError } from "smol-toml";
import type { ConfigError, ErrorDetails } from "../errors.ts";
import { placedError } from "./placed_error.ts";
import { locateToml, placeId, type TomlPath, type TomlPlace } from "./toml_places.ts";

/** Whole numbers are bigints, others numbers. */
export type TomlTable = { readonly [key: string]: unknown };

/** Tables and arrays inside one another; a configuration has three. */
const depthMax = 32;

/** A text that is valid TOML. */
export class TomlDocument {
  /** As messages call it. */
  readonly file: string;
  /** What it says. */
  readonly root: TomlTable;
  /** Offset of each line. */
  readonly #lines: readonly number[];
  readonly #places: ReadonlyMap<string, TomlPlace>;

  /** Throws `ConfigError` with `file:line:column` where the text is no TOML. */
  constructor(file: string, text: string) {
    this.file = file;
    this.#lines = [0, ...[...text.matchAll(/\n/g)].map(({ index }) => index + 1)];
    this.root = parsed(file, text);
    this.#places = locateToml(text, (quoted) => Object.keys(parse(`${quoted} = 0`))[0]);
  }

  /** `file:line:column` of a key, or of its value; both counted from 1, columns in UTF-16 code units. */
  where(path: TomlPath, part: "key" | "value" = "value"): string {
    const place = this.#places.get(placeId(path));
    if (place === undefined) return this.file;
    const offset = part === "value" && place.value !== null ? place.value.start : place.key;
    let [low, high] = [0, this.#lines.length];
    while (high - low > 1) {
      const middle = (low + high) >> 1;
      if (this.#lines[middle] <= offset) low = middle;
      else high = middle;
    }
    return `${this.file}:${low + 1}:${offset - this.#lines[low] + 1}`;
  }

  /** An error about a key or its value. */
  error(
    code: string,
    place: { path: TomlPath; part?: "key" | "value" },
    message: string,
    details?: ErrorDetails,
  ): ConfigError {
    return placedError(code, this.where(place.path, place.part), message, details);
  }
}

/** What a value is, for messages. */
export function kindOf(value: unknown): string {
  if (typeof value === "string") return "a text";
  if (typeof value === "bigint") return "a whole number";
  if (typeof value === "number") return Number.isFinite(value) ? "a number with a fraction" : "no finite number";
  if (typeof value === "boolean") return "true or false";
  if (value instanceof TomlDate) return "a date or time";
  return Array.isArray(value) ? "an array" : "a table";
}

/** True for a table, inline or not. */
export function isTable(value: unknown): value is TomlTable {
  return kindOf(value) === "a table";
}

function parsed(file: string, text: string): TomlTable {
  try {
    return parse(text, { integersAsBigInt: true, maxDepth: depthMax });
  } catch (error) {
    if (!(error instanceof TomlError)) throw error;
    // The library's message goes on with lines of the file, which may hold secrets.
    const reason = error.message.split("\n")[0].replace(/^Invalid TOML document: /, "");
    // Of a bare word such as s3:// its place is that of the blank before it.
    const blanks = /^[ \t]*/.exec(text.split("\n")[error.line - 1].slice(error.column - 1))![0].length;
    throw placedError("toml", `${file}:${error.line}:${error.column + blanks}`, reason, {
      hint: 'write [table] once, below it key = value: texts in "quotes", numbers, true or false',
    });
  }
}
