/** Campaigns of kills against a bucket on a file system and one on a real S3 server. */
import { systemRuntime } from "../../src/runtime/system.ts";
import { DirectoryStore } from "../../src/storage/directory.ts";
import { openStore } from "../../src/storage/open.ts";
import type { S3Server } from "../support/s3_server.ts";
import { begunFiles, KillCampaign } from "./kill_campaign.ts";
import { placeOn, Scene } from "./watch_process.ts";

/** A scene and the campaign in it; `close` ends every process and removes the folder. */
export interface KillScene {
  readonly campaign: KillCampaign;
  close(): Promise<void>;
}

async function begin(scene: Scene, bucket: Parameters<typeof KillCampaign.begin>[1]): Promise<KillScene> {
  try {
    return { campaign: await KillCampaign.begin(scene, bucket), close: () => scene.close() };
  } catch (error) {
    await scene.close();
    throw error;
  }
}

/** Kills beside a `file://` bucket; the image is hashed in several pieces. */
export function fileKillScene(): Promise<KillScene> {
  const scene = new Scene();
  const store = new DirectoryStore({ directory: scene.bucket, ...systemRuntime() });
  return begin(scene, { store, ballastPages: 600, openUploads: () => Promise.resolve(begunFiles(scene.bucket)) });
}

/** Kills beside a real server; an image takes two parts. */
export async function serverKillScene(server: S3Server, bucket = "killed"): Promise<KillScene> {
  await server.createBucket(bucket);
  const place = placeOn(server, bucket);
  const { store } = openStore({
    url: { scheme: "s3", bucket, prefix: "" },
    environment: place.env,
    runtime: systemRuntime(),
  });
  return begin(new Scene(place), { store, ballastPages: 2300, openUploads: () => server.openUploads(bucket) });
}
