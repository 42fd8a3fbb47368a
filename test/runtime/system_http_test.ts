import assert from "node:assert/strict";
import http from "node:http";
import type { AddressInfo } from "node:net";
import { after, before, test } from "node:test";
import { gzipSync } from "node:zlib";
import { systemRuntime } from "../../src/runtime/system.ts";
import type { Fetch } from "../../src/runtime/types.ts";

const { fetch } = systemRuntime();
const connections = new Set<unknown>();
let hangingClosed: Promise<void>;
let origin = "";

const server = http.createServer((request, response) => {
  const chunks: Uint8Array[] = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", () => answer(request, response, Buffer.concat(chunks)));
});
server.on("connection", (socket) => connections.add(socket));

function answer(request: http.IncomingMessage, response: http.ServerResponse, body: Uint8Array): void {
  const path = request.url ?? "";
  if (path === "/echo") {
    response.writeHead(200, { "x-method": request.method, "x-headers": JSON.stringify(request.headers) });
    response.end(body);
  } else if (path === "/redirect") {
    response.writeHead(307, { location: `${origin}/echo` });
    response.end("elsewhere");
  } else if (path === "/gzip") {
    response.writeHead(200, { "content-encoding": "gzip" });
    response.end(gzipSync("packed"));
  } else if (path === "/short") {
    response.writeHead(200, { "content-length": "100" });
    response.write("ten bytes.");
    setTimeout(() => response.destroy(), 20);
  } else if (path === "/short-chunked") {
    response.writeHead(200);
    response.write("ten bytes.");
    setTimeout(() => response.destroy(), 20);
  } else if (path === "/large") {
    response.writeHead(200, { "content-length": String(64 << 20) });
    const part = new Uint8Array(1 << 20);
    let left = 64;
    const pump = (): void => {
      while (left > 0 && !response.destroyed) {
        left--;
        if (!response.write(part)) return void response.once("drain", pump);
      }
      response.end();
    };
    hangingClosed = new Promise((resolve) => response.on("close", () => resolve()));
    pump();
  } else if (path === "/empty") {
    response.writeHead(204);
    response.end();
  } // Anything else hangs.
}

before(async () => {
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  origin = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
});

after(() => {
  server.closeAllConnections();
  server.close();
});

async function text(body: AsyncIterable<Uint8Array>): Promise<string> {
  const chunks: Uint8Array[] = [];
  for await (const chunk of body) chunks.push(chunk.slice());
  return Buffer.concat(chunks).toString();
}

test("fetch: a PUT arrives with its headers, its length and its body", async () => {
  const body = new TextEncoder().encode("..hello..").subarray(2, 7);
  const headers = { "x-amz-meta": "v", host: new URL(origin).host };
  const response = await fetch(`${origin}/echo`, { method: "PUT", headers, body });
  assert.equal(response.status, 200);
  assert.equal(response.header("x-method"), "PUT");
  assert.equal(response.header("absent"), null);
  const sent = JSON.parse(response.header("x-headers") ?? "");
  assert.equal(sent["content-length"], "5");
  assert.equal(sent["transfer-encoding"], undefined);
  assert.equal(sent["accept-encoding"], "identity");
  assert.equal(sent["x-amz-meta"], "v");
  assert.equal(sent.host, new URL(origin).host);
  assert.equal(await text(response.body), "hello");
});

test("fetch: an empty PUT says length 0, a GET has no body", async () => {
  const put = await fetch(`${origin}/echo`, { method: "PUT", headers: {}, body: new Uint8Array(0) });
  assert.equal(JSON.parse(put.header("x-headers") ?? "")["content-length"], "0");
  assert.equal(await text(put.body), "");
  const get = await fetch(`${origin}/echo`, { method: "GET", headers: {} });
  assert.equal(JSON.parse(get.header("x-headers") ?? "")["content-length"], undefined);
  assert.equal(await text(get.body), "");
  const none = await fetch(`${origin}/empty`, { method: "DELETE", headers: {} });
  assert.equal(none.status, 204);
  assert.equal(await text(none.body), "");
});

test("fetch: HEAD may declare a length without a body", async () => {
  const head = await fetch(`${origin}/large`, { method: "HEAD", headers: {} });
  assert.equal(head.header("content-length"), String(64 << 20));
  assert.equal(await text(head.body), "");
});

test("fetch: requests one after the other share a connection", async () => {
  const count = connections.size;
  for (let i = 0; i < 10; i++) await text((await fetch(`${origin}/echo`, { method: "GET", headers: {} })).body);
  assert.ok(connections.size <= count + 1, `${connections.size - count} new connections`);
});

test("fetch: follows no redirect", async () => {
  const response = await fetch(`${origin}/redirect`, { method: "GET", headers: {} });
  assert.equal(response.status, 307);
  assert.equal(response.header("location"), `${origin}/echo`);
  assert.equal(await text(response.body), "elsewhere");
});

test("fetch: gives the stored bytes, not the decompressed ones", async () => {
  const response = await fetch(`${origin}/gzip`, { method: "GET", headers: {} });
  const chunks: Uint8Array[] = [];
  for await (const chunk of response.body) chunks.push(chunk);
  assert.deepEqual([...Buffer.concat(chunks).subarray(0, 2)], [0x1f, 0x8b]);
});

async function checkShortBodies(fetch: Fetch): Promise<void> {
  for (const path of ["short", "short-chunked"]) {
    const response = await fetch(`${origin}/${path}`, { method: "GET", headers: {} });
    assert.equal(response.header("content-length"), path === "short" ? "100" : null);
    await assert.rejects(text(response.body));
  }
}

test("fetch: a body that ends too early is an error", () => checkShortBodies(fetch));

test("canary: a client that takes a broken body for a whole one is found out", async () => {
  const trusting: Fetch = async (url, init) => {
    const response = await fetch(url, init);
    async function* untilItBreaks(): AsyncGenerator<Uint8Array> {
      try {
        yield* response.body;
      } catch {
        // What must not happen.
      }
    }
    return { ...response, body: untilItBreaks() };
  };
  await assert.rejects(() => checkShortBodies(trusting), assert.AssertionError);
});

test("fetch: a refused connection is an error", async () => {
  const free = http.createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => free.once("listening", resolve));
  const { port } = free.address() as AddressInfo;
  await new Promise((resolve) => free.close(resolve));
  await assert.rejects(fetch(`http://127.0.0.1:${port}/`, { method: "GET", headers: {} }));
});

test("fetch: aborted before, while waiting and while reading, it fails with the signal's reason", async () => {
  const reason = new Error("enough");
  const isReason = (error: unknown): boolean => error === reason;
  const early = { method: "GET", headers: {}, signal: AbortSignal.abort(reason) };
  await assert.rejects(fetch(`${origin}/hang`, early), isReason);
  const waiting = new AbortController();
  const answer = fetch(`${origin}/hang`, { method: "GET", headers: {}, signal: waiting.signal });
  setTimeout(() => waiting.abort(reason), 20);
  await assert.rejects(answer, isReason);
  const reading = new AbortController();
  const response = await fetch(`${origin}/large`, { method: "GET", headers: {}, signal: reading.signal });
  const iterator = response.body[Symbol.asyncIterator]();
  assert.equal((await iterator.next()).done, false);
  reading.abort(reason);
  await assert.rejects(async () => {
    while ((await iterator.next()).done !== true);
  }, isReason);
});

test("fetch: a body given up before its first chunk closes the connection", { timeout: 20_000 }, async () => {
  const response = await fetch(`${origin}/large`, { method: "GET", headers: {} });
  await response.body[Symbol.asyncIterator]().return?.();
  await hangingClosed;
});
