/**
 * Feeds a decoder inputs by the hundred thousand. Whatever comes in, it must answer or refuse with a typed error, take
 * memory and steps in proportion to the input, and what it accepts must obey the law of its format.
 */
import { WalrustError } from "../../src/errors.ts";
import { SeededRandom } from "../simulation/random.ts";
import { AllocationMeter } from "./allocation_meter.ts";
import { Mutator } from "./mutator.ts";

/** What a decoder may use while it works on one input. */
export interface Trial {
  /** For how the input is handed over, such as in which chunks; drawn after the input. */
  readonly random: SeededRandom;
  /** Counts steps that a hostile input could multiply: chunks, frames, entries, requests. */
  step(count?: number): void;
}

/** Code under test, and the inputs for it. */
export interface Decoder {
  readonly name: string;
  /** Error classes it may throw besides `WalrustError`. */
  readonly refusals?: readonly (new (message: string) => Error)[];
  /** Reasons that must be among those of many refusals: the inputs come so far. */
  readonly reaches?: readonly string[];
  /** What is decoded is itself an error. */
  readonly neverAccepts?: boolean;
  /** Makes an input. */
  generate(mutator: Mutator): Uint8Array;
  /** Decodes; says why nothing came of it where that is no error, else null. Throws where a law is broken. */
  decode(input: Uint8Array, trial: Trial): string | null | Promise<string | null>;
}

/** Which inputs. */
export interface FuzzOptions {
  readonly seed: number;
  readonly inputs: number;
  /** Number of the first one. */
  readonly from?: number;
  /** Milliseconds, to find the slowest input; it is told, and nothing depends on it. */
  readonly now?: () => number;
  /** Told now and then of the inputs done. */
  readonly onProgress?: (done: number) => void;
}

/** What became of the inputs. */
export interface FuzzResult {
  inputs: number;
  accepted: number;
  /** Refusals by the code of their error. */
  readonly refused: Map<string, number>;
  /** Of one input: bytes, bytes asked for, steps counted. */
  largestInput: number;
  mostAllocated: number;
  mostSteps: number;
  slowestMs: number;
  /** Number of that input. */
  slowestIndex: number;
}

/** Seeds go up to here, so that seed and number of an input fit into one number. */
export const fuzzSeedMax: number = 2 ** 20;

const allocationBase = 256 * 1024;
const allocationPerByte = 16;
const stepsBase = 64;
const stepsPerByte = 4;
const messageBase = 4096;
/** `printable` writes one character as up to nine. */
const messagePerByte = 10;
const shownMax = 512;
/** Codes counted by name; what a server says may be any word. */
const codesMax = 100;
const progressInterval = 8192;
// deno-lint-ignore no-control-regex
const controls = /[\u0000-\u001f\u007f-\u009f\u202a-\u202e]/;

/** An input that must not do what it did; the message replays it. */
export class FuzzFailure extends Error {
  /** Number of the input. */
  readonly index: number;

  constructor(decoder: Decoder, seed: number, index: number, input: Uint8Array, cause: unknown) {
    const what = cause instanceof Error ? cause.stack ?? cause.message : String(cause);
    super(
      `${decoder.name}: ${cause instanceof Error ? `${cause.name}: ${cause.message}` : what}\n` +
        `replay with scripts/fuzz.ts --decoder ${decoder.name} --seed ${seed} --from ${index} --inputs 1\n` +
        `input of ${input.length} bytes: ${hexShown(input)}\n${what}`,
      { cause },
    );
    this.index = index;
  }
}

/** The law of a format, said by whoever decodes. */
export function law(holds: boolean, text: string): asserts holds {
  if (!holds) throw new Error(`law broken: ${text}`);
}

/** Input number `index` of a seed, and where the draws go on. */
export function inputOf(decoder: Decoder, seed: number, index: number): { input: Uint8Array; random: SeededRandom } {
  const random = new SeededRandom(seed * 2 ** 32 + index);
  return { input: decoder.generate(new Mutator(random)), random };
}

/** Runs a decoder on inputs `from` to `from + inputs`; throws `FuzzFailure` at the first that fails. */
export async function fuzz(decoder: Decoder, options: FuzzOptions): Promise<FuzzResult> {
  const { seed, inputs, from = 0, now = () => 0, onProgress } = options;
  if (!Number.isInteger(seed) || seed < 0 || seed > fuzzSeedMax) throw new RangeError(`a seed is 0 to ${fuzzSeedMax}`);
  const result = { ...emptyResult(), inputs };
  const meter = new AllocationMeter();
  const uninstall = meter.install();
  const { stackTraceLimit } = Error;
  // Most inputs are refused, and most of a refusal's cost is its stack.
  Error.stackTraceLimit = 0;
  try {
    for (let index = from; index < from + inputs; index++) {
      const { input, random } = inputOf(decoder, seed, index);
      const started = now();
      try {
        const pending = tryInput(decoder, input, random, meter, result);
        if (pending !== undefined) await pending;
      } catch (error) {
        Error.stackTraceLimit = stackTraceLimit;
        throw new FuzzFailure(decoder, seed, index, input, await failureAgain(decoder, seed, index, meter) ?? error);
      } finally {
        // Making the next input is no decoder's work.
        meter.reset(Infinity);
      }
      const tookMs = now() - started;
      if (tookMs > result.slowestMs) Object.assign(result, { slowestMs: tookMs, slowestIndex: index });
      if ((index - from) % progressInterval === progressInterval - 1) onProgress?.(index - from + 1);
    }
  } finally {
    Error.stackTraceLimit = stackTraceLimit;
    uninstall();
  }
  return result;
}

/** What a failing input throws, now with its stack. */
async function failureAgain(decoder: Decoder, seed: number, index: number, meter: AllocationMeter): Promise<unknown> {
  meter.reset(Infinity);
  const { input, random } = inputOf(decoder, seed, index);
  try {
    await tryInput(decoder, input, random, meter, emptyResult());
    return null;
  } catch (error) {
    return error;
  }
}

function emptyResult(): FuzzResult {
  return {
    inputs: 0,
    accepted: 0,
    refused: new Map(),
    largestInput: 0,
    mostAllocated: 0,
    mostSteps: 0,
    slowestMs: 0,
    slowestIndex: 0,
  };
}

/** One input; at once where the decoder answers at once, as a promise for each would cost more than most decoders. */
function tryInput(
  decoder: Decoder,
  input: Uint8Array,
  random: SeededRandom,
  meter: AllocationMeter,
  result: FuzzResult,
): void | Promise<void> {
  let steps = 0;
  const step = (count: number = 1): void => {
    steps += count;
    law(steps <= stepsBase + stepsPerByte * input.length, `${steps} steps for ${input.length} bytes`);
  };
  const settle = (refusal: string | null): void => {
    meter.check();
    result.largestInput = Math.max(result.largestInput, input.length);
    result.mostAllocated = Math.max(result.mostAllocated, meter.bytes);
    result.mostSteps = Math.max(result.mostSteps, steps);
    if (refusal === null) result.accepted++;
    else count(result.refused, refusal);
  };
  const refuse = (error: unknown): void => settle(codeOf(decoder, error, messageBase + messagePerByte * input.length));
  meter.reset(allocationBase + allocationPerByte * input.length);
  let answer: string | null | Promise<string | null>;
  try {
    answer = decoder.decode(input, { random, step });
  } catch (error) {
    return refuse(error);
  }
  return answer instanceof Promise ? answer.then(settle, refuse) : settle(answer);
}

function count(codes: Map<string, number>, code: string): void {
  const name = codes.has(code) || codes.size < codesMax ? code : "others";
  codes.set(name, (codes.get(name) ?? 0) + 1);
}

/** The code of a typed error whose words can be shown to people; throws every other one again. */
function codeOf(decoder: Decoder, error: unknown, lengthMax: number): string {
  if (error instanceof WalrustError) {
    const { code, message, hint } = error;
    law(
      typeof code === "string" && (hint === undefined || typeof hint === "string"),
      `a hint that is a ${typeof hint}`,
    );
    for (const text of [message, hint ?? ""]) {
      law(text.length <= lengthMax, `${text.length} characters to say it`);
      law(!controls.test(text), `words that steer a terminal: ${JSON.stringify(text.slice(0, 200))}`);
    }
    return code;
  }
  if (decoder.refusals?.some((kind) => error instanceof kind)) return (error as Error).constructor.name;
  throw error;
}

/** Bytes as people replay them by hand, the middle left out of long ones. */
export function hexShown(bytes: Uint8Array): string {
  const hex = (part: Uint8Array): string => Array.from(part, (byte) => byte.toString(16).padStart(2, "0")).join("");
  if (bytes.length <= shownMax) return hex(bytes);
  const half = shownMax / 2;
  return `${hex(bytes.subarray(0, half))}…${hex(bytes.subarray(-half))}`;
}
