/** Real S3 servers on loopback, for tests. */
import { AwsClient } from "aws4fetch";
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { need } from "./need.ts";

/** A running server. */
export interface S3Server {
  readonly endpoint: string;
  readonly accessKeyId: string;
  readonly secretAccessKey: string;
  /** Where the server keeps its buckets, `<bucket>/<key>` (versitygw only). */
  readonly directory: string;
  /** Bucket names have at least three characters. */
  createBucket(name: string): Promise<void>;
  /** Multipart uploads that were begun and neither completed nor aborted. */
  openUploads(bucket: string): Promise<number>;
  stop(): Promise<void>;
}

/** Which server. */
export type S3ServerKind = "versitygw" | "moto";

const accessKeyId = "walrust-test";
const secretAccessKey = "walrust-test-secret";
const readyTriesMax = 300;

/** Why tests with this server are skipped, or false. */
export function needS3Server(kind: S3ServerKind): string | false {
  return need(kind);
}

/** Starts a server on a free port and waits until it answers. It ends with `stop`, or with this process. */
export async function startS3Server(kind: S3ServerKind): Promise<S3Server> {
  const port = await freePort();
  const directory = mkdtempSync(join(tmpdir(), `walrust-${kind}-`));
  const log = join(directory, "log");
  mkdirSync(join(directory, "buckets"));
  const command = kind === "versitygw"
    ? ["versitygw", "--port", `127.0.0.1:${port}`, "--quiet", "posix", join(directory, "buckets")]
    : ["python3", "-m", "moto.server", "-H", "127.0.0.1", "-p", String(port)];
  // The shell ends the server when its input closes, which also happens when this process is killed.
  const script = '"$@" </dev/null >"$LOG" 2>&1 & child=$!; cat >/dev/null; kill -9 $child; wait $child';
  const shell = spawn("sh", ["-c", script, "sh", ...command], {
    env: { ...process.env, LOG: log, ROOT_ACCESS_KEY: accessKeyId, ROOT_SECRET_KEY: secretAccessKey },
    stdio: ["pipe", "ignore", "ignore"],
  });
  const ended = new Promise<void>((resolve) => shell.on("exit", () => resolve()));
  shell.unref();
  const stop = async (): Promise<void> => {
    shell.ref();
    shell.stdin.end();
    await ended;
    rmSync(directory, { recursive: true, force: true });
  };
  const endpoint = `http://127.0.0.1:${port}`;
  try {
    await waitUntilReady(endpoint, kind, log);
  } catch (error) {
    await stop();
    throw error;
  }
  const client = new AwsClient({ accessKeyId, secretAccessKey, service: "s3", region: "us-east-1", retries: 0 });
  const createBucket = async (name: string): Promise<void> => {
    const answer = await client.fetch(`${endpoint}/${name}`, { method: "PUT" });
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${kind} made no bucket ${name}: ${answer.status} ${text}`);
  };
  const openUploads = async (bucket: string): Promise<number> => {
    const answer = await client.fetch(`${endpoint}/${bucket}?uploads=`);
    const text = await answer.text();
    if (!answer.ok) throw new Error(`${kind} lists no uploads of ${bucket}: ${answer.status} ${text}`);
    return text.match(/<Upload>/g)?.length ?? 0;
  };
  const buckets = join(directory, "buckets");
  return { endpoint, accessKeyId, secretAccessKey, directory: buckets, createBucket, openUploads, stop };
}

async function waitUntilReady(endpoint: string, kind: string, log: string): Promise<void> {
  for (let attempt = 0; attempt < readyTriesMax; attempt++) {
    try {
      await (await fetch(`${endpoint}/`)).arrayBuffer();
      return;
    } catch {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
  throw new Error(`${kind} did not answer: ${readFileSync(log, "utf8").slice(-2000)}`);
}

/** A port nobody listens on now. */
export async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  await new Promise<void>((resolve) => server.close(() => resolve()));
  if (address === null || typeof address === "string") throw new Error("no port");
  return address.port;
}
