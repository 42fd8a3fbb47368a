/**
 * Where the keys and values of a TOML text stand. The text must already have been parsed: what is valid here is not
 * decided here, so that the one grammar is that of the parsing library.
 */

/** Names of keys, and indices into arrays. */
export type TomlPath = readonly (string | number)[];

/** Offsets into the text, in UTF-16 code units. */
export interface TomlPlace {
  /** Where the key stands that names it; of an element of an array, where its value does. */
  readonly key: number;
  /** Where the value begins and ends; `null` for a table that has a header or is only named by dotted keys. */
  readonly value: { readonly start: number; readonly end: number } | null;
}

/** Offsets by {@linkcode placeId}, of all keys, tables and elements; `unquote` decodes a quoted key. */
export function locateToml(text: string, unquote: (quoted: string) => string): Map<string, TomlPlace> {
  return new Locator(text, unquote).run();
}

/** The name under which a path is known. */
export function placeId(path: TomlPath): string {
  return JSON.stringify(path);
}

interface Key {
  readonly name: string;
  readonly start: number;
}

class Locator {
  readonly #text: string;
  readonly #unquote: (quoted: string) => string;
  readonly #places = new Map<string, TomlPlace>();
  /** How many tables each array of tables has so far. */
  readonly #counts = new Map<string, number>();
  #at = 0;

  constructor(text: string, unquote: (quoted: string) => string) {
    this.#text = text;
    this.#unquote = unquote;
  }

  run(): Map<string, TomlPlace> {
    let table: TomlPath = [];
    for (this.#skipVoid(); this.#at < this.#text.length; this.#skipVoid()) {
      if (this.#text[this.#at] === "[") table = this.#header();
      else this.#pair(table);
    }
    return this.#places;
  }

  /** `[a.b]` or `[[a.b]]`: the path of the table that the following keys belong to. */
  #header(): TomlPath {
    const brackets = this.#text.startsWith("[[", this.#at) ? 2 : 1;
    this.#at += brackets;
    const keys = this.#keys();
    this.#at += brackets;
    let path: TomlPath = [];
    keys.forEach(({ name, start }, i) => {
      path = [...path, name];
      this.#note(path, { key: start, value: null });
      const id = placeId(path);
      const count = this.#counts.get(id) ?? 0;
      if (brackets === 2 && i === keys.length - 1) {
        this.#counts.set(id, count + 1);
        path = [...path, count];
        this.#note(path, { key: start, value: null });
      } else if (count > 0) path = [...path, count - 1];
    });
    return path;
  }

  /** `a.b = value` */
  #pair(table: TomlPath): void {
    const keys = this.#keys();
    const path = [...table];
    for (const { name, start } of keys.slice(0, -1)) {
      path.push(name);
      this.#note(path, { key: start, value: null });
    }
    const last = keys[keys.length - 1];
    this.#at++;
    this.#skipBlanks();
    this.#value([...path, last.name], last.start);
  }

  /** A key, dotted or not; ends before what follows it. */
  #keys(): Key[] {
    const keys: Key[] = [];
    for (;;) {
      this.#skipBlanks();
      const start = this.#at;
      const isQuoted = this.#text[start] === '"' || this.#text[start] === "'";
      if (isQuoted) this.#skipString();
      else this.#skip(/[^\s.=\]]+/y);
      const written = this.#text.slice(start, this.#at);
      keys.push({ name: isQuoted ? this.#unquote(written) : written, start });
      this.#skipBlanks();
      if (this.#text[this.#at] !== ".") return keys;
      this.#at++;
    }
  }

  #value(path: TomlPath, key: number | null): void {
    const start = this.#at;
    const first = this.#text[start];
    if (first === "[") this.#items("]", (i) => this.#value([...path, i], null));
    else if (first === "{") this.#items("}", () => this.#pair(path));
    else if (first === '"' || first === "'") this.#skipString();
    else {
      // A date may have a blank inside.
      this.#skip(/[^,\]}#\r\n]+/y);
      this.#at = start + this.#text.slice(start, this.#at).trimEnd().length;
    }
    this.#note(path, { key: key ?? start, value: { start, end: this.#at } });
  }

  /** What stands between brackets or braces, separated by commas. */
  #items(end: string, item: (index: number) => void): void {
    this.#at++;
    for (let i = 0;; i++) {
      this.#skipVoid();
      if (this.#text[this.#at] === end || this.#at >= this.#text.length) break;
      item(i);
      this.#skipVoid();
      if (this.#text[this.#at] === ",") this.#at++;
    }
    this.#at++;
  }

  #skipString(): void {
    const quote = this.#text[this.#at];
    const isLong = this.#text.startsWith(quote.repeat(3), this.#at);
    // One or two quotes may stand before the three that end a long text.
    if (quote === '"') this.#skip(isLong ? /"""(?:[^"\\]+|\\[^]|"{1,2}(?!"))*"{3,5}/y : /"(?:[^"\\]+|\\[^])*"/y);
    else this.#skip(isLong ? /'''(?:[^']+|'{1,2}(?!'))*'{3,5}/y : /'[^']*'/y);
  }

  /** Blanks, line ends and comments. */
  #skipVoid(): void {
    this.#skip(/(?:[ \t\r\n]+|#[^\n]*)*/y);
  }

  #skipBlanks(): void {
    this.#skip(/[ \t]*/y);
  }

  #skip(what: RegExp): void {
    what.lastIndex = this.#at;
    // What matches nothing was not valid: the end of the text is a place where every loop ends.
    this.#at = what.test(this.#text) ? what.lastIndex : this.#text.length;
  }

  /** A table may be named by many keys: the first one counts. */
  #note(path: TomlPath, place: TomlPlace): void {
    const id = placeId(path);
    if (!this.#places.has(id)) this.#places.set(id, place);
  }
}
