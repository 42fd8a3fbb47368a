/** Virtual time: nothing waits, the next event is due as soon as every runnable continuation has run. */
import type { Clock } from "../../src/runtime/types.ts";
import type { SeededRandom } from "./random.ts";

interface Event {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

/** Lets every continuation that can run do so; no real time passes for the simulated world. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

/** The world's clock and event queue. */
export class SimulatedClock implements Clock {
  #random: SeededRandom;
  #virtualMs = 0;
  readonly #wallMs: number;
  #events: Event[] = [];

  constructor(random: SeededRandom, wallMs = 1_767_225_600_000) {
    this.#random = random;
    this.#wallMs = wallMs;
  }

  now(): number {
    // A call takes a microsecond, so that a loop that only looks at the clock comes to an end.
    this.#virtualMs += 0.001;
    return Math.floor(this.#wallMs + this.#virtualMs);
  }

  monotonic(): number {
    this.#virtualMs += 0.001;
    return this.#virtualMs;
  }

  /** Wall clock of the world, without moving time. */
  get wallMs(): number {
    return this.#wallMs + this.#virtualMs;
  }

  /** Virtual milliseconds since the start, without moving time. */
  get elapsedMs(): number {
    return this.#virtualMs;
  }

  /** Runs `run` at a virtual time from now; events of one moment run in an order drawn by the seed. */
  at(delayMs: number, run: () => void): void {
    this.#events.push({ atMs: this.#virtualMs + Math.max(0, delayMs), order: this.#random.next(), run });
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(signal.reason);
      if (signal === undefined) return this.at(ms, resolve);
      const abort = (): void => reject(signal.reason);
      signal.addEventListener("abort", abort, { once: true });
      this.at(ms, () => {
        signal.removeEventListener("abort", abort);
        resolve();
      });
    });
  }

  /** Takes the earliest event and runs it; false when there is none. */
  advance(): boolean {
    let first = -1;
    for (let at = 0; at < this.#events.length; at++) {
      const event = this.#events[at];
      const best = this.#events[first];
      if (first < 0 || event.atMs < best.atMs || (event.atMs === best.atMs && event.order < best.order)) first = at;
    }
    if (first < 0) return false;
    const [event] = this.#events.splice(first, 1);
    this.#virtualMs = Math.max(this.#virtualMs, event.atMs);
    event.run();
    return true;
  }

  /** Runs events until `promise` settles; throws when it can never settle. */
  async drive<T>(promise: Promise<T>, stuck: () => string = () => "nothing left to happen"): Promise<T> {
    let settled = false;
    const done = (): void => {
      settled = true;
    };
    promise.then(done, done);
    for (let idle = 0; !settled;) {
      await settle();
      if (settled) break;
      idle = this.advance() ? 0 : idle + 1;
      if (idle > 20) throw new Error(`the simulation is stuck: ${stuck()}`);
    }
    return promise;
  }
}

/** The clock of one machine: its wall clock jumps and stands still, the monotonic one never does. */
export class MachineClock implements Clock {
  readonly #world: SimulatedClock;
  #offsetMs = 0;
  #frozenAt: number | null = null;

  constructor(world: SimulatedClock, offsetMs = 0) {
    this.#world = world;
    this.#offsetMs = offsetMs;
  }

  now(): number {
    const now = this.#world.now() + this.#offsetMs;
    return this.#frozenAt ?? now;
  }

  monotonic(): number {
    return this.#world.monotonic();
  }

  /** Modification time the kernel would write now: its clock ticks every 4 ms. */
  fileTimeNs(): bigint {
    const now = this.#frozenAt ?? this.#world.wallMs + this.#offsetMs;
    return BigInt(Math.floor(now / 4) * 4) * 1_000_000n;
  }

  sleep(ms: number, signal?: AbortSignal): Promise<void> {
    return this.#world.sleep(ms, signal);
  }

  /** Moves the wall clock; negative goes back. */
  jump(ms: number): void {
    this.#offsetMs += ms;
  }

  /** The wall clock stands still until `ms` have passed; then it is late by as much. */
  freeze(ms: number): void {
    if (this.#frozenAt !== null) return;
    this.#frozenAt = this.now();
    this.#world.at(ms, () => {
      this.#frozenAt = null;
      this.#offsetMs -= ms;
    });
  }

  /** True while it stands still. */
  get frozen(): boolean {
    return this.#frozenAt !== null;
  }
}
