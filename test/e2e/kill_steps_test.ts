/** SIGKILL at each step of walrust that a crash could hit, twice, and at random moments: real processes, real SQLite. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { SeededRandom } from "../simulation/random.ts";
import { testSeed } from "../support/seed.ts";
import { drawKill, type KillCampaign } from "./kill_campaign.ts";
import { fileKillScene, type KillScene } from "./kill_scenes.ts";
import { fileSteps } from "./kill_steps.ts";

const randomKills = 40;
const limits = { timeout: 240_000 };

/** One scene for all: its history grows with every kill, and is proven whole at the end. */
let scene: KillScene | null = null;

async function campaign(): Promise<KillCampaign> {
  scene ??= await fileKillScene();
  return scene.campaign;
}

after(() => scene?.close());

for (const step of fileSteps) {
  test(
    `[C: ${step.group}] watch: killed twice, ${step.name}; resumed by a difference, byte for byte`,
    limits,
    async () => {
      const kills = await campaign();
      await kills.killAt(step);
      await kills.killAt(step);
    },
  );
}

test(`[C] watch: killed at ${randomKills} random moments, some of them in the start after a kill`, limits, async () => {
  const kills = await campaign();
  const random = new SeededRandom(testSeed);
  const before = kills.totals.kills;
  try {
    while (kills.totals.kills < before + randomKills) await kills.killAnywhere(drawKill(random));
  } catch (error) {
    throw new Error(`WALRUST_SEED=${testSeed} draws the same kills: ${(error as Error).message}`, { cause: error });
  }
});

test(
  "[C] [S25] watch: after all kills one lineage, no hole, every point as it was, byte for byte",
  limits,
  async () => {
    const kills = await campaign();
    await kills.finish();
    const { totals } = kills;
    assert.ok(totals.kills >= 2 * fileSteps.length + randomKills, JSON.stringify(totals));
    assert.ok(totals.differences >= totals.kills / 4, JSON.stringify(totals));
    assert.ok(totals.checkpoints >= totals.kills / 4, JSON.stringify(totals));
  },
);

test("[C] [S111] KillCampaign: canary, an index ahead of what is published is found", limits, async () => {
  const { campaign, close } = await fileKillScene();
  try {
    const moments = Array.from({ length: 5 }, () => "^after truncate index");
    const step = { group: "canary", name: "five deltas lost", pace: "deltas", moments } as const;
    let found = "";
    // Where the writer changes every lost page again before it is compared, nothing is lost in the end.
    for (let tries = 0; tries < 5 && found === ""; tries++) {
      await campaign.killAt(step, { lose: true }).catch((error: Error) => found = error.message);
    }
    // The lost pages may be noticed by restore's look at page 1 before they are compared.
    assert.match(found, /restored latest.* pages differ|not a sound database/);
  } finally {
    await close();
  }
});
