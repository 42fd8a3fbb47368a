import { NotFoundError, PreconditionError, StorageError } from "../errors.ts";
import type { StorageErrorDetails } from "../errors.ts";
import { printable } from "../format/keys.ts";
import { parseRetryAfter } from "./retry.ts";
import type { S3Address } from "./s3_address.ts";
import { parseDocument, type S3Element } from "./s3_xml.ts";

/** From what a server answers to a typed error with a message that says what to do. */

/** What was asked, for messages. */
export interface Asked {
  readonly operation: string;
  readonly key: string;
  readonly address: S3Address;
}

/** The head of an answer that is an error. */
export interface FailedAnswer {
  readonly status: number;
  header(name: string): string | null;
}

const retryableCodes = new Set([
  "BadDigest",
  "IncompleteBody",
  "InternalError",
  "OperationAborted",
  "RequestTimeout",
  "RequestTimeoutException",
  "ServiceUnavailable",
  "SlowDown",
  "SlowDownRead",
  "SlowDownWrite",
  "Throttling",
  "ThrottlingException",
  "TooManyRequests",
  "XAmzContentSHA256Mismatch",
]);

/** Codes of an unsuitable clock; the request is tried once more with the server's time. */
export const clockCodes: ReadonlySet<string> = new Set(["RequestTimeTooSkewed", "RequestExpired"]);

/** Codes of temporary credentials that have run out. */
export const expiredCodes: ReadonlySet<string> = new Set([
  "ExpiredToken",
  "ExpiredTokenException",
  "TokenRefreshRequired",
]);

const redirectCodes = new Set([
  "AuthorizationHeaderMalformed",
  "IllegalLocationConstraintException",
  "PermanentRedirect",
  "TemporaryRedirect",
]);

const hints: Record<string, string> = {
  AccessDenied: "Allow these credentials s3:ListBucket, s3:GetObject, s3:PutObject and s3:DeleteObject on the bucket.",
  InvalidAccessKeyId:
    "The access key is unknown to this endpoint: check AWS_ACCESS_KEY_ID, AWS_PROFILE and --endpoint.",
  SignatureDoesNotMatch: "Check AWS_SECRET_ACCESS_KEY, and that no proxy changes the request.",
  NoSuchBucket: "Create the bucket, or check its name, AWS_REGION and --endpoint.",
  ExpiredToken: "The session token has expired: get new credentials.",
  RequestTimeTooSkewed: "Set this machine's clock.",
};

/** The error an answer stands for; `body` is its beginning, XML or anything else. */
export function errorOfAnswer(answer: FailedAnswer, body: Uint8Array, asked: Asked, nowMs: number): StorageError {
  let document: S3Element | null = null;
  try {
    document = body.length === 0 ? null : parseDocument(body);
  } catch {
    // A proxy's page, or nothing of use: the status says enough.
  }
  if (document !== null && document.name !== "Error") document = document.all("Error")[0] ?? null;
  // A proxy without a way to the store says 404, too: nothing is absent until the store says so.
  if (answer.status === 404 && document === null && body.length > 0) return notS3(asked, "a page with status 404", 404);
  return errorOfDocument(answer, document, asked, nowMs);
}

/** As {@linkcode errorOfAnswer}, from a parsed `<Error>` element, which may also come with status 200. */
export function errorOfDocument(
  answer: FailedAnswer,
  document: S3Element | null,
  asked: Asked,
  nowMs: number,
): StorageError {
  const { status } = answer;
  const code = clean(document?.text("Code")) || codeOfStatus(status, asked);
  const said = clean(document?.text("Message"));
  const region = clean(answer.header("x-amz-bucket-region") ?? document?.text("Region"));
  const details: StorageErrorDetails = {
    status,
    requestId: clean(answer.header("x-amz-request-id") ?? document?.text("RequestId")) || undefined,
    bucket: asked.address.bucket,
    key: asked.key === "" ? undefined : asked.key,
    retryable: retryableCodes.has(code) || status >= 500 && status !== 501 && status !== 505 || status === 429 ||
      status === 408,
    retryAfterMs: parseRetryAfter(answer.header("retry-after"), nowMs),
    // The code is the server's word, and `constructor` is one.
    hint: Object.hasOwn(hints, code) ? hints[code] : undefined,
  };
  if (status >= 300 && status < 400 && status !== 304 || (redirectCodes.has(code) && (region !== "" || status < 400))) {
    return wrongRegion(document, region, answer, asked, details);
  }
  const message = `${describe(asked)}: ${messageOf(code, said, status, asked)}`;
  if (code === "NoSuchKey" || code === "NoSuchBucket" || status === 404) {
    return new NotFoundError(code, message, details);
  }
  if (status === 412 || code === "PreconditionFailed") return new PreconditionError(code, message, details);
  return new StorageError(code, message, details);
}

/** An answer no S3 server gives: a captive portal's page, a proxy that changed the body. Never taken for data. */
export function notS3(asked: Asked, problem: string, status: number): StorageError {
  return new StorageError("NotS3", `${describe(asked)}: the answer is not from an S3 server: ${problem}`, {
    status,
    bucket: asked.address.bucket,
    key: asked.key === "" ? undefined : asked.key,
    hint:
      `Something between here and ${asked.address.host} answers instead (a proxy, a captive portal), or the endpoint is wrong.`,
  });
}

/** Codes of a certificate that is not accepted, by Node and Bun. */
const certificateCodes =
  /(^|_)(CERT|CERTIFICATE|CRL|ALTNAME)(_|$)|^(UNABLE_TO_|INVALID_CA|INVALID_PURPOSE|HOSTNAME_MISMATCH)/;

/** The connection failed, broke, or nothing came in time; code `TlsFailed`, and final, where it is the certificate. */
export function connectionFailed(asked: Asked, error: unknown): StorageError {
  const causes: string[] = [];
  let code = "";
  for (let at: unknown = error; at instanceof Error && causes.length < 4; at = at.cause) {
    const message = at.message || at.name;
    if (!causes.includes(message)) causes.push(message);
    const own = (at as { code?: unknown }).code;
    if (code === "" && typeof own === "string") code = own;
  }
  // Deno repeats the URL, which is long and may hold anything.
  const text = (causes.join(": ") || String(error)).replace(/https?:\/\/[^\s)]+/g, "…");
  const failure = kindOfFailure(code, text, asked.address);
  return new StorageError(
    failure === "certificate" ? "TlsFailed" : "ConnectionFailed",
    `${describe(asked)}: ${asked.address.host}: ${clean(text)}`,
    {
      bucket: asked.address.bucket,
      key: asked.key === "" ? undefined : asked.key,
      retryable: failure !== "certificate",
      hint: connectionHints[failure],
      data: code === "" ? {} : { systemCode: code },
      cause: error,
    },
  );
}

const connectionHints = {
  certificate: "The server's certificate was not accepted.",
  handshake: "Check the endpoint's scheme and port: does it speak https?",
  other: "Check the network and the endpoint.",
};

/** By the code; only Deno gives none. A host's name in the text is no reason. */
function kindOfFailure(code: string, text: string, address: S3Address): keyof typeof connectionHints {
  if (!address.base.startsWith("https:")) return "other";
  if (code !== "") {
    if (certificateCodes.test(code)) return "certificate";
    return code === "EPROTO" || code.startsWith("ERR_SSL_") ? "handshake" : "other";
  }
  const reason = text.replaceAll(address.host, "");
  if (/\bcertificate\b/i.test(reason)) return "certificate";
  return /received (corrupt message|fatal alert)/.test(reason) ? "handshake" : "other";
}

/** Nothing came for so many milliseconds. */
export function timedOut(asked: Asked, ms: number): StorageError {
  return new StorageError("Timeout", `${describe(asked)}: no answer within ${Math.round(ms / 1000)} s`, {
    bucket: asked.address.bucket,
    key: asked.key === "" ? undefined : asked.key,
    retryable: true,
    hint: "Check the network and the endpoint.",
  });
}

/** Fewer or more bytes than announced. */
export function truncated(asked: Asked, got: number, expected: number): StorageError {
  return new StorageError("Truncated", `${describe(asked)}: ${got} of ${expected} bytes came`, {
    bucket: asked.address.bucket,
    key: asked.key === "" ? undefined : asked.key,
    retryable: true,
  });
}

/** `GetObject s3://bucket/key`, printable. */
export function describe(asked: Asked): string {
  return `${asked.operation} s3://${asked.address.bucket}${asked.key === "" ? "" : `/${printable(asked.key)}`}`;
}

function messageOf(code: string, said: string, status: number, asked: Asked): string {
  const { bucket, host } = asked.address;
  switch (code) {
    case "NoSuchBucket":
      return `the bucket "${bucket}" does not exist at ${host}`;
    case "NoSuchKey":
      return "no such object";
    case "AccessDenied":
      return `access denied${said === "" || said === "Access Denied" ? "" : ` (${said})`}`;
  }
  return `${code}${said === "" ? "" : `: ${said}`} (status ${status})`;
}

function wrongRegion(
  document: S3Element | null,
  region: string,
  answer: FailedAnswer,
  asked: Asked,
  details: StorageErrorDetails,
): StorageError {
  const place = region !== ""
    ? `region ${region}`
    : clean(document?.text("Endpoint") ?? answer.header("location")) || "another place";
  const message = `${
    describe(asked)
  }: the bucket is in ${place}, the request was made for ${asked.address.region} at ${asked.address.host}`;
  return new StorageError("WrongRegion", message, {
    ...details,
    retryable: false,
    hint: region === "" ? "Set AWS_REGION or --endpoint to the bucket's place." : `Set AWS_REGION=${region}.`,
    data: { region: region === "" ? null : region },
  });
}

function codeOfStatus(status: number, asked: Asked): string {
  if (status === 403 || status === 401) return "AccessDenied";
  if (status === 404) return asked.key === "" ? "NoSuchBucket" : "NoSuchKey";
  if (status === 412) return "PreconditionFailed";
  if (status === 503) return "ServiceUnavailable";
  return `Http${status}`;
}

/** What a server says is shown to people: bounded, and without control characters. */
export function clean(text: string | null | undefined): string {
  return printable((text ?? "").trim().slice(0, 500));
}
