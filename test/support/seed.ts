/**
 * The seed of random tests. It is the same in each run, so that a red one blames what was changed;
 * `WALRUST_SEED=random` looks where nobody has looked, and `WALRUST_SEED=<number>` replays what that found.
 */
import process from "node:process";

const { WALRUST_SEED } = process.env;

/** The one seed that is asked for; else `null`. */
export const replayedSeed: number | null = WALRUST_SEED === undefined || WALRUST_SEED === "random"
  ? null
  : Number(WALRUST_SEED);

/** 0 to 2^20 unless another one is asked for. */
export const testSeed: number = replayedSeed ?? (WALRUST_SEED === "random" ? Math.floor(Math.random() * 2 ** 20) : 1);
