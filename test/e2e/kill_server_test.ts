/** SIGKILL in the middle of uploads to a real S3 server: each step of group C in two places at least. */
import assert from "node:assert/strict";
import { after, test } from "node:test";
import { needS3Server, type S3Server, startS3Server } from "../support/s3_server.ts";
import type { KillCampaign } from "./kill_campaign.ts";
import { type KillScene, serverKillScene } from "./kill_scenes.ts";
import { serverSteps } from "./kill_steps.ts";

const limits = { skip: needS3Server("versitygw"), timeout: 240_000 };
let server: S3Server | null = null;
let scene: KillScene | null = null;

async function campaign(): Promise<KillCampaign> {
  server ??= await startS3Server("versitygw");
  scene ??= await serverKillScene(server);
  return scene.campaign;
}

after(async () => {
  await scene?.close();
  await server?.stop();
});

for (const step of serverSteps) {
  test(`[C: ${step.group}] watch, S3: killed, ${step.name}; resumed, byte for byte`, limits, async () => {
    await (await campaign()).killAt(step);
  });
}

test(
  "[C] [S25] watch, S3: after all kills one lineage, no hole, every point as it was, byte for byte",
  limits,
  async () => {
    const kills = await campaign();
    await kills.finish();
    assert.ok(kills.totals.kills >= serverSteps.length, JSON.stringify(kills.totals));
  },
);
