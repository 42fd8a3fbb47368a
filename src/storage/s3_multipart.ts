import { NotFoundError, PreconditionError, StorageError } from "../errors.ts";
import { preconditionFailed } from "./object_key.ts";
import type { CallOptions, ObjectInfo, ObjectStore } from "./object_store.ts";
import { drain, etagOf, usableEtag } from "./s3_answer.ts";
import { type Asked, describe, notS3 } from "./s3_error.ts";
import type { S3Client } from "./s3_request.ts";
import { escapeXml } from "./s3_xml.ts";

/** A stream of any size as a multipart upload, in the memory of two parts: one fills while the other is sent. */

/** All parts but the last have this size: R2 asks for equal parts. */
export const partSize: number = 8 * 1024 * 1024;
/** Limit of S3; with parts of 8 MiB, an object ends at 78 GiB. */
const partsMax = 10_000;
/** Servers assemble the object before they answer. */
const completeHeadMs = 300_000;
/** The second is what moto says. */
const completedRoots = ["CompleteMultipartUploadResult", "CompleteMultipartUploadResponse"];
const encoder = new TextEncoder();

/** Size and SHA-256 of a piece of an object, in order. */
export interface PartDigest {
  readonly size: number;
  readonly hash: string;
}

interface SentPart extends PartDigest {
  readonly etag: string;
}

/** The headers of a conditional write. */
export function conditionHeaders(options: { ifAbsent?: boolean; ifMatch?: string }): Record<string, string> {
  return {
    ...(options.ifAbsent ? { "if-none-match": "*" } : {}),
    ...(options.ifMatch === undefined ? {} : { "if-match": options.ifMatch }),
  };
}

/** Whether the stored object consists of exactly these pieces. */
export async function storedSame(
  client: S3Client,
  store: ObjectStore,
  stored: ObjectInfo,
  parts: readonly PartDigest[],
  signal: AbortSignal | undefined,
): Promise<boolean> {
  if (stored.size !== parts.reduce((sum, part) => sum + part.size, 0)) return false;
  let start = 0;
  for (const part of parts) {
    const end = start + part.size;
    const object = await store.get(stored.key, { range: { start, end }, signal });
    const bytes = new Uint8Array(part.size);
    let filled = 0;
    for await (const chunk of object.body) {
      if (filled + chunk.length > bytes.length) return false;
      bytes.set(chunk, filled);
      filled += chunk.length;
    }
    if (object.etag !== stored.etag || filled !== part.size || client.hash(bytes) !== part.hash) return false;
    start = end;
  }
  return true;
}

/** Many streams are small: their buffer grows only as they come. */
const firstBufferSize = 64 * 1024;

/** Stores a stream; one that fits into a part is a plain PUT. */
export async function uploadStream(
  client: S3Client,
  store: ObjectStore,
  key: string,
  chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
  options: CallOptions & { ifAbsent?: boolean },
): Promise<{ etag: string }> {
  const upload = new MultipartUpload(client, key, options.signal);
  try {
    let buffer = new Uint8Array(firstBufferSize);
    let other: Uint8Array<ArrayBuffer> | null = null;
    let filled = 0;
    for await (const chunk of chunks) {
      options.signal?.throwIfAborted();
      for (let used = 0; used < chunk.length;) {
        // Sent only when more is known to follow, so that one full buffer is still a plain PUT.
        if (filled === partSize) {
          await upload.send(buffer);
          [buffer, other] = [other ?? new Uint8Array(partSize), buffer];
          filled = 0;
        }
        if (filled === buffer.length) {
          const larger = new Uint8Array(Math.min(partSize, Math.max(2 * filled, filled + chunk.length - used)));
          larger.set(buffer);
          buffer = larger;
        }
        const taken = Math.min(buffer.length - filled, chunk.length - used);
        buffer.set(chunk.subarray(used, used + taken), filled);
        filled += taken;
        used += taken;
      }
    }
    options.signal?.throwIfAborted();
    const rest = buffer.subarray(0, filled);
    if (!upload.begun) return await store.put(key, rest, options);
    await upload.send(rest);
    return await upload.complete(store, options);
  } catch (error) {
    await upload.abort(error);
    throw error;
  }
}

export class MultipartUpload {
  readonly #client: S3Client;
  readonly #key: string;
  readonly #signal: AbortSignal | undefined;
  readonly #parts: SentPart[] = [];
  /** The part on its way; settled to a part or to the error it failed with. */
  #pending: Promise<SentPart | { error: unknown }> | null = null;
  #id: string | null = null;

  constructor(client: S3Client, key: string, signal: AbortSignal | undefined) {
    this.#client = client;
    this.#key = key;
    this.#signal = signal;
  }

  get begun(): boolean {
    return this.#id !== null;
  }

  /** Begins to send a part when the one before has arrived; `body` is in use until the next call has returned. */
  async send(body: Uint8Array): Promise<void> {
    this.#id ??= await this.#create();
    await this.#settle();
    const number = this.#parts.length + 1;
    if (number > partsMax) {
      throw new StorageError("TooLarge", `${this.#key}: larger than ${partsMax} parts of ${partSize} bytes`, {
        key: this.#key,
        bucket: this.#client.address.bucket,
      });
    }
    this.#pending = this.#sendPart(number, body).catch((error: unknown) => ({ error }));
  }

  /** Makes the object visible; a refusal or a lost reply is believed only after a look at what is stored. */
  async complete(store: ObjectStore, options: CallOptions & { ifAbsent?: boolean }): Promise<{ etag: string }> {
    await this.#settle();
    const parts = this.#parts.map((part, index) =>
      `<Part><ETag>${escapeXml(part.etag)}</ETag><PartNumber>${index + 1}</PartNumber></Part>`
    );
    const request = {
      operation: "CompleteMultipartUpload",
      method: "POST",
      key: this.#key,
      query: { uploadId: this.#id! },
      headers: { "content-type": "application/xml", ...conditionHeaders(options) },
      body: encoder.encode(`<CompleteMultipartUpload>${parts.join("")}</CompleteMultipartUpload>`),
      signal: this.#signal,
      headMs: completeHeadMs,
    } as const;
    try {
      const { document, answer } = await this.#client.sendForDocument(request, completedRoots);
      const etag = usableEtag(document.text("ETag")) ?? etagOf(answer);
      if (!etag) throw notS3(this.#asked(request.operation), "no ETag", answer.status);
      return { etag };
    } catch (error) {
      if (!(error instanceof StorageError)) throw error;
      // NoSuchUpload after a lost reply: it was completed, and its id is gone.
      const open = error instanceof PreconditionError || error instanceof NotFoundError || error.status === 409;
      if (!open || error.code === "NoSuchBucket") throw error;
      const stored = await store.head(this.#key, { signal: this.#signal });
      if (stored !== null && await storedSame(this.#client, store, stored, this.#parts, this.#signal)) {
        // When it is not our upload that made it, the parts must go.
        await this.abort(error);
        return { etag: stored.etag };
      }
      if (!options.ifAbsent || stored === null) throw error.status === 409 ? this.#restart(error) : error;
      throw preconditionFailed(this.#key, options, {
        bucket: this.#client.address.bucket,
        status: error.status,
        requestId: error.requestId,
        cause: error,
      });
    }
  }

  /** Removes what was sent. Best effort and without the caller's signal, which may be what ended the upload. */
  async abort(reason: unknown): Promise<void> {
    if (this.#id === null) return;
    const query = { uploadId: this.#id };
    this.#id = null;
    // A part that arrives after the abort would stay.
    await this.#pending;
    try {
      await this.#client.send({
        operation: "AbortMultipartUpload",
        method: "DELETE",
        key: this.#key,
        query,
        accept: [404],
      }, drain);
    } catch (error) {
      // The first error says more; the bucket's rule for incomplete uploads removes the parts.
      if (reason instanceof StorageError && error instanceof Error) reason.data.abortFailed = error.message;
    }
  }

  async #create(): Promise<string> {
    const request = {
      operation: "CreateMultipartUpload",
      method: "POST",
      key: this.#key,
      query: { uploads: "" },
      headers: { "content-type": "application/octet-stream" },
      signal: this.#signal,
    } as const;
    const { document, answer } = await this.#client.sendForDocument(request, "InitiateMultipartUploadResult");
    const id = document.text("UploadId");
    if (!id) throw notS3(this.#asked(request.operation), "no UploadId", answer.status);
    return id;
  }

  async #sendPart(number: number, body: Uint8Array): Promise<SentPart> {
    const request = {
      operation: "UploadPart",
      method: "PUT",
      key: this.#key,
      query: { partNumber: String(number), uploadId: this.#id! },
      body,
      signal: this.#signal,
    } as const;
    // Taken now: the buffer is filled anew as soon as the part has arrived.
    const digest = { size: body.length, hash: this.#client.hash(body) };
    return await this.#client.send(request, async (answer) => {
      await drain(answer);
      const etag = etagOf(answer);
      if (etag === null) throw notS3(this.#asked(request.operation), "no ETag", answer.status);
      return { ...digest, etag };
    });
  }

  async #settle(): Promise<void> {
    const outcome = await this.#pending;
    this.#pending = null;
    if (outcome === null) return;
    if ("error" in outcome) throw outcome.error;
    this.#parts.push(outcome);
  }

  /** The upload's parts are lost with the conflict; only the caller can give the stream again. */
  #restart(cause: StorageError): StorageError {
    const message = `${describe(this.#asked("CompleteMultipartUpload"))}: another write is under way`;
    return new StorageError("ConditionalRequestConflict", message, {
      status: cause.status,
      requestId: cause.requestId,
      bucket: this.#client.address.bucket,
      key: this.#key,
      retryable: true,
      cause,
    });
  }

  #asked(operation: string): Asked {
    return { operation, key: this.#key, address: this.#client.address };
  }
}
