/** What S3 servers answer: XML, listings, outcomes of deletes and uploads, errors. */
import { StorageError } from "../../src/errors.ts";
import type { Clock } from "../../src/runtime/types.ts";
import { explicitCredentials } from "../../src/storage/credentials.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { compareKeys } from "../../src/storage/object_key.ts";
import { s3Address } from "../../src/storage/s3_address.ts";
import { deleteKeys } from "../../src/storage/s3_delete.ts";
import { type Asked, errorOfAnswer } from "../../src/storage/s3_error.ts";
import { listPages } from "../../src/storage/s3_list.ts";
import { MultipartUpload } from "../../src/storage/s3_multipart.ts";
import type { S3Answer } from "../../src/storage/s3_answer.ts";
import { S3Client, type S3Request } from "../../src/storage/s3_request.ts";
import { parseDocument, type S3Element, XmlProblem } from "../../src/storage/s3_xml.ts";
import { sha256 } from "../support/vectors.ts";
import { type Decoder, law, type Trial } from "./fuzz.ts";
import { type Mutator, type TextSample, type Vocabulary, xmlElements, xmlPieces } from "./mutator.ts";

const encoder = new TextEncoder();
const prefix = "p/";
const keys = ["p/a", "p/b&c", "p/\u00fc"];
const address = s3Address({ bucket: "bucket", endpoint: "http://s3.test" });

const texts = {
  list: [
    "<ListBucketResult><EncodingType>url</EncodingType><IsTruncated>true</IsTruncated><NextContinuationToken>t" +
    '</NextContinuationToken><Contents><Key>p/a%2Bb</Key><Size>12</Size><ETag>"e"</ETag><LastModified>' +
    "2026-01-15T10:30:00.000Z</LastModified></Contents><Contents><Key>p/c+d</Key><Size>0</Size></Contents>" +
    "</ListBucketResult>",
    '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">' +
    "<IsTruncated>false</IsTruncated><CommonPrefixes><Prefix>p/x/</Prefix></CommonPrefixes></ListBucketResult>",
  ],
  delete: [
    "<DeleteResult><Error><Key>p/a</Key><Code>AccessDenied</Code><Message>no</Message></Error>" +
    "<Error><Key>p/b&amp;c</Key><Code>NoSuchKey</Code></Error></DeleteResult>",
    "<DeleteResult><Error><Key>p/\u00fc</Key><Code>SlowDown</Code><Message>later</Message></Error></DeleteResult>",
    "<DeleteResult/>",
  ],
  error: [
    '<?xml version="1.0"?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message>' +
    "<RequestId>R1</RequestId><Region>eu-west-1</Region><Endpoint>s3.test</Endpoint></Error>",
    "<ErrorResponse><Error><Code>PermanentRedirect</Code><Message>go there</Message></Error></ErrorResponse>",
    "<html><body>404 page not found</body></html>",
  ],
  upload: [
    "<InitiateMultipartUploadResult><Bucket>b</Bucket><Key>k</Key><UploadId>u1</UploadId>" +
    "</InitiateMultipartUploadResult>",
    "<CompleteMultipartUploadResult><Location>l</Location><ETag>&quot;m-1&quot;</ETag>" +
    "</CompleteMultipartUploadResult>",
    "<CompleteMultipartUploadResponse><ETag>m</ETag></CompleteMultipartUploadResponse>",
  ],
};

const samples = Object.fromEntries(
  Object.entries(texts).map(([name, own]) => [name, own.flatMap((text) => [xmlPieces(text), xmlElements(text)])]),
);
const all: TextSample[] = Object.values(samples).flat();

const words: readonly string[] = [
  ...[
    "<a>",
    "</a>",
    "<a/>",
    "<!DOCTYPE a>",
    '<!DOCTYPE a [<!ENTITY b "c">]>',
    "<!-- c -->",
    "<![CDATA[<a>]]>",
    "<?p i?>",
  ],
  ...["&amp;", "&lt;", "&b;", "&#0;", "&#x41;", "&#xffffffff;", "]]>", "\ufeff", "\u0000", "\u001b[2J", "\u202e", " "],
  ...['<a b="c">', '<a b="c" b="d">', "<x:Error>", "</x:Error>", "<Error>", "</Error>", "<Code>", "</Code>", "<Key>"],
  ...[
    "<Key>p/z</Key>",
    "<Key>%zz</Key>",
    "<Key/>",
    "<Size>-1</Size>",
    "<Size>999999999999999</Size>",
    "<ETag>\u00e9</ETag>",
  ],
  ...["<IsTruncated>true</IsTruncated>", "<IsTruncated>maybe</IsTruncated>", "<Code>constructor</Code>", "<UploadId/>"],
  ...["<EncodingType>url</EncodingType>", "<Prefix>p/</Prefix>", "<Prefix>q/</Prefix>", "<Code>NotImplemented</Code>"],
  ...["<NextContinuationToken>u</NextContinuationToken>", "<Contents><Key>p/y</Key><Size>1</Size></Contents>"],
  ...["<Contents>", "</Contents>", "<IsTruncated>", "true", "false", "<NextContinuationToken>", "<Size>", "<UploadId>"],
  ...[
    "constructor",
    "__proto__",
    "toString",
    "NoSuchKey",
    "NoSuchBucket",
    "NotImplemented",
    "SlowDown",
    "AccessDenied",
  ],
  ...[
    "RequestTimeTooSkewed",
    "ExpiredToken",
    "PreconditionFailed",
    "%",
    "%zz",
    "%ff",
    "p/",
    "p/x/",
    "p/a",
    "\n\n",
    "-1",
  ],
];

const vocabulary: Vocabulary = { words, brackets: [["<a>", "</a>"], ["<Error>", "</Error>"]] };

function generator(name: keyof typeof texts): (mutator: Mutator) => Uint8Array {
  return (mutator) => mutator.utf8(mutator.random.pick(samples[name]), all, vocabulary);
}

/** Everything that a reader of documents may ask, of as many elements as there are in a sound one. */
function walk(document: S3Element, { step }: Trial): void {
  const open = [document];
  for (let left = 50; left > 0; left--) {
    const element = open.pop();
    if (element === undefined) return;
    step();
    law(!element.name.includes(":") && typeof element.content === "string", "a name without a prefix, and text");
    for (const name of ["Contents", "Error", "a", "Code", "CommonPrefixes"]) {
      const children = element.all(name);
      law(children.every((child) => child.name === name), "children by their name");
      law(element.text(name) === (children[0]?.content ?? null), "text of the first");
      open.push(...children.slice(0, 10));
    }
  }
}

/** Documents as such. */
export const xmlDecoder: Decoder = {
  name: "s3-xml",
  refusals: [XmlProblem],
  generate: (mutator) => generator(mutator.random.pick(["list", "delete", "error", "upload"]))(mutator),
  decode(input, trial) {
    const document = parseDocument(input);
    law(!/<!DOCTYPE/i.test(new TextDecoder().decode(input)), "no document type");
    walk(document, trial);
    return null;
  },
};

/** Ends every sleep at once. */
const clock: Clock = { now: () => 1_768_000_000_000, monotonic: () => 0, sleep: () => Promise.resolve() };

/** An answer in one piece; an iterator by hand, as a generator's promises would cost more than the decoder. */
function answerOf(status: number, body: Uint8Array, headers: Record<string, string> = {}): S3Answer {
  let left: Uint8Array | null = body;
  const next = (): Promise<IteratorResult<Uint8Array>> => {
    const value = left;
    left = null;
    return Promise.resolve(value === null ? { done: true, value: undefined } : { done: false, value });
  };
  const pieces = { [Symbol.asyncIterator]: () => ({ next }) };
  return { status, header: (name) => headers[name] ?? null, body: pieces, discard: () => Promise.resolve() };
}

const sentPart = { size: 16, hash: "", etag: '"p"' };

/** The client behind all operations, whose answers come from the input instead of the network. */
class ScriptedClient extends S3Client {
  readonly #answer: (request: S3Request, count: number) => S3Answer;
  readonly #trial: Trial;
  #count = 0;

  constructor(trial: Trial, answer: (request: S3Request, count: number) => S3Answer) {
    super({
      address,
      credentials: explicitCredentials({ accessKeyId: "id", secretAccessKey: "secret" }),
      fetch: () => Promise.reject(new Error("nothing is sent")),
      clock,
      random: trial.random,
      sha256,
    });
    this.#trial = trial;
    this.#answer = answer;
  }

  override async send<T>(request: S3Request, read: (answer: S3Answer) => Promise<T> | T): Promise<T> {
    this.#trial.step();
    // Its answer is a header, and comes with every multipart upload.
    if (request.operation === "UploadPart") return sentPart as T;
    return await read(this.#answer(request, this.#count++));
  }
}

const lastPage = encoder.encode("<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>");

/** A listing whose first page, or every page, is the input. */
export const listDecoder: Decoder = {
  name: "s3-list",
  reaches: ["NotS3", "BadListing"],
  generate: generator("list"),
  async decode(input, trial) {
    const always = trial.random.chance(0.3);
    const delimiter = trial.random.chance(0.3) ? "/" : undefined;
    const client = new ScriptedClient(trial, (_, count) => answerOf(200, count === 0 || always ? input : lastPage));
    let last = "";
    for await (const { objects, directories } of listPages(client, prefix, delimiter ? { delimiter } : {})) {
      for (const { key, size, etag, lastModifiedMs } of objects) {
        trial.step();
        law(key.startsWith(prefix) && !key.endsWith("/"), "keys that were asked for");
        law(delimiter === undefined || !key.slice(prefix.length).includes("/"), "no key below a directory");
        law(delimiter !== undefined || last === "" || compareKeys(last, key) < 0, "in order, none twice");
        law(Number.isSafeInteger(size) && size >= 0 && Number.isFinite(lastModifiedMs), "sizes and times");
        law(/^[\x21-\x7e]*$/.test(etag), "an ETag that can be sent back");
        last = key;
      }
      law(directories.every((name) => name.startsWith(prefix) && name.endsWith("/")), "directories below the prefix");
    }
    return null;
  },
};

/** The outcome of a delete, asked for again where the input says that it may pass. */
export const deleteDecoder: Decoder = {
  name: "s3-delete",
  reaches: ["NotS3", "AccessDenied"],
  generate: generator("delete"),
  async decode(input, trial) {
    const client = new ScriptedClient(
      trial,
      ({ method }) => answerOf(200, method === "POST" ? input : new Uint8Array(0)),
    );
    const failed = await deleteKeys(client, keys, {});
    law(failed.every(({ key }) => keys.includes(key)) && failed.length <= keys.length, "keys that were sent");
    law(new Set(failed.map(({ key }) => key)).size === failed.length, "each key once");
    law(failed.every(({ error }) => typeof error.code === "string" && typeof error.message === "string"), "why");
    return null;
  },
};

const statuses = [200, 204, 301, 307, 304, 400, 401, 403, 404, 405, 408, 409, 411, 412, 416, 418, 429, 500, 501, 503];
const retryAfters = [
  "1",
  "0",
  "-1",
  "999999999999999999999",
  "1e3",
  "soon",
  "Thu, 01 Jan 1970 00:00:00 GMT",
  "",
  "\u0661",
];

/** An answer that is an error; whatever its body, one comes out that can be told to people and acted on. */
export const errorDecoder: Decoder = {
  name: "s3-error",
  neverAccepts: true,
  reaches: ["NotS3", "WrongRegion", "AccessDenied", "SlowDown", "NoSuchKey", "NoSuchBucket", "PreconditionFailed"],
  generate: generator("error"),
  decode(input, { random }) {
    const headers: Record<string, string> = {};
    if (random.chance(0.3)) headers["retry-after"] = random.pick(retryAfters);
    if (random.chance(0.2)) headers["x-amz-request-id"] = random.pick(["R2", "\u001b[31m", "x".repeat(3000)]);
    if (random.chance(0.2)) headers["x-amz-bucket-region"] = random.pick(["eu-central-1", "", "\n"]);
    if (random.chance(0.2)) headers.location = random.pick(["http://elsewhere.test/", "\u0007"]);
    const asked: Asked = { operation: "GetObject", key: random.pick(["", "k", "k\u001b[2J"]), address };
    const status = random.pick(statuses);
    const error = errorOfAnswer({ status, header: (name) => headers[name] ?? null }, input, asked, clock.now());
    law(error instanceof StorageError && typeof error.retryable === "boolean", "an error of storage");
    const { retryAfterMs, requestId } = error;
    law(retryAfterMs === undefined || (retryAfterMs >= 0 && retryAfterMs <= 86_400_000), "a wait of a day at most");
    // deno-lint-ignore no-control-regex
    law(requestId === undefined || !/[\u0000-\u001f]/.test(requestId), "a request id that can be printed");
    throw error;
  },
};

const begun = encoder.encode("<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>");
const part = new Uint8Array(sentPart.size);

/** An upload in parts, one of whose two documents is the input. */
export const multipartDecoder: Decoder = {
  name: "s3-multipart",
  reaches: ["NotS3"],
  generate: generator("upload"),
  async decode(input, trial) {
    const atBegin = trial.random.chance(0.4);
    const headers = trial.random.chance(0.5) ? { etag: '"h"' } : undefined;
    const client = new ScriptedClient(trial, ({ operation }) => {
      if (operation === "CreateMultipartUpload") return answerOf(200, atBegin ? input : begun);
      return answerOf(200, atBegin ? completed : input, headers);
    });
    const upload = new MultipartUpload(client, "k", undefined);
    await upload.send(part);
    const { etag } = await upload.complete(new MemoryStore(), {});
    law(/^[\x21-\x7e]{1,256}$/.test(etag), "an ETag that can be sent back");
    return null;
  },
};
const completed = encoder.encode("<CompleteMultipartUploadResult><ETag>m</ETag></CompleteMultipartUploadResult>");
