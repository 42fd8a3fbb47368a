/** Random tests whose failures can be replayed: the seed is in the failure's message and goes back in by environment. */
import fc from "fast-check";
import { testSeed } from "./seed.ts";

function report<T>(details: fc.RunDetails<T>): void {
  if (!details.failed) return;
  throw new Error(`replay with WALRUST_SEED=${testSeed}\n${fc.defaultReportMessage(details)}`, {
    cause: details.errorInstance,
  });
}

/** Runs `property` on `runs` random inputs; `WALRUST_SEED=<seed>` in the environment replays those of a failure. */
export function checkProperty<T>(property: fc.IProperty<T>, runs: number): void {
  report(fc.check(property, { numRuns: runs, seed: testSeed }));
}

/** {@linkcode checkProperty} for a property that takes its time. */
export async function checkAsyncProperty<T>(property: fc.IAsyncProperty<T>, runs: number): Promise<void> {
  report(await fc.check(property, { numRuns: runs, seed: testSeed }));
}
