/**
 * A bad network on loopback, between walrust and an S3 server: an HTTP proxy that does to each request what it is told.
 * The Host header stays as the client sent it, because it is signed.
 */
import { Buffer } from "node:buffer";
import { type AddressInfo, connect, createServer, type Server, type Socket } from "node:net";

/** What happens to one request. */
export type Fault =
  | "none"
  /** Half of the request arrives, then both connections are reset. */
  | "reset request"
  /** The request is carried out; half of its answer arrives, then the connection is reset. */
  | "reset answer"
  /** The request is carried out; nothing of its answer arrives. */
  | "lost reply"
  /** 503 SlowDown instead of anything else. */
  | "slow down"
  /** The same with `Retry-After: 1`. */
  | "retry after"
  /** The head of the answer announces more bytes than come. */
  | "short answer"
  /** A page with status 200, as captive portals send it. */
  | "html"
  /** 400 ExpiredToken. */
  | "expired"
  /** Said to be stored, and thrown away: for canaries. */
  | "swallow";

/** A request as the proxy sees it. */
export interface ProxiedRequest {
  readonly method: string;
  /** Path and query. */
  readonly target: string;
  readonly headers: ReadonlyMap<string, string>;
}

/** Chooses what happens to a request. */
export type Decide = (request: ProxiedRequest) => Fault;

const skewMax = 60_000;
const portal = "<!DOCTYPE html><html><body>Please log in to use this network</body></html>";

/** The bytes of a socket, in order, as many as are asked for. */
class Incoming {
  readonly #socket: Socket;
  #chunks: Buffer[] = [];
  #size = 0;
  #ended = false;
  #wake: () => void = () => {};

  constructor(socket: Socket, bytesPerSecond: () => number) {
    this.#socket = socket;
    const end = (): void => {
      this.#ended = true;
      this.#wake();
    };
    socket.on("data", (chunk: Buffer) => {
      this.#chunks.push(chunk);
      this.#size += chunk.length;
      this.#wake();
      const pauseMs = chunk.length / bytesPerSecond() * 1000;
      if (pauseMs < 1) return;
      socket.pause();
      setTimeout(() => socket.resume(), pauseMs);
    });
    socket.on("end", end).on("close", end).on("error", end);
  }

  /** True when more came, false when nothing will. */
  async #more(): Promise<boolean> {
    const before = this.#size;
    if (!this.#ended) await new Promise<void>((resolve) => this.#wake = resolve);
    return this.#size > before || !this.#ended;
  }

  #all(): Buffer {
    if (this.#chunks.length > 1) this.#chunks = [Buffer.concat(this.#chunks)];
    return this.#chunks[0] ?? Buffer.alloc(0);
  }

  #take(count: number): Buffer {
    const bytes = this.#all();
    const taken = bytes.subarray(0, count);
    this.#chunks = taken.length === bytes.length ? [] : [bytes.subarray(count)];
    this.#size -= taken.length;
    return taken;
  }

  /** Up to and with the empty line behind the headers; null when the peer ended before. */
  async head(): Promise<string | null> {
    for (;;) {
      const end = this.#all().indexOf("\r\n\r\n");
      if (end >= 0) return this.#take(end + 4).toString("latin1");
      if (!await this.#more()) return null;
    }
  }

  /** `count` bytes, or fewer when the peer ended before. */
  async body(count: number): Promise<Buffer> {
    while (this.#size < count && await this.#more());
    return this.#take(Math.min(count, this.#size));
  }

  /** All until the peer ends. */
  async rest(): Promise<Buffer> {
    while (await this.#more());
    return this.#take(this.#size);
  }

  get socket(): Socket {
    return this.#socket;
  }
}

function headersOf(head: string): Map<string, string> {
  const lines = head.split("\r\n").slice(1, -2);
  return new Map(lines.map((line) => {
    const colon = line.indexOf(":");
    return [line.slice(0, colon).toLowerCase(), line.slice(colon + 1).trim()];
  }));
}

/** `head` with a header set, or removed where `value` is null. */
function withHeader(head: string, name: string, value: string | null): string {
  const [first, ...lines] = head.slice(0, -4).split("\r\n");
  const kept = lines.filter((line) => !line.toLowerCase().startsWith(`${name.toLowerCase()}:`));
  return [first, ...kept, ...(value === null ? [] : [`${name}: ${value}`])].join("\r\n") + "\r\n\r\n";
}

function answer(status: string, headers: Record<string, string>, body: string): Buffer {
  const lines = Object.entries({ ...headers, "Content-Length": String(Buffer.byteLength(body)) });
  return Buffer.from(
    `HTTP/1.1 ${status}\r\n${lines.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n${body}`,
  );
}

function failure(status: string, code: string, headers: Record<string, string> = {}): Buffer {
  const body = `<?xml version="1.0"?><Error><Code>${code}</Code><Message>by the proxy</Message></Error>`;
  return answer(status, { "Content-Type": "application/xml", ...headers }, body);
}

/** Milliseconds of `20260115T103000Z`. */
function amzDateMs(text: string): number {
  return Date.parse(text.replace(/^(\d{4})(\d\d)(\d\d)T(\d\d)(\d\d)(\d\d)Z$/, "$1-$2-$3T$4:$5:$6Z"));
}

/** See the top of this file; every property may be changed at any time. */
export class FaultProxy {
  /** What happens to each request. */
  decide: Decide = () => "none";
  /** Before a request is passed on, milliseconds. */
  latencyMs = 0;
  /** Of each direction of each connection. */
  bytesPerSecond: number = Infinity;
  /** The server's clock, as it seems, minus the real one, milliseconds. */
  dateShiftMs = 0;
  /** How often each fault happened. */
  readonly counts: Map<Fault | "skewed" | "down", number> = new Map();
  /** Every request that came, in order. */
  readonly requests: ProxiedRequest[] = [];
  readonly #port: number;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();
  #isDown = false;

  private constructor(port: number) {
    this.#port = port;
    this.#server = createServer((socket) => this.#accept(socket));
  }

  /** Starts a proxy on a free port before the server at `endpoint`. */
  static async start(endpoint: string): Promise<FaultProxy> {
    const proxy = new FaultProxy(Number(new URL(endpoint).port));
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  /** What clients are given instead of the server. */
  get endpoint(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** While true, every connection is reset. */
  set down(isDown: boolean) {
    this.#isDown = isDown;
    if (isDown) { for (const socket of this.#sockets) socket.destroy(); }
  }

  /** Ends the proxy and its connections. */
  async stop(): Promise<void> {
    this.down = true;
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #count(kind: Fault | "skewed" | "down"): void {
    this.counts.set(kind, (this.counts.get(kind) ?? 0) + 1);
  }

  #accept(socket: Socket): void {
    // What is lost on a broken connection is the very purpose.
    socket.on("error", () => {});
    if (this.#isDown) {
      this.#count("down");
      return reset(socket);
    }
    this.#sockets.add(socket);
    socket.on("close", () => this.#sockets.delete(socket));
    void this.#serve(new Incoming(socket, () => this.bytesPerSecond)).catch(() => socket.destroy());
  }

  async #serve(client: Incoming): Promise<void> {
    for (;;) {
      const head = await client.head();
      if (head === null) return void client.socket.end();
      const [method, target] = head.split(" ", 2);
      const request: ProxiedRequest = { method, target, headers: headersOf(head) };
      this.requests.push(request);
      if (this.latencyMs > 0) await new Promise((resolve) => setTimeout(resolve, this.latencyMs));
      const fault = this.#isSkewed(request) ? "skewed" : this.decide(request);
      this.#count(fault);
      if (!await this.#handle(client, head, request, fault)) return;
    }
  }

  #isSkewed({ headers }: ProxiedRequest): boolean {
    if (this.dateShiftMs === 0) return false;
    const saidMs = amzDateMs(headers.get("x-amz-date") ?? "");
    return !(Math.abs(saidMs - Date.now() - this.dateShiftMs) < skewMax);
  }

  /** False when the connection is at its end. */
  async #handle(
    client: Incoming,
    head: string,
    request: ProxiedRequest,
    fault: Fault | "skewed",
  ): Promise<boolean> {
    const { socket } = client;
    const length = Number(request.headers.get("content-length") ?? 0);
    if (fault === "reset request") {
      const server = this.#connect();
      server.socket.write(withHeader(head, "Connection", "close"), "latin1");
      server.socket.write(await client.body(length >> 1));
      reset(server.socket);
      return reset(socket) ?? false;
    }
    const body = await client.body(length);
    const own = this.#ownAnswer(fault);
    if (own !== null) return await this.#send(socket, request.method === "HEAD" ? headOf(own) : own);
    const server = this.#connect();
    server.socket.write(withHeader(head, "Connection", "close"), "latin1");
    server.socket.write(body);
    const answerHead = await server.head();
    if (answerHead === null) return reset(socket) ?? false;
    const answerBody = await server.rest();
    server.socket.destroy();
    if (fault === "lost reply") return reset(socket) ?? false;
    let said = withHeader(answerHead, "Connection", null);
    if (this.dateShiftMs !== 0) said = withHeader(said, "Date", this.#date());
    const whole = Buffer.concat([Buffer.from(said, "latin1"), answerBody]);
    const isCut = fault === "reset answer" || fault === "short answer";
    // Of an answer without a body half of the head is missing: no HTTP at all.
    const sent = !isCut
      ? whole
      : whole.subarray(0, (answerBody.length > 0 ? said.length : 0) + (answerBody.length >> 1));
    await this.#send(socket, sent);
    if (!isCut) return true;
    if (fault === "reset answer") reset(socket);
    else socket.end();
    return false;
  }

  /** What the proxy says by itself, or null. */
  #ownAnswer(fault: Fault | "skewed"): Buffer | null {
    switch (fault) {
      case "slow down":
        return failure("503 Service Unavailable", "SlowDown");
      case "retry after":
        return failure("503 Service Unavailable", "SlowDown", { "Retry-After": "1" });
      case "skewed":
        return failure("403 Forbidden", "RequestTimeTooSkewed", { Date: this.#date() });
      case "expired":
        return failure("400 Bad Request", "ExpiredToken");
      case "html":
        return answer("200 OK", { "Content-Type": "text/html" }, portal);
      case "swallow":
        return answer("200 OK", { ETag: '"0123456789abcdef0123456789abcdef"' }, "");
      default:
        return null;
    }
  }

  #date(): string {
    return new Date(Date.now() + this.dateShiftMs).toUTCString();
  }

  #connect(): Incoming {
    const socket = connect(this.#port, "127.0.0.1");
    this.#sockets.add(socket);
    socket.on("error", () => {}).on("close", () => this.#sockets.delete(socket));
    return new Incoming(socket, () => Infinity);
  }

  async #send(socket: Socket, bytes: Buffer): Promise<boolean> {
    const size = this.bytesPerSecond === Infinity ? bytes.length : Math.max(1024, Math.ceil(this.bytesPerSecond / 20));
    for (let at = 0; at < bytes.length && !socket.destroyed; at += size) {
      const piece = bytes.subarray(at, at + size);
      await new Promise<void>((resolve) => socket.write(piece, () => resolve()));
      if (at + size < bytes.length) await new Promise((resolve) => setTimeout(resolve, 50));
    }
    return !socket.destroyed;
  }
}

function headOf(whole: Buffer): Buffer {
  return whole.subarray(0, whole.indexOf("\r\n\r\n") + 4);
}

function reset(socket: Socket): void {
  // Not in every runtime: elsewhere the peer sees an end instead of a reset.
  if (typeof socket.resetAndDestroy === "function") socket.resetAndDestroy();
  else socket.destroy();
}
