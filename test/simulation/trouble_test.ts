/** Each kind of trouble by itself, in histories that are sure to meet it. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { calmNetwork } from "./store.ts";
import { drawChaos, withoutConditions } from "./troubles.ts";
import { simulate, SimulationFailure, type SimulationOptions, type Trace } from "./watch_simulation.ts";

const seeds = 20;
const timeout = 120_000;

/** Histories in a world that `prepare` made worse; returns how many lines of their traces match. */
async function meets(
  prepare: NonNullable<SimulationOptions["sabotage"]>,
  evidence: RegExp,
  count: number = seeds,
): Promise<number> {
  let lines = 0;
  for (let seed = 1; seed <= count; seed++) {
    const trace = await simulate(seed, { steps: 20, sabotage: prepare }).catch((error) => {
      if (error instanceof SimulationFailure) error.message += `\n${error.trace.lines.slice(-60).join("\n")}`;
      throw error;
    });
    lines += linesOf(trace, evidence);
  }
  return lines;
}

function linesOf({ lines }: Trace, evidence: RegExp): number {
  return lines.filter((line) => evidence.test(line)).length;
}

test("[S112] simulate: power loss takes commits that were published: the head is the database again", {
  timeout,
}, async () => {
  const lost = await meets(({ chaos, application }) => {
    chaos.power = 0.002;
    application.habits.checkpoint = 0;
  }, /loses power/);
  assert.ok(lost > seeds / 2, `${lost} losses of power`);
});

test("[S14] simulate: growth by pages that no frame brings is filled, never a hole", { timeout }, async () => {
  const filled = await meets(
    ({ application }) => void (application.habits.holes = 0.5),
    /grew by pages that are not in the WAL/,
  );
  assert.ok(filled > 5, `${filled} filled`);
});

test("[S31] [S32] [S34] simulate: a database replaced, made anew, with another page size, out of WAL mode and back", {
  timeout,
}, async () => {
  const tasks = await meets(({ troubles }) => void (troubles.administrator = 0.1), /database_replaced|leaves WAL mode/);
  assert.ok(tasks > seeds, `${tasks} seen`);
});

test("[S37] simulate: a full disk passes without loss and without a restart", { timeout }, async () => {
  const full = await meets(({ chaos }) => void (chaos.full = 0.005), /fails: ENOSPC/);
  assert.ok(full > seeds, `${full} writes failed`);
});

test("[S39] simulate: reads that fail or come back short are never content", { timeout }, async () => {
  const failed = await meets(({ chaos }) => void (chaos.io = 0.01), /fails: EIO/);
  assert.ok(failed > seeds, `${failed} calls failed`);
});

test("[S43] [S44] simulate: a state directory lost or garbage begins a lineage, never seq 1 in the old one", {
  timeout,
}, async () => {
  const lost = await meets(({ chaos, troubles }) => {
    chaos.crash = 0.003;
    troubles.lostState = 0.5;
  }, /is lost$/);
  assert.ok(lost > 5, `${lost} lost`);
});

test("[S45] [S68] simulate: wall clocks that jump ten years and stand still", { timeout }, async () => {
  const jumps = await meets(({ troubles }) => void (troubles.clock = 0.1), /the clock jumps/);
  assert.ok(jumps > seeds, `${jumps} jumps`);
});

test("[S46] [S48] [S50] [S60] simulate: a bucket that throttles, loses replies and breaks bodies", {
  timeout,
}, async () => {
  const failed = await meets(({ bucket }) => {
    bucket.network = {
      ...calmNetwork,
      delayMs: 100,
      failure: 0.1,
      lostReply: 0.1,
      throttle: 0.05,
      throttleMs: 20_000,
      truncated: 0.2,
    };
  }, /SlowDown|ConnectionReset|ended early/);
  assert.ok(failed > seeds, `${failed} requests failed`);
});

test("simulate: objects vanish: other points are restored, a snapshot makes the head good", {
  timeout,
}, async () => {
  const vanished = await meets(({ troubles }) => void (troubles.vanish = 0.03), /vanishes$/);
  assert.ok(vanished > seeds / 2, `${vanished} vanished`);
});

test("[S63] simulate: a store that ignores conditions serves one writer whose requests are not late", {
  timeout,
}, async () => {
  const crashes = await meets(({ bucket, troubles, chaos, random }) => {
    Object.assign(chaos, drawChaos(random), { crash: 0.002 });
    bucket.network = withoutConditions(chaos, troubles);
  }, /is killed/);
  assert.ok(crashes > 5, `${crashes} crashes`);
});

for (const kind of ["restored", "cloned", "same name"] as const) {
  test(`[S65] [S67] simulate: a second machine writes to the prefix: ${kind}`, { timeout }, async () => {
    const begun = await meets(({ troubles, bucket }) => {
      troubles.second = kind;
      bucket.network = { ...bucket.network, ignoresConditions: false };
    }, /a second machine begins/);
    assert.ok(begun > seeds / 2, `${begun} began`);
  });
}

test("[S66] simulate: a process that stood still goes on in the middle of a PUT and writes only its own lineage", {
  timeout,
}, async () => {
  const frozen = await meets(({ chaos, troubles, bucket }) => {
    troubles.second = "restored";
    chaos.freeze = 0.003;
    bucket.network = { ...calmNetwork, delayMs: 2000 };
  }, /walrust goes on/);
  assert.ok(frozen > seeds / 2, `${frozen} times`);
});

test("[S113] simulate: uploads that arrive after the restart has looked", { timeout }, async () => {
  const late = await meets(
    ({ machine, bucket, random }) => {
      bucket.network = { ...calmNetwork, delayMs: 300, slow: 0.8, slowMs: 3000 };
      const sent = machine.bounds.sent.bind(machine.bounds);
      machine.bounds.sent = (operation, key) => {
        sent(operation, key);
        const dies = machine.snapshotComplete && key.includes("/0000/") && operation === "put" && random.chance(0.4);
        if (dies) bucket.clock.at(random.number() * 300, () => machine.engine && machine.crash("its PUT has arrived"));
      };
    },
    /took the place of|with other bytes/,
    3 * seeds,
  );
  assert.ok(late > 0, `${late} late`);
});

test("[S117] simulate: commit frames of an application that was killed before the wal-index knew", {
  timeout,
}, async () => {
  const crashes = await meets(({ application }) => void (application.habits.crash = 0.05), /application \d crashes/);
  assert.ok(crashes > seeds, `${crashes} crashes`);
});

/** The machine has no SQLite to hold a pin with. */
function observes({ machine, application }: Parameters<NonNullable<SimulationOptions["sabotage"]>>[0]): void {
  Object.assign(machine.options, { mode: "observe" });
  application.isObserved = true;
}

test("[S20] [S23] simulate: observed: logs that restart, are emptied and unlinked lose points, never pages", {
  timeout,
}, async () => {
  const gaps = await meets((world) => {
    observes(world);
    const { habits } = world.application;
    habits.checkpoint = 0.1;
    habits.close = 0.1;
    Object.assign(habits, { modes: ["passive", "restart", "truncate"] });
  }, /wal_gap/);
  assert.ok(gaps > seeds / 4, `${gaps} gaps`);
});

test("[S117] simulate: observed: a commit that SQLite never accepted is taken back", { timeout }, async () => {
  const taken = await meets((world) => {
    observes(world);
    const { habits } = world.application;
    // What was not accepted stays so only as long as another process keeps the wal-index.
    Object.assign(habits, { crash: 0.05, connections: 3, processes: 2, close: 0 });
  }, /published frames were overwritten/);
  assert.ok(taken > 0, `${taken} taken back`);
});
