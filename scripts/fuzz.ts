/**
 * Feeds decoders random inputs: `--decoder NAME` (repeatable; all without it), `--inputs N` each, `--seed N`. One input
 * alone, as a failure names it: `--from I --inputs 1`, which prints it whole.
 */
import process from "node:process";
import { parseArgs } from "node:util";
import { decoders } from "../test/fuzz/decoders.ts";
import { fuzz, FuzzFailure, type FuzzResult, fuzzSeedMax, inputOf } from "../test/fuzz/fuzz.ts";

const { values } = parseArgs({
  options: {
    decoder: { type: "string", multiple: true },
    inputs: { type: "string", default: "1e6" },
    seed: { type: "string" },
    from: { type: "string", default: "0" },
  },
});

/** Memory that the process may come to hold, bytes: decoders keep nothing. */
const residentMax = 1024 ** 3;

const seed = values.seed === undefined ? Math.floor(Math.random() * fuzzSeedMax) : Number(values.seed);
const inputs = Number(values.inputs);
const from = Number(values.from);
const known = decoders.map(({ name }) => name);
const unknown = values.decoder?.find((name) => !known.includes(name));
if (unknown !== undefined) {
  console.error(`${unknown} is none of ${known.join(", ")}`);
  process.exit(2);
}

/** Peak of what the process holds, megabytes; throws when it grows without end. */
let peak = 0;
function watchMemory(): void {
  const { rss } = process.memoryUsage();
  peak = Math.max(peak, rss);
  if (rss > residentMax) throw new Error(`${Math.round(rss / 2 ** 20)} MB resident`);
}

function report(name: string, result: FuzzResult, seconds: number): void {
  const refused = [...result.refused].sort(([, a], [, b]) => b - a).slice(0, 12).map(([code, count]) =>
    `${code} ${count}`
  );
  console.log(
    `${name}: ${result.inputs} inputs, ${result.accepted} accepted; ${refused.join(", ")}; at most ` +
      `${result.largestInput} bytes, ${result.mostAllocated} allocated, ${result.mostSteps} steps; ` +
      `slowest ${result.slowestMs.toFixed(1)} ms (input ${result.slowestIndex}); ` +
      `${seconds.toFixed(1)} s, ${Math.round(peak / 2 ** 20)} MB`,
  );
}

console.log(`seed ${seed}`);
for (const decoder of decoders.filter(({ name }) => values.decoder?.includes(name) ?? true)) {
  if (inputs === 1) {
    const { input } = inputOf(decoder, seed, from);
    console.log(Array.from(input, (byte) => byte.toString(16).padStart(2, "0")).join(""));
    console.log(JSON.stringify(new TextDecoder().decode(input)));
  }
  const started = performance.now();
  try {
    const result = await fuzz(decoder, { seed, inputs, from, onProgress: watchMemory, now: () => performance.now() });
    report(decoder.name, result, (performance.now() - started) / 1000);
  } catch (error) {
    if (!(error instanceof FuzzFailure)) throw error;
    console.log(error.message);
    process.exitCode = 1;
  }
}
