import type { Clock } from "../runtime/types.ts";

/** Aborts a request when nothing happens for too long, and when its caller aborts. One sleep at a time, however many chunks. */
export class Watchdog {
  readonly #clock: Clock;
  readonly #parent: AbortSignal | undefined;
  readonly #controller = new AbortController();
  readonly #onParent: () => void;
  #deadline = Infinity;
  #reason: Error | null = null;
  /** Ends the running sleep. */
  #sleep: AbortController | null = null;
  #wakesAt = Infinity;
  #closed = false;

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
    if (this.#closed) return;
    this.#deadline = this.#clock.monotonic() + ms;
    this.#reason = reason;
    if (this.#sleep === null) void this.#watch();
    // A later deadline is seen when the sleep ends, and costs nothing.
    else if (this.#deadline < this.#wakesAt) this.#sleep.abort();
  }

  /** The awaited thing has come. */
  disarm(): void {
    this.#deadline = Infinity;
  }

  /** The work is over; lets go of timer and signal. */
  close(): void {
    this.#closed = true;
    this.#deadline = Infinity;
    this.#sleep?.abort();
    this.#parent?.removeEventListener("abort", this.#onParent);
  }

  async #watch(): Promise<void> {
    while (this.#deadline !== Infinity) {
      const left = this.#deadline - this.#clock.monotonic();
      if (left <= 0) {
        this.#controller.abort(this.#reason);
        break;
      }
      const sleep = new AbortController();
      this.#sleep = sleep;
      this.#wakesAt = this.#deadline;
      try {
        await this.#clock.sleep(left, sleep.signal);
      } catch {
        // Ended by us, for a nearer deadline or none; a clock that fails by itself can watch nothing.
        if (!sleep.signal.aborted) break;
      }
    }
    this.#sleep = null;
  }
}
