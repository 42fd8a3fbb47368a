/** Watch and restore under crashes, power loss, bad disks and a bad network: 200 histories, each named by its seed. */
import assert from "node:assert/strict";
import { test } from "node:test";
import type { Runtime } from "../../src/runtime/types.ts";
import { simulate, SimulationFailure, type SimulationOptions, type Trace } from "./watch_simulation.ts";

const seeds = 200;
const steps = 40;

/** Replay with `scripts/simulate.ts --seed N`. */
async function history(seed: number): Promise<Trace> {
  try {
    return await simulate(seed, { steps });
  } catch (error) {
    if (error instanceof SimulationFailure) error.message += `\n${error.trace.lines.slice(-60).join("\n")}`;
    throw error;
  }
}

test(`simulate: ${seeds} histories restore exactly what was committed`, { timeout: 120_000 }, async () => {
  const sums = { commits: 0, points: 0, crashes: 0, rollovers: 0, barriers: 0 };
  for (let seed = 1; seed <= seeds; seed++) {
    const trace = await history(seed);
    for (const name of Object.keys(sums) as (keyof typeof sums)[]) sums[name] += trace[name];
  }
  // A run in which nothing happened proves nothing.
  assert.ok(sums.commits > seeds * 20, `${sums.commits} commits`);
  assert.ok(sums.points > seeds * 5, `${sums.points} points`);
  assert.ok(sums.crashes > seeds / 4, `${sums.crashes} crashes`);
  assert.ok(sums.rollovers > seeds, `${sums.rollovers} rollovers`);
  assert.ok(sums.barriers > 0, `${sums.barriers} barriers`);
});

test("simulate: a seed is one history", { timeout: 60_000 }, async () => {
  const [first, second] = [await history(7), await history(7)];
  assert.deepEqual(first.lines, second.lines);
});

/** The breakage must be found within some seeds. */
async function found(sabotage: NonNullable<SimulationOptions["sabotage"]>, seedMax = 60): Promise<number | null> {
  for (let seed = 1; seed <= seedMax; seed++) {
    try {
      await simulate(seed, { steps, sabotage });
    } catch (error) {
      assert.ok(error instanceof SimulationFailure);
      return seed;
    }
  }
  return null;
}

test("simulate: canary: a PUT that loses a byte is caught", { timeout: 60_000 }, async () => {
  const seed = await found(({ bucket, random }) => {
    bucket.corrupt = (key, bytes) => {
      if (!key.includes("/0000/") || bytes.length < 200 || !random.chance(0.2)) return bytes;
      const copy = bytes.slice();
      copy[100] ^= 1;
      return copy;
    };
  });
  assert.ok(seed !== null);
});

/** Wraps the engine's SQLite. */
function withSqlite(change: (connection: ReturnType<NonNullable<Runtime["sqlite"]>["open"]>) => void) {
  return (): (runtime: Runtime) => Runtime => (runtime) => ({
    ...runtime,
    sqlite: {
      version: runtime.sqlite!.version,
      open: (path, options) => {
        const connection = runtime.sqlite!.open(path, options);
        change(connection);
        return connection;
      },
    },
  });
}

test("simulate: canary: an engine without its pin is caught", { timeout: 60_000 }, async () => {
  const seed = await found(withSqlite((connection) => {
    const begin = connection.beginRead.bind(connection);
    connection.beginRead = () => {
      begin();
      connection.rollback();
    };
  }));
  assert.ok(seed !== null);
});

test("simulate: canary: an fsync that does nothing is caught", { timeout: 60_000 }, async () => {
  const seed = await found(({ chaos }) => {
    chaos.power = 0.002;
    return (runtime) => {
      const { files } = runtime;
      const open = files.open.bind(files);
      files.open = (path, mode) => Object.assign(open(path, mode), { sync: () => {} });
      files.syncDirectory = () => {};
      return runtime;
    };
  });
  assert.ok(seed !== null);
});

test(
  "simulate: canary [S117]: an engine that trusts the file instead of the gauge is caught",
  { timeout: 60_000 },
  async () => {
    const seed = await found(({ database, application }) => {
      application.habits.crash = 0.05;
      return withSqlite((connection) => {
        const gauge = connection.gauge.bind(connection);
        connection.gauge = () => {
          const answer = gauge();
          return { ...answer, log: Math.max(answer.log, database.recover().header.mxFrame) };
        };
      })();
    });
    assert.ok(seed !== null);
    const honest = await found(({ application }) => {
      application.habits.crash = 0.05;
    }, Math.max(20, seed));
    assert.equal(honest, null, "with the gauge the same applications are restored exactly");
  },
);

test("simulate: [S14] growth by pages that no frame brings is filled, never a hole", { timeout: 60_000 }, async () => {
  let filled = 0;
  for (let seed = 1; seed <= 40; seed++) {
    const { lines } = await simulate(seed, {
      steps,
      sabotage: ({ application }) => void (application.habits.holes = 0.5),
    });
    filled += lines.filter((line) => line.includes("grew by pages that are not in the WAL")).length;
  }
  assert.ok(filled > 5, `${filled} filled`);
});
