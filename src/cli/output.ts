/** What people and machines see: lines on stdout, errors on stderr, and how sizes and times are written. */
import { exitCodeOf, StorageError, WalrustError } from "../errors.ts";
import { printable } from "../format/keys.ts";

/** Where text goes; the real streams in `cli.ts`, arrays in tests. */
export interface Streams {
  readonly stdout: (text: string) => void;
  readonly stderr: (text: string) => void;
}

/** How a command speaks. With `json`, only {@linkcode Output.json} reaches stdout. */
export class Output {
  readonly isJson: boolean;
  readonly isQuiet: boolean;
  readonly #streams: Streams;

  constructor(streams: Streams, options: { json: boolean; quiet: boolean }) {
    this.#streams = streams;
    this.isJson = options.json;
    this.isQuiet = options.quiet;
  }

  /** A line for people; nothing with `--json` or `--quiet`. */
  line(text: string): void {
    if (!this.isJson && !this.isQuiet) this.#streams.stdout(`${text}\n`);
  }

  /** A line of JSON for machines; nothing without `--json`. */
  json(value: unknown): void {
    if (this.isJson) this.#streams.stdout(`${renderJson(value)}\n`);
  }

  /** A line about trouble that is already over or retried, on stderr; also with `--quiet`. */
  trouble(text: string): void {
    this.#streams.stderr(`${text}\n`);
  }

  /** A result that belongs on stdout whatever the flags, such as help. */
  text(text: string): void {
    this.#streams.stdout(text);
  }

  /** Something people must know although the command goes on; on stderr, also with `--json`. */
  warning(text: string): void {
    this.#streams.stderr(this.isJson ? `${renderJson({ warning: text })}\n` : `warning: ${printable(text)}\n`);
  }

  /** Prints an error and its hint on stderr and returns the exit code it asks for. */
  error(error: unknown): number {
    this.#streams.stderr(this.isJson ? `${renderJson({ error: errorObject(error) })}\n` : errorLines(error));
    return exitCodeOf(error);
  }
}

/** The object printed for an error with `--json`. */
export function errorObject(error: unknown): Record<string, unknown> {
  if (!(error instanceof WalrustError)) {
    return { code: "general", kind: "general", exitCode: exitCodeOf(error), message: messageOf(error) };
  }
  const object: Record<string, unknown> = {
    code: error.code,
    kind: error.kind,
    exitCode: error.exitCode,
    message: error.message,
    hint: error.hint,
    data: error.data,
  };
  if (error instanceof StorageError) {
    Object.assign(object, { status: error.status, requestId: error.requestId, bucket: error.bucket, key: error.key });
  }
  return object;
}

function errorLines(error: unknown): string {
  const lines = [`error: ${printable(messageOf(error))}`];
  if (error instanceof StorageError && error.requestId !== undefined) {
    lines.push(`request id: ${printable(error.requestId)}`);
  }
  if (error instanceof WalrustError && error.hint !== undefined) lines.push(`hint: ${printable(error.hint)}`);
  return `${lines.join("\n")}\n`;
}

/** The message of any thrown value. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

/** JSON with bigints as decimal strings (a number would lose digits) and no raw control characters. */
export function renderJson(value: unknown): string {
  return JSON.stringify(value, (_key, item) => {
    if (typeof item === "bigint") return item.toString();
    if (item instanceof Error) return errorObject(item);
    if (item instanceof Map) return Object.fromEntries(item);
    return item;
    // JSON escapes C0 itself; DEL and C1 could still steer a terminal.
  }).replace(/[\u007f-\u009f\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

const sizeUnits = ["B", "KB", "MB", "GB", "TB", "PB"];

/** Bytes for people, powers of 1024: `16 KB`, `1.5 MB`. */
export function formatBytes(bytes: number): string {
  let value = bytes;
  let unit = 0;
  // 1023.95 rounds to 1024.0, so it already belongs to the next unit.
  while (value >= 1023.95 && unit < sizeUnits.length - 1) {
    value /= 1024;
    unit++;
  }
  const rounded = unit === 0 ? String(value) : value.toFixed(1).replace(/\.0$/, "");
  return `${rounded} ${sizeUnits[unit]}`;
}

/** A duration for people: `850 ms`, `2.4 s`, `3 min 20 s`, `2 h 5 min`, `60 d 3 h`. */
export function formatDuration(ms: number): string {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 59_950) return `${(ms / 1000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1000);
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`;
  const minutes = Math.round(seconds / 60);
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

/** Local time for people: `2026-01-15 10:30:00`. */
export function formatLocalTime(ms: number): string {
  const date = new Date(ms);
  const two = (n: number): string => String(n).padStart(2, "0");
  const day = `${date.getFullYear()}-${two(date.getMonth() + 1)}-${two(date.getDate())}`;
  return `${day} ${two(date.getHours())}:${two(date.getMinutes())}:${two(date.getSeconds())}`;
}

/** Time for machines and for `--point-in-time`, UTC: `2026-01-15T10:30:00.000Z`; out of range as the number itself. */
export function formatTime(ms: number): string {
  return Math.abs(ms) <= 8.64e15 ? new Date(ms).toISOString() : `${ms} ms`;
}

/** `1 delta`, `2 deltas`. */
export function count(number: number | bigint, noun: string): string {
  return `${number} ${noun}${number === 1 || number === 1n ? "" : "s"}`;
}

/** Columns padded to their widest cell; the last one is not padded. Cells are made printable. */
export function table(rows: readonly (readonly string[])[]): string[] {
  const clean = rows.map((row) => row.map((cell) => printable(cell)));
  const widths: number[] = [];
  for (const row of clean) row.forEach((cell, i) => widths[i] = Math.max(widths[i] ?? 0, cell.length));
  return clean.map((row) => row.map((cell, i) => i === row.length - 1 ? cell : cell.padEnd(widths[i])).join("  "));
}
