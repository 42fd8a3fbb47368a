/** Which value of a setting counts, and why: the flag, else walrust.toml, else the default. */
import type { GivenSettings } from "./config.ts";
import type { CommandCall } from "./context.ts";
import type { Setting } from "./settings.ts";

/** What decided a value. */
export interface Origin {
  /** `argument`: a word of the command line; `profile`: of the AWS profile; `endpoint`: the endpoint implies it. */
  readonly kind: "flag" | "argument" | "environment" | "file" | "profile" | "endpoint" | "default";
  /** The flag, the word, the variable, `file:line:column`, or the profile's name; `null` where there is nothing to name. */
  readonly name: string | null;
}

/** A value that counts. */
export interface Resolved<T = unknown> {
  readonly value: T;
  readonly origin: Origin;
}

/** All of `settings` by name; what an earlier one of `files` says counts before a later one. */
export function resolveSettings(
  settings: readonly Setting[],
  call: CommandCall,
  ...files: readonly (GivenSettings | undefined)[]
): Map<string, Resolved> {
  return new Map(settings.map((setting) => [setting.name, resolveSetting(setting, call, files)]));
}

function resolveSetting(
  { name, inFile: nameInFile = name, flags, fallback }: Setting,
  { given, options }: CommandCall,
  files: readonly (GivenSettings | undefined)[],
): Resolved {
  if (flags !== null && given.has(name)) {
    return { value: options[name], origin: { kind: "flag", name: /--[\w-]+/.exec(flags)![0] } };
  }
  const inFile = files.map((file) => file?.get(nameInFile)).find((found) => found !== undefined);
  if (inFile !== undefined) return { value: inFile.value, origin: { kind: "file", name: inFile.place } };
  return { value: fallback, origin: { kind: "default", name: null } };
}

/** An origin in a few words. */
export function originText({ kind, name }: Origin): string {
  if (kind === "default") return "default";
  if (kind === "endpoint") return "implied by the endpoint";
  return kind === "profile" ? `AWS profile ${name}` : String(name);
}
