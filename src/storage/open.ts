import type { BucketUrl } from "../format/keys.ts";
import type { Log, Runtime } from "../runtime/types.ts";
import {
  type Credentials,
  credentialsChain,
  type CredentialSources,
  type Environment,
  profileSettings,
} from "./credentials.ts";
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
  /** What a configuration file says: after option and environment, before the profile. */
  readonly configured?: { readonly endpoint?: string; readonly region?: string };
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

/** What says where the service is. */
export type AddressSource = "option" | "environment" | "configured" | "profile" | "endpoint" | "default";

/** A setting of the service, and where it came from. */
export interface AddressSetting {
  /** What counts. */
  readonly value: string;
  /** What said so; `endpoint`: the endpoint implies it. */
  readonly source: AddressSource;
  /** Name of the environment variable. */
  readonly variable?: string;
}

/** Endpoint (`null`: that of AWS) and region that {@linkcode openStore} takes, and why. */
export function addressSettings(
  options: Omit<OpenStoreOptions, "url" | "runtime"> & { runtime: Pick<Runtime, "files"> },
): { endpoint: AddressSetting | null; region: AddressSetting } {
  const { environment, configured = {} } = options;
  const profile = profileSettings(sourcesOf(options));
  const fromEnvironment = (...names: string[]): AddressSetting | null => {
    const variable = names.find((name) => environment[name]);
    return variable === undefined ? null : { value: environment[variable]!, source: "environment", variable };
  };
  const from = (source: AddressSource, value: string | null | undefined): AddressSetting | null =>
    value === null || value === undefined ? null : { value, source };
  const endpoint = from("option", options.endpoint) ?? fromEnvironment("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL") ??
    from("configured", configured.endpoint) ?? from("profile", profile.endpoint);
  const implied = endpoint !== null && URL.canParse(endpoint.value)
    ? regionOfHost(new URL(endpoint.value).hostname)
    : null;
  const region = from("option", options.region) ??
    // R2 and Tigris have one region, whatever AWS_REGION says of others.
    from("endpoint", implied === "auto" ? implied : null) ??
    fromEnvironment("AWS_REGION", "AWS_DEFAULT_REGION") ?? from("configured", configured.region) ??
    from("profile", profile.region) ?? from("endpoint", implied) ?? { value: "us-east-1", source: "default" };
  return { endpoint, region };
}

/** The store a bucket URL names, and the prefix of its keys. Nothing is read or sent before the first call. */
export function openStore(options: OpenStoreOptions): { store: ObjectStore; prefix: string } {
  const { url, runtime } = options;
  if (url.scheme === "file") {
    const { files, random, clock } = runtime;
    return { store: new DirectoryStore({ directory: url.directory, files, random, clock }), prefix: url.prefix };
  }
  const { endpoint, region } = addressSettings(options);
  const store = new S3Store({
    bucket: url.bucket,
    ...(endpoint === null ? {} : { endpoint: endpoint.value }),
    region: region.value,
    credentials: credentialsChain({
      ...sourcesOf(options),
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

function sourcesOf(
  options: Pick<OpenStoreOptions, "environment" | "homeDirectory"> & { runtime: Pick<Runtime, "files"> },
): CredentialSources {
  const { environment, runtime, homeDirectory } = options;
  return { environment, files: runtime.files, ...(homeDirectory === undefined ? {} : { homeDirectory }) };
}
