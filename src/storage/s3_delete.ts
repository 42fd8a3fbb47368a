import { md5 } from "@noble/hashes/legacy.js";
import { StorageError } from "../errors.ts";
import type { CallOptions, StorageErrorLike } from "./object_store.ts";
import { drain } from "./s3_answer.ts";
import { clean } from "./s3_error.ts";
import type { S3Client } from "./s3_request.ts";
import { escapeXml, fitsXml } from "./s3_xml.ts";

/** DeleteObjects: up to 1,000 keys with one request, each with its own outcome. */

const batchMax = 1000;
const triesMax = 4;
const encoder = new TextEncoder();
/** Outcomes of single keys that may be different next time. */
const passingCodes = new Set(["InternalError", "SlowDown", "ServiceUnavailable", "OperationAborted", "RequestTimeout"]);

/** Deletes; returns what could not be deleted. A failure of a whole request is thrown. */
export async function deleteKeys(
  client: S3Client,
  keys: readonly string[],
  options: CallOptions,
): Promise<{ key: string; error: StorageErrorLike }[]> {
  const failed = new Map<string, StorageErrorLike>();
  const unique = [...new Set(keys)];
  // XML cannot carry most control characters; such keys are deleted one by one.
  const inXml = unique.filter(fitsXml);
  const single = unique.filter((key) => !fitsXml(key));
  for (let from = 0; from < inXml.length; from += batchMax) {
    const batch = inXml.slice(from, from + batchMax);
    try {
      for (const [key, error] of await deleteBatch(client, batch, options)) failed.set(key, error);
    } catch (error) {
      // Some servers do not know the operation at all.
      if (!(error instanceof StorageError) || (error.code !== "NotImplemented" && error.status !== 501)) throw error;
      single.push(...batch);
    }
  }
  for (const key of single) {
    const error = await deleteOne(client, key, options);
    if (error !== null) failed.set(key, error);
  }
  return [...failed].map(([key, error]) => ({ key, error }));
}

async function deleteBatch(
  client: S3Client,
  keys: readonly string[],
  options: CallOptions,
): Promise<Map<string, StorageErrorLike>> {
  const finished = new Map<string, StorageErrorLike>();
  const request = { operation: "DeleteObjects", key: "", signal: options.signal };
  const wait = client.retryWaiter(request, { retriesMax: triesMax - 1 });
  for (let open = keys;;) {
    const failed = await deleteOnce(client, open, options);
    for (const [key, error] of failed) finished.set(key, error);
    const again = [...failed].filter(([, error]) => passingCodes.has(error.code));
    if (again.length === 0) return finished;
    const { code, message } = again[0][1];
    try {
      await wait(new StorageError(code, `DeleteObjects: ${again.length} keys: ${message}`, { retryable: true }));
    } catch {
      options.signal?.throwIfAborted();
      return finished;
    }
    open = again.map(([key]) => key);
    for (const key of open) finished.delete(key);
  }
}

async function deleteOnce(
  client: S3Client,
  keys: readonly string[],
  options: CallOptions,
): Promise<Map<string, StorageErrorLike>> {
  const objects = keys.map((key) => `<Object><Key>${escapeXml(key)}</Key></Object>`).join("");
  const body = encoder.encode(
    `<?xml version="1.0" encoding="UTF-8"?><Delete xmlns="http://s3.amazonaws.com/doc/2006-03-01/">` +
      `<Quiet>true</Quiet>${objects}</Delete>`,
  );
  const request = {
    operation: "DeleteObjects",
    method: "POST",
    key: "",
    query: { delete: "" },
    // AWS wants one of several checksums with this operation; every server knows this one.
    headers: { "content-md5": base64(md5(body)), "content-type": "application/xml" },
    body,
    signal: options.signal,
  } as const;
  const { document } = await client.sendForDocument(request, "DeleteResult");
  const failed = new Map<string, StorageErrorLike>();
  for (const item of document.all("Error")) {
    const key = item.text("Key") ?? "";
    const code = clean(item.text("Code")) || "Unknown";
    // Being absent is what was wanted.
    if (code === "NoSuchKey") continue;
    failed.set(key, { code, message: clean(item.text("Message")) || code });
  }
  const strange = [...failed.keys()].find((key) => !keys.includes(key));
  if (strange !== undefined) {
    const { code, message } = failed.get(strange)!;
    throw new StorageError(code, `DeleteObjects: error for a key that was not sent: ${message}`, { key: strange });
  }
  return failed;
}

async function deleteOne(client: S3Client, key: string, options: CallOptions): Promise<StorageErrorLike | null> {
  const request = { operation: "DeleteObject", method: "DELETE", key, accept: [404], signal: options.signal } as const;
  try {
    await client.send(request, drain);
    return null;
  } catch (error) {
    if (!(error instanceof StorageError) || error.status === undefined || error.code === "NotS3") throw error;
    return { code: error.code, message: error.message };
  }
}

function base64(bytes: Uint8Array): string {
  return btoa(String.fromCharCode(...bytes));
}
