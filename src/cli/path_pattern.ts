/**
 * Database paths with wildcards: `*` and `?` within one part of a path, `**` for any number of directories. As in a
 * shell they do not match a dot that a name begins with.
 */
import { ConfigError } from "../errors.ts";
import { sidecarSuffixes } from "../replication/apply.ts";
import { nameOf } from "../replication/paths.ts";
import type { Files } from "../runtime/types.ts";

/** Names looked at for one pattern: beyond it the pattern is rather a mistake. */
const namesMax = 200_000;

/** What a pattern found. */
export interface PatternMatches {
  /** Files, sorted; never sidecars of databases, nor anything in `excluded` or in our state directories. */
  readonly paths: readonly string[];
  /** A sidecar that matches, to say so where nothing else does. */
  readonly sidecar: string | null;
}

/** True for a path that names more than one file. */
export function isPattern(path: string): boolean {
  return /[*?]/.test(path);
}

/** The files that `pattern` matches now. Throws `ConfigError` where a directory cannot be read or there are too many names. */
export function expandPattern(
  files: Pick<Files, "list" | "stat" | "realPath">,
  pattern: string,
  excluded: readonly string[] = [],
): PatternMatches {
  return new Expansion(files, pattern, excluded).run();
}

class Expansion {
  readonly #files: Pick<Files, "list" | "stat" | "realPath">;
  readonly #pattern: string;
  readonly #parts: readonly string[];
  readonly #excluded: ReadonlySet<string>;
  readonly #paths = new Set<string>();
  readonly #visited = new Set<string>();
  #sidecar: string | null = null;
  #names = 0;

  constructor(files: Pick<Files, "list" | "stat" | "realPath">, pattern: string, excluded: readonly string[]) {
    this.#files = files;
    this.#pattern = pattern;
    const parts = pattern.split("/").filter((part, i) => part !== "" && (part !== "." || i === 0));
    // At its end `**` stands for the files in all those directories.
    if (parts[parts.length - 1] === "**") parts.push("*");
    this.#parts = parts.filter((part, i) => part !== "**" || parts[i - 1] !== "**");
    this.#excluded = new Set(excluded.flatMap((directory) => this.#realPath(directory)));
  }

  run(): PatternMatches {
    this.#descend(this.#pattern.startsWith("/") ? "/" : "", 0);
    return { paths: [...this.#paths].sort(), sidecar: this.#sidecar };
  }

  /** Matches parts from `index` on in `directory`, which is empty or ends with a slash. */
  #descend(directory: string, index: number): void {
    const part = this.#parts[index];
    const isLast = index === this.#parts.length - 1;
    if (!isPattern(part)) {
      if (isLast) this.#take(`${directory}${part}`);
      else this.#enter(`${directory}${part}`, index + 1, true);
      return;
    }
    if (part === "**") this.#descend(directory, index + 1);
    for (const { name, type } of this.#list(directory)) {
      if (part === "**") {
        if (type === "directory" && !name.startsWith(".")) this.#enter(`${directory}${name}`, index);
      } else if (matchesPart(part, name)) {
        if (!isLast) this.#enter(`${directory}${name}`, index + 1);
        else if (type === "file") this.#take(`${directory}${name}`);
      }
    }
  }

  /** A directory that the pattern names is entered even where it is the bucket, which databases may lie in. */
  #enter(path: string, index: number, isNamed: boolean = false): void {
    const stat = this.#guarded(path, () => this.#files.stat(path));
    if (stat?.type !== "directory" || nameOf(path).startsWith(".walrust-")) return;
    // Links may lead back to where we come from.
    const visit = `${index} ${stat.device} ${stat.inode}`;
    const isExcluded = !isNamed && this.#realPath(path).some((real) => this.#excluded.has(real));
    if (this.#visited.has(visit) || isExcluded) return;
    this.#visited.add(visit);
    this.#descend(path === "/" ? path : `${path}/`, index);
  }

  #take(path: string): void {
    if (this.#guarded(path, () => this.#files.stat(path))?.type !== "file") return;
    if (sidecarSuffixes.some((suffix) => path.endsWith(suffix))) this.#sidecar ??= path;
    else this.#paths.add(path);
  }

  #list(directory: string): ReturnType<Files["list"]> {
    const path = directory === "" ? "." : directory;
    const names = this.#guarded(path, () => this.#files.list(path));
    this.#names += names.length;
    if (this.#names <= namesMax) return names;
    throw new ConfigError("pattern_too_wide", `${this.#pattern} leads to more than ${namesMax} names`, {
      hint: "begin the pattern at the directory that holds the databases",
    });
  }

  #realPath(path: string): string[] {
    try {
      return [this.#files.realPath(path)];
    } catch {
      return [];
    }
  }

  /** A directory passed over in silence could hold a database that nobody backs up. */
  #guarded<T>(path: string, work: () => T): T {
    try {
      return work();
    } catch (error) {
      throw new ConfigError(
        "pattern_unreadable",
        `${path}, where ${this.#pattern} leads, cannot be read: ${(error as Error).message}`,
        {
          hint: "let this user read the directory, or write a pattern that does not lead there",
          cause: error,
        },
      );
    }
  }
}

/** `*` for any characters, `?` for one; linear but for the last `*`, so no pattern takes long. */
export function matchesPart(pattern: string, name: string): boolean {
  if (name.startsWith(".") && !pattern.startsWith(".")) return false;
  const [wanted, given] = [[...pattern], [...name]];
  let [at, seen] = [0, 0];
  let star = -1;
  let retry = 0;
  while (seen < given.length) {
    if (wanted[at] === "*") {
      star = at++;
      retry = seen;
    } else if (at < wanted.length && (wanted[at] === "?" || wanted[at] === given[seen])) {
      at++;
      seen++;
    } else if (star >= 0) {
      at = star + 1;
      seen = ++retry;
    } else return false;
  }
  while (wanted[at] === "*") at++;
  return at === wanted.length;
}
