import { WalrustError } from "../errors.ts";
import type { Clock } from "../runtime/types.ts";
import { isTransient } from "./engine_failure.ts";

const retryMs = 5000;

/**
 * Does what needs room on disk. Where that fails the WAL keeps the data and the pin stays; nothing is tried again
 * before a pause.
 */
export class DiskGate {
  readonly #clock: Clock;
  readonly #onTrouble: (error: unknown, retryMs: number) => void;
  #retryAt = 0;

  constructor(clock: Clock, onTrouble: (error: unknown, retryMs: number) => void) {
    this.#clock = clock;
    this.#onTrouble = onTrouble;
  }

  /** False in the pause after a failure. */
  get isOpen(): boolean {
    return this.#clock.monotonic() >= this.#retryAt;
  }

  /** Ends the pause. */
  open(): void {
    this.#retryAt = 0;
  }

  /** Works unless the gate is closed. Throws what is no trouble with the disk. */
  async run(work: () => Promise<void> | void): Promise<void> {
    if (!this.isOpen) return;
    try {
      await work();
    } catch (error) {
      if (error instanceof WalrustError || !isTransient(error)) throw error;
      this.#retryAt = this.#clock.monotonic() + retryMs;
      this.#onTrouble(error, retryMs);
    }
  }
}
