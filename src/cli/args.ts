/** The values of options: what a word on the command line may be, and those of the options every command shares. */
import { ConfigError } from "../errors.ts";

/** The shared options, parsed. */
export interface SharedOptions {
  readonly bucket: string | undefined;
  readonly endpoint: string | undefined;
  /** Path of the configuration file; false where none may be read. */
  readonly config: string | false | undefined;
  readonly json: boolean;
  readonly quiet: boolean;
  readonly verbose: boolean;
  readonly color: boolean;
}

/** Reads the shared options out of a parsed command. */
export function sharedOptionsOf(options: Record<string, unknown>): SharedOptions {
  return {
    bucket: optionalText(options.bucket),
    endpoint: optionalText(options.endpoint),
    config: options.config === false ? false : optionalText(options.config),
    json: options.json === true,
    quiet: options.quiet === true,
    verbose: options.verbose === true,
    color: options.color !== false,
  };
}

function optionalText(value: unknown): string | undefined {
  return typeof value === "string" ? value : undefined;
}

function refuse(flag: string, value: string, expected: string): never {
  throw new ConfigError("bad_value", `${flag}: ${JSON.stringify(value)} is not ${expected}`, {
    hint: `give ${flag} ${expected}`,
    data: { flag, value, expected },
  });
}

/** Any word but the empty one. */
export function text(value: string, flag: string): string {
  return value === "" ? refuse(flag, value, "a non-empty text") : value;
}

/** An `http:` or `https:` URL. */
export function url(value: string, flag: string): string {
  if (!/^https?:\/\/[^/]/i.test(value) || !URL.canParse(value)) {
    // The value may hold user:password, so it is not repeated in the message.
    throw new ConfigError("bad_value", `${flag}: not an http:// or https:// URL`, {
      hint: `give ${flag} a URL such as https://s3.example.com`,
      data: { flag, expected: "an http:// or https:// URL" },
    });
  }
  return value;
}

/** `true` or `false`. */
export function truth(value: string, flag: string): boolean {
  if (value === "true") return true;
  if (value === "false") return false;
  return refuse(flag, value, "true or false");
}

/** A whole number of at least `min`. */
export function wholeNumber(min: number, max: number = Number.MAX_SAFE_INTEGER): (v: string, flag: string) => number {
  return (value, flag) => {
    const number = /^\d+$/.test(value) ? Number(value) : NaN;
    const range = max === Number.MAX_SAFE_INTEGER
      ? `a whole number of at least ${min}`
      : `a whole number ${min}…${max}`;
    return number >= min && number <= max ? number : refuse(flag, value, range);
  };
}

/** Seconds (fractions allowed) of at least `minMs` milliseconds, returned in whole milliseconds. */
export function secondsAsMs(minMs: number): (value: string, flag: string) => number {
  return (value, flag) => {
    const ms = /^\d+(\.\d+)?$/.test(value) ? Math.round(Number(value) * 1000) : NaN;
    // A month: beyond it the number is rather a mistake, and timers overflow at 2^31 ms.
    return ms >= minMs && ms <= 2_678_400_000 ? ms : refuse(flag, value, `seconds, at least ${minMs / 1000}`);
  };
}

const durationUnits: Readonly<Record<string, number>> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };

/** A duration with its unit (`500ms`, `5s`, `2m`, `1h`; seconds without one) of at least `minMs`, in milliseconds. */
export function duration(minMs: number): (value: string, flag: string) => number {
  return (value, flag) => {
    const match = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(value);
    const ms = match === null ? NaN : Math.round(Number(match[1]) * durationUnits[match[2] ?? "s"]);
    // A month, as for secondsAsMs.
    if (ms >= minMs && ms <= 2_678_400_000) return ms;
    return refuse(flag, value, `a time such as 500ms, 5s, 2m or 1h, at least ${minMs}ms`);
  };
}

const byteUnits: Readonly<Record<string, number>> = {
  "": 1,
  B: 1,
  KB: 1e3,
  MB: 1e6,
  GB: 1e9,
  TB: 1e12,
  K: 1024,
  M: 1024 ** 2,
  G: 1024 ** 3,
  T: 1024 ** 4,
  KIB: 1024,
  MIB: 1024 ** 2,
  GIB: 1024 ** 3,
  TIB: 1024 ** 4,
};

/** A size in bytes, such as `500MB`, `1GiB` or `1G` (the same) or a plain number. */
export function byteSize(value: string, flag: string): number {
  const match = /^(\d+(?:\.\d+)?) ?([A-Za-z]*)$/.exec(value);
  const unit = match === null ? undefined : byteUnits[match[2].toUpperCase()];
  const bytes = unit === undefined ? NaN : Math.round(Number(match![1]) * unit);
  return bytes <= Number.MAX_SAFE_INTEGER ? bytes : refuse(flag, value, "a size such as 500MB, 1GiB or 1048576");
}

/** One of the words given. */
export function oneOf<T extends string>(...words: T[]): (value: string, flag: string) => T {
  return (value, flag) => words.find((word) => word === value) ?? refuse(flag, value, `one of ${words.join(", ")}`);
}

/** A decimal sequence number of at least 1, below 2^64. */
export function sequenceNumber(value: string, flag: string): bigint {
  const seq = /^\d{1,20}$/.test(value) ? BigInt(value) : 0n;
  return seq >= 1n && seq < 1n << 64n ? seq : refuse(flag, value, "a sequence number (1 or more)");
}
