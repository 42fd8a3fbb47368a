/** What may go wrong in a history; each history draws some of it, so that others stay clear enough to go deep. */
import type { EngineOptions } from "../../src/replication/options.ts";
import type { Chaos } from "./machine.ts";
import type { SeededRandom } from "./random.ts";
import { calmNetwork, type Network } from "./store.ts";

/** How another machine comes to write to the same prefix. */
export type SecondWriter =
  /** The database was restored there and is used there. */
  | "restored"
  /** The whole disk was cloned, with the state directory; the machine has a name of its own. */
  | "cloned"
  /** Cloned so that even its name is the same. */
  | "same name";

/** Probabilities per turn of the world, unless said otherwise. */
export interface Troubles {
  /** An administrator does something to the database. */
  administrator: number;
  /** The wall clock jumps or stands still. */
  clock: number;
  /** An object vanishes from the bucket. */
  vanish: number;
  /** Per start: journal, index or the whole state directory is lost. */
  lostState: number;
  /** Per step: a proper stop and a new start. */
  stop: number;
  /** Per step: a snapshot is asked for. */
  snapshot: number;
  second: SecondWriter | null;
}

export function drawTroubles(random: SeededRandom): Troubles {
  return {
    administrator: random.pick([0, 0, 0, 0.01]),
    clock: random.pick([0, 0, 0.01]),
    vanish: random.pick([0, 0, 0, 0, 0, 0.002]),
    lostState: random.pick([0, 0, 0, 0, 0.2]),
    stop: random.pick([0, 0, 0.05]),
    snapshot: random.pick([0, 0, 0.05]),
    second: random.pick([null, null, null, null, null, null, "restored", "cloned", "same name"]),
  };
}

export function drawChaos(random: SeededRandom): Chaos {
  return {
    act: random.pick([0.005, 0.05, 0.3]),
    crash: random.pick([0, 0.0003, 0.003]),
    power: random.pick([0, 0, 0.0003]),
    io: random.pick([0, 0, 0.001]),
    full: random.pick([0, 0, 0, 0.0005]),
    freeze: random.pick([0, 0, 0, 0.0005]),
  };
}

export function drawNetwork(random: SeededRandom): Network {
  const bad = random.pick([0, 0, 0.02, 0.15]);
  return {
    failure: bad,
    lostReply: bad,
    slow: random.pick([0, 0.02, 0.1]),
    delayMs: random.pick([5, 100, 2000]),
    slowMs: random.pick([5000, 60_000]),
    throttle: random.pick([0, 0, 0.02]),
    throttleMs: random.pick([2000, 20_000, 60_000]),
    truncated: random.pick([0, 0, 0.1]),
    stale: random.pick([0, 0, 0, 0, 0.3]),
    staleMs: random.pick([1000, 20_000]),
    ignoresConditions: false,
  };
}

/** A store without conditional writes works as long as nothing arrives late and nobody else writes. */
export function withoutConditions(chaos: Chaos, troubles: Troubles): Network {
  chaos.io = chaos.full = chaos.freeze = 0;
  troubles.second = null;
  troubles.vanish = troubles.lostState = 0;
  return { ...calmNetwork, delayMs: 100, ignoresConditions: true };
}

export function drawOptions(random: SeededRandom): EngineOptions {
  return {
    walSyncIntervalMs: 1000,
    snapshotIntervalMs: random.pick([0, 10_000, 60_000]),
    onStartup: random.chance(0.5),
    checkpointIntervalMs: random.pick([1000, 5000]),
    minCheckpointPages: random.pick([4, 20, 60]),
    walTruncateThresholdPages: random.pick([300, 5000]),
    waitForDatabase: false,
    mode: random.pick(["pin", "pin", "pin", "observe"]),
    adopt: false,
    freeSpaceMin: 0,
    ...(random.chance(0.3) ? { batchSizeMax: 4096 } : {}),
    spoolSizeMax: random.chance(0.2) ? 20_000 : 2 ** 30,
  };
}
