/**
 * HTTP of the machine behind our {@linkcode Fetch}: `node:http(s)` with kept-alive connections on Node, whose own
 * `fetch` costs nearly three times the CPU and 100 MB more; the runtime's `fetch` on Bun and Deno.
 */
import type http from "node:http";
import type https from "node:https";
import process from "node:process";
import { bodyOf, type BodySource, declaredLength, sentHeaders, standardFetch } from "./standard_http.ts";
import type { Fetch, FetchResponse } from "./types.ts";

function nodeResponse(method: string, message: http.IncomingMessage, signal: AbortSignal | undefined): FetchResponse {
  const status = message.statusCode ?? 0;
  const header = (name: string): string | null => {
    const value = message.headers[name];
    return value === undefined ? null : Array.isArray(value) ? value.join(", ") : value;
  };
  // An error that comes while nobody reads must not end the process.
  message.on("error", () => {});
  const chunks = message[Symbol.asyncIterator]();
  const source: BodySource = { next: () => chunks.next(), cancel: () => void message.destroy() };
  return { status, header, body: bodyOf(source, declaredLength(method, { status, header }), signal) };
}

/** An `import` reads every export, and some of `node:http` load all of Node's `fetch`: 11 MB. */
type HttpModule = typeof http | typeof https;

function nodeFetch(): Fetch {
  const options = { keepAlive: true, scheduling: "lifo" } as const;
  const agents: { http?: http.Agent; https?: http.Agent } = {};
  return (url, { method, headers, body, signal }) =>
    new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      const secure = url.startsWith("https:");
      const module: HttpModule = process.getBuiltinModule(secure ? "node:https" : "node:http");
      const agent = agents[secure ? "https" : "http"] ??= new module.Agent(options);
      const sent: Record<string, string | number> = sentHeaders(headers);
      if (body !== undefined || method === "PUT" || method === "POST") sent["content-length"] = body?.length ?? 0;
      const request = module.request(url, { method, headers: sent, agent, signal });
      request.on("response", (message) => resolve(nodeResponse(method, message, signal)));
      request.on("error", (error) => reject(signal?.aborted ? signal.reason : error));
      request.end(body);
    });
}

/** The machine's HTTP client. */
export function systemFetch(): Fetch {
  return process.versions.bun === undefined && process.versions.deno === undefined ? nodeFetch() : standardFetch;
}
