/** walrust.toml → settings and databases, each with the place it stands at. Nothing is passed over in silence. */
import { ConfigError } from "../errors.ts";
import { databaseName, parseBucketUrl } from "../format/keys.ts";
import { readSmallFile } from "../replication/small_file.ts";
import type { Files } from "../runtime/types.ts";
import { s3Address } from "../storage/s3_address.ts";
import { placedError } from "./placed_error.ts";
import {
  compactionSettings,
  defaultFile,
  fileSettings,
  laterKeys,
  laterTables,
  type Setting,
  syncSettings,
} from "./settings.ts";
import { nearestWord } from "./suggestion.ts";
import { isTable, kindOf, TomlDocument, type TomlTable } from "./toml.ts";
import type { TomlPath } from "./toml_places.ts";

const fileSizeMax = 1024 * 1024;

/** A value and where it stands. */
export interface Given<T = unknown> {
  readonly value: T;
  /** `file:line:column`. */
  readonly place: string;
}

/** Settings by {@linkcode Setting.name}. */
export type GivenSettings = ReadonlyMap<string, Given>;

/** One `[[databases]]`. */
export interface DatabaseEntry {
  /** From the directory of the file, where it is not absolute; may be a pattern. */
  readonly path: Given<string>;
  /** Name in the bucket; `null`: that of the file. */
  readonly prefix: Given<string> | null;
  /** What counts for these databases instead of `[sync]`. */
  readonly settings: GivenSettings;
}

/** What walrust.toml says. */
export interface Configuration {
  /** As it was given. */
  readonly file: string;
  readonly settings: GivenSettings;
  readonly databases: readonly DatabaseEntry[];
}

/** What {@linkcode readConfiguration} needs. */
export interface ConfigurationSource {
  /** Of `--config`; where it is absent {@linkcode defaultFile} is read, if it exists. */
  readonly file: string | undefined;
  readonly files: Files;
  readonly environment: (name: string) => string | undefined;
}

/** Reads the configuration file; `null` where there is none. Throws `ConfigError` with `file:line:column`. */
export function readConfiguration(source: ConfigurationSource): Configuration | null {
  const file = source.file ?? defaultFile;
  const text = readFile(source.files, file);
  if (text !== null) return new Reader(new TomlDocument(file, text), source.environment).read();
  if (source.file === undefined) return null;
  throw new ConfigError("no_configuration", `${file}: no such file`, {
    hint: "give --config the path of a walrust.toml",
  });
}

function readFile(files: Files, file: string): string | null {
  try {
    const stat = files.stat(file);
    if (stat === null) return null;
    const bytes = readSmallFile(files, file, fileSizeMax);
    if (bytes !== null) return new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch (error) {
    const reason = error instanceof TypeError ? "it is not UTF-8" : (error as Error).message;
    throw new ConfigError("configuration_unreadable", `${file} cannot be read: ${reason}`, {
      hint: "a configuration is a text file that this user may read",
      cause: error,
    });
  }
  throw new ConfigError("configuration_unreadable", `${file} is no file of at most ${fileSizeMax / 1024} KB`, {
    hint: "give --config the path of a walrust.toml",
  });
}

class Reader {
  readonly #document: TomlDocument;
  readonly #environment: (name: string) => string | undefined;

  constructor(document: TomlDocument, environment: (name: string) => string | undefined) {
    this.#document = document;
    this.#environment = environment;
  }

  read(): Configuration {
    const { file, root } = this.#document;
    const tables = [...new Set(fileSettings.map(({ table }) => table!))];
    const settings = new Map<string, Given>();
    for (const [name, value] of Object.entries(root)) {
      if (name === "databases") continue;
      const table = tables.find((known) => known === name);
      if (table === undefined) throw this.#unknownTable(name, value, [...tables, "databases"]);
      if (!isTable(value)) throw this.#wrongType([name], value, `a table: write [${name}]`);
      const known = fileSettings.filter((setting) => setting.table === table);
      for (const [key, given] of this.#settings([name], value, known)) settings.set(key, given);
    }
    return { file, settings, databases: this.#databases(root.databases ?? []) };
  }

  #databases(value: unknown): DatabaseEntry[] {
    if (!Array.isArray(value)) throw this.#wrongType(["databases"], value, "a list of tables: write [[databases]]");
    return value.map((entry, i) => {
      const at = ["databases", i];
      if (!isTable(entry)) throw this.#wrongType(at, entry, "a table with a path");
      const { path, prefix, ...rest } = entry;
      if (path === undefined) {
        throw this.#document.error("no_path", { path: at }, "[[databases]] has no path", {
          hint: 'add path = "/data/app.db"',
        });
      }
      return {
        path: this.#text([...at, "path"], path),
        prefix: prefix === undefined ? null : this.#prefix([...at, "prefix"], prefix),
        settings: this.#settings(at, rest, [...syncSettings, ...compactionSettings], ["path", "prefix"]),
      };
    });
  }

  #settings(
    at: TomlPath,
    table: TomlTable,
    known: readonly Setting[],
    alsoKnown: readonly string[] = [],
  ): GivenSettings {
    const settings = new Map<string, Given>();
    for (const [key, value] of Object.entries(table)) {
      const path = [...at, key];
      const setting = known.find((candidate) => candidate.key === key);
      if (setting !== undefined) settings.set(setting.name, this.#setting(path, setting, value));
      else if (known.includes(syncSettings[0]) && Object.hasOwn(laterKeys, key)) this.#later(path, key, value);
      else throw this.#unknownKey(path, key, [...alsoKnown, ...known.map((candidate) => candidate.key)]);
    }
    return settings;
  }

  #setting(path: TomlPath, setting: Setting, value: unknown): Given {
    const { key } = setting;
    const isRight = setting.type === "text"
      ? typeof value === "string"
      : setting.type === "true or false"
      ? typeof value === "boolean"
      : typeof value === "bigint" || (setting.type === "number" && typeof value === "number");
    if (!isRight) {
      const article = setting.type === "true or false" ? "" : "a ";
      throw this.#wrongType(path, value, `${article}${setting.type}`, exampleOf(setting));
    }
    const word = typeof value === "string" ? this.#expanded(path, value) : String(value);
    try {
      const parsed = setting.parse(word, key);
      if (setting.name === "bucket") parseBucketUrl(word);
      if (setting.name === "endpoint") s3Address({ bucket: "any", endpoint: word });
      if (setting.name === "region") s3Address({ bucket: "any", region: word });
      return { value: parsed, place: this.#document.where(path) };
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error;
      // What a variable holds is not repeated: it may be a secret that came to the wrong place.
      const message = word === value || typeof value !== "string"
        ? error.message
        : `${JSON.stringify(value)} gives nothing that can be used`;
      throw this.#document.error(error.code, { path }, message.startsWith(key) ? message : `${key}: ${message}`, {
        hint: error.hint,
      });
    }
  }

  #text(path: TomlPath, value: unknown): Given<string> {
    if (typeof value !== "string") throw this.#wrongType(path, value, "a text");
    const text = this.#expanded(path, value);
    if (text === "" || /[\0\n\r]/.test(text)) {
      throw this.#document.error("bad_value", { path }, `${path[path.length - 1]} is empty or has more than one line`, {
        hint: 'write it like path = "/data/app.db"',
      });
    }
    return { value: text, place: this.#document.where(path) };
  }

  #prefix(path: TomlPath, value: unknown): Given<string> {
    const { value: text, place } = this.#text(path, value);
    const name = text.replace(/\/+$/, "");
    const isName = name.split("/").every(isPartOfName);
    if (isName) return { value: name, place };
    throw placedError("bad_prefix", place, `${JSON.stringify(value)} is no name for a database in the bucket`, {
      hint: "give a name such as app, or tenants/app",
    });
  }

  /** `${NAME}` is what the environment says; `$${` is written for `${`. */
  #expanded(path: TomlPath, text: string): string {
    return text.replace(/(\$?)\$\{([^}]*)(\}?)/g, (whole, escape, name, end) => {
      if (escape !== "") return whole.slice(1);
      const key = path[path.length - 1];
      if (end === "" || !/^[A-Za-z_][A-Za-z0-9_]*$/.test(name)) {
        throw this.#document.error("bad_variable", { path }, `${key}: ${JSON.stringify(whole)} names no variable`, {
          hint: "write ${NAME}, or $${ for the characters themselves",
        });
      }
      const value = this.#environment(name) ?? "";
      if (value !== "") return value;
      throw this.#document.error("unset_variable", { path }, `${key}: the variable ${name} is not set`, {
        hint: `set ${name} in the environment of walrust, or write the value itself`,
        data: { variable: name },
      });
    });
  }

  /** What this version does not do may stand in the file where it says just that. */
  #later(path: TomlPath, key: string, value: unknown): void {
    if (value === laterKeys[key]) return;
    throw this.#document.error("not_supported", { path, part: "key" }, `${key} is not supported by this version`, {
      hint: `remove it, or write ${key} = ${laterKeys[key]}`,
    });
  }

  #unknownTable(name: string, value: unknown, known: readonly string[]): ConfigError {
    const at = { path: [name], part: "key" } as const;
    const shown = Array.isArray(value) ? `[[${name}]]` : isTable(value) ? `[${name}]` : name;
    if (laterTables.includes(name)) {
      return this.#document.error("not_supported", at, `${shown} is not supported by this version`, {
        hint: "remove it",
      });
    }
    const setting = fileSettings.find(({ key }) => key === name);
    if (setting !== undefined) {
      return this.#document.error("unknown_key", at, `${name} stands outside its table`, {
        hint: `put it below [${setting.table}]`,
      });
    }
    const meant = nearestWord(name, [...known, ...laterTables]);
    return this.#document.error(
      "unknown_table",
      at,
      `unknown ${isTable(value) || Array.isArray(value) ? "table" : "key"} ${shown}`,
      {
        hint: meant === null
          ? `there are [${known.join("], [")}]`.replace("[databases]", "[[databases]]")
          : `did you mean ${meant}?`,
      },
    );
  }

  #unknownKey(path: TomlPath, key: string, known: readonly string[]): ConfigError {
    const table = path.length > 2 ? `[[${path[0]}]]` : `[${path[0]}]`;
    const elsewhere = fileSettings.find((setting) => setting.key === key);
    const meant = nearestWord(key, known);
    let hint = `${table} has ${known.join(", ")}`;
    if (meant !== null) hint = `did you mean ${meant}?`;
    else if (elsewhere !== undefined) hint = `it belongs into [${elsewhere.table}]`;
    else if (/key|secret|token|password|credential|profile/i.test(key)) {
      hint =
        "credentials come from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or from AWS_PROFILE, never from this file";
    }
    return this.#document.error("unknown_key", { path, part: "key" }, `unknown key ${key} in ${table}`, { hint });
  }

  #wrongType(path: TomlPath, value: unknown, expected: string, hint: string = `it must be ${expected}`): ConfigError {
    const name = path.findLast((part) => typeof part === "string");
    return this.#document.error("wrong_type", { path }, `${name} is ${kindOf(value)}, not ${expected}`, { hint });
  }
}

function exampleOf({ key, type, fallback, unit }: Setting): string {
  if (type === "text") return `write it in quotes: ${key} = "…"`;
  return `write it like ${key} = ${unit === "seconds" ? Number(fallback) / 1000 : fallback}`;
}

/** True where a name of the bucket may have this between two slashes. */
function isPartOfName(part: string): boolean {
  try {
    return databaseName(`${part}.db`) === part;
  } catch {
    return false;
  }
}
