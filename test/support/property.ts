/** Random tests whose failures can be replayed: the seed is in the failure's message and goes back in by environment. */
import fc from "fast-check";
import process from "node:process";

const given = process.env.WALRUST_SEED;

const seedOf = (): number => given === undefined ? (Math.random() * 0x8000_0000) | 0 : Number(given);

function report<T>(seed: number, details: fc.RunDetails<T>): void {
  if (!details.failed) return;
  throw new Error(`replay with WALRUST_SEED=${seed}\n${fc.defaultReportMessage(details)}`, {
    cause: details.errorInstance,
  });
}

/** Runs `property` on `runs` random inputs; `WALRUST_SEED=<seed>` in the environment replays those of a failure. */
export function checkProperty<T>(property: fc.IProperty<T>, runs: number): void {
  const seed = seedOf();
  report(seed, fc.check(property, { numRuns: runs, seed }));
}

/** {@linkcode checkProperty} for a property that takes its time. */
export async function checkAsyncProperty<T>(property: fc.IAsyncProperty<T>, runs: number): Promise<void> {
  const seed = seedOf();
  report(seed, await fc.check(property, { numRuns: runs, seed }));
}
