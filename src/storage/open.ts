import type { BucketUrl } from "../format/keys.ts";
import type { Log, Runtime } from "../runtime/types.ts";
import { type Credentials, credentialsChain, type Environment, profileSettings } from "./credentials.ts";
import { DirectoryStore } from "./directory.ts";
import type { ObjectStore } from "./object_store.ts";
import type { RetryPolicy } from "./retry.ts";
import { regionOfHost } from "./s3_address.ts";
import { S3Store } from "./s3.ts";

/** What {@linkcode openStore} needs. */
export interface OpenStoreOptions {
  /** From `parseBucketUrl`. */
  readonly url: BucketUrl;
  /** Else `AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`, the profile's `endpoint_url`, else AWS. */
  readonly endpoint?: string;
  /** Else `AWS_REGION`, `AWS_DEFAULT_REGION`, the profile's `region`, what the endpoint implies, `us-east-1`. */
  readonly region?: string;
  /** Before environment and profile. */
  readonly credentials?: Credentials;
  /** Environment variables. */
  readonly environment: Environment;
  /** Where `.aws` is; else `HOME` of the environment. */
  readonly homeDirectory?: string;
  /** The machine. */
  readonly runtime: Pick<Runtime, "clock" | "random" | "files" | "sha256" | "fetch">;
  /** Told of retries and corrections. */
  readonly log?: Log;
  /** How often and how long to retry; the rest as by default. */
  readonly retryPolicy?: Partial<RetryPolicy>;
}

/** The store a bucket URL names, and the prefix of its keys. Nothing is read or sent before the first call. */
export function openStore(options: OpenStoreOptions): { store: ObjectStore; prefix: string } {
  const { url, environment, runtime } = options;
  if (url.scheme === "file") {
    const { files, random, clock } = runtime;
    return { store: new DirectoryStore({ directory: url.directory, files, random, clock }), prefix: url.prefix };
  }
  const sources = {
    environment,
    files: runtime.files,
    ...(options.homeDirectory === undefined ? {} : { homeDirectory: options.homeDirectory }),
  };
  const profile = profileSettings(sources);
  const endpoint = options.endpoint ?? (environment.AWS_ENDPOINT_URL_S3 || environment.AWS_ENDPOINT_URL ||
    profile.endpoint);
  const region = options.region ?? impliedRegion(endpoint) ??
    (environment.AWS_REGION || environment.AWS_DEFAULT_REGION || profile.region);
  const store = new S3Store({
    bucket: url.bucket,
    ...(endpoint === undefined ? {} : { endpoint }),
    ...(region === undefined ? {} : { region }),
    credentials: credentialsChain({
      ...sources,
      ...(options.credentials === undefined ? {} : { explicit: options.credentials }),
    }),
    clock: runtime.clock,
    random: runtime.random,
    sha256: runtime.sha256,
    fetch: runtime.fetch,
    ...(options.log === undefined ? {} : { log: options.log }),
    ...(options.retryPolicy === undefined ? {} : { retryPolicy: options.retryPolicy }),
  });
  return { store, prefix: url.prefix };
}

/** R2 and Tigris have one region, whatever AWS_REGION says of others. */
function impliedRegion(endpoint: string | undefined): string | undefined {
  if (endpoint === undefined || !URL.canParse(endpoint)) return undefined;
  return regionOfHost(new URL(endpoint).hostname) === "auto" ? "auto" : undefined;
}
