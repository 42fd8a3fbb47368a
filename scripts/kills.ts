/**
 * Kills a real watch beside a real writer, at each named step (`--steps N` times) and at random moments (`--random N`
 * times), and compares after each; with `--server` the steps of uploads to versitygw. `--only WORD` takes the steps whose
 * group or name holds it, `--seed N` draws the same random kills again. Runs under the runtime that runs it.
 */
import process from "node:process";
import { parseArgs } from "node:util";
import { drawKill } from "../test/e2e/kill_campaign.ts";
import { fileKillScene, type KillScene, serverKillScene } from "../test/e2e/kill_scenes.ts";
import { fileSteps, serverSteps } from "../test/e2e/kill_steps.ts";
import { SeededRandom } from "../test/simulation/random.ts";
import { startS3Server } from "../test/support/s3_server.ts";

const { values } = parseArgs({
  options: {
    steps: { type: "string", default: "0" },
    random: { type: "string", default: "0" },
    server: { type: "boolean", default: false },
    only: { type: "string", default: "" },
    seed: { type: "string", default: String(Date.now()) },
  },
});
/** Kills in one scene: its bucket is read whole at the end. */
const sceneKillsMax = 150;
const failures: string[] = [];
let kills = 0;

/** Runs `works` in as few scenes as they fit into; a failure ends its scene. */
async function campaign(open: () => Promise<KillScene>, works: [string, Work][]): Promise<void> {
  for (let at = 0; at < works.length;) {
    const scene = await open();
    const end = Math.min(works.length, at + sceneKillsMax);
    let name = "the proof at the end";
    try {
      while (at < end) {
        const work = works[at++];
        name = work[0];
        await work[1](scene);
      }
      name = "the proof at the end";
      await scene.campaign.finish();
    } catch (error) {
      failures.push(`${name}: ${(error as Error).stack}`);
      console.log(`FAILED ${failures.at(-1)}`);
    } finally {
      kills += scene.campaign.totals.kills;
      console.log(`${at} of ${works.length}: ${JSON.stringify(scene.campaign.totals)}`);
      await scene.close();
    }
  }
}

type Work = (scene: KillScene) => Promise<unknown>;

const server = values.server ? await startS3Server("versitygw") : null;
try {
  const buckets = { opened: 0 };
  const open = (): Promise<KillScene> =>
    server === null ? fileKillScene() : serverKillScene(server, `killed-${++buckets.opened}`);
  const steps = (server === null ? fileSteps : serverSteps)
    .filter(({ group, name }) => group.includes(values.only) || name.includes(values.only));
  await campaign(
    open,
    steps.flatMap((step) =>
      Array.from({ length: Number(values.steps) }, (): [string, Work] => {
        return [`${step.group}, ${step.name}`, (scene) => scene.campaign.killAt(step)];
      })
    ),
  );
  const random = new SeededRandom(Number(values.seed));
  await campaign(
    open,
    Array.from({ length: Number(values.random) }, (): [string, Work] => {
      const kill = drawKill(random);
      return [`seed ${values.seed}, ${JSON.stringify(kill)}`, (scene) => scene.campaign.killAnywhere(kill)];
    }),
  );
} finally {
  await server?.stop();
}
console.log(`${kills} kills, ${failures.length} failed`);
if (failures.length > 0) process.exitCode = 1;
