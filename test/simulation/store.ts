/**
 * A bucket behind a bad network: requests wait, fail, or are carried out without an answer. A request on its way
 * when its sender dies may still arrive, long after the sender's successor has looked.
 */
import { StorageError } from "../../src/errors.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import type {
  CallOptions,
  GetOptions,
  ListOptions,
  ObjectBody,
  ObjectInfo,
  ObjectStore,
  PutOptions,
  StorageErrorLike,
} from "../../src/storage/object_store.ts";
import type { SimulatedClock } from "./clock.ts";
import type { SeededRandom } from "./random.ts";

/** How bad the network is: probabilities per request, times in milliseconds. */
export interface Network {
  /** Refused before anything happened (5xx). */
  failure: number;
  /** Carried out, the reply lost. */
  lostReply: number;
  /** On its way for a long time. */
  slow: number;
  delayMs: number;
  slowMs: number;
  /** Begins a time in which every request is refused with 503. */
  throttle: number;
  throttleMs: number;
  /** A GET whose body ends early. */
  truncated: number;
  /** A LIST that shows the bucket as it was a while ago. */
  stale: number;
  staleMs: number;
  /** `If-Match` and `If-None-Match` mean nothing. */
  ignoresConditions: boolean;
}

/** The best of networks. */
export const calmNetwork: Readonly<Network> = {
  failure: 0,
  lostReply: 0,
  slow: 0,
  delayMs: 5,
  slowMs: 0,
  throttle: 0,
  throttleMs: 0,
  truncated: 0,
  stale: 0,
  staleMs: 0,
  ignoresConditions: false,
};

/** One sender of requests. */
export interface Sender {
  /** False when its process died: it gets no answers and sends no more. */
  readonly alive: () => boolean;
  /** Runs before a request; may throw. */
  readonly before: (operation: string, key: string) => void;
  /** Runs an answer now, or when its process runs again. */
  readonly deliver: (run: () => void) => void;
  /** A request ended for its sender, or an object of its came to be. */
  readonly ended?: (operation: string, key: string) => void;
  readonly name: string;
}

/** The bucket. */
export class SimulatedBucket {
  readonly objects: MemoryStore;
  readonly clock: SimulatedClock;
  readonly random: SeededRandom;
  network: Network = { ...calmNetwork };
  /** Called for each object that is written; `sender` is who sent it. */
  onWrite: (key: string, bytes: Uint8Array, sender: string) => void = () => {};
  /** Changes the bytes of a PUT on their way: only for canaries. */
  corrupt: (key: string, bytes: Uint8Array) => Uint8Array = (_, bytes) => bytes;
  /** When each object came to be. */
  #bornMs = new Map<string, number>();
  #throttledUntil = 0;
  /** Requests on their way. */
  underway = 0;
  /** A request has failed: before anything was replicated that ends a process. */
  hasFailed = false;
  /** When a LIST was last answered with the past, by the world's clock. */
  staleAtMs: number = -Infinity;

  constructor(clock: SimulatedClock, random: SeededRandom) {
    this.clock = clock;
    this.random = random;
    this.objects = new MemoryStore();
  }

  /** The store as one process sees it. */
  connect(sender: Sender): ObjectStore {
    return new SimulatedStore(this, sender);
  }

  /** True when the store refuses everything for a while. */
  throttles(): boolean {
    const { clock, random, network } = this;
    if (random.chance(network.throttle)) this.#throttledUntil = clock.elapsedMs + random.number() * network.throttleMs;
    return clock.elapsedMs < this.#throttledUntil;
  }

  /** An object is gone, whoever took it. */
  vanish(key: string): void {
    void this.objects.deleteMany([key]);
  }

  /** The network is well from now on. */
  heal(): void {
    this.network = { ...calmNetwork };
    this.#throttledUntil = 0;
  }

  async write(key: string, bytes: Uint8Array, options: PutOptions, sender: string): Promise<{ etag: string }> {
    const { signal: _, ...conditions } = options;
    const sent = this.corrupt(key, bytes);
    const reply = await this.objects.put(key, sent, this.network.ignoresConditions ? {} : conditions);
    if (!this.#bornMs.has(key)) this.#bornMs.set(key, this.clock.elapsedMs);
    this.onWrite(key, sent, sender);
    return reply;
  }

  /** Objects as a LIST shows them. */
  async list(prefix: string, options: ListOptions): Promise<ObjectInfo[]> {
    const { clock, random, network } = this;
    const isStale = random.chance(network.stale);
    const asOf = isStale ? clock.elapsedMs - random.number() * network.staleMs : Infinity;
    if (isStale) this.staleAtMs = clock.elapsedMs;
    const found: ObjectInfo[] = [];
    for await (const object of this.objects.list(prefix, options)) {
      if ((this.#bornMs.get(object.key) ?? 0) <= asOf) found.push(object);
    }
    return found;
  }
}

class SimulatedStore implements ObjectStore {
  readonly location = "memory:";
  #bucket: SimulatedBucket;
  #sender: Sender;

  constructor(bucket: SimulatedBucket, sender: Sender) {
    this.#bucket = bucket;
    this.#sender = sender;
  }

  /** Sends a request and waits for its answer; nothing ever answers the dead. */
  #request<T>(operation: string, key: string, options: CallOptions | undefined, run: () => Promise<T>): Promise<T> {
    const bucket = this.#bucket;
    const sender = this.#sender;
    const { clock, random, network } = bucket;
    if (!sender.alive()) return new Promise(() => {});
    sender.before(operation, key);
    const failure = (code: string): StorageError => {
      bucket.hasFailed = true;
      return new StorageError(code, `${operation} ${key}: ${code}`, { key, status: 500, retryable: true });
    };
    const slow = random.chance(network.slow);
    const travelMs = random.number() * (slow ? network.slowMs : network.delayMs);
    const backMs = random.number() * network.delayMs;
    const fails = random.chance(network.failure);
    const lost = random.chance(network.lostReply);
    const signal = options?.signal;
    if (signal?.aborted) return Promise.reject(signal.reason);
    bucket.underway++;
    return new Promise<T>((resolve, reject) => {
      signal?.addEventListener("abort", () => sender.alive() && reject(signal.reason), { once: true });
      const answer = (say: () => void): void =>
        clock.at(backMs, () => {
          if (sender.alive()) sender.deliver(say);
        });
      clock.at(travelMs, () => {
        bucket.underway--;
        if (bucket.throttles()) return answer(() => reject(failure("SlowDown")));
        if (fails) return answer(() => reject(failure("InternalError")));
        run().then(
          (value) => answer(() => lost ? reject(failure("ConnectionReset")) : resolve(value)),
          (error) => answer(() => reject(error)),
        );
      });
    }).finally(() => sender.ended?.(operation, key));
  }

  async get(key: string, options: GetOptions = {}): Promise<ObjectBody> {
    const { random, network } = this.#bucket;
    const object = await this.#request("get", key, options, () => this.#bucket.objects.get(key, options));
    if (!random.chance(network.truncated)) return object;
    this.#bucket.hasFailed = true;
    return { ...object, body: broken(object.body, key) };
  }

  head(key: string, options: CallOptions = {}): Promise<ObjectInfo | null> {
    return this.#request("head", key, options, () => this.#bucket.objects.head(key));
  }

  put(key: string, body: Uint8Array, options: PutOptions = {}): Promise<{ etag: string }> {
    const bytes = body.slice();
    return this.#request("put", key, options, () => this.#bucket.write(key, bytes, options, this.#sender.name));
  }

  async putStream(
    key: string,
    chunks: AsyncIterable<Uint8Array> | Iterable<Uint8Array>,
    options: CallOptions & { ifAbsent?: boolean } = {},
  ): Promise<{ etag: string }> {
    const parts: Uint8Array[] = [];
    for await (const chunk of chunks) {
      parts.push(chunk.slice());
      await this.#request("part", key, options, () => Promise.resolve());
    }
    const bytes = new Uint8Array(parts.reduce((size, part) => size + part.length, 0));
    let filled = 0;
    for (const part of parts) {
      bytes.set(part, filled);
      filled += part.length;
    }
    return this.#request("complete", key, options, () => this.#bucket.write(key, bytes, options, this.#sender.name));
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<ObjectInfo> {
    yield* await this.#request("list", prefix, options, () => this.#bucket.list(prefix, options));
  }

  listDirectories(prefix: string, options: CallOptions = {}): Promise<string[]> {
    return this.#request("list", prefix, options, () => this.#bucket.objects.listDirectories(prefix));
  }

  deleteMany(keys: readonly string[], options: CallOptions = {}): Promise<{ key: string; error: StorageErrorLike }[]> {
    return this.#request("delete", keys[0] ?? "", options, () => this.#bucket.objects.deleteMany(keys));
  }
}

/** A body that ends early; a store of ours proves the length, so its reader hears of it. */
async function* broken(body: AsyncIterable<Uint8Array>, key: string): AsyncGenerator<Uint8Array> {
  for await (const chunk of body) {
    yield chunk.subarray(0, Math.floor(chunk.length / 2));
    throw new StorageError("Truncated", `${key}: the body ended early`, { key, retryable: true });
  }
}
