import { ConfigError } from "../errors.ts";

/** Where a bucket is: URLs, their escaping, and the region a request is signed for. */

/** A bucket's place, ready to make URLs. */
export interface S3Address {
  readonly bucket: string;
  readonly region: string;
  /** Scheme, host and the path of the bucket, without a closing slash. */
  readonly base: string;
  /** Host, for messages. */
  readonly host: string;
}

const unreserved = /^[A-Za-z0-9\-._~]$/;
const encoder = new TextEncoder();

/** Percent-escapes as Signature Version 4 does: every byte of UTF-8 but `A–Z a–z 0–9 - . _ ~`, and `/` when `keep`. */
export function escapeUri(text: string, keep = ""): string {
  let escaped = "";
  for (const byte of encoder.encode(text)) {
    const character = String.fromCharCode(byte);
    escaped += byte < 0x80 && (unreserved.test(character) || keep.includes(character))
      ? character
      : `%${byte.toString(16).toUpperCase().padStart(2, "0")}`;
  }
  return escaped;
}

/** URL of an object (or of the bucket, when `key` is empty), with a query in the order given. */
export function objectUrl(address: S3Address, key: string, query: Record<string, string> = {}): string {
  const search = Object.entries(query).map(([name, value]) => `${escapeUri(name)}=${escapeUri(value)}`).join("&");
  const path = `${address.base}/${escapeUri(key, "/")}`;
  return search === "" ? path : `${path}?${search}`;
}

/**
 * Path style for custom endpoints, virtual host for AWS (except buckets with dots, which no certificate covers).
 * Throws `ConfigError`.
 */
export function s3Address(options: { bucket: string; endpoint?: string; region?: string }): S3Address {
  const { bucket } = options;
  if (!/^[A-Za-z0-9][A-Za-z0-9._-]{1,253}[A-Za-z0-9]$/.test(bucket)) {
    throw new ConfigError("bad_bucket", `"${bucket}" is no bucket name`, {
      hint: "A bucket name has at least three letters, digits, dots or hyphens.",
    });
  }
  const endpoint = options.endpoint === undefined ? null : parseEndpoint(options.endpoint);
  const region = options.region ?? regionOfHost(endpoint?.hostname ?? "") ?? "us-east-1";
  if (!/^[A-Za-z0-9-]{1,64}$/.test(region)) {
    throw new ConfigError("bad_region", `"${region}" is no region`, { hint: "Write it like us-east-1, or auto." });
  }
  if (endpoint !== null && !/(^|\.)s3[.-][a-z0-9.-]*amazonaws\.com(\.cn)?$/.test(endpoint.hostname)) {
    const path = endpoint.pathname.replace(/\/+$/, "");
    return { bucket, region, base: `${endpoint.origin}${path}/${bucket}`, host: endpoint.host };
  }
  const host = endpoint?.host ?? `s3.${region}.amazonaws.com${region.startsWith("cn-") ? ".cn" : ""}`;
  const scheme = endpoint?.protocol ?? "https:";
  const virtual = !bucket.includes(".") && bucket === bucket.toLowerCase() && !bucket.includes("_");
  return virtual
    ? { bucket, region, base: `${scheme}//${bucket}.${host}`, host: `${bucket}.${host}` }
    : { bucket, region, base: `${scheme}//${host}/${bucket}`, host };
}

/** The region a host's name implies, or null. */
export function regionOfHost(host: string): string | null {
  if (
    /(^|\.)(r2\.cloudflarestorage\.com|tigris\.dev|storage\.tigris\.dev|fly\.storage\.tigris\.dev|t3\.storage\.dev)$/
      .test(host)
  ) {
    return "auto";
  }
  return /^s3[.-](?:dualstack\.)?([a-z]{2}(?:-[a-z]+)+-\d+)\./.exec(host)?.[1] ?? null;
}

function parseEndpoint(text: string): URL {
  const url = URL.canParse(text) ? new URL(text) : null;
  if (url === null || (url.protocol !== "http:" && url.protocol !== "https:")) {
    throw new ConfigError("bad_endpoint", "the endpoint is not an http or https URL", {
      hint: "Write it like https://s3.example.com or http://127.0.0.1:9000.",
    });
  }
  if (url.username !== "" || url.password !== "" || url.search !== "" || url.hash !== "") {
    throw new ConfigError("bad_endpoint", "the endpoint holds more than scheme, host and path", {
      hint: "Give credentials by AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.",
    });
  }
  return url;
}
