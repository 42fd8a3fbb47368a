/** The options table: what can be set, by which flag and which key of walrust.toml, its values and its default. */
import { byteSize, oneOf, secondsAsMs, text, truth, url, wholeNumber } from "./args.ts";
import { retentionTiers, type TierName, tierNames } from "../replication/retention_tiers.ts";
import type { OptionSpec } from "./parser.ts";

/** The configuration file that is read where none is named. */
export const defaultFile = "walrust.toml";

/** A table of walrust.toml that holds settings. */
export type SettingTable = "s3" | "sync" | "retention";

/** One setting; a value is always what {@linkcode Setting.parse} gives, wherever it came from. */
export interface Setting {
  /** In parsed options: the long flag in camel case, where there is one. */
  readonly name: string;
  /** As the parser wants them, or null where it is set by the file alone. */
  readonly flags: string | null;
  /** The {@linkcode Setting.name} under which walrust.toml has it, where that is another. */
  readonly inFile?: string;
  /** Where walrust.toml has it, or null where it is a flag alone. */
  readonly table: SettingTable | null;
  /** Its key there. */
  readonly key: string;
  readonly description: string;
  /** What a value is in walrust.toml. */
  readonly type: "text" | "number" | "whole number" | "true or false";
  /** Turns a word into the value, milliseconds and bytes where the unit is one of time or size; throws `ConfigError`. */
  readonly parse: (word: string, label: string) => unknown;
  readonly fallback?: unknown;
  readonly unit?: "seconds" | "pages" | "bytes" | "snapshots";
  /** What 0 means, where it may be 0. */
  readonly zero?: string;
  /** What counts where nothing is set and there is no {@linkcode Setting.fallback}. */
  readonly absent?: string;
}

/** `[s3]`. */
export const s3Settings: readonly Setting[] = [
  {
    name: "bucket",
    flags: "-b, --bucket <url>",
    table: "s3",
    key: "bucket",
    description: "s3://bucket/prefix, bucket/prefix or file:///directory",
    type: "text",
    parse: text,
  },
  {
    name: "endpoint",
    flags: "--endpoint <url>",
    table: "s3",
    key: "endpoint",
    description: "S3 endpoint (else AWS_ENDPOINT_URL_S3)",
    type: "text",
    parse: url,
  },
  { name: "region", flags: null, table: "s3", key: "region", description: "S3 region", type: "text", parse: text },
];

/** `[sync]`: what may also be set for one database in `[[databases]]`. */
export const syncSettings: readonly Setting[] = [
  {
    name: "walSyncInterval",
    flags: "--wal-sync-interval <seconds>",
    table: "sync",
    key: "wal_sync_interval",
    description: "how often committed changes are shipped; fractions allowed",
    type: "number",
    parse: secondsAsMs(10),
    fallback: 1000,
    unit: "seconds",
  },
  {
    name: "snapshotInterval",
    flags: "--snapshot-interval <seconds>",
    table: "sync",
    key: "snapshot_interval",
    description: "time between full snapshots; 0 = none",
    type: "number",
    parse: secondsAsMs(0),
    fallback: 3_600_000,
    unit: "seconds",
    zero: "none",
  },
  {
    name: "onStartup",
    flags: "--on-startup <true|false>",
    table: "sync",
    key: "on_startup",
    description: "snapshot when the watch starts",
    type: "true or false",
    parse: truth,
    fallback: true,
  },
  {
    name: "checkpointInterval",
    flags: "--checkpoint-interval <seconds>",
    table: "sync",
    key: "checkpoint_interval",
    description: "time between WAL checkpoints",
    type: "number",
    parse: secondsAsMs(100),
    fallback: 60_000,
    unit: "seconds",
  },
  {
    name: "minCheckpointPages",
    flags: "--min-checkpoint-pages <pages>",
    table: "sync",
    key: "min_checkpoint_page_count",
    description: "no checkpoint below this many WAL pages",
    type: "whole number",
    parse: wholeNumber(1),
    fallback: 1000,
    unit: "pages",
  },
  {
    name: "walTruncateThreshold",
    flags: "--wal-truncate-threshold <pages>",
    table: "sync",
    key: "wal_truncate_threshold_pages",
    description: "WAL pages beyond which a checkpoint is tried at every sync",
    type: "whole number",
    parse: wholeNumber(1),
    fallback: 121_359,
    unit: "pages",
  },
  {
    name: "validationInterval",
    flags: "--validation-interval <seconds>",
    table: "sync",
    key: "validation_interval",
    description: "time between verifications of what is stored; 0 = none",
    type: "number",
    parse: secondsAsMs(0),
    fallback: 0,
    unit: "seconds",
    zero: "none",
  },
];

/** When retention and merging run beside a watch; these may be set for one database too. */
export const compactionSettings: readonly Setting[] = [
  {
    name: "compactAfterSnapshot",
    flags: "--compact-after-snapshot",
    table: "sync",
    key: "compact_after_snapshot",
    description: "retention and merging after each snapshot",
    type: "true or false",
    parse: truth,
    fallback: false,
  },
  {
    name: "compactInterval",
    flags: "--compact-interval <seconds>",
    table: "sync",
    key: "compact_interval",
    description: "time between retention and merging; 0 = none",
    type: "number",
    parse: secondsAsMs(0),
    fallback: 0,
    unit: "seconds",
    zero: "none",
  },
];

/** What only flags set. */
export const machineSettings: readonly Setting[] = [
  {
    name: "validationBudget",
    flags: "--validation-budget <size>",
    table: null,
    key: "validation_budget",
    description: "what one verification reads of the bucket; the next one goes on where it stopped",
    type: "text",
    parse: byteSize,
    fallback: 1024 ** 3,
    unit: "bytes",
  },
  {
    name: "spoolMaxSize",
    flags: "--spool-max-size <size>",
    table: null,
    key: "spool_max_size",
    description: "what may be kept on disk while the bucket cannot be reached; beyond it the WAL grows",
    type: "text",
    parse: byteSize,
    fallback: 1024 ** 3,
    unit: "bytes",
  },
  {
    name: "minFreeSpace",
    flags: "--min-free-space <size>",
    table: null,
    key: "min_free_space",
    description: "disk space that is left to others then",
    type: "text",
    parse: byteSize,
    fallback: 128 * 1024 ** 2,
    unit: "bytes",
  },
];

/** Where the state of databases is. */
export const stateDirectory: Setting = {
  name: "stateDir",
  flags: "--state-dir <directory>",
  table: null,
  key: "state_dir",
  description: "where index and journal are kept (default: .walrust-<file> beside the database)",
  type: "text",
  parse: text,
  absent: "beside each database",
};

/** How databases are read. */
export const captureMode: Setting = {
  name: "mode",
  flags: "--mode <mode>",
  table: null,
  key: "mode",
  description: "pin: through SQLite; observe: files only, nothing is written or locked; auto: pin where possible",
  type: "text",
  parse: oneOf("auto", "pin", "observe"),
  fallback: "auto",
};

/** Everything that decides how a database is watched. */
export const watchSettings: readonly Setting[] = [
  ...syncSettings,
  ...compactionSettings,
  ...machineSettings,
  stateDirectory,
  captureMode,
];

const periods: Readonly<Record<TierName, string>> = {
  hourly: "hours",
  daily: "days",
  weekly: "weeks",
  monthly: "months",
};

/** `[retention]`: snapshots kept, the newest of each hour, day, week and month. */
export const retentionSettings: readonly Setting[] = tierNames.map((tier) => ({
  name: tier,
  flags: `--${tier} <number>`,
  table: "retention",
  key: tier,
  description: `${periods[tier]} (UTC) of which the newest snapshot stays`,
  type: "whole number",
  parse: wholeNumber(1),
  fallback: retentionTiers[tier],
  unit: "snapshots",
}));

/** `[retention]` as the flags of a watch. */
export const retainSettings: readonly Setting[] = retentionSettings.map((setting) => {
  const { key } = setting;
  const name = `retain${key[0].toUpperCase()}${key.slice(1)}`;
  return { ...setting, name, inFile: key, flags: `--retain-${key} <number>` };
});

/** Every setting that walrust.toml may hold. */
export const fileSettings: readonly Setting[] = [
  ...s3Settings,
  ...syncSettings,
  ...compactionSettings,
  ...retentionSettings,
];

/** Tables that the documentation of walrust names and this version does not have. */
export const laterTables: readonly string[] = ["retry", "webhooks"];

/** Keys of `[sync]` of the same kind, with the value that says what this version does anyway. */
export const laterKeys: Readonly<Record<string, unknown>> = {
  max_changes: 0n,
  max_interval: 0n,
  on_idle: 0n,
};

/** Options that every command accepts, before or after its name. */
export const sharedOptions: readonly OptionSpec[] = [
  ...s3Settings.filter(({ flags }) => flags !== null).map(flagOf),
  {
    flags: "--config <file>",
    description: "configuration file (default: walrust.toml in this directory, if it exists)",
    parse: text,
  },
  { flags: "--no-config", description: "read no configuration file" },
  { flags: "--json", description: "print JSON for machines" },
  { flags: "--quiet", description: "print errors only" },
  { flags: "-v, --verbose", description: "log what happens to stderr (like WALRUST_LOG=debug)" },
  { flags: "--no-color", description: "no colors (also NO_COLOR)" },
];

/** A setting as an option of a command. */
export function flagOf(setting: Setting): OptionSpec {
  const { flags, description, parse, fallback, unit } = setting;
  if (flags === null) throw new TypeError(`${setting.key} has no flag`);
  if (!flags.includes("<")) return { flags, description, fallback };
  if (fallback === undefined) return { flags, description, parse };
  const isOther = unit === "seconds" || unit === "bytes";
  return {
    flags,
    description,
    parse,
    fallback,
    ...(isOther ? { fallbackText: String(inUnit(setting, fallback)) } : {}),
  };
}

/** A value as the user would write it, in the unit of its flag and its key. */
export function inUnit({ unit }: Setting, value: unknown): unknown {
  if (unit === "seconds") return Number(value) / 1000;
  return unit === "bytes" ? sizeText(Number(value)) : value;
}

/** A value for people. */
export function textOf(setting: Setting, value: unknown): string {
  if (value === undefined) return setting.absent ?? "none";
  if (value === 0 && setting.zero !== undefined) return `0 (${setting.zero})`;
  const plain = String(inUnit(setting, value));
  if (setting.unit === undefined || setting.unit === "bytes") return plain;
  return setting.unit === "seconds" ? `${plain} s` : `${plain} ${setting.unit.slice(0, value === 1 ? -1 : undefined)}`;
}

/** As `byteSize` reads it. */
function sizeText(bytes: number): string {
  for (const [unit, size] of [["GiB", 1024 ** 3], ["MiB", 1024 ** 2], ["KiB", 1024]] as const) {
    if (bytes >= size && bytes % size === 0) return `${bytes / size}${unit}`;
  }
  return `${bytes}B`;
}
