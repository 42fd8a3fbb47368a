/** What goes wrong between us and a bucket. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { NotFoundError, PreconditionError, StorageError } from "../../src/errors.ts";
import type { Credentials } from "../../src/storage/credentials.ts";
import { getBytes, type ObjectStore } from "../../src/storage/object_store.ts";
import { noise } from "../conformance/object_store_suite.ts";
import { failure, object, page, type ScriptedS3, scriptedS3, type SentRequest } from "./scripted_s3.ts";

const body = noise(3000, 3);
const stored = { headers: { etag: '"e1"' } };
const MiB = 1024 * 1024;

function withCode(code: string, status?: number): (error: unknown) => boolean {
  return (error) => {
    assert.ok(error instanceof StorageError, String(error));
    assert.equal(error.code, code, error.message);
    if (status !== undefined) assert.equal(error.status, status);
    return true;
  };
}

async function keysOf(store: ObjectStore, prefix = "", startAfter?: string): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list(prefix, startAfter === undefined ? {} : { startAfter })) keys.push(key);
  return keys;
}

/** The waits between tries: the sleeps that are not limits of silence. */
function waits(s3: ScriptedS3): number[] {
  return s3.clock.sleeps.filter((ms) => ms < 29_000);
}

test("S3Store: [S46] 500, 503, 429 and RequestTimeout are retried with growing, jittered waits", async () => {
  const s3 = scriptedS3([
    failure(500, "InternalError"),
    failure(503, "SlowDown"),
    { status: 429 },
    failure(400, "RequestTimeout"),
    { status: 502, headers: { "content-type": "text/html" }, body: "<html>bad gateway" },
    stored,
  ]);
  assert.deepEqual(await s3.store.put("k", body), { etag: '"e1"' });
  s3.finish();
  assert.deepEqual(waits(s3), [50, 100, 200, 400, 800]);
  assert.deepEqual(s3.requests[5].body, body);
});

test("S3Store: [S46] Retry-After is the least wait", async () => {
  const s3 = scriptedS3([
    failure(503, "SlowDown", "", { "retry-after": "7" }),
    failure(503, "SlowDown", "", { "retry-after": "Thu, 15 Jan 2026 10:30:20 GMT" }),
    stored,
  ]);
  await s3.store.put("k", body);
  assert.deepEqual(waits(s3), [7000, 13_000]);
});

test("S3Store: [S46] tries and time are limited, and the last error is told", async () => {
  const many = Array.from({ length: 6 }, () => failure(503, "SlowDown"));
  const s3 = scriptedS3(many);
  await assert.rejects(() => s3.store.put("k", body), (error) => {
    assert.ok(error instanceof StorageError);
    assert.deepEqual([error.status, error.code, error.requestId, error.bucket, error.key, error.retryable], [
      503,
      "SlowDown",
      "REQ1",
      "bucket",
      "k",
      true,
    ]);
    assert.match(error.message, /PutObject s3:\/\/bucket\/k: SlowDown: said SlowDown/);
    return true;
  });
  s3.finish();
  const late = scriptedS3([failure(503, "SlowDown", "", { "retry-after": "600" })]);
  await assert.rejects(() => late.store.put("k", body), withCode("SlowDown"));
  late.finish();
});

test("S3Store: [S46] what cannot get better is not retried", async () => {
  for (const [status, code] of [[400, "InvalidArgument"], [403, "AccessDenied"], [501, "NotImplemented"]] as const) {
    const s3 = scriptedS3([failure(status, code)]);
    await assert.rejects(() => s3.store.put("k", body), withCode(code, status));
    s3.finish();
  }
});

test("S3Store: [S47] a connection reset in a PUT is retried", async () => {
  const reset = Object.assign(new Error("read ECONNRESET"), { code: "ECONNRESET" });
  const s3 = scriptedS3([reset, new TypeError("fetch failed"), stored]);
  await s3.store.put("k", body);
  s3.finish();
  const dead = scriptedS3(Array.from({ length: 6 }, () => reset));
  await assert.rejects(() => dead.store.put("k", body), withCode("ConnectionFailed"));
  dead.finish();
});

test("S3Store: [S47] a connection reset in a GET is resumed by range from the same version", async () => {
  const whole = object(body);
  const s3 = scriptedS3([
    (request) => ({
      ...whole(request) as object,
      headers: { etag: '"e1"', "content-length": "3000" },
      body: body.slice(0, 1000),
      breaks: true,
    }),
    new TypeError("fetch failed"),
    whole,
  ]);
  assert.deepEqual((await getBytes(s3.store, "k", 3000)).bytes, body);
  s3.finish();
  assert.deepEqual([s3.requests[2].headers.range, s3.requests[2].headers["if-match"]], ["bytes=1000-2999", '"e1"']);
});

test("S3Store: [S47] an object replaced while it is read is never mixed", async () => {
  const s3 = scriptedS3([
    { headers: { etag: '"e1"', "content-length": "3000" }, body: body.slice(0, 1000), breaks: true },
    failure(412, "PreconditionFailed"),
  ]);
  await assert.rejects(() => getBytes(s3.store, "k", 3000), withCode("ObjectChanged"));
  s3.finish();
});

test("S3Store: [S48] no reply although stored: the refusal of the next try is recognised as our own success", async () => {
  const s3 = scriptedS3(["hang", failure(412, "PreconditionFailed"), object(body), object(body)]);
  assert.deepEqual(await s3.store.put("k", body, { ifAbsent: true }), { etag: '"e1"' });
  s3.finish();
  assert.ok(s3.clock.sleeps[0] >= 30_000);
  const other = noise(3000, 4);
  const lost = scriptedS3(["hang", failure(412, "PreconditionFailed"), object(other), object(other)]);
  await assert.rejects(() => lost.store.put("k", body, { ifAbsent: true }), PreconditionError);
  lost.finish();
});

test("S3Store: [S48] silence ends with an error", async () => {
  const s3 = scriptedS3(Array.from({ length: 3 }, () => "hang" as const), { retryPolicy: { retriesMax: 2 } });
  await assert.rejects(() => s3.store.head("k"), withCode("Timeout"));
  s3.finish();
});

test("S3Store: an abort ends a hanging call with its reason", async () => {
  const controller = new AbortController();
  const reason = new Error("enough");
  const s3 = scriptedS3([() => {
    queueMicrotask(() => controller.abort(reason));
    return "hang";
  }]);
  await assert.rejects(() => s3.store.put("k", body, { signal: controller.signal }), (error) => error === reason);
});

const begun = { body: "<InitiateMultipartUploadResult><UploadId>u&amp;1</UploadId></InitiateMultipartUploadResult>" };
const completed = {
  body: "<CompleteMultipartUploadResult><ETag>&quot;m-2&quot;</ETag></CompleteMultipartUploadResult>",
};
const large = noise(9 * MiB, 9);

function steps(s3: ScriptedS3): string[] {
  return s3.requests.map(({ method, url }) => `${method} ${url.slice("http://s3.test/bucket/".length)}`);
}

test("S3Store: [S49] 200 with an <Error> on completion is an error: retried, or told and the upload removed", async () => {
  const s3 = scriptedS3([begun, stored, stored, { ...failure(200, "InternalError") }, completed]);
  assert.deepEqual(await s3.store.putStream("k", [large]), { etag: '"m-2"' });
  s3.finish();
  assert.deepEqual(steps(s3), [
    "POST k?uploads=",
    "PUT k?partNumber=1&uploadId=u%261",
    "PUT k?partNumber=2&uploadId=u%261",
    "POST k?uploadId=u%261",
    "POST k?uploadId=u%261",
  ]);
  const denied = scriptedS3([begun, stored, stored, failure(200, "AccessDenied"), { status: 204 }]);
  await assert.rejects(() => denied.store.putStream("k", [large]), withCode("AccessDenied", 200));
  assert.equal(steps(denied)[4], "DELETE k?uploadId=u%261");
  denied.finish();
});

test("S3Store: [S49] DeleteObjects fails key by key", async () => {
  const outcome = (errors: string): { body: string } => ({ body: `<DeleteResult>${errors}</DeleteResult>` });
  const error = (key: string, code: string): string => `<Error><Key>${key}</Key><Code>${code}</Code></Error>`;
  const s3 = scriptedS3([
    outcome(error("a&amp;b", "AccessDenied") + error("c", "InternalError") + error("d", "NoSuchKey")),
    outcome(""),
  ]);
  const failed = await s3.store.deleteMany(["a&b", "c", "d", "e"]);
  assert.deepEqual(failed, [{ key: "a&b", error: { code: "AccessDenied", message: "AccessDenied" } }]);
  s3.finish();
  assert.match(new TextDecoder().decode(s3.requests[1].body), /<Key>c<\/Key><\/Object><\/Delete>$/);
  assert.ok(s3.requests[0].headers["content-md5"]);
});

test("S3Store: [S49] DeleteObjects sends 1,000 keys at a time, and single deletes where it is unknown", async () => {
  const result = { body: "<DeleteResult/>" };
  const s3 = scriptedS3([result, result, result]);
  await s3.store.deleteMany(Array.from({ length: 2001 }, (_, i) => `k${i}`));
  s3.finish();
  const old = scriptedS3([failure(501, "NotImplemented"), { status: 204 }, failure(403, "AccessDenied")]);
  assert.deepEqual((await old.store.deleteMany(["a", "b"])).map(({ key, error }) => [key, error.code]), [
    ["b", "AccessDenied"],
  ]);
  old.finish();
});

test("S3Store: [S50] a truncated body is completed, and fails when nothing more comes", async () => {
  const short = { headers: { etag: '"e1"', "content-length": "3000" }, body: body.slice(0, 2999) };
  const s3 = scriptedS3([short, object(body)]);
  assert.deepEqual((await getBytes(s3.store, "k", 3000)).bytes, body);
  s3.finish();
  const nothing = {
    status: 206,
    headers: { etag: '"e1"', "content-length": "1", "content-range": "bytes 2999-2999/3000" },
  };
  const dead = scriptedS3([short, ...Array.from({ length: 5 }, () => nothing)]);
  await assert.rejects(() => getBytes(dead.store, "k", 3000), withCode("Truncated"));
  dead.finish();
  const listing = scriptedS3([{ ...page(["a"]), headers: { "content-length": "9999" } }, page(["a"])]);
  assert.deepEqual(await keysOf(listing.store), ["a"]);
  listing.finish();
});

test("S3Store: [S50] more bytes than announced are refused", async () => {
  const s3 = scriptedS3(Array.from({ length: 8 }, () => ({ headers: { etag: '"e1"', "content-length": "10" }, body })));
  await assert.rejects(() => getBytes(s3.store, "k", 3000), StorageError);
});

test("S3Store: [S51] a missing bucket and a refused access have messages of their own", async () => {
  const missing = scriptedS3([failure(404, "NoSuchBucket")]);
  await assert.rejects(() => keysOf(missing.store), (error) => {
    assert.ok(error instanceof NotFoundError);
    assert.match(error.message, /the bucket "bucket" does not exist at s3\.test/);
    assert.match(error.hint ?? "", /Create the bucket/);
    return withCode("NoSuchBucket", 404)(error);
  });
  const denied = scriptedS3([{ status: 403 }]);
  await assert.rejects(() => denied.store.head("k"), (error) => {
    assert.match((error as StorageError).hint ?? "", /s3:PutObject/);
    return withCode("AccessDenied", 403)(error);
  });
});

test("S3Store: [S52] a redirect to another region is named and not followed", async () => {
  const answers = [
    failure(301, "PermanentRedirect", "<Endpoint>evil.test</Endpoint>", {
      location: "http://evil.test/bucket/k",
      "x-amz-bucket-region": "eu-west-3",
    }),
    { status: 307, headers: { location: "http://evil.test/", "x-amz-bucket-region": "eu-west-3" } },
    failure(400, "AuthorizationHeaderMalformed", "<Region>eu-west-3</Region>"),
  ];
  for (const answer of answers) {
    const s3 = scriptedS3([answer]);
    await assert.rejects(() => s3.store.put("k", body), (error) => {
      assert.match((error as Error).message, /region eu-west-3/);
      assert.equal((error as StorageError).hint, "Set AWS_REGION=eu-west-3.");
      return withCode("WrongRegion")(error);
    });
    s3.finish();
    assert.deepEqual(s3.requests.map(({ url }) => new URL(url).host), ["s3.test"]);
  }
});

test("S3Store: [S53] an expired session token is asked for anew, once", async () => {
  const asked: boolean[] = [];
  const credentials = (options?: { refresh?: boolean }): Promise<Credentials> => {
    asked.push(options?.refresh === true);
    return Promise.resolve({ accessKeyId: "id", secretAccessKey: "s", sessionToken: `t${asked.length}` });
  };
  const s3 = scriptedS3([failure(400, "ExpiredToken"), stored], { credentials });
  await s3.store.put("k", body);
  assert.deepEqual(asked, [false, true]);
  assert.equal(s3.requests[1].headers["x-amz-security-token"], "t2");
  const dead = scriptedS3([failure(400, "ExpiredToken"), failure(400, "ExpiredToken")], { credentials });
  await assert.rejects(() => dead.store.put("k", body), withCode("ExpiredToken"));
  dead.finish();
});

test("S3Store: [S54] a wrong clock is corrected from the server's date, and stays corrected", async () => {
  const date = "Thu, 15 Jan 2026 12:00:00 GMT";
  const s3 = scriptedS3([failure(403, "RequestTimeTooSkewed", "", { date }), stored, stored]);
  await s3.store.put("k", body);
  await s3.store.put("k", body);
  s3.finish();
  assert.deepEqual(s3.requests.map(({ headers }) => headers["x-amz-date"]), [
    "20260115T103000Z",
    "20260115T120000Z",
    "20260115T120000Z",
  ]);
  const dead = scriptedS3([failure(403, "RequestTimeTooSkewed", "", { date }), failure(403, "RequestTimeTooSkewed")]);
  await assert.rejects(() => dead.store.put("k", body), withCode("RequestTimeTooSkewed"));
  dead.finish();
});

test("S3Store: [S55] 409 on a conditional PUT is resolved by looking", async () => {
  const conflict = failure(409, "ConditionalRequestConflict");
  const again = scriptedS3([conflict, { status: 404 }, stored]);
  await again.store.put("k", body, { ifAbsent: true });
  again.finish();
  const other = noise(3000, 4);
  const lost = scriptedS3([conflict, object(other), object(other)]);
  await assert.rejects(() => lost.store.put("k", body, { ifAbsent: true }), PreconditionError);
  lost.finish();
  const same = scriptedS3([conflict, object(body), object(body)]);
  await same.store.put("k", body, { ifMatch: '"e0"' });
  same.finish();
  const still = scriptedS3([conflict, object(other, '"e0"'), object(other, '"e0"'), stored]);
  await still.store.put("k", body, { ifMatch: '"e0"' });
  still.finish();
  const gone = scriptedS3([failure(404, "NoSuchKey"), { status: 404 }]);
  await assert.rejects(() => gone.store.put("k", body, { ifMatch: '"e0"' }), PreconditionError);
  gone.finish();
});

test("S3Store: [S55] a refused completion is resolved by looking, and the upload removed", async () => {
  const refused = failure(412, "PreconditionFailed");
  const removed = { status: 204 };
  const same = scriptedS3([begun, stored, stored, refused, object(large), object(large), object(large), removed]);
  assert.deepEqual(await same.store.putStream("k", [large], { ifAbsent: true }), { etag: '"e1"' });
  same.finish();
  const other = scriptedS3([begun, stored, stored, refused, object(body), removed]);
  await assert.rejects(() => other.store.putStream("k", [large], { ifAbsent: true }), PreconditionError);
  other.finish();
  assert.equal(other.requests[3].headers["if-none-match"], "*");
  const conflict = failure(409, "ConditionalRequestConflict");
  const again = scriptedS3([begun, stored, stored, conflict, { status: 404 }, removed]);
  await assert.rejects(() => again.store.putStream("k", [large], { ifAbsent: true }), (error) => {
    assert.equal((error as StorageError).retryable, true);
    return withCode("ConditionalRequestConflict", 409)(error);
  });
  again.finish();
  const next = scriptedS3([
    ...[begun, stored, stored, conflict, { status: 404 }, removed],
    ...[begun, stored, stored, completed],
  ]);
  await assert.rejects(() => next.store.putStream("k", [large], { ifAbsent: true }), StorageError);
  // Only the caller has the stream: what is retryable succeeds when it is given again.
  assert.deepEqual(await next.store.putStream("k", [large], { ifAbsent: true }), { etag: '"m-2"' });
  next.finish();
  assert.deepEqual(next.requests[7].body, next.requests[1].body);
  const lostReply = scriptedS3([
    begun,
    stored,
    stored,
    "hang",
    failure(404, "NoSuchUpload"),
    object(large),
    object(large),
    object(large),
    { status: 404 },
  ]);
  await lostReply.store.putStream("k", [large]);
  lostReply.finish();
});

test("S3Store: [S56] listing over several pages, sorted within each", async () => {
  const s3 = scriptedS3([page(["b", "a"], "t1"), page([], "t2"), page(["d/e +f", "c"])]);
  assert.deepEqual(await keysOf(s3.store), ["a", "b", "c", "d/e +f"]);
  s3.finish();
  assert.match(s3.requests[1].url, /continuation-token=t1/);
  const ignoring = scriptedS3([page(["a", "b", "c"])]);
  assert.deepEqual(await keysOf(ignoring.store, "", "a"), ["b", "c"]);
});

test("S3Store: [S56] listings that go wrong end with an error, not with a wrong answer", async () => {
  const bad = [
    [page(["a"], "t"), page(["b"], "t")],
    [page(["c"], "t1"), page(["b"], "t2")],
    [page(["c"], "t1"), page(["c"], "t2")],
    [{ body: "<ListBucketResult><IsTruncated>true</IsTruncated></ListBucketResult>" }],
  ];
  for (const script of bad) {
    const s3 = scriptedS3(script);
    await assert.rejects(() => keysOf(s3.store), withCode("BadListing"));
    s3.finish();
  }
  await assert.rejects(() => keysOf(scriptedS3([page(["other"])]).store, "mine/"), withCode("NotS3"));
});

test("S3Store: [S56] pages without entries are followed a thousand times in a row, and not for ever", async () => {
  const empty = (name: string, count: number) => Array.from({ length: count }, (_, i) => page([], `${name}${i}`));
  const s3 = scriptedS3([...empty("t", 1000), page(["a"], "u"), ...empty("v", 1001)]);
  const keys: string[] = [];
  await assert.rejects(async () => {
    for await (const { key } of s3.store.list("")) keys.push(key);
  }, withCode("BadListing"));
  assert.deepEqual(keys, ["a"]);
  s3.finish();
});

test("S3Store: [S57] an HTML page with 200 is refused for every operation", async () => {
  const html = { headers: { "content-type": "text/html; charset=utf-8" }, body: "<html><body>Log in</body></html>" };
  const calls: ((store: ObjectStore) => Promise<unknown>)[] = [
    (store) => store.get("k"),
    (store) => store.get("k", { range: { start: 0, end: 10 } }),
    (store) => store.head("k"),
    (store) => store.put("k", body),
    (store) => store.put("k", body, { ifAbsent: true }),
    (store) => store.putStream("k", [large]),
    (store) => keysOf(store),
    (store) => store.listDirectories(""),
    (store) => store.deleteMany(["k"]),
    (store) => store.deleteMany(["k\u0001"]),
  ];
  for (const call of calls) {
    for (const answer of [html, { body: html.body }]) {
      const s3 = scriptedS3([answer]);
      if (answer !== html && call === calls[9]) continue;
      await assert.rejects(() => call(s3.store), withCode("NotS3"), String(call));
      s3.finish();
    }
  }
});

test("S3Store: [S58] a Content-Encoding added by a proxy is refused", async () => {
  const s3 = scriptedS3([{ headers: { etag: '"e1"', "content-encoding": "gzip" }, body }]);
  await assert.rejects(() => s3.store.get("k"), (error) => {
    assert.match((error as Error).message, /Content-Encoding gzip/);
    return withCode("NotS3")(error);
  });
});

test("S3Store: [S62] keys are escaped byte by byte in the URL that is signed and sent", async () => {
  const s3 = scriptedS3([stored]);
  await s3.store.put("a b/+%/\u00e9!'()*~_-.", body);
  assert.equal(s3.requests[0].url, "http://s3.test/bucket/a%20b/%2B%25/%C3%A9%21%27%28%29%2A~_-.");
});

test("S3Store: every request is signed with the hash of its payload", async () => {
  const s3 = scriptedS3([stored, object(body)]);
  await s3.store.put("k", body);
  await getBytes(s3.store, "k", 3000);
  for (const { headers } of s3.requests as SentRequest[]) {
    assert.match(headers.authorization, /SignedHeaders=.*host;.*x-amz-content-sha256/);
    assert.match(headers["x-amz-content-sha256"], /^[0-9a-f]{64}$/);
  }
  assert.notEqual(s3.requests[0].headers["x-amz-content-sha256"], s3.requests[1].headers["x-amz-content-sha256"]);
});

test("scriptedS3: canary, a request too few or too many fails", async () => {
  const few = scriptedS3([stored, stored]);
  await few.store.put("k", body);
  assert.throws(() => few.finish());
  await assert.rejects(() => scriptedS3([]).store.put("k", body), withCode("Http418"));
});
