import { StorageError } from "../errors.ts";
import type { Files } from "../runtime/types.ts";

/** Who signs the requests. */
export interface Credentials {
  /** Name of the key. */
  readonly accessKeyId: string;
  /** Never printed. */
  readonly secretAccessKey: string;
  /** Present with temporary credentials. */
  readonly sessionToken?: string;
}

/** Gives the credentials; asked before every request. `refresh`: those given last have expired. */
export type CredentialsProvider = (options?: { refresh?: boolean }) => Promise<Credentials>;

/** Environment variables, handed in by the entry point. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** Where credentials and settings may come from. */
export interface CredentialSources {
  readonly environment: Environment;
  readonly files: Files;
  /** Else `HOME` or `USERPROFILE` of the environment. */
  readonly homeDirectory?: string;
}

const fileSizeMax = 1024 * 1024;
const hint = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE for a profile in ~/.aws/credentials.";

/** Always these. */
export function explicitCredentials(credentials: Credentials): CredentialsProvider {
  return () => Promise.resolve(credentials);
}

/** `AWS_ACCESS_KEY_ID` and its companions, or null when none is set; throws when one of the pair is missing. */
export function environmentCredentials(environment: Environment): Credentials | null {
  const accessKeyId = environment.AWS_ACCESS_KEY_ID || undefined;
  const secretAccessKey = environment.AWS_SECRET_ACCESS_KEY || undefined;
  if (accessKeyId === undefined && secretAccessKey === undefined) return null;
  if (accessKeyId === undefined || secretAccessKey === undefined) {
    const missing = accessKeyId === undefined ? "AWS_ACCESS_KEY_ID" : "AWS_SECRET_ACCESS_KEY";
    throw new StorageError("CredentialsIncomplete", `${missing} is not set, its companion is`, { hint });
  }
  return checked(accessKeyId, secretAccessKey, environment.AWS_SESSION_TOKEN || undefined, "the environment");
}

/** The keys of the profile named by `AWS_PROFILE` (else `default`) in the files of `~/.aws`, or null. */
export function profileCredentials(sources: CredentialSources): Credentials | null {
  const profile = readProfile(sources);
  const { aws_access_key_id: id, aws_secret_access_key: secret, aws_session_token: token } = profile.settings;
  if (id && secret) return checked(id, secret, token || undefined, `profile "${profile.name}"`);
  if (id || secret) {
    throw new StorageError("CredentialsIncomplete", `profile "${profile.name}" has one key of the pair only`, { hint });
  }
  const unsupported = ["sso_session", "sso_start_url", "role_arn", "credential_process", "web_identity_token_file"]
    .find((name) => profile.settings[name]);
  if (unsupported !== undefined) {
    throw new StorageError(
      "CredentialsUnsupported",
      `profile "${profile.name}" gets its credentials by ${unsupported}, which is not supported yet`,
      { hint: `Run: eval "$(aws configure export-credentials --profile ${profile.name} --format env)"` },
    );
  }
  if (!profile.found && sources.environment.AWS_PROFILE) {
    throw new StorageError(
      "CredentialsMissing",
      `profile "${profile.name}" is in none of ${profile.paths.join(", ")}`,
      {
        hint,
      },
    );
  }
  return null;
}

/** Region and endpoint that the profile asks for. */
export function profileSettings(sources: CredentialSources): { region?: string; endpoint?: string } {
  const { region, endpoint_url: endpoint } = readProfile(sources).settings;
  return { ...(region ? { region } : {}), ...(endpoint ? { endpoint } : {}) };
}

/** Explicit credentials, else the environment, else the profile; looked up once, and again when they expire. */
export function credentialsChain(sources: CredentialSources & { explicit?: Credentials }): CredentialsProvider {
  let known: Credentials | null = null;
  return (options) => {
    try {
      if (known === null || options?.refresh) {
        known = sources.explicit ?? environmentCredentials(sources.environment) ?? profileCredentials(sources);
      }
    } catch (error) {
      return Promise.reject(error);
    }
    if (known !== null) return Promise.resolve(known);
    return Promise.reject(new StorageError("CredentialsMissing", "no credentials for the bucket were found", { hint }));
  };
}

/** Sections and settings of an AWS profile file; names in lower case, nested and unreadable lines left out. */
export function parseProfileFile(text: string): Map<string, Record<string, string>> {
  const sections = new Map<string, Record<string, string>>();
  let current: Record<string, string> | null = null;
  for (const line of text.split(/\r?\n/)) {
    const header = /^\s*\[([^\]]+)\]/.exec(line);
    if (header) {
      const name = header[1].trim().replace(/^profile\s+/, "").replace(/^(["'])(.*)\1$/, "$2");
      current = sections.get(name) ?? Object.create(null) as Record<string, string>;
      sections.set(name, current);
      continue;
    }
    // An indented line belongs to the setting above it, such as `s3 =`.
    const setting = /^([A-Za-z0-9_.-]+)\s*=\s*(.*?)\s*$/.exec(line);
    if (setting && current) current[setting[1].toLowerCase()] = setting[2].replace(/\s+[#;].*$/, "");
  }
  return sections;
}

function checked(
  accessKeyId: string,
  secretAccessKey: string,
  sessionToken: string | undefined,
  where: string,
): Credentials {
  for (const value of [accessKeyId, secretAccessKey, sessionToken ?? ""]) {
    if (/[^\x21-\x7e]/.test(value)) {
      throw new StorageError("CredentialsInvalid", `the credentials in ${where} hold a space or a control character`, {
        hint: "A line end or a quote was probably copied along.",
      });
    }
  }
  return { accessKeyId, secretAccessKey, ...(sessionToken === undefined ? {} : { sessionToken }) };
}

function readProfile(
  sources: CredentialSources,
): { name: string; settings: Record<string, string>; found: boolean; paths: string[] } {
  const { environment } = sources;
  const home = sources.homeDirectory ?? environment.HOME ?? environment.USERPROFILE;
  const name = environment.AWS_PROFILE || "default";
  const paths = [
    environment.AWS_CONFIG_FILE || (home ? `${home}/.aws/config` : ""),
    environment.AWS_SHARED_CREDENTIALS_FILE || (home ? `${home}/.aws/credentials` : ""),
  ].filter((path) => path !== "");
  const found = paths.map((path) => parseProfileFile(readText(sources.files, path)).get(name));
  const settings: Record<string, string> = Object.create(null);
  for (const section of found) if (section) Object.assign(settings, section);
  return { name, settings, found: found.some((section) => section !== undefined), paths };
}

function readText(files: Files, path: string): string {
  if (files.stat(path)?.type !== "file") return "";
  let file;
  try {
    file = files.open(path, "read");
  } catch (error) {
    const message = error instanceof Error ? error.message : String(error);
    throw new StorageError("CredentialsUnreadable", `${path}: ${message}`, { cause: error, hint });
  }
  try {
    const bytes = new Uint8Array(Math.min(file.stat().size, fileSizeMax));
    return new TextDecoder().decode(bytes.subarray(0, file.read(bytes, 0)));
  } finally {
    file.close();
  }
}
