/** `walrust explain`: what a watch with the same words would do, and what decided each value. Nothing is sent. */
import { StorageError } from "../errors.ts";
import { parseBucketUrl, printable } from "../format/keys.ts";
import { rootOf } from "../daemon/watch.ts";
import { environmentCredentials, profileCredentials } from "../storage/credentials.ts";
import type { CommandCall, CommandContext } from "./context.ts";
import { chooseDatabases, type ChosenDatabase } from "./databases.ts";
import { addressOf, bucketOf, openDestination, profileNameOf, serviceOptions } from "./destination.ts";
import { type MonthlyCost, monthlyCost, prices } from "./monthly_cost.ts";
import { count, formatBytes, type Output, table } from "./output.ts";
import { type Origin, originText, type Resolved, resolveSettings } from "./resolved.ts";
import { inUnit, retainSettings, type Setting, textOf, watchSettings } from "./settings.ts";

/** A setting, or what is like one, for people and machines. */
interface Fact {
  readonly key: string;
  /** `null`: there is none. */
  readonly value: unknown;
  readonly unit?: string;
  /** For people. */
  readonly text: string;
  /** `null` where nothing decided it. */
  readonly origin: Origin | null;
}

interface ExplainedDatabase {
  readonly path: string;
  readonly destination: string | null;
  readonly origin: Origin;
  readonly settings: readonly Fact[];
  /** Those that are not as for the others. */
  readonly own: readonly Fact[];
  /** `null` where the database is not there, or the bucket costs nothing by itself. */
  readonly cost: MonthlyCost | null;
}

/** Prints the configuration that counts. */
export function run(context: CommandContext, call: CommandCall): Promise<number> {
  const { output, configuration } = context;
  const storage = storageOf(context);
  const general = resolveSettings(watchSettings, call, configuration?.settings);
  const sync = factsOf(watchSettings, general);
  const retention = factsOf(retainSettings, resolveSettings(retainSettings, call, configuration?.settings));
  const snapshotsMax = retention.reduce((sum, { value }) => sum + Number(value), 0);
  const databases = databasesOf(context, call, { general, snapshotsMax });
  const file = configuration?.file ?? null;
  output.json({
    configuration: file,
    storage: storage.map(plain),
    settings: sync.map(plain),
    retention: { settings: retention.map(plain), snapshotsMax },
    databases: databases.map(({ path, destination, origin, settings, cost }) => ({
      path,
      destination,
      origin,
      settings: settings.map(plain),
      monthlyCost: cost,
    })),
  });
  output.line(`configuration: ${file === null ? "no file" : printable(file)}`);
  printFacts(output, "storage", storage);
  printFacts(output, "every database", sync);
  printFacts(output, "retention", retention);
  output.line(`  in all at most ${snapshotsMax} snapshots of each database`);
  output.line(databases.length === 0 ? "databases: none" : "databases:");
  for (const { path, destination, origin, own } of databases) {
    const where = destination === null ? "" : ` → ${destination}`;
    output.line(`  ${printable(`${path}${where}`)}  (${originWord(origin)})`);
    for (const row of rowsOf(own)) output.line(`    ${row}`);
  }
  printCosts(output, databases);
  return Promise.resolve(0);
}

function storageOf(context: CommandContext): Fact[] {
  const bucket = bucketOf(context);
  if (bucket === null) return [{ key: "bucket", value: null, text: "none: add -b", origin: null }];
  const facts = [factOf("bucket", bucket)];
  if (parseBucketUrl(bucket.value).scheme === "file") return facts;
  // An endpoint that cannot be used is refused here, before it is printed: it may hold a password.
  openDestination(context);
  const { endpoint, region } = addressOf(context);
  return [
    ...facts,
    endpoint === null
      ? { key: "endpoint", value: null, text: "that of AWS", origin: { kind: "default", name: null } }
      : factOf("endpoint", endpoint),
    factOf("region", region),
    credentialsOf(context),
  ];
}

/** Whether there are credentials, and from where; never what they are. */
function credentialsOf(context: CommandContext): Fact {
  const sources = { ...serviceOptions(context), files: context.runtime.files };
  const fact = (value: string, origin: Origin | null): Fact => ({ key: "credentials", value, text: value, origin });
  try {
    if (environmentCredentials(sources.environment) !== null) {
      return fact("found", { kind: "environment", name: "AWS_ACCESS_KEY_ID" });
    }
    return profileCredentials(sources) === null
      ? fact("none", null)
      : fact("found", { kind: "profile", name: profileNameOf(context) });
  } catch (error) {
    if (!(error instanceof StorageError)) throw error;
    return fact(`not usable: ${error.message}`, null);
  }
}

function databasesOf(
  context: CommandContext,
  call: CommandCall,
  { general, snapshotsMax }: { general: ReadonlyMap<string, Resolved>; snapshotsMax: number },
): ExplainedDatabase[] {
  const isEmpty = (context.configuration?.databases.length ?? 0) === 0;
  if (call.positionals[0].length === 0 && isEmpty) return [];
  const place = bucketOf(context) === null ? null : openDestination(context);
  return chooseDatabases(context, call).map((database: ChosenDatabase) => {
    const settings = factsOf(watchSettings, database.settings);
    const isOwn = ({ name }: Setting): boolean =>
      database.settings.get(name)!.origin.name !== general.get(name)!.origin.name;
    return {
      path: database.path,
      destination: place === null ? null : `${place.store.location}/${rootOf(place.prefix, database)}`,
      origin: database.origin,
      settings,
      own: factsOf(watchSettings.filter(isOwn), database.settings),
      cost: costOf(context, database.path, settings, snapshotsMax),
    };
  });
}

function costOf(
  context: CommandContext,
  path: string,
  settings: readonly Fact[],
  snapshotsMax: number,
): MonthlyCost | null {
  const bucket = bucketOf(context);
  const databaseSize = sizeOf(context, path);
  if (bucket === null || parseBucketUrl(bucket.value).scheme === "file" || databaseSize === null) return null;
  const of = (key: string): unknown => settings.find((fact) => fact.key === key)?.value;
  const isCompacted = of("compact_after_snapshot") === true || Number(of("compact_interval")) > 0;
  return monthlyCost({
    syncInterval: Number(of("wal_sync_interval")),
    snapshotInterval: Number(of("snapshot_interval")),
    snapshotsMax: isCompacted ? snapshotsMax : null,
    databaseSize,
  });
}

/** Bytes; `null` where the file is not there, or not for us to see: then watch has something to say. */
function sizeOf({ runtime }: CommandContext, path: string): number | null {
  try {
    return runtime.files.stat(path)?.size ?? null;
  } catch {
    return null;
  }
}

function printCosts(output: Output, databases: readonly ExplainedDatabase[]): void {
  const known = databases.filter(({ cost }) => cost !== null);
  if (known.length === 0) return;
  const usd = (sum: number): string => `${sum.toFixed(2)} USD`;
  const rows = known.map(({ path, cost }) => {
    const { puts, snapshots, snapshotBytes, requestsUsd, storageUsd } = cost!;
    const stored = `${usd(storageUsd)} for ${count(snapshots, "snapshot")} (${formatBytes(snapshotBytes)})`;
    return [path, `${usd(requestsUsd)} for ${puts} PUTs`, stored];
  });
  output.line("estimated monthly cost at most, each written to all the time (idle databases send nothing):");
  for (const row of table(rows)) output.line(`  ${row}`);
  const total = known.reduce((sum, { cost }) => sum + cost!.requestsUsd + cost!.storageUsd, 0);
  const { thousandPuts, gigabyteMonth } = prices;
  output.line(
    `  in all ${usd(total)}, by the prices of S3 Standard: ${thousandPuts} USD per 1,000 PUTs, ` +
      `${gigabyteMonth} USD per GB`,
  );
}

function factsOf(settings: readonly Setting[], values: ReadonlyMap<string, Resolved>): Fact[] {
  return settings.map((setting) => {
    const { value, origin } = values.get(setting.name)!;
    const { key, unit } = setting;
    return {
      key,
      value: value === undefined ? null : unit === "bytes" ? value : inUnit(setting, value),
      ...(unit === undefined ? {} : { unit }),
      text: textOf(setting, value),
      origin,
    };
  });
}

function factOf(key: string, { value, origin }: Resolved<string>): Fact {
  return { key, value, text: value, origin };
}

/** Without what is for people. */
function plain({ text: _text, ...fact }: Fact): Omit<Fact, "text"> {
  return fact;
}

function printFacts(output: Output, title: string, facts: readonly Fact[]): void {
  output.line(`${title}:`);
  for (const row of rowsOf(facts)) output.line(`  ${row}`);
}

function rowsOf(facts: readonly Fact[]): string[] {
  return table(facts.map(({ key, text, origin }) => origin === null ? [key, text] : [key, text, originText(origin)]));
}

function originWord(origin: Origin): string {
  return origin.kind === "argument" ? "command line" : printable(originText(origin));
}
