/**
 * One active writer per database prefix: `state.json` is read again before the first object after a while, so that a
 * writer whose lineage was taken over soon stops. What it published until then lies in its own lineage and is no part
 * of the history.
 */
import type { Clock } from "../runtime/types.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { assertOwner, readState } from "./lineage.ts";

const intervalMs = 30_000;

/** A moment by both clocks: where a machine sleeps or is moved, one of them may stand still. */
export interface Moment {
  /** Wall clock, Unix milliseconds. */
  readonly wall: number;
  /** Monotonic milliseconds. */
  readonly monotonic: number;
}

/** Now. */
export function momentOf(clock: Clock): Moment {
  return { wall: clock.now(), monotonic: clock.monotonic() };
}

/** Knows when it was last seen that a lineage is ours to write. */
export class WriterCheck {
  readonly #store: ObjectStore;
  readonly #root: string;
  readonly #lineage: string;
  readonly #clock: Clock;
  #seen: Moment;

  /** `ownerSeen`: when `state.json` was last read and named us. */
  constructor(
    parts: { store: ObjectStore; root: string; lineage: string; runtime: { clock: Clock }; ownerSeen: Moment },
  ) {
    this.#store = parts.store;
    this.#root = parts.root;
    this.#lineage = parts.lineage;
    this.#clock = parts.runtime.clock;
    this.#seen = parts.ownerSeen;
  }

  /** Throws `IntegrityError` (`fenced`) when another lineage is active or claimed, `StorageError` when none is. */
  readonly mayWrite = async (): Promise<void> => {
    const now = momentOf(this.#clock);
    const { wall, monotonic } = this.#seen;
    if (now.monotonic - monotonic < intervalMs && Math.abs(now.wall - wall) < intervalMs) return;
    const { state } = await readState(this.#store, this.#root);
    assertOwner(state, this.#root, this.#lineage);
    this.#seen = now;
  };
}
