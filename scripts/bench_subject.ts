/**
 * What is measured side by side: walrust under each runtime, its executable, and Litestream.
 * `--subjects node,bun,deno,exe,litestream`, or `all` for those that are here; the runtime of the script when absent.
 * With `--built` the runtimes run dist/, as users have it, instead of the source.
 */
import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { MeteredChild } from "./bench_child.ts";
import type { BenchBucket, BenchStore } from "./bench_store.ts";

const projectDirectory: string = fileURLToPath(new URL("..", import.meta.url)).replace(/\/$/, "");
const executable = join(projectDirectory, "dist/walrust");
const runtimeNames = ["node", "bun", "deno"] as const;

/** A delta: when it was sealed and when it was in the bucket, Unix milliseconds. */
export interface Delta {
  readonly sealed: number;
  readonly arrived: number;
}

/** A replicator; databases are named in the bucket by their file names without extension. */
export interface Subject {
  readonly name: string;
  /** Starts replicating; resolves when every database is in the bucket. */
  watch(paths: readonly string[], bucket: BenchBucket, store: BenchStore): Promise<MeteredChild>;
  /** The deltas of one database so far, in order; null where they cannot be seen. */
  deltas(path: string, watch: MeteredChild, bucket: BenchBucket): Delta[] | null;
  /** Words that bring a full snapshot of one database into the bucket and end. */
  snapshot(path: string, bucket: BenchBucket): string[];
  /** Words that restore the database of this name. */
  restore(name: string, output: string, bucket: BenchBucket): string[];
  /** Words that run any command of walrust; null where it is none. */
  readonly command: ((...args: string[]) => string[]) | null;
  /** Words that run a script under the subject's runtime; null where it is none. */
  readonly script: ((path: string) => string[]) | null;
}

function runtimeWords(name: string): (script: string) => string[] {
  const program = name === ownName() ? process.execPath : join(projectDirectory, "node_modules/.bin", name);
  const flags = name === "deno" ? ["run", "-A", "--no-check"] : [];
  return (script) => [program, ...flags, join(projectDirectory, script)];
}

function ownName(): string {
  const { deno, bun } = process.versions;
  return deno !== undefined ? "deno" : bun !== undefined ? "bun" : "node";
}

/** Words that run the load, always under the runtime that runs the benchmark. */
export function loadWords(...args: string[]): string[] {
  return [...runtimeWords(ownName())("scripts/bench_load.ts"), ...args];
}

function walrust(name: string, built: boolean): Subject {
  const script = name === "exe" ? null : runtimeWords(name);
  const words = script === null ? [executable] : script(built ? "dist/cli.js" : "cli.ts");
  const deltasOf = new WeakMap<MeteredChild, { lines: number; byPath: Map<string, Delta[]> }>();
  return {
    name,
    script,
    async watch(paths, bucket, store) {
      const child = new MeteredChild([...words, "watch", ...paths, ...bucket.words, "--json"], store.environment);
      await child.until((events) => events.filter(({ kind }) => kind === "snapshot").length >= paths.length);
      return child;
    },
    deltas(path, child) {
      const known = deltasOf.get(child) ?? { lines: 0, byPath: new Map() };
      deltasOf.set(child, known);
      for (const event of child.events(known.lines)) {
        if (event.kind !== "delta") continue;
        const deltas = known.byPath.get(String(event.path)) ?? [];
        known.byPath.set(String(event.path), deltas);
        deltas.push({ sealed: Number(event.createdMs), arrived: Number(event.time) });
      }
      known.lines = child.lines.length;
      return known.byPath.get(path) ?? [];
    },
    command: (...args) => [...words, ...args],
    snapshot: (path, bucket) => [...words, "snapshot", path, ...bucket.words],
    restore: (name, output, bucket) => [...words, "restore", name, "-o", output, ...bucket.words],
  };
}

function litestream(program: string): Subject {
  const configure = (paths: readonly string[], bucket: BenchBucket): string => {
    const file = join(mkdtempSync(join(tmpdir(), "walrust-bench-litestream-")), "litestream.yml");
    const dbs = paths.map((path) => ({ path, replicas: [bucket.replica(basename(path, ".db"))] }));
    writeFileSync(file, JSON.stringify({ dbs }));
    return file;
  };
  return {
    name: "litestream",
    script: null,
    command: null,
    async watch(paths, bucket, store) {
      const config = configure(paths, bucket);
      const child = new MeteredChild([program, "replicate", "-config", config], store.environment);
      await child.until(() => child.lines.filter((line) => line.includes("snapshot complete")).length >= paths.length);
      return child;
    },
    deltas(path, _, bucket) {
      const written = bucket.written(`${basename(path, ".db")}/ltx/0`);
      return written === null ? null : written.map((ms) => ({ sealed: ms, arrived: ms }));
    },
    snapshot(path, bucket) {
      return [program, "replicate", "-config", configure([path], bucket), "-once", "-force-snapshot"];
    },
    restore: (
      name,
      output,
      bucket,
    ) => [program, "restore", "-config", configure([`/${name}.db`], bucket), "-o", output, `/${name}.db`],
  };
}

/** A runtime's own SHA-256, MB/s: running over 1 MB pieces, one-shot over pages of 4096 bytes. */
export function hashRates(script: (path: string) => string[]): { stream: number; pages: number } {
  const [program, ...args] = script("scripts/bench_hash.ts");
  return JSON.parse(execFileSync(program, args, { encoding: "utf8" }));
}

/** The `litestream` program on the PATH, or null. */
function litestreamPath(): string | null {
  const places = (process.env.PATH ?? "").split(":").map((directory) => join(directory, "litestream"));
  return places.find((path) => existsSync(path)) ?? null;
}

/** The subjects of `--subjects`. */
export function benchSubjects(option: string | undefined, built: boolean): Subject[] {
  const peer = litestreamPath();
  const here = [...runtimeNames, ...(existsSync(executable) ? ["exe"] : []), ...(peer === null ? [] : ["litestream"])];
  if (option === "all" && here.length < 5) {
    console.log(`not here, not compared: ${["exe", "litestream"].filter((name) => !here.includes(name)).join(", ")}`);
  }
  const names = option === undefined ? [ownName()] : option === "all" ? here : option.split(",");
  return names.map((name) => {
    if (!here.includes(name)) throw new TypeError(`--subjects: ${name} is not one of ${here.join(", ")}`);
    return name === "litestream" ? litestream(peer!) : walrust(name, built);
  });
}
