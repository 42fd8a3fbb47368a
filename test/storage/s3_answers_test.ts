/** Answers no sound server gives: each ends with an error, never with wrong or missing data. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { NotFoundError, StorageError } from "../../src/errors.ts";
import { getBytes, type ObjectStore } from "../../src/storage/object_store.ts";
import { noise } from "../conformance/object_store_suite.ts";
import { type Answer, failure, object, page, type Scripted, scriptedS3 } from "./scripted_s3.ts";

const body = noise(3000, 3);
const stored = { headers: { etag: '"e1"' } };
const large = noise(9 * 1024 * 1024, 9);
const begun = { body: "<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>" };
const completed = { body: "<CompleteMultipartUploadResult><ETag>m</ETag></CompleteMultipartUploadResult>" };
const range = { start: 1000, end: 2000 };

/** Code of the error that a call on this script ends with; "sound" when it ends with none. */
async function codeOf(script: readonly Scripted[], call: (store: ObjectStore) => Promise<unknown>): Promise<string> {
  const s3 = scriptedS3(script);
  try {
    await call(s3.store);
  } catch (error) {
    assert.ok(error instanceof StorageError, String(error));
    s3.finish();
    return error.code;
  }
  s3.finish();
  return "sound";
}

async function listed(store: ObjectStore, prefix = ""): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list(prefix)) keys.push(key);
  return keys;
}

/** The sound answer to the range, with something else in it. */
function ranged(changed: Answer & { headers?: Record<string, string> }): Answer {
  const headers = { etag: '"e1"', "content-range": "bytes 1000-1999/3000", ...changed.headers };
  return { status: 206, body: body.slice(range.start, range.end), ...changed, headers };
}

test("S3Store.get: another range than the one asked for is refused", async () => {
  const wrong: Answer[] = [
    { headers: { etag: '"e1"' }, body }, // The server ignores ranges.
    ranged({ status: 200 }),
    ranged({ headers: { "content-range": "" } }),
    ranged({ headers: { "content-range": "bytes 1000-1999/*" } }),
    ranged({ headers: { "content-range": "bytes 0-999/3000" } }),
    ranged({ headers: { "content-range": "bytes 1000-1998/3000" } }),
    ranged({ headers: { "content-range": "bytes 1000-2000/3000" } }),
    ranged({ headers: { "content-range": "bytes 1000-1999/1500" } }),
    ranged({ headers: { "content-range": "bytes 1000-1999/9999999999999999" } }),
    ranged({ headers: { "content-range": "bytes 1000--1/3000" } }),
    ranged({ headers: { "content-length": "999" } }),
    ranged({ headers: { "content-length": "99999999999999999999" } }),
    ranged({ headers: { "content-length": "-1" } }),
  ];
  for (const answer of wrong) {
    const code = await codeOf([answer], (store) => store.get("k", { range }));
    assert.equal(code, "NotS3", JSON.stringify(answer.headers));
  }
});

test("S3Store.get: a range refused although the object has those bytes is no empty answer", async () => {
  const refused = failure(416, "InvalidRange");
  const read = (store: ObjectStore): Promise<unknown> => getBytes(store, "k", 3000, { range });
  assert.equal(await codeOf([refused, object(body)], read), "BadRange");
  assert.equal(await codeOf([refused, { status: 404 }], read), "NoSuchKey");
  const { store } = scriptedS3([refused, object(body.slice(0, 1000))]);
  const behind = await getBytes(store, "k", 3000, { range });
  assert.deepEqual([behind.size, behind.bytes.length], [1000, 0]);
});

test("S3Store.get: a status that answers something else", async () => {
  for (const status of [201, 204, 206]) {
    assert.equal(await codeOf([{ ...stored, status }], (store) => store.get("k")), "NotS3", String(status));
  }
  assert.equal(await codeOf([{ ...stored, status: 304 }], (store) => store.get("k")), "Http304");
});

test("S3Store: an object is absent when the store says so, not when a proxy has no such page", async () => {
  const pages = ["<html><body>404 page not found</body></html>", "default backend - 404", "<Oops/>x", "{}"];
  for (const text of pages) {
    for (const type of ["text/html", "text/plain", "application/xml"]) {
      const answer = { status: 404, headers: { "content-type": type }, body: text };
      assert.equal(await codeOf([answer], (store) => store.get("k")), "NotS3", text);
      assert.equal(await codeOf([answer], (store) => listed(store)), "NotS3", text);
    }
  }
  await assert.rejects(() => scriptedS3([failure(404, "NoSuchKey")]).store.get("k"), NotFoundError);
  await assert.rejects(() => scriptedS3([{ status: 404 }]).store.get("k"), NotFoundError);
});

test("S3Store: nothing is stored or read without an ETag that can be sent back", async () => {
  for (const etag of ["", '"\u00e9"', '"a b"', `"${"x".repeat(256)}"`]) {
    const answer = { headers: { etag } };
    assert.equal(await codeOf([answer], (store) => store.head("k")), "NotS3", etag);
    assert.equal(await codeOf([answer], (store) => store.get("k")), "NotS3", etag);
    assert.equal(await codeOf([answer], (store) => store.put("k", body)), "NotS3", etag);
    const part = [begun, answer, { status: 204 }];
    assert.equal(await codeOf(part, (store) => store.putStream("k", [large.subarray(0, 8 << 20), large])), "NotS3");
  }
});

test("S3Store.put: a log-in page with an ETag of its own has stored nothing", async () => {
  const headers = { etag: '"page"', "content-type": "text/html" };
  assert.equal(await codeOf([{ headers, body: "<html>Log in" }], (store) => store.put("k", body)), "NotS3");
  assert.equal(await codeOf([{ headers }], (store) => store.put("k", body)), "sound", "as moto answers");
});

test("S3Store: an error whose code is a name that every object has is an error like any other", async () => {
  for (const code of ["constructor", "__proto__", "toString"]) {
    const { store } = scriptedS3([failure(400, code)]);
    await assert.rejects(
      () => store.get("k"),
      (error: Error) => error instanceof StorageError && error.code === code && error.hint === undefined,
    );
  }
  await assert.rejects(() => scriptedS3([failure(403, "AccessDenied")]).store.get("k"), { hint: /s3:GetObject/ });
});

test("[S74] S3Store.deleteMany: what the server says of a key is bounded and steers no terminal", async () => {
  const said = `<Code>Odd\u0085</Code><Message>\u202e${"x".repeat(1000)}</Message>`;
  const answer = (key: string): Answer => ({
    body: `<DeleteResult><Error><Key>${key}</Key>${said}</Error></DeleteResult>`,
  });
  const [{ error }] = await scriptedS3([answer("k")]).store.deleteMany(["k"]);
  assert.deepEqual(error, { code: "Odd\\u{85}", message: `\\u{202e}${"x".repeat(499)}` });
  await assert.rejects(
    () => scriptedS3([answer("other")]).store.deleteMany(["k"]),
    (error: Error) => error instanceof StorageError && error.code === "Odd\\u{85}" && !/[\u202e]/.test(error.message),
  );
});

/** A listing with this inside, which says that it is whole. */
function listing(inside: string, end = "<IsTruncated>false</IsTruncated>"): Answer {
  return { body: `<ListBucketResult><EncodingType>url</EncodingType>${end}${inside}</ListBucketResult>` };
}

test("S3Store.list: [S56] only a listing that says it is whole ends", async () => {
  const ends = ["", "<IsTruncated/>", "<IsTruncated>True</IsTruncated>", "<IsTruncated>0</IsTruncated>"];
  for (const end of ends) assert.equal(await codeOf([listing("", end)], listed), "BadListing", end);
  assert.equal(await codeOf([listing("", "<IsTruncated> false\n</IsTruncated>")], listed), "sound");
  const cut = page(["a", "b"]).body as string;
  for (let length = 1; length < cut.length; length++) {
    assert.equal(await codeOf([{ body: cut.slice(0, length) }], listed), "NotS3", cut.slice(0, length));
  }
});

test("S3Store.list: sizes, keys and directories that cannot be", async () => {
  const entry = (key: string, size: string): string => `<Contents><Key>${key}</Key><Size>${size}</Size></Contents>`;
  for (const size of ["", "-1", "1e3", "0x10", "1.5", "9999999999999999", "NaN"]) {
    assert.equal(await codeOf([listing(entry("a", size))], listed), "NotS3", size);
  }
  for (const key of ["%", "%ff", "%zz"]) assert.equal(await codeOf([listing(entry(key, "1"))], listed), "NotS3", key);
  assert.equal(await codeOf([listing("<Contents><Size>1</Size></Contents>")], listed), "NotS3");
  assert.equal(await codeOf([listing(entry("b", "1") + entry("a", "1") + entry("b", "2"))], listed), "BadListing");
  const directories = (store: ObjectStore): Promise<string[]> => store.listDirectories("p/");
  const common = (name: string): string => `<CommonPrefixes><Prefix>${name}</Prefix></CommonPrefixes>`;
  assert.equal(await codeOf([listing(common("p/a"))], directories), "BadListing");
  assert.equal(await codeOf([listing(common("q/a/"))], directories), "NotS3");
  assert.equal(await codeOf([listing(entry("p/a/b", "1"))], directories), "BadListing", "the delimiter is ignored");
  const { store } = scriptedS3([listing(entry("p/", "0") + entry("p/x", "1") + common("p/a%2Bb/"))]);
  assert.deepEqual(await store.listDirectories("p/"), ["p/a+b/"]);
});

test("S3Store.putStream: a server that begins its answer and then assembles the object has the time for it", async () => {
  const working = { ...completed, body: "", headers: { "content-length": "99" }, hangs: true };
  const s3 = scriptedS3([begun, stored, stored, working, completed]);
  const startedAt = s3.clock.monotonic();
  assert.deepEqual(await s3.store.putStream("k", [large]), { etag: "m" });
  s3.finish();
  assert.equal(s3.clock.monotonic() - startedAt, 300_000 + 50);
});

test("canary: the sound answers that the wrong ones are made of are accepted", async () => {
  assert.equal(await codeOf([ranged({})], (store) => getBytes(store, "k", 3000, { range })), "sound");
  assert.equal(await codeOf([object(body)], (store) => getBytes(store, "k", 3000)), "sound");
  assert.equal(await codeOf([object(body)], (store) => store.head("k")), "sound");
  assert.equal(await codeOf([begun, stored, stored, completed], (store) => store.putStream("k", [large])), "sound");
  assert.equal(await codeOf([listing("<Contents><Key>a</Key><Size>1</Size></Contents>")], listed), "sound");
});
