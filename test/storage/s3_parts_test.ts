/** The pieces of the S3 store that need no server. */
import assert from "node:assert/strict";
import { mkdirSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { ConfigError, StorageError } from "../../src/errors.ts";
import { systemRuntime } from "../../src/runtime/system.ts";
import { credentialsChain, parseProfileFile, profileSettings } from "../../src/storage/credentials.ts";
import { compareKeys } from "../../src/storage/object_key.ts";
import { openStore } from "../../src/storage/open.ts";
import { parseRetryAfter } from "../../src/storage/retry.ts";
import { objectUrl, regionOfHost, s3Address } from "../../src/storage/s3_address.ts";
import { decodeUrlText, escapeXml, fitsXml, parseDocument, XmlProblem, xmlSizeMax } from "../../src/storage/s3_xml.ts";
import type { Fetch } from "../../src/runtime/types.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";

const runtime = systemRuntime();
const { files } = runtime;
const bytes = (text: string): Uint8Array => new TextEncoder().encode(text);

test("s3Address: virtual host for AWS, path style elsewhere", () => {
  const url = (options: Parameters<typeof s3Address>[0]): string => objectUrl(s3Address(options), "k");
  assert.equal(url({ bucket: "bucket" }), "https://bucket.s3.us-east-1.amazonaws.com/k");
  assert.equal(url({ bucket: "bucket", region: "cn-north-1" }), "https://bucket.s3.cn-north-1.amazonaws.com.cn/k");
  assert.equal(url({ bucket: "my.bucket", region: "eu-west-1" }), "https://s3.eu-west-1.amazonaws.com/my.bucket/k");
  assert.equal(url({ bucket: "bucket", endpoint: "http://127.0.0.1:9000/" }), "http://127.0.0.1:9000/bucket/k");
  assert.equal(url({ bucket: "bucket", endpoint: "https://a.test/base/" }), "https://a.test/base/bucket/k");
  const aws = s3Address({ bucket: "bucket", endpoint: "https://s3.eu-west-3.amazonaws.com" });
  assert.deepEqual([aws.base, aws.region], ["https://bucket.s3.eu-west-3.amazonaws.com", "eu-west-3"]);
});

test("s3Address: region auto for R2 and Tigris, read from the host where it says", () => {
  assert.equal(regionOfHost("abc.r2.cloudflarestorage.com"), "auto");
  assert.equal(regionOfHost("fly.storage.tigris.dev"), "auto");
  assert.equal(regionOfHost("t3.storage.dev"), "auto");
  assert.equal(regionOfHost("s3.us-west-004.backblazeb2.com"), "us-west-004");
  assert.equal(regionOfHost("evil-r2.cloudflarestorage.com.test"), null);
  assert.equal(regionOfHost("minio.local"), null);
});

test("s3Address: what is no bucket, endpoint or region is refused", () => {
  for (const bucket of ["", "ab", "a/b", "../x", "a b", "-ab", "a?b"]) {
    assert.throws(() => s3Address({ bucket }), ConfigError, bucket);
  }
  for (const endpoint of ["localhost:9000", "ftp://x", "http://u:p@x", "http://x?y", "nonsense"]) {
    assert.throws(() => s3Address({ bucket: "bucket", endpoint }), ConfigError, endpoint);
  }
  assert.throws(() => s3Address({ bucket: "bucket", region: "evil.test/" }), ConfigError);
});

test("compareKeys: as the bytes of UTF-8", () => {
  const keys = ["", "a", "a-", "a/", "a/b", "b", "\u00e9", "\ud7ff", "\ue000", "\uffee", "\u{10000}", "\u{1f600}"];
  for (const a of keys) {
    for (const b of keys) assert.equal(Math.sign(compareKeys(a, b)), Buffer.compare(Buffer.from(a), Buffer.from(b)));
  }
});

test("[S75] parseDocument: bounded, strict, without document types and their entities", () => {
  assert.equal(parseDocument(bytes("\n <a xmlns='x'><b>1 &lt; 2</b></a>")).text("b"), "1 < 2");
  assert.equal(parseDocument(bytes("<s:a xmlns:s='x'><s:b>c</s:b></s:a>")).text("b"), "c");
  const bad = [
    "",
    "text",
    "<a>",
    "<a></b>",
    "<!DOCTYPE a><a/>",
    '<!doctype a [<!ENTITY x "y">]><a>&x;</a>',
    "<a>&nbsp;</a>",
    "<a/><b/>",
    "<a>".repeat(200_000),
    "<html><br></html>",
  ];
  for (const text of bad) assert.throws(() => parseDocument(bytes(text)), XmlProblem, text.slice(0, 40));
  assert.throws(() => parseDocument(new Uint8Array([0x3c, 0x61, 0xff])), XmlProblem);
  for (const size of [xmlSizeMax + 1, 100_000_000]) {
    assert.throws(() => parseDocument(new Uint8Array(size)), XmlProblem, "refused before it is parsed");
  }
});

test("parseDocument: text is read from elements of any depth, or the document is refused", () => {
  for (let depth = 1; depth < 100_000; depth *= 2) {
    let text: string | null;
    try {
      text = parseDocument(bytes(`<r><k>a${"<b>".repeat(depth)}b<![CDATA[c]]>${"</b>".repeat(depth)}d</k></r>`)).text(
        "k",
      );
    } catch (error) {
      assert.ok(error instanceof XmlProblem && depth > 1000, `${depth}: ${error}`);
      continue;
    }
    assert.equal(text, "abcd");
  }
});

test("parseDocument: line ends are line feeds, and millions of them take no time that grows with their square", () => {
  const document = parseDocument(bytes("\r\n<r>\r\n<k>a\rb\r\nc\n&#13;<![CDATA[\r]]></k>\r</r>\r"));
  assert.equal(document.text("k"), "a\nb\nc\n\r\n");
  const count = 4_000_000;
  assert.equal(parseDocument(bytes(`<r><k>${"\r".repeat(count)}</k></r>`)).text("k")?.length, count);
});

test("escapeXml: what is written is read back", () => {
  const text = `a&b<c>"d"'e'\r\n\t]]> \u00e9\u{1f600}`;
  assert.equal(parseDocument(bytes(`<a><k>${escapeXml(text)}</k></a>`)).text("k"), text);
  assert.equal(fitsXml("a\u0001"), false);
  assert.equal(decodeUrlText("a+b%2B%C3%A9"), "a b+\u00e9");
  assert.equal(decodeUrlText("%zz"), null);
});

test("parseRetryAfter: seconds, dates, nonsense", () => {
  const now = Date.UTC(2026, 0, 1);
  assert.equal(parseRetryAfter("3", now), 3000);
  assert.equal(parseRetryAfter("Thu, 01 Jan 2026 00:00:09 GMT", now), 9000);
  assert.equal(parseRetryAfter("Thu, 01 Jan 2020 00:00:09 GMT", now), 0);
  assert.equal(parseRetryAfter("99999999999", now), 86_400_000);
  assert.equal(parseRetryAfter("soon", now), undefined);
  assert.equal(parseRetryAfter(null, now), undefined);
});

const config = `# comment
[default]
region = eu-west-1
s3 =
  max_concurrent_requests = 20
[profile work]
region=eu-west-2   # comment
endpoint_url = http://127.0.0.1:9000
[profile sso]
sso_session = corp
`;
const secrets = `[default]
aws_access_key_id = ID
aws_secret_access_key = SECRET/+=
[work]
aws_access_key_id=WID
aws_secret_access_key=WSECRET
aws_session_token=TOKEN
[half]
aws_access_key_id=WID
`;

function home(): string {
  const directory = temporaryDirectory("home");
  mkdirSync(`${directory}/.aws`);
  writeFileSync(`${directory}/.aws/config`, config);
  writeFileSync(`${directory}/.aws/credentials`, secrets);
  return directory;
}

test("parseProfileFile: sections, comments, nested settings", () => {
  const sections = parseProfileFile(config);
  assert.deepEqual({ ...sections.get("default") }, { region: "eu-west-1", s3: "" });
  assert.equal(sections.get("work")?.region, "eu-west-2");
});

test("credentialsChain: explicit, then environment, then profile", async () => {
  const homeDirectory = home();
  const chain = (environment: Record<string, string>, explicit?: { accessKeyId: string; secretAccessKey: string }) =>
    credentialsChain({ environment, homeDirectory, files, ...(explicit ? { explicit } : {}) })();
  const inEnvironment = { AWS_ACCESS_KEY_ID: "EID", AWS_SECRET_ACCESS_KEY: "ES", AWS_SESSION_TOKEN: "ET" };
  assert.deepEqual(await chain(inEnvironment, { accessKeyId: "X", secretAccessKey: "Y" }), {
    accessKeyId: "X",
    secretAccessKey: "Y",
  });
  assert.deepEqual(await chain(inEnvironment), { accessKeyId: "EID", secretAccessKey: "ES", sessionToken: "ET" });
  assert.deepEqual(await chain({}), { accessKeyId: "ID", secretAccessKey: "SECRET/+=" });
  assert.deepEqual(await chain({ AWS_PROFILE: "work" }), {
    accessKeyId: "WID",
    secretAccessKey: "WSECRET",
    sessionToken: "TOKEN",
  });
  assert.deepEqual(profileSettings({ environment: { AWS_PROFILE: "work" }, homeDirectory, files }), {
    region: "eu-west-2",
    endpoint: "http://127.0.0.1:9000",
  });
});

test("credentialsChain: what is missing is named, and secrets are not", async () => {
  const homeDirectory = home();
  const cases: [Record<string, string>, string, RegExp][] = [
    [{ AWS_ACCESS_KEY_ID: "SEKRIT" }, "CredentialsIncomplete", /AWS_SECRET_ACCESS_KEY is not set/],
    [{ AWS_ACCESS_KEY_ID: "A", AWS_SECRET_ACCESS_KEY: "SEKRIT\r" }, "CredentialsInvalid", /the environment/],
    [{ AWS_PROFILE: "absent" }, "CredentialsMissing", /profile "absent"/],
    [{ AWS_PROFILE: "half" }, "CredentialsIncomplete", /one key of the pair/],
    [{ AWS_PROFILE: "sso" }, "CredentialsUnsupported", /sso_session/],
  ];
  for (const [environment, code, message] of cases) {
    await assert.rejects(() => credentialsChain({ environment, homeDirectory, files })(), (error) => {
      assert.ok(error instanceof StorageError);
      assert.equal(error.code, code);
      assert.match(error.message, message);
      assert.doesNotMatch(`${error.message} ${error.hint} ${JSON.stringify(error.data)}`, /SEKRIT/);
      return true;
    });
  }
  await assert.rejects(() => credentialsChain({ environment: {}, files })(), /no credentials/);
});

test("openStore: picks the store, its endpoint and its region", async () => {
  const directory = temporaryDirectory("open");
  const opened = openStore({ url: { scheme: "file", directory, prefix: "" }, environment: {}, runtime });
  assert.equal(opened.store.location, `file://${directory}`);
  await opened.store.put("a/b", bytes("x"));
  assert.equal((await opened.store.head("a/b"))?.size, 1);

  const urls: string[] = [];
  const scopes: string[] = [];
  const fetch: Fetch = (url, init) => {
    urls.push(url);
    scopes.push(/Credential=\w+\/\d+\/([^/]+)\//.exec(init.headers.authorization)?.[1] ?? "");
    return Promise.resolve({ status: 404, header: () => null, body: (async function* () {})() });
  };
  const keys = { AWS_ACCESS_KEY_ID: "A", AWS_SECRET_ACCESS_KEY: "B" };
  const url = { scheme: "s3", bucket: "bucket", prefix: "p/" } as const;
  const homeDirectory = home();
  const tries: [Record<string, string>, { endpoint?: string; region?: string }][] = [
    [keys, {}],
    [{ ...keys, AWS_REGION: "eu-north-1" }, {}],
    [{ ...keys, AWS_PROFILE: "work" }, {}],
    [{ ...keys, AWS_ENDPOINT_URL_S3: "http://e.test" }, { region: "here" }],
    [{ ...keys, AWS_REGION: "eu-north-1" }, { endpoint: "https://x.r2.cloudflarestorage.com" }],
  ];
  for (const [environment, options] of tries) {
    const { store, prefix } = openStore({
      url,
      environment,
      homeDirectory,
      runtime: { ...runtime, fetch },
      ...options,
    });
    assert.equal(prefix, "p/");
    assert.equal(await store.head("k"), null);
  }
  assert.deepEqual(urls, [
    "https://bucket.s3.eu-west-1.amazonaws.com/k",
    "https://bucket.s3.eu-north-1.amazonaws.com/k",
    "http://127.0.0.1:9000/bucket/k",
    "http://e.test/bucket/k",
    "https://x.r2.cloudflarestorage.com/bucket/k",
  ]);
  assert.deepEqual(scopes, ["eu-west-1", "eu-north-1", "eu-west-2", "here", "auto"]);
});

test("canary: the sound values that the refused ones are made of are accepted", async () => {
  assert.equal(s3Address({ bucket: "abc", endpoint: "http://x:9000", region: "here" }).base, "http://x:9000/abc");
  assert.equal(parseDocument(bytes("<a>&amp;</a>")).content, "&");
  assert.equal(parseDocument(bytes(`<a>${" ".repeat(1000)}</a>`)).name, "a");
  const environment = { AWS_ACCESS_KEY_ID: "A", AWS_SECRET_ACCESS_KEY: "SEKRIT" };
  assert.equal((await credentialsChain({ environment, files })()).secretAccessKey, "SEKRIT");
  assert.throws(() => assert.throws(() => s3Address({ bucket: "abc" }), ConfigError), assert.AssertionError);
});
