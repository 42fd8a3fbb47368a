/** Every command: its arguments, options and help. The module that does the work is loaded only when it is called. */
import { duration, oneOf, secondsAsMs, sequenceNumber, text, truth, wholeNumber } from "./args.ts";
import type { CommandModule } from "./context.ts";
import type { ArgumentSpec, CommandSpec, OptionSpec, ProgramSpec } from "./parser.ts";
import {
  captureMode,
  compactionSettings,
  flagOf,
  machineSettings,
  retainSettings,
  retentionSettings,
  sharedOptions,
  stateDirectory,
  syncSettings,
} from "./settings.ts";
import { graceDefaultMs } from "../replication/retention_tiers.ts";
import { version } from "../version.ts";

/** A command and where its code is. */
export interface CommandEntry extends CommandSpec {
  /** Works without walrust.toml, also where that is broken. */
  readonly withoutConfiguration?: boolean;
  load(): Promise<CommandModule>;
}

const watchArguments: readonly ArgumentSpec[] = [{
  name: "[database...]",
  description: "SQLite database files in WAL mode (default: those of walrust.toml)",
}];

const watchOptions: readonly OptionSpec[] = [
  ...[...syncSettings, ...compactionSettings, ...retainSettings, ...machineSettings, stateDirectory].map(flagOf),
  { flags: "--wait", description: "wait for databases that are absent, empty, locked or not in WAL mode yet" },
  flagOf(captureMode),
  {
    flags: "--adopt",
    description: "where the state directory is lost, go on in the bucket's lineage: read it, send what differs",
  },
  { flags: "--with-parent", description: "stop when the process that started this one is gone" },
];

/** All commands, in the order of the help. */
export const commands: readonly CommandEntry[] = [
  {
    name: "watch",
    summary: "replicate databases continuously until stopped",
    arguments: watchArguments,
    options: watchOptions,
    epilogue: "Example:\n  walrust watch app.db -b s3://my-bucket/backups",
    load: () => import("./command_watch.ts"),
  },
  {
    name: "snapshot",
    summary: "take one full snapshot now, also beside a running watch",
    arguments: [{ name: "<database>", description: "SQLite database file in WAL mode" }],
    options: [flagOf(captureMode), flagOf(stateDirectory)],
    epilogue: "Example:\n  walrust snapshot app.db -b s3://my-bucket/backups",
    load: () => import("./command_snapshot.ts"),
  },
  {
    name: "restore",
    summary: "restore a database, at its newest or at an earlier point",
    arguments: [{ name: "<name>", description: "database name as stored, with or without its extension" }],
    options: [
      { flags: "-o, --output <file>", description: "where the database is written", parse: text },
      {
        flags: "--point-in-time <time>",
        description: "the newest point at or before this RFC 3339 time with zone: after the last point, the last one",
        parse: text,
      },
      { flags: "--seq <number>", description: "the state at exactly this sequence number", parse: sequenceNumber },
      { flags: "--dry-run", description: "print what would be fetched, write nothing" },
      { flags: "--force", description: "move an existing output file aside" },
      {
        flags: "--integrity-check <level>",
        description: "none, quick or full",
        parse: oneOf("none", "quick", "full"),
        fallback: "quick",
      },
      {
        flags: "--parallel <number>",
        description: "objects fetched at the same time",
        parse: wholeNumber(1, 64),
        fallback: 4,
      },
    ],
    epilogue: "Examples:\n  walrust restore app -o restored.db -b s3://my-bucket/backups\n" +
      "  walrust restore app -o then.db -b s3://my-bucket/backups --point-in-time 2026-01-15T10:30:00Z",
    load: () => import("./command_restore.ts"),
  },
  {
    name: "replicate",
    summary: "keep a local copy that any program may read up to date until stopped",
    arguments: [{
      name: "<source>",
      description: "s3://bucket/prefix/name, bucket/prefix/name or file:///directory/name",
    }],
    options: [
      { flags: "--local <file>", description: "the copy: made when it is absent, else gone on with", parse: text },
      {
        flags: "--interval <time>",
        description: "time between two looks at the bucket: 500ms, 5s, 2m, 1h",
        parse: duration(10),
        fallback: 5000,
        fallbackText: "5s",
      },
      {
        flags: "--follow-lineage",
        description: "go on where a new lineage replaces the followed one, instead of stopping",
      },
      { flags: "--rebootstrap", description: "make the copy anew, and move aside what is there" },
      { flags: "--once", description: "catch up and end" },
    ],
    epilogue:
      "Readers open the file as any SQLite database, read-write so that they can roll back an update that was\n" +
      "killed; writes to it are refused while this runs, and found out afterwards.\n\n" +
      "Example:\n  walrust replicate s3://my-bucket/backups/app --local replica.db",
    load: () => import("./command_replicate.ts"),
  },
  {
    name: "list",
    summary: "list databases and the points they can be restored to",
    arguments: [],
    options: [],
    epilogue: "Example:\n  walrust list -b s3://my-bucket/backups",
    load: () => import("./command_list.ts"),
  },
  {
    name: "verify",
    summary: "check that what is stored is whole and can be restored",
    arguments: [{ name: "<name>", description: "database name as stored, with or without its extension" }],
    options: [
      {
        flags: "--level <level>",
        description: "list: keys; headers: 48 bytes of each object; full: every byte; drill: rebuild and compare too",
        parse: oneOf("list", "headers", "full", "drill"),
        fallback: "full",
      },
      { flags: "--fix", description: "remove what is provably of no use to any point" },
      {
        flags: "--parallel <number>",
        description: "objects fetched at the same time",
        parse: wholeNumber(1, 64),
        fallback: 8,
      },
      {
        flags: "--scratch <directory>",
        description: "where a drill rebuilds the database (default: the directory for temporary files)",
        parse: text,
      },
    ],
    epilogue: "Exit codes: 0 clean, 1 warnings only, 5 damage or loss, 6 nothing can be restored\n\n" +
      "Example:\n  walrust verify app -b s3://my-bucket/backups --level drill",
    load: () => import("./command_verify.ts"),
  },
  {
    name: "explain",
    summary: "show what watch would do with the same words, and what decided each value",
    arguments: watchArguments,
    options: watchOptions,
    epilogue: "Example:\n  walrust explain --config /etc/walrust.toml",
    load: () => import("./command_explain.ts"),
  },
  {
    name: "pragma",
    summary: "print the SQLite settings that suit a replicated database, as SQL",
    arguments: [],
    options: [
      { flags: "-o, --output <file>", description: "write to this new file instead", parse: text },
      { flags: "--comments <true|false>", description: "say what each setting means", parse: truth, fallback: true },
    ],
    epilogue: "Example:\n  walrust pragma | sqlite3 app.db",
    withoutConfiguration: true,
    load: () => import("./command_pragma.ts"),
  },
  {
    name: "compact",
    alias: "prune",
    summary: "give up old points by hours, days, weeks and months, and merge old changes",
    arguments: [{ name: "[name]", description: "database name as stored; all databases without it" }],
    options: [
      ...retentionSettings.map(flagOf),
      { flags: "--merge", description: "merge runs of changes older than a day" },
      { flags: "--force", description: "do it; without it the plan is shown and nothing is changed" },
      {
        flags: "--max-delete <objects>",
        description: "do nothing when more objects than this would go (default: no limit)",
        parse: wholeNumber(0),
      },
      {
        flags: "--grace <seconds>",
        description: "time between marking and deleting, so that restores under way keep their files",
        parse: secondsAsMs(0),
        fallback: graceDefaultMs,
        fallbackText: "3600",
      },
    ],
    epilogue: "What is to go is marked first; a later run, when the grace has passed, deletes it.\n\n" +
      "Examples:\n  walrust compact app -b s3://my-bucket/backups\n" +
      "  walrust compact -b s3://my-bucket/backups --merge --force",
    load: () => import("./command_compact.ts"),
  },
  {
    name: "demo",
    summary: "watch a live database, kill everything, restore and prove it; no account needed",
    arguments: [],
    options: [
      {
        flags: "--seconds <seconds>",
        description: "how long the writer runs",
        parse: wholeNumber(6, 3600),
        fallback: 10,
      },
      { flags: "--directory <directory>", description: "where everything is put (default: a new one)", parse: text },
    ],
    withoutConfiguration: true,
    load: () => import("./command_demo.ts"),
  },
  {
    name: "demo-writer",
    summary: "the writer of the demo, a process of its own",
    hidden: true,
    arguments: [
      { name: "<database>", description: "database to create" },
      { name: "<log>", description: "log of begun and acknowledged commits" },
    ],
    options: [],
    withoutConfiguration: true,
    load: () => import("./demo_writer.ts"),
  },
];

/** The whole command line of walrust. */
export const program: ProgramSpec = {
  name: "walrust",
  version,
  summary: "Continuous replication of SQLite databases to S3-compatible storage.",
  shared: sharedOptions,
  commands,
  epilogue: [
    "Environment:",
    "  AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, AWS_PROFILE",
    "  AWS_ENDPOINT_URL_S3, AWS_REGION (us-east-1), WALRUST_LOG (error, warn, info, debug, trace)",
    "",
    "Exit codes:",
    "  0 success, 1 general, 2 configuration, 3 database, 4 storage, 5 integrity, 6 restore",
  ].join("\n"),
};
