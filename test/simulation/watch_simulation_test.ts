/** Watch and restore under everything that goes wrong: 2,000 histories, each named by its seed. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { simulate, SimulationFailure, type Trace } from "./watch_simulation.ts";

const seeds = 2000;
const steps = 10;

/** Replay with `scripts/simulate.ts --seed N --steps M`. */
async function history(seed: number, steps: number): Promise<Trace> {
  try {
    return await simulate(seed, { steps });
  } catch (error) {
    if (error instanceof SimulationFailure) error.message += `\n${error.trace.lines.slice(-60).join("\n")}`;
    throw error;
  }
}

test(`simulate: ${seeds} histories restore exactly what was committed`, { timeout: 600_000 }, async () => {
  const sums: Record<string, number> = {};
  for (let seed = 1; seed <= seeds; seed++) {
    for (const [name, value] of Object.entries(await history(seed, steps))) {
      if (typeof value === "number") sums[name] = (sums[name] ?? 0) + value;
    }
  }
  // A run in which nothing happened proves nothing.
  const least = { commits: 20, points: 4, crashes: 0.4, rollovers: 0.8, lineages: 0.3, quiet: 0.8, indexes: 5 };
  for (const [name, share] of Object.entries(least)) assert.ok(sums[name] > seeds * share, `${sums[name]} ${name}`);
  for (const name of ["barriers", "tasks", "observed", "gaps", "seconds", "fenced"]) {
    assert.ok(sums[name] > 50, `${sums[name]} ${name}`);
  }
});

test("simulate: a seed is one history", { timeout: 60_000 }, async () => {
  const [first, second] = [await history(7, 20), await history(7, 20)];
  assert.deepEqual(first.lines, second.lines);
});
