/** Which databases a command is about, and how each of them is watched: from its words and from walrust.toml. */
import { ConfigError } from "../errors.ts";
import { absolutePath, directoryOf } from "../replication/paths.ts";
import { rootOf } from "../daemon/watch.ts";
import { parseBucketUrl } from "../format/keys.ts";
import type { DatabaseEntry } from "./config.ts";
import type { CommandCall, CommandContext } from "./context.ts";
import { bucketOf } from "./destination.ts";
import { expandPattern, isPattern } from "./path_pattern.ts";
import { placedError } from "./placed_error.ts";
import { type Origin, type Resolved, resolveSettings } from "./resolved.ts";
import { defaultFile, retainSettings, watchSettings } from "./settings.ts";
import { userStateDirectory } from "./watch_options.ts";

/** A database, and everything that is set for it. */
export interface ChosenDatabase {
  readonly path: string;
  /** Name in the bucket; absent: that of the file. */
  readonly prefix?: string;
  /** Where it was named. */
  readonly origin: Origin;
  /** Settings by name. */
  readonly settings: ReadonlyMap<string, Resolved>;
}

/** The databases named on the command line, else those of walrust.toml. Throws `ConfigError` where there are none. */
export function chooseDatabases(context: CommandContext, call: CommandCall): ChosenDatabase[] {
  const { configuration } = context;
  const words = call.positionals[0];
  if (words.length > 0) {
    const known = filesOf(context, call, false);
    return words.map((path) => chooseDatabase(context, call, path, known));
  }
  if (configuration === null) {
    throw new ConfigError("no_database", `no database was given, and there is no ${defaultFile} here`, {
      hint: `name the databases, or write a ${defaultFile}`,
    });
  }
  if (configuration.databases.length === 0) {
    throw new ConfigError("no_database", `no database was given, nor in ${configuration.file}`, {
      hint: 'name the databases, or add [[databases]] with path = "/data/app.db"',
    });
  }
  const found = filesOf(context, call, true);
  const chosen = found.map(({ path, entry }) => chosenBy(context, call, path, entry));
  refuseSharedPlaces(chosen);
  return chosen;
}

/** One database named on the command line: where walrust.toml names it too, prefix and overrides count. */
export function chooseDatabase(
  context: CommandContext,
  call: CommandCall,
  path: string,
  known: readonly FoundFile[] = filesOf(context, call, false),
): ChosenDatabase {
  const key = keyOf(context, path);
  const entry = known.find((file) => keyOf(context, file.path) === key)?.entry;
  if (entry !== undefined) return chosenBy(context, call, path, entry);
  const settings = resolveSettings([...watchSettings, ...retainSettings], call, context.configuration?.settings);
  return { path, origin: { kind: "argument", name: path }, settings };
}

function chosenBy(context: CommandContext, call: CommandCall, path: string, entry: DatabaseEntry): ChosenDatabase {
  return {
    path,
    ...(entry.prefix === null ? {} : { prefix: entry.prefix.value }),
    origin: { kind: "file", name: entry.path.place },
    settings: resolveSettings(
      [...watchSettings, ...retainSettings],
      call,
      entry.settings,
      context.configuration?.settings,
    ),
  };
}

interface FoundFile {
  readonly path: string;
  readonly entry: DatabaseEntry;
}

/** Every file that walrust.toml names; what a path names is not also what a pattern finds. */
function filesOf(context: CommandContext, call: CommandCall, isStrict: boolean): FoundFile[] {
  const { configuration, runtime } = context;
  if (configuration === null) return [];
  const absolute = (path: string): string => {
    const directory = directoryOf(configuration.file);
    return path.startsWith("/") || directory === "." ? path : `${directory}/${path}`;
  };
  const entries = configuration.databases.map((entry) => ({ entry, path: absolute(entry.path.value) }));
  const named = new Set(entries.filter(({ path }) => !isPattern(path)).map(({ path }) => keyOf(context, path)));
  const excluded = excludedFrom(context, call);
  return entries.flatMap(({ entry, path }) => {
    if (!isPattern(path)) return [{ path, entry }];
    const { paths, sidecar } = expandPattern(runtime.files, path, excluded);
    if (isStrict && paths.length === 0) {
      const found = sidecar === null ? "nothing" : `no database, only files that belong to one, such as ${sidecar}`;
      throw placedError("no_match", entry.path.place, `${entry.path.value} matches ${found}`, {
        hint: "a pattern is looked up once, at the start: databases that come later are not found by it",
      });
    }
    return paths.filter((match) => !named.has(keyOf(context, match))).map((match) => ({ path: match, entry }));
  });
}

/** Where no database of the user lies. */
function excludedFrom(context: CommandContext, call: CommandCall): string[] {
  const { stateDir } = call.options;
  const excluded = [userStateDirectory(context.process)];
  if (typeof stateDir === "string") excluded.push(stateDir);
  const bucket = bucketOf(context);
  const url = bucket === null ? null : parseBucketUrl(bucket.value);
  if (url?.scheme === "file") excluded.push(url.directory);
  return excluded;
}

/** The same for all ways to write a path; links of the last part are kept apart, as the state directories are. */
function keyOf({ runtime }: CommandContext, path: string): string {
  try {
    return absolutePath(runtime.files, path);
  } catch {
    return path;
  }
}

/** One place in the bucket for each: neither the same, nor one inside another. */
function refuseSharedPlaces(databases: readonly ChosenDatabase[]): void {
  const sorted = databases.map((database) => ({ database, root: rootOf("", database) }))
    .sort((a, b) => (a.root < b.root ? -1 : a.root > b.root ? 1 : 0));
  for (let i = 1; i < sorted.length; i++) {
    const [a, b] = [sorted[i - 1], sorted[i]];
    if (!b.root.startsWith(a.root)) continue;
    const how = a.root === b.root
      ? `would both be stored as ${a.root}`
      : `would be stored as ${a.root} and inside it as ${b.root}`;
    throw placedError("same_prefix", b.database.origin.name!, `${a.database.path} and ${b.database.path} ${how}`, {
      hint: a.database.origin.name === b.database.origin.name
        ? "leave the prefix of a pattern out where it matches several databases"
        : `give one of them another prefix (the other is named at ${a.database.origin.name})`,
      data: { roots: [a.root, b.root] },
    });
  }
}
