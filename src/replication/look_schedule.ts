import type { Clock, Random } from "../runtime/types.ts";

const phases = 8;
const slackMs = 5;

/** When the log is looked at: once an interval, however often its owner is called, as each find costs a PUT. */
export class LookSchedule {
  readonly #intervalMs: number;
  readonly #clock: Clock;
  /** When in an interval this database is looked at: many are neither all at once nor each with a wake-up of its own. */
  readonly #phase: number;
  #next = 0;

  constructor(intervalMs: number, clock: Clock, random: Random) {
    this.#intervalMs = intervalMs;
    this.#clock = clock;
    this.#phase = Math.floor(random.number() * phases) * intervalMs / phases;
  }

  /** Milliseconds until the next look; zero or less when it is due. */
  get restMs(): number {
    return this.#next - this.#clock.monotonic();
  }

  /** True when it is time for a look, or when one is `wanted` now; the next is then an interval later. */
  takeTurn(wanted: boolean): boolean {
    const soon = this.#clock.monotonic() + slackMs;
    if (soon < this.#next && !wanted) return false;
    this.#next = soon + this.#intervalMs - (soon + this.#phase) % this.#intervalMs;
    return true;
  }

  /** The next look is due at once. */
  hurry(): void {
    this.#next = 0;
  }
}
