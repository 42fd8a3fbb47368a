/** Progress of a transfer: one line that rewrites itself on a terminal, a plain line now and then elsewhere. */
import type { Clock } from "../runtime/types.ts";
import type { CommandContext } from "./context.ts";
import { formatBytes, formatDuration } from "./output.ts";

/** Shows how far a transfer of bytes is. */
export interface Progress {
  /** `done` of `total` bytes; `total` may grow. */
  update(done: number, total: number): void;
  /** Removes the line (on a terminal); call before printing anything else. */
  clear(): void;
}

/** A progress that shows nothing. */
const silentProgress: Progress = { update: () => {}, clear: () => {} };

/** What a command shows on stderr while it transfers: nothing with `--json` or `--quiet`. */
export function progressOf({ process, runtime, shared }: CommandContext): Progress {
  if (shared.json || shared.quiet) return silentProgress;
  const { isTerminal } = process.stderr;
  return new TransferProgress({ clock: runtime.clock, write: (text) => process.stderr.write(text), isTerminal });
}

/** Shows progress through `write`; at most ten times a second on a terminal, every five seconds elsewhere. */
export class TransferProgress implements Progress {
  readonly #clock: Clock;
  readonly #write: (text: string) => void;
  readonly #isTerminal: boolean;
  readonly #startMs: number;
  #shownMs: number;
  #isLineOpen = false;

  constructor(options: { clock: Clock; write: (text: string) => void; isTerminal: boolean }) {
    this.#clock = options.clock;
    this.#write = options.write;
    this.#isTerminal = options.isTerminal;
    this.#startMs = this.#clock.monotonic();
    this.#shownMs = this.#startMs - (this.#isTerminal ? 1000 : 0);
  }

  update(done: number, total: number): void {
    const now = this.#clock.monotonic();
    if (now - this.#shownMs < (this.#isTerminal ? 100 : 5000)) return;
    this.#shownMs = now;
    const text = progressText(done, total, now - this.#startMs);
    // \x1b[K clears what a longer line before left behind.
    if (this.#isTerminal) this.#write(`\r${bar(done, total)} ${text}\x1b[K`);
    else this.#write(`${text}\n`);
    this.#isLineOpen = this.#isTerminal;
  }

  clear(): void {
    if (this.#isLineOpen) this.#write("\r\x1b[K");
    this.#isLineOpen = false;
  }
}

/** `42% 4.2 MB of 10 MB, 1.4 MB/s, 4.1 s left`. */
export function progressText(done: number, total: number, elapsedMs: number): string {
  const percent = total === 0 ? 100 : Math.min(100, Math.floor((done / total) * 100));
  const text = `${percent}% ${formatBytes(done)} of ${formatBytes(total)}`;
  if (elapsedMs < 1 || done === 0) return text;
  const bytesPerMs = done / elapsedMs;
  const leftMs = Math.max(0, total - done) / bytesPerMs;
  return `${text}, ${formatBytes(Math.round(bytesPerMs * 1000))}/s, ${formatDuration(leftMs)} left`;
}

function bar(done: number, total: number): string {
  const width = 24;
  const filled = total === 0 ? width : Math.min(width, Math.floor((done / total) * width));
  return `[${"#".repeat(filled)}${".".repeat(width - filled)}]`;
}
