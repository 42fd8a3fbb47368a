/** The bucket that flags, environment and walrust.toml name, opened, and databases found in it by name. */
import { ConfigError } from "../errors.ts";
import { databaseName, parseBucketUrl } from "../format/keys.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { type AddressSetting, addressSettings, openStore, type OpenStoreOptions } from "../storage/open.ts";
import { version } from "../version.ts";
import type { Configuration } from "./config.ts";
import type { CommandContext } from "./context.ts";
import type { Resolved } from "./resolved.ts";

/** The environment variables the store may ask for. */
const variables = [
  "AWS_ACCESS_KEY_ID",
  "AWS_SECRET_ACCESS_KEY",
  "AWS_SESSION_TOKEN",
  "AWS_PROFILE",
  "AWS_REGION",
  "AWS_DEFAULT_REGION",
  "AWS_ENDPOINT_URL",
  "AWS_ENDPOINT_URL_S3",
  "AWS_CONFIG_FILE",
  "AWS_SHARED_CREDENTIALS_FILE",
  "HOME",
  "USERPROFILE",
];

/** Where objects lie. */
export interface Destination {
  readonly store: ObjectStore;
  /** Empty, or ending with `/`. */
  readonly prefix: string;
}

/** The bucket of `-b`, else of walrust.toml; `null` where neither names one. */
export function bucketOf({ shared, configuration }: CommandContext): Resolved<string> | null {
  if (shared.bucket !== undefined) return { value: shared.bucket, origin: { kind: "flag", name: "--bucket" } };
  return ofFile(configuration, "bucket");
}

/** Endpoint (`null`: that of AWS) and region of an S3 bucket. */
export function addressOf(
  context: CommandContext,
): { endpoint: Resolved<string> | null; region: Resolved<string> } {
  const { endpoint, region } = addressSettings(serviceOptions(context));
  const resolved = (name: string, { value, source, variable }: AddressSetting): Resolved<string> => {
    if (source === "configured") return ofFile(context.configuration, name)!;
    const names = { option: `--${name}`, environment: variable!, endpoint: null, default: null };
    if (source === "profile") {
      return { value, origin: { kind: source, name: profileNameOf(context) } };
    }
    return { value, origin: { kind: source === "option" ? "flag" : source, name: names[source] } };
  };
  return { endpoint: endpoint === null ? null : resolved("endpoint", endpoint), region: resolved("region", region) };
}

/** The AWS profile that counts. */
export function profileNameOf({ process }: CommandContext): string {
  return process.environment("AWS_PROFILE") || "default";
}

/** The environment variables that the store may ask for, where the others come from, and the machine. */
export function serviceOptions(context: CommandContext): Omit<OpenStoreOptions, "url"> {
  const { shared, process, runtime, log, configuration } = context;
  const environment: Record<string, string | undefined> = {};
  for (const name of variables) environment[name] = process.environment(name);
  return {
    endpoint: shared.endpoint,
    configured: {
      endpoint: ofFile(configuration, "endpoint")?.value,
      region: ofFile(configuration, "region")?.value,
    },
    environment,
    homeDirectory: process.homeDirectory,
    runtime,
    log,
  };
}

function ofFile(configuration: Configuration | null, name: string): Resolved<string> | null {
  const given = configuration?.settings.get(name);
  return given === undefined ? null : { value: String(given.value), origin: { kind: "file", name: given.place } };
}

/** Opens the bucket of `-b` or of walrust.toml; throws `ConfigError` when there is none. Nothing is sent yet. */
export function openDestination(context: CommandContext): Destination {
  const bucket = bucketOf(context);
  if (bucket === null) {
    const file = context.configuration?.file;
    throw new ConfigError(
      "no_bucket",
      file === undefined ? "no bucket was given" : `no bucket was given, nor in ${file}`,
      {
        hint: "add -b s3://my-bucket/prefix, or -b file:///directory to try it without an account",
      },
    );
  }
  return openStore({ ...serviceOptions(context), url: parseBucketUrl(bucket.value) });
}

/** Names this process for whoever meets its lock. */
export function holderOf({ process }: CommandContext): string {
  return `walrust ${version}, process ${process.pid} on ${process.hostname}`;
}

/** Root `${prefix}${name}/` of the database called `name`: as it is, else without its extension (`app.db` → `app`). */
export async function findRoot(
  { store, prefix }: Destination,
  name: string,
  signal: AbortSignal,
): Promise<{ name: string; root: string }> {
  // deno-lint-ignore no-control-regex
  const isBad = /[\u0000-\u001f\u007f]/.test(name) ||
    name.split("/").some((part) => part === "" || part === "." || part === "..");
  if (isBad) {
    throw new ConfigError("bad_name", `${JSON.stringify(name)} is no database name`, {
      hint: "give the name that `walrust list` shows, such as app",
    });
  }
  const exact = { name, root: `${prefix}${name}/` };
  const short = databaseName(name);
  if (short === name || await holdsSomething(store, exact.root, signal)) return exact;
  const candidate = { name: short, root: `${prefix}${short}/` };
  return await holdsSomething(store, candidate.root, signal) ? candidate : exact;
}

async function holdsSomething(store: ObjectStore, root: string, signal: AbortSignal): Promise<boolean> {
  for await (const _object of store.list(root, { signal })) return true;
  return false;
}
