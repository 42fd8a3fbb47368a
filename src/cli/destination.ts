/** The bucket that the flags and the environment name, opened, and databases found in it by name. */
import { ConfigError } from "../errors.ts";
import { databaseName, parseBucketUrl } from "../format/keys.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { openStore } from "../storage/open.ts";
import { version } from "../version.ts";
import type { CommandContext } from "./context.ts";

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

/** Opens the bucket of `-b`; throws `ConfigError` when there is none. Nothing is sent yet. */
export function openDestination(context: CommandContext): Destination {
  const { shared, process, runtime, log } = context;
  if (shared.bucket === undefined) {
    throw new ConfigError("no_bucket", "no bucket was given", {
      hint: "add -b s3://my-bucket/prefix, or -b file:///directory to try it without an account",
    });
  }
  const environment: Record<string, string | undefined> = {};
  for (const name of variables) environment[name] = process.environment(name);
  return openStore({
    url: parseBucketUrl(shared.bucket),
    endpoint: shared.endpoint,
    environment,
    homeDirectory: process.homeDirectory,
    runtime,
    log,
  });
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
