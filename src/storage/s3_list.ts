import { StorageError } from "../errors.ts";
import { compareKeys } from "./object_key.ts";
import type { ListOptions, ObjectInfo } from "./object_store.ts";
import { usableEtag } from "./s3_answer.ts";
import { type Asked, describe, notS3 } from "./s3_error.ts";
import type { S3Client } from "./s3_request.ts";
import { decodeUrlText, type S3Element } from "./s3_xml.ts";

/** ListObjectsV2, page by page, believing nothing: order, prefix and progress are checked. */

/** A page of a listing, sorted. */
export interface ListedPage {
  readonly objects: ObjectInfo[];
  readonly directories: string[];
}

/** Servers may send pages without entries (deleted markers); this many in a row is no listing. */
const emptyPagesMax = 1000;

/** Every page below `prefix`; throws `StorageError` (code `BadListing`) when the pages do not make one listing. */
export async function* listPages(
  client: S3Client,
  prefix: string,
  options: ListOptions & { delimiter?: string },
): AsyncGenerator<ListedPage> {
  const asked: Asked = { operation: "ListObjectsV2", key: "", address: client.address };
  const { startAfter, delimiter, signal } = options;
  const tokens = new Set<string>();
  let token: string | null = null;
  let last = startAfter ?? "";
  let emptyPages = 0;
  do {
    const query: Record<string, string> = {
      "list-type": "2",
      "encoding-type": "url",
      "max-keys": "1000",
      prefix,
      ...(delimiter === undefined ? {} : { delimiter }),
      ...(startAfter === undefined ? {} : { "start-after": startAfter }),
      ...(token === null ? {} : { "continuation-token": token }),
    };
    const request = { operation: asked.operation, method: "GET", key: "", query, signal } as const;
    const { document, answer } = await client.sendForDocument(request, "ListBucketResult");
    const page = readPage(document, prefix, delimiter, asked, answer.status);
    // A server that ignores start-after begins too early; what was asked to be skipped is skipped here.
    const skip = startAfter ?? "";
    const objects = page.objects.filter((object) => compareKeys(object.key, skip) > 0 || skip === "");
    if (objects.length > 0 && delimiter === undefined) {
      if (last !== "" && compareKeys(objects[0].key, last) <= 0) {
        throw badListing(asked, `a page begins at or before the end of the one before it`, last, objects[0].key);
      }
      last = objects[objects.length - 1].key;
    }
    yield { objects, directories: page.directories };
    emptyPages = page.objects.length + page.directories.length === 0 ? emptyPages + 1 : 0;
    token = nextToken(document, asked);
    if (token !== null && tokens.has(token)) throw badListing(asked, "the server repeats a continuation token");
    if (token !== null) tokens.add(token);
    if (emptyPages > emptyPagesMax) throw badListing(asked, `${emptyPages} pages without entries`);
  } while (token !== null);
}

function readPage(
  document: S3Element,
  prefix: string,
  delimiter: string | undefined,
  asked: Asked,
  status: number,
): ListedPage {
  const encoded = document.text("EncodingType") === "url";
  const decode = (text: string | null): string => {
    const key = text === null ? null : encoded ? decodeUrlText(text) : text;
    if (key === null || !key.startsWith(prefix)) throw notS3(asked, "a key that was not asked for", status);
    return key;
  };
  const objects = document.all("Contents").map((item): ObjectInfo => {
    const size = item.text("Size") ?? "";
    if (!/^\d{1,15}$/.test(size)) throw notS3(asked, "an object without a size", status);
    return {
      key: decode(item.text("Key")),
      size: Number(size),
      etag: usableEtag(item.text("ETag")) ?? "",
      lastModifiedMs: Date.parse(item.text("LastModified") ?? "") || 0,
    };
  });
  objects.sort((a, b) => compareKeys(a.key, b.key));
  const twice = objects.find(({ key }, index) => index > 0 && key === objects[index - 1].key);
  if (twice !== undefined) throw badListing(asked, "it has a key twice", twice.key);
  const directories = document.all("CommonPrefixes").map((item) => decode(item.text("Prefix")));
  const loose = directories.find((directory) => !directory.endsWith(delimiter ?? "/"));
  if (loose !== undefined) throw badListing(asked, "a directory without its delimiter", loose);
  // "Directories" that some servers keep as empty objects are no objects of ours.
  const own = objects.filter((object) => !object.key.endsWith("/"));
  const below = delimiter === undefined ? undefined : own.find(({ key }) => key.includes(delimiter, prefix.length));
  if (below !== undefined) throw badListing(asked, "the server ignores the delimiter", below.key);
  return { objects: own, directories };
}

function nextToken(document: S3Element, asked: Asked): string | null {
  const truncated = document.text("IsTruncated")?.trim();
  if (truncated === "false") return null;
  // What is taken for the end without being it would leave objects out.
  if (truncated !== "true") throw badListing(asked, "it does not say whether more is to come");
  const token = document.text("NextContinuationToken");
  if (!token) throw badListing(asked, "it is cut short and names no next page");
  return token;
}

function badListing(asked: Asked, problem: string, ...keys: string[]): StorageError {
  return new StorageError("BadListing", `${describe(asked)}: the listing cannot be trusted: ${problem}`, {
    bucket: asked.address.bucket,
    hint: "The server or a proxy is at fault; walrust needs listings in ascending order of keys.",
    data: { keys },
  });
}
