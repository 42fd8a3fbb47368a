/**
 * JSON (RFC 8259) read without loss and without trust: integers become `bigint`, objects become maps (so `__proto__` is
 * a name like any other), and duplicate names, deep nesting and overlong numbers are refused. `JSON.parse` rounds
 * integers above 2⁵³ and lets the last duplicate win.
 */

import { formatError, printable } from "./bytes.ts";

/** A JSON value; a number with a fraction or exponent is a `number`, every other one a `bigint`. */
export type JsonValue = null | boolean | bigint | number | string | JsonValue[] | JsonObject;

/** A JSON object. */
export type JsonObject = Map<string, JsonValue>;

const depthMax = 32;
const digitsMax = 40;

/** Reads one JSON text in UTF-8; throws `FormatError` naming `object` and the place. */
export function parseJson(bytes: Uint8Array, object: string): JsonValue {
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw formatError("json", object, 0, "UTF-8", "other bytes");
  }
  const reader = new JsonReader(text, object);
  return reader.whole();
}

class JsonReader {
  readonly #text: string;
  readonly #object: string;
  #at = 0;

  constructor(text: string, object: string) {
    this.#text = text;
    this.#object = object;
  }

  whole(): JsonValue {
    const value = this.#value(0);
    this.#space();
    if (this.#at < this.#text.length) throw this.#refuse("the end");
    return value;
  }

  #refuse(expected: string, at: number = this.#at): Error {
    // Offsets count UTF-16 units of the decoded text, which are bytes as long as the document is ASCII.
    const found = at < this.#text.length ? printable(JSON.stringify(this.#text.slice(at, at + 12))) : "the end";
    return formatError("json", this.#object, at, expected, found);
  }

  #space(): void {
    while (" \t\n\r".includes(this.#text.charAt(this.#at) || "x")) this.#at++;
  }

  #skip(character: string): boolean {
    this.#space();
    if (this.#text.charAt(this.#at) !== character) return false;
    this.#at++;
    return true;
  }

  #value(depth: number): JsonValue {
    if (depth > depthMax) throw this.#refuse(`at most ${depthMax} levels`);
    if (this.#skip("{")) return this.#members(depth);
    if (this.#skip("[")) return this.#elements(depth);
    if (this.#text.charAt(this.#at) === '"') return this.#string();
    for (const [word, value] of [["null", null], ["true", true], ["false", false]] as const) {
      if (this.#text.startsWith(word, this.#at)) {
        this.#at += word.length;
        return value;
      }
    }
    return this.#number();
  }

  #members(depth: number): JsonObject {
    const members: JsonObject = new Map();
    if (this.#skip("}")) return members;
    do {
      this.#space();
      const start = this.#at;
      const name = this.#string();
      if (members.has(name)) throw this.#refuse("each name once", start);
      if (!this.#skip(":")) throw this.#refuse("':'");
      members.set(name, this.#value(depth + 1));
    } while (this.#skip(","));
    if (!this.#skip("}")) throw this.#refuse("',' or '}'");
    return members;
  }

  #elements(depth: number): JsonValue[] {
    const elements: JsonValue[] = [];
    if (this.#skip("]")) return elements;
    do elements.push(this.#value(depth + 1)); while (this.#skip(","));
    if (!this.#skip("]")) throw this.#refuse("',' or ']'");
    return elements;
  }

  #string(): string {
    const start = this.#at;
    if (this.#text.charAt(start) !== '"') throw this.#refuse("a string");
    let end = start + 1;
    while (end < this.#text.length && this.#text.charAt(end) !== '"') end += this.#text.charAt(end) === "\\" ? 2 : 1;
    try {
      // The rules for escapes and control characters are those of JSON.parse, which strings cannot mislead.
      const value: unknown = JSON.parse(this.#text.slice(start, end + 1));
      if (typeof value !== "string") throw this.#refuse("a string");
      this.#at = end + 1;
      return value;
    } catch {
      throw this.#refuse("a string", start);
    }
  }

  #number(): bigint | number {
    const pattern = /-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?/y;
    pattern.lastIndex = this.#at;
    const match = pattern.exec(this.#text);
    if (match === null) throw this.#refuse("a value");
    if (match[0].length > digitsMax) throw this.#refuse(`a number of at most ${digitsMax} characters`);
    this.#at += match[0].length;
    return match[1] === undefined && match[2] === undefined ? BigInt(match[0]) : Number(match[0]);
  }
}
