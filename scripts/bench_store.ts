/** Where the benchmarks replicate to: a folder, or a real S3 server on loopback behind a proxy that counts requests. */
import { mkdirSync, readdirSync, statSync } from "node:fs";
import { createServer, request } from "node:http";
import { startS3Server } from "../test/support/s3_server.ts";

/** A bucket of one subject. */
export interface BenchBucket {
  /** Words that name it on walrust's command line. */
  readonly words: string[];
  /** A replica of this name in it, as Litestream's configuration has it. */
  replica(name: string): Record<string, unknown>;
  /** When each file below a folder of it was written, Unix milliseconds; null where that cannot be seen. */
  written(folder: string): number[] | null;
}

/** A store for all subjects. */
export interface BenchStore {
  readonly name: string;
  bucket(name: string): Promise<BenchBucket>;
  readonly environment: Record<string, string>;
  /** Requests that arrived so far; null for `file://`. */
  requests(): number | null;
  stop(): Promise<void>;
}

/** Opens a store in `directory`. */
export async function openBenchStore(directory: string, s3: boolean): Promise<BenchStore> {
  return s3 ? await openServer() : {
    name: "file://",
    bucket: (name) => Promise.resolve(folderBucket(`${directory}/${name}`)),
    environment: {},
    requests: () => null,
    stop: () => Promise.resolve(),
  };
}

function folderBucket(path: string): BenchBucket {
  mkdirSync(path);
  return {
    words: ["-b", `file://${path}`],
    replica: (name) => ({ type: "file", path: `${path}/${name}` }),
    written: (folder) =>
      readdirSync(`${path}/${folder}`).map((name) => statSync(`${path}/${folder}/${name}`).mtimeMs).sort((a, b) =>
        a - b
      ),
  };
}

async function openServer(): Promise<BenchStore> {
  const server = await startS3Server("versitygw");
  let requests = 0;
  const target = new URL(server.endpoint);
  const proxy = createServer((incoming, answer) => {
    requests++;
    const { method, url, headers } = incoming;
    // The Host header is signed, so it passes as it came.
    const onward = request({ host: target.hostname, port: target.port, method, path: url, headers }, (back) => {
      answer.writeHead(back.statusCode!, back.headers);
      back.pipe(answer);
    });
    onward.on("error", () => answer.destroy());
    incoming.pipe(onward);
  });
  await new Promise<void>((resolve) => proxy.listen(0, "127.0.0.1", resolve));
  const endpoint = `http://127.0.0.1:${(proxy.address() as { port: number }).port}`;
  const region = "us-east-1";
  return {
    name: "versitygw on loopback",
    async bucket(bucket) {
      await server.createBucket(bucket);
      return {
        words: ["-b", `s3://${bucket}`, "--endpoint", endpoint],
        replica: (path) => ({ type: "s3", bucket, path, endpoint, region, "force-path-style": true }),
        written: () => null,
      };
    },
    environment: {
      AWS_ACCESS_KEY_ID: server.accessKeyId,
      AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
      AWS_REGION: region,
    },
    requests: () => requests,
    async stop() {
      proxy.closeAllConnections();
      await new Promise<void>((resolve) => proxy.close(() => resolve()));
      await server.stop();
    },
  };
}
