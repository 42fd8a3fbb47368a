/** When a snapshot is due: asked for, at the start, and at intervals where something changed; and who waits for one. */
import type { Clock } from "../runtime/types.ts";
import type { EngineOptions } from "./options.ts";
import type { SnapshotDone } from "./snapshot_task.ts";

interface Request {
  /** Snapshots begun before it: they do not answer it. */
  readonly after: number;
  readonly resolve: (done: SnapshotDone) => void;
  readonly reject: (error: unknown) => void;
}

/** See the top of this file. */
export class SnapshotSchedule {
  readonly #intervalMs: number;
  readonly #clock: Clock;
  #atStart: boolean;
  #begun = 0;
  /** Monotonic milliseconds when the last one began, or this process. */
  #since: number;
  #requests: Request[] = [];

  constructor(options: Pick<EngineOptions, "snapshotIntervalMs" | "onStartup">, clock: Clock) {
    this.#intervalMs = options.snapshotIntervalMs;
    this.#atStart = options.onStartup;
    this.#clock = clock;
    this.#since = clock.monotonic();
  }

  /** Asks for a snapshot that begins from now on. */
  request(): Promise<SnapshotDone> {
    return new Promise((resolve, reject) => this.#requests.push({ after: this.#begun, resolve, reject }));
  }

  /** True while somebody waits for one. */
  get requested(): boolean {
    return this.#requests.length > 0;
  }

  /** Whether to begin one. `last` is the newest complete one, `head` the newest seq published, after it or not. */
  isDue(last: { readonly seq: bigint; readonly createdMs: number }, head: bigint, settled: boolean): boolean {
    if (this.requested) return true;
    if (head === last.seq) {
      if (settled) this.#atStart = false;
      return false;
    }
    // A wall clock that was put back says for hours, or years, that the last one was made a moment ago.
    const elapsedMs = Math.max(this.#clock.now() - last.createdMs, this.#clock.monotonic() - this.#since);
    return this.#atStart || (this.#intervalMs > 0 && elapsedMs >= this.#intervalMs);
  }

  /** One begins. */
  begin(): void {
    this.#atStart = false;
    this.#since = this.#clock.monotonic();
    this.#begun++;
  }

  /** The one that began last is complete. */
  answer(done: SnapshotDone): void {
    const answered = this.#requests.filter(({ after }) => after < this.#begun);
    this.#requests = this.#requests.filter(({ after }) => after >= this.#begun);
    for (const { resolve } of answered) resolve(done);
  }

  /** There will be none. */
  reject(error: unknown): void {
    for (const { reject } of this.#requests.splice(0)) reject(error);
  }
}
