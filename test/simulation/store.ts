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
}

/** One sender of requests. */
export interface Sender {
  /** False when its process died: it gets no answers and sends no more. */
  readonly alive: () => boolean;
  /** Runs before a request; may throw. */
  readonly before: (operation: string, key: string) => void;
}

/** The bucket; keeps the first bytes of each immutable key to see whether they ever change. */
export class SimulatedBucket {
  readonly objects: MemoryStore;
  readonly clock: SimulatedClock;
  readonly random: SeededRandom;
  network: Network = { failure: 0, lostReply: 0, slow: 0, delayMs: 20, slowMs: 60_000 };
  /** Called for each object that is written. */
  onWrite: (key: string, bytes: Uint8Array) => void = () => {};
  /** Changes the bytes of a PUT on their way: only for canaries. */
  corrupt: (key: string, bytes: Uint8Array) => Uint8Array = (_, bytes) => bytes;

  constructor(clock: SimulatedClock, random: SeededRandom) {
    this.clock = clock;
    this.random = random;
    this.objects = new MemoryStore();
  }

  /** The store as one process sees it. */
  connect(sender: Sender): ObjectStore {
    return new SimulatedStore(this, sender);
  }

  async write(key: string, bytes: Uint8Array, options: PutOptions): Promise<{ etag: string }> {
    const { signal: _, ...conditions } = options;
    const sent = this.corrupt(key, bytes);
    const reply = await this.objects.put(key, sent, conditions);
    this.onWrite(key, sent);
    return reply;
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
    const { clock, random, network } = this.#bucket;
    if (!this.#sender.alive()) return new Promise(() => {});
    this.#sender.before(operation, key);
    const failure = (code: string): StorageError =>
      new StorageError(code, `${operation} ${key}: ${code}`, { key, status: 500, retryable: true });
    const slow = random.chance(network.slow);
    const travelMs = random.number() * (slow ? network.slowMs : network.delayMs);
    const backMs = random.number() * network.delayMs;
    const fails = random.chance(network.failure);
    const lost = random.chance(network.lostReply);
    return new Promise((resolve, reject) => {
      const signal = options?.signal;
      if (signal?.aborted) return reject(signal.reason);
      signal?.addEventListener("abort", () => this.#sender.alive() && reject(signal.reason), { once: true });
      const answer = (say: () => void): void => clock.at(backMs, () => this.#sender.alive() && say());
      clock.at(travelMs, () => {
        if (fails) return answer(() => reject(failure("InternalError")));
        run().then(
          (value) => answer(() => lost ? reject(failure("ConnectionReset")) : resolve(value)),
          (error) => answer(() => reject(error)),
        );
      });
    });
  }

  get(key: string, options: GetOptions = {}): Promise<ObjectBody> {
    return this.#request("get", key, options, () => this.#bucket.objects.get(key, options));
  }

  head(key: string, options: CallOptions = {}): Promise<ObjectInfo | null> {
    return this.#request("head", key, options, () => this.#bucket.objects.head(key));
  }

  put(key: string, body: Uint8Array, options: PutOptions = {}): Promise<{ etag: string }> {
    const bytes = body.slice();
    return this.#request("put", key, options, () => this.#bucket.write(key, bytes, options));
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
    return this.#request("complete", key, options, () => this.#bucket.write(key, bytes, options));
  }

  async *list(prefix: string, options: ListOptions = {}): AsyncGenerator<ObjectInfo> {
    const found = await this.#request("list", prefix, options, async () => {
      const objects: ObjectInfo[] = [];
      for await (const object of this.#bucket.objects.list(prefix, options)) objects.push(object);
      return objects;
    });
    yield* found;
  }

  listDirectories(prefix: string, options: CallOptions = {}): Promise<string[]> {
    return this.#request("list", prefix, options, () => this.#bucket.objects.listDirectories(prefix));
  }

  deleteMany(keys: readonly string[], options: CallOptions = {}): Promise<{ key: string; error: StorageErrorLike }[]> {
    return this.#request("delete", keys[0] ?? "", options, () => this.#bucket.objects.deleteMany(keys));
  }
}
