/**
 * Publishes sealed objects strictly in order, one at a time: there is never a hole behind a published seq.
 * Normally at most one object waits here; more do only when the spool holds them.
 */
import { IntegrityError, PreconditionError } from "../errors.ts";
import type { Clock, Random } from "../runtime/types.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { endsWriting } from "./engine_failure.ts";
import { objectInMemoryMax, type Sealed } from "./sealed.ts";
import type { Spool } from "./spool.ts";

const backoffFirstMs = 500;
const backoffMaxMs = 30_000;

interface Waiting {
  sealed: Sealed;
  spooled: boolean;
  /** When it was sealed, by the monotonic clock. */
  sealedAt: number;
}

/** What the publisher tells the engine. */
export interface PublisherEvents {
  /** The object is in the bucket. Called before the next one is sent. */
  confirmed(sealed: Sealed, lagMs: number): void;
  /** A try failed and will be repeated after `retryMs`. */
  failed(sealed: Sealed, error: unknown, retryMs: number): void;
}

/** The queue of one database. */
export class Publisher {
  readonly #store: ObjectStore;
  readonly #spool: Spool;
  readonly #clock: Clock;
  readonly #random: Random;
  readonly #events: PublisherEvents;
  readonly #mayWrite: () => Promise<void>;
  #queue: Waiting[] = [];
  #running: Promise<void> | null = null;
  #failures = 0;
  #notBefore = 0;
  #fatal: unknown = null;
  #progress: (() => void)[] = [];

  /** `mayWrite` is awaited before each object; it throws when another writer has our place. */
  constructor(
    parts: {
      store: ObjectStore;
      spool: Spool;
      clock: Clock;
      random: Random;
      events: PublisherEvents;
      mayWrite: () => Promise<void>;
    },
  ) {
    this.#store = parts.store;
    this.#spool = parts.spool;
    this.#clock = parts.clock;
    this.#random = parts.random;
    this.#events = parts.events;
    this.#mayWrite = parts.mayWrite;
  }

  /** True when everything sealed is in the bucket. */
  get idle(): boolean {
    return this.#queue.length === 0;
  }

  /** Milliseconds until a failed object may be tried again; 0 when it may now. */
  get retryInMs(): number {
    return Math.max(0, this.#notBefore - this.#clock.monotonic());
  }

  /** Adds an object; all others before it must be spooled or confirmed. */
  add(sealed: Sealed, spooled: boolean): void {
    this.#queue.push({ sealed, spooled, sealedAt: this.#clock.monotonic() });
    this.send();
  }

  /** Makes everything that waits here durable on disk. */
  spoolAll(): void {
    for (const waiting of this.#queue) {
      if (waiting.spooled) continue;
      waiting.sealed = this.#spool.add(waiting.sealed);
      waiting.spooled = true;
    }
  }

  /** Starts sending if something waits and its backoff is over. Throws what ended this writer for good. */
  send(): void {
    if (this.#fatal !== null) throw this.#fatal;
    if (this.#running !== null || this.#queue.length === 0 || this.retryInMs > 0) return;
    this.#running = this.#run().finally(() => {
      this.#running = null;
      for (const resolve of this.#progress.splice(0)) resolve();
    });
  }

  /** Resolves when the object under way is confirmed or has failed; at once when there is none. */
  settled(): Promise<void> {
    return this.#running === null ? Promise.resolve() : new Promise((resolve) => this.#progress.push(resolve));
  }

  async #run(): Promise<void> {
    while (this.#queue.length > 0 && this.#fatal === null) {
      const { sealed } = this.#queue[0];
      try {
        await this.#mayWrite();
        await this.#put(sealed);
      } catch (error) {
        if (error instanceof PreconditionError || endsWriting(error)) {
          this.#fatal = error instanceof PreconditionError ? conflict(sealed, error) : error;
          return;
        }
        const retryMs = Math.min(backoffMaxMs, backoffFirstMs * 2 ** this.#failures++) * (0.5 + this.#random.number());
        this.#notBefore = this.#clock.monotonic() + retryMs;
        try {
          this.#events.failed(sealed, error, retryMs);
        } catch (failure) {
          // Nobody awaits this run: the next `send` says it.
          this.#fatal = failure;
        }
        return;
      }
      this.#failures = 0;
      const waiting = this.#queue[0];
      try {
        this.#events.confirmed(sealed, this.#clock.monotonic() - waiting.sealedAt);
        this.#queue.shift();
        if (waiting.spooled) this.#spool.remove(sealed.seq);
      } catch (error) {
        this.#fatal = error;
      }
    }
  }

  async #put(sealed: Sealed): Promise<void> {
    if (sealed.size > objectInMemoryMax) {
      await this.#store.putStream(sealed.key, sealed.chunks(), { ifAbsent: true });
      return;
    }
    for (const body of sealed.chunks()) await this.#store.put(sealed.key, body, { ifAbsent: true });
  }
}

function conflict(sealed: Sealed, cause: PreconditionError): IntegrityError {
  return new IntegrityError("fenced", `another writer published ${sealed.key} with other bytes`, {
    hint: "only one walrust may write to a prefix: stop the other one, then start this one again",
    data: { key: sealed.key, seq: sealed.seq },
    cause,
  });
}
