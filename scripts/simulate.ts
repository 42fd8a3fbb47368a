/**
 * Replays one history (`--seed N`, prints its trace) or runs many (`--seeds N`, `--from N`), `--steps N` each;
 * `--calls` traces each call, `--stop` ends at the first failure.
 */
import process from "node:process";
import { parseArgs } from "node:util";
import { simulate, SimulationFailure } from "../test/simulation/watch_simulation.ts";

const { values } = parseArgs({
  options: {
    seed: { type: "string" },
    seeds: { type: "string", default: "1000" },
    from: { type: "string", default: "1" },
    calls: { type: "boolean", default: false },
    stop: { type: "boolean", default: false },
    steps: { type: "string", default: "20" },
  },
});
const steps = Number(values.steps);
const first = Number(values.seed ?? values.from);
const last = values.seed === undefined ? first + Number(values.seeds) - 1 : first;
const sums = {
  commits: 0,
  points: 0,
  crashes: 0,
  rollovers: 0,
  barriers: 0,
  lineages: 0,
  quiet: 0,
  indexes: 0,
  tasks: 0,
  observed: 0,
  gaps: 0,
  seconds: 0,
  fenced: 0,
};
const failures: string[] = [];
for (let seed = first; seed <= last; seed++) {
  try {
    const trace = await simulate(seed, { steps, calls: values.calls });
    for (const name of Object.keys(sums) as (keyof typeof sums)[]) sums[name] += trace[name];
    if (values.seed !== undefined) console.log(trace.lines.join("\n"));
  } catch (error) {
    if (!(error instanceof SimulationFailure)) throw error;
    failures.push(error.message.split("\n")[0]);
    console.log(values.seed === undefined ? failures.at(-1) : error.trace.lines.join("\n"));
    if (values.stop) break;
  }
}
console.log(`${last - first + 1} histories: ${JSON.stringify(sums)}, ${failures.length} failed`);
if (failures.length > 0) process.exitCode = 1;
