/** Connections that fail: which failures are final, and what people are told. */
import assert from "node:assert/strict";
import https from "node:https";
import type { AddressInfo } from "node:net";
import { test } from "node:test";
import { StorageError } from "../../src/errors.ts";
import { systemRuntime } from "../../src/runtime/system.ts";
import { explicitCredentials } from "../../src/storage/credentials.ts";
import { S3Store, type S3StoreOptions } from "../../src/storage/s3.ts";
import { getBytes } from "../../src/storage/object_store.ts";
import { noise } from "../conformance/object_store_suite.ts";
import { selfSignedCertificate } from "../support/certificate.ts";
import { object, scriptedS3 } from "./scripted_s3.ts";

const runtime = systemRuntime();

/** The error of a HEAD over a connection that always fails like this, and how often it was tried. */
async function failing(
  error: (url: string) => Error,
  options: Partial<S3StoreOptions>,
  key: string,
): Promise<{ error: StorageError; tries: number }> {
  let tries = 0;
  const { store } = scriptedS3([], {
    ...options,
    fetch: (url) => {
      tries++;
      return Promise.reject(error(url));
    },
  });
  const caught: unknown = await store.head(key).then(() => null, (error: unknown) => error);
  assert.ok(caught instanceof StorageError, String(caught));
  return { error: caught, tries };
}

/** As Node and Bun tell it. */
function withCode(code: string, message: string): () => Error {
  return () => Object.assign(new Error(message), { code });
}

/** As Deno tells it: no code, and the URL in the text of the cause. */
function denoError(reason: string): (url: string) => Error {
  return (url) => {
    const cause = new Error(`error sending request for url (${url}): client error (Connect): ${reason}`);
    return new TypeError("fetch failed", { cause });
  };
}

const dnsFailed = "dns error: failed to lookup address information: Name or service not known";
const plain: Partial<S3StoreOptions> = { endpoint: "http://tls.invalid", bucket: "ssl-logs" };
const secure: Partial<S3StoreOptions> = { endpoint: "https://certificate.tls.invalid", bucket: "ssl-logs" };

test("connectionFailed: names like certificate, ssl and tls in key, bucket and host are no reason", async () => {
  const errors = [
    denoError(dnsFailed),
    withCode("ENOTFOUND", "getaddrinfo ENOTFOUND certificate.tls.invalid"),
    withCode("ECONNREFUSED", "connect ECONNREFUSED 127.0.0.1:443"),
    withCode("ECONNRESET", "Client network socket disconnected before secure TLS connection was established"),
    () => new TypeError("certificate.tls.invalid cannot be reached"),
  ];
  for (const options of [plain, secure]) {
    for (const make of errors) {
      const { error, tries } = await failing(make, options, "certs/self-signed/certificate/state.json");
      assert.deepEqual([error.code, error.retryable, tries], ["ConnectionFailed", true, 6], error.message);
      assert.equal(error.hint, "Check the network and the endpoint.");
    }
  }
});

test("connectionFailed: a certificate that is not accepted is final, in the words of each runtime", async () => {
  const errors = [
    denoError("invalid peer certificate: UnknownIssuer"),
    denoError("invalid peer certificate: Expired"),
    withCode("DEPTH_ZERO_SELF_SIGNED_CERT", "self signed certificate"),
    withCode("SELF_SIGNED_CERT_IN_CHAIN", "self-signed certificate in certificate chain"),
    withCode("CERT_HAS_EXPIRED", "certificate has expired"),
    withCode("UNABLE_TO_VERIFY_LEAF_SIGNATURE", "unable to verify the first certificate"),
    withCode("ERR_TLS_CERT_ALTNAME_INVALID", 'ERR_TLS_CERT_ALTNAME_INVALID fetching "https://a.test/"'),
  ];
  // So long a key that the text of Deno, cut to what people read, would end within the URL.
  for (const key of ["k", "long/".repeat(200) + "k"]) {
    for (const make of errors) {
      const { error, tries } = await failing(make, secure, key);
      assert.deepEqual([error.code, error.retryable, tries], ["TlsFailed", false, 1], error.message);
      assert.match(error.message, /certificate|CERT/);
      assert.equal(error.hint, "The server's certificate was not accepted.");
    }
  }
  const { error } = await failing(withCode("CERT_HAS_EXPIRED", "nonsense"), plain, "k");
  assert.equal(error.code, "ConnectionFailed", "without https there is no certificate");
});

test("connectionFailed: a peer that speaks no https is named, and tried again", async () => {
  const errors = [
    denoError("received corrupt message of type InvalidContentType"),
    withCode("EPROTO", "write EPROTO 408DEA35A37F0000:error:0A00010B:SSL routines:wrong version number"),
  ];
  for (const make of errors) {
    const { error, tries } = await failing(make, secure, "k");
    assert.deepEqual([error.code, tries], ["ConnectionFailed", 6]);
    assert.match(error.hint ?? "", /does it speak https/);
  }
});

const hanging = { headers: { etag: '"e1"', "content-length": "9" }, hangs: true };
const stored = { headers: { etag: '"e1"' } };

test("S3Store: [S48] a head without its body is given up after the limit between pieces, not the one of the head", async () => {
  // Its head is waited for 30 s, and 96 s for its upload.
  const body = noise(3 * 1024 * 1024, 3);
  const put = scriptedS3([hanging, stored]);
  const startedAt = put.clock.monotonic();
  assert.deepEqual(await put.store.put("k", body), { etag: '"e1"' });
  put.finish();
  assert.equal(put.clock.monotonic() - startedAt, 30_000 + 50);
  const get = scriptedS3([hanging, object(body.subarray(0, 9))], { timeouts: { headMs: 200_000, idleMs: 2000 } });
  const begunAt = get.clock.monotonic();
  assert.deepEqual((await getBytes(get.store, "k", 9)).bytes, body.slice(0, 9));
  get.finish();
  assert.equal(get.clock.monotonic() - begunAt, 2000 + 50);
});

test("S3Store: a server with a self-signed certificate is refused at once", { timeout: 60_000 }, async () => {
  let requests = 0;
  const server = https.createServer(selfSignedCertificate(), (_, response) => {
    requests++;
    response.end();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  try {
    const said: string[] = [];
    const store = new S3Store({
      ...runtime,
      bucket: "bucket",
      endpoint: `https://127.0.0.1:${port}`,
      credentials: explicitCredentials({ accessKeyId: "id", secretAccessKey: "secret" }),
      log: (_, message) => said.push(message),
    });
    await assert.rejects(() => store.head("k"), (error) => {
      assert.ok(error instanceof StorageError);
      assert.deepEqual([error.code, error.retryable], ["TlsFailed", false], error.message);
      return true;
    });
    assert.deepEqual([said, requests], [[], 0], "no retry, and nothing was sent");
  } finally {
    server.closeAllConnections();
    server.close();
  }
});
