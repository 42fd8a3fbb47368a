import type { Clock } from "../runtime/types.ts";

/** Aborts a request when nothing happens for too long, and when its caller aborts. One sleep at a time, however many chunks. */
export class Watchdog {
  readonly #clock: Clock;
  readonly #parent: AbortSignal | undefined;
  readonly #controller = new AbortController();
  readonly #stop = new AbortController();
  readonly #onParent: () => void;
  #deadline = Infinity;
  #reason: Error | null = null;
  #sleeping = false;

  constructor(clock: Clock, parent: AbortSignal | undefined) {
    this.#clock = clock;
    this.#parent = parent;
    this.#onParent = () => this.#controller.abort(parent?.reason);
    if (parent?.aborted) this.#onParent();
    else parent?.addEventListener("abort", this.#onParent, { once: true });
  }

  /** Hand it to the work that is watched. */
  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Abort with `reason` unless `disarm`, `close` or another `arm` comes within `ms` milliseconds. */
  arm(ms: number, reason: Error): void {
    this.#deadline = this.#clock.monotonic() + ms;
    this.#reason = reason;
    if (!this.#sleeping && !this.#stop.signal.aborted) void this.#watch();
  }

  /** The awaited thing has come. */
  disarm(): void {
    this.#deadline = Infinity;
  }

  /** The work is over; lets go of timer and signal. */
  close(): void {
    this.#deadline = Infinity;
    this.#stop.abort();
    this.#parent?.removeEventListener("abort", this.#onParent);
  }

  async #watch(): Promise<void> {
    this.#sleeping = true;
    try {
      while (this.#deadline !== Infinity) {
        const left = this.#deadline - this.#clock.monotonic();
        if (left <= 0) return this.#controller.abort(this.#reason);
        await this.#clock.sleep(left, this.#stop.signal);
      }
    } catch {
      // Closed: the sleep was ended by us.
    } finally {
      this.#sleeping = false;
    }
  }
}
