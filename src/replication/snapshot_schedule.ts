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
  #requests: Request[] = [];

  constructor(options: Pick<EngineOptions, "snapshotIntervalMs" | "onStartup">, clock: Clock) {
    this.#intervalMs = options.snapshotIntervalMs;
    this.#atStart = options.onStartup;
    this.#clock = clock;
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
    return this.#atStart || (this.#intervalMs > 0 && this.#clock.now() - last.createdMs >= this.#intervalMs);
  }

  /** One begins. */
  begin(): void {
    this.#atStart = false;
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
