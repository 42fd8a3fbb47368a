/**
 * One history of watch and restore, drawn from a seed: the real engine on simulated files, SQLite, clock and bucket.
 * The engine is killed at any call, the application too, sometimes the whole machine; clock, disk, network, the database
 * file and a second writer do what they like. What must hold is checked when it can first be seen: each object as it
 * reaches the bucket (ledger.ts), the state directory after each step (index_check.ts), the database against the head of
 * its lineage whenever the engine is quiet, bounds (bounds.ts), and at the end everything with the real `restore`.
 */
import { checkBucket } from "./history_check.ts";
import { Life } from "./life.ts";
import { type SimulationOptions, type Trace, World } from "./world.ts";

export type { SimulationOptions, Trace } from "./world.ts";

/** An invariant does not hold; `trace` says what led there. */
export class SimulationFailure extends Error {
  override name = "SimulationFailure";
  readonly trace: Trace;

  constructor(trace: Trace, cause: unknown) {
    super(`seed ${trace.seed}: ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
    this.trace = trace;
  }
}

/** Runs one history; throws `SimulationFailure`. */
export async function simulate(seed: number, options: SimulationOptions): Promise<Trace> {
  const world = new World(seed, options);
  try {
    await world.clock.drive(run(world, options.steps));
    await world.clock.drive(checkEnd(world));
  } catch (error) {
    world.say(`FAILED: ${error instanceof Error ? error.stack : error}`);
    throw new SimulationFailure(world.trace, error);
  }
  return world.trace;
}

async function run(world: World, steps: number): Promise<void> {
  const { random, troubles, bucket, clock } = world;
  const lives = [new Life(world, world.machines[0])];
  const secondAt = troubles.second === null ? Infinity : random.integer(steps);
  let second: Promise<void> | null = null;
  for (let step = 0; step < steps; step++) {
    const [{ machine }] = lives;
    // A clone of a disk on which the database is just being exchanged would never have one.
    if (step >= secondAt && second === null && machine.snapshotComplete && !machine.administrator.busy) {
      lives.push(new Life(world, world.addSecond()));
      second = lives[1].steps(steps);
      second.catch(() => undefined);
    }
    await lives[0].steps(1);
  }
  await second;
  bucket.heal();
  world.calm = true;
  for (const { machine } of lives) machine.rest();
  // Longer than a slow request, every backoff and every look; an idle database gets its full look meanwhile.
  const end = clock.elapsedMs + 240_000;
  await Promise.all(lives.map((life) => life.toRest(end, world.vanished.size > 0)));
}

/** The invariants at the end of a history. */
async function checkEnd(world: World): Promise<void> {
  if (world.violation !== null) throw world.violation;
  const { machines, ledger, trace } = world;
  for (const machine of machines) {
    trace.commits += machine.application.timeline.length;
    trace.indexes += machine.index.checked;
    trace.tasks += machine.administrator.done;
  }
  trace.points = ledger.checked;
  await checkBucket(world);
  if (world.violation !== null) throw world.violation;
}
