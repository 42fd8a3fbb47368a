/** Starts watch, restore, writers and applications as processes of the runtime under test, and waits for what they do. */
import assert from "node:assert/strict";
import { type ChildProcess, spawn } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, realpathSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { runtimeCommand, walrustCommand } from "../support/runtime.ts";
import type { S3Server } from "../support/s3_server.ts";
import { headSeq } from "./bucket.ts";

function here(name: string): string {
  return fileURLToPath(new URL(name, import.meta.url));
}

/** Milliseconds after which a wait is a failure; generous, because a loaded machine is no defect. */
export const patienceMs = 30_000;

/** Resolves after `ms` milliseconds. */
export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** Resolves when `condition` holds; rejects, naming `what`, when it does not within the patience. */
export async function until(what: string, condition: () => boolean, limitMs: number = patienceMs): Promise<void> {
  const endMs = Date.now() + limitMs;
  while (!condition()) {
    if (Date.now() > endMs) throw new Error(`waited ${limitMs} ms in vain: ${what}`);
    await sleep(20);
  }
}

/** How a process ended. */
export interface Ending {
  readonly code: number | null;
  readonly signal: string | null;
}

/** A process with its output collected. */
export class Running {
  readonly child: ChildProcess;
  readonly ended: Promise<Ending>;
  stdout = "";
  stderr = "";
  ending: Ending | null = null;

  constructor(command: readonly string[], env: Record<string, string> = {}) {
    this.child = spawn(command[0], command.slice(1), { env: { ...process.env, ...env }, stdio: "pipe" });
    this.child.stdout!.setEncoding("utf8").on("data", (text: string) => this.stdout += text);
    this.child.stderr!.setEncoding("utf8").on("data", (text: string) => this.stderr += text);
    this.ended = new Promise((resolve, reject) => {
      this.child.on("error", reject);
      this.child.on("close", (code, signal) => resolve(this.ending = { code, signal }));
    });
  }

  /** SIGKILL; resolves when the process is gone. */
  kill(): Promise<Ending> {
    return this.#send("SIGKILL");
  }

  /** SIGTERM; resolves when the process is gone. */
  terminate(): Promise<Ending> {
    return this.#send("SIGTERM");
  }

  #send(signal: "SIGKILL" | "SIGTERM"): Promise<Ending> {
    // Not `child.kill`: under Deno a child that was sent a signal is then said to have died of it.
    if (this.ending === null && this.child.exitCode === null && this.child.signalCode === null) {
      process.kill(this.child.pid!, signal);
    }
    return this.ended;
  }
}

/** One line of `watch --json`. */
export interface WatchLine {
  readonly time: number;
  readonly kind: string;
  readonly seq?: string | number;
  readonly [field: string]: unknown;
}

/** Intervals so short that a test of seconds sees many rollovers and some snapshots. */
export const eagerFlags: readonly string[] = [
  ...["--wal-sync-interval", "0.1", "--checkpoint-interval", "0.5"],
  ...["--min-checkpoint-pages", "50", "--snapshot-interval", "5"],
];

/** A running `walrust watch`. */
export class WatchProcess extends Running {
  /** The events so far. */
  get events(): WatchLine[] {
    const lines = this.stdout.slice(0, this.stdout.lastIndexOf("\n") + 1).split("\n");
    return lines.filter((line) => line.startsWith("{")).map((line) => JSON.parse(line));
  }

  /** The events of one kind. */
  of(kind: string): WatchLine[] {
    return this.events.filter((event) => event.kind === kind);
  }

  /** Resolves when an event of this kind was printed. */
  async event(kind: string): Promise<WatchLine> {
    await this.alive(`event ${kind}`, () => this.of(kind).length > 0);
    return this.of(kind)[0];
  }

  /** Resolves when `condition` holds; rejects at once, with its stderr, when the watch ended. */
  async alive(what: string, condition: () => boolean): Promise<void> {
    await until(what, () => this.ending !== null || condition()).catch((error) => {
      throw new Error(`${(error as Error).message}\n${this.stdout.slice(-2000)}\n${this.stderr.slice(-2000)}`);
    });
    if (!condition()) throw new Error(`watch ended (${JSON.stringify(this.ending)}) before: ${what}\n${this.stderr}`);
  }

  /** SIGTERM and a clean end with the final sync done. */
  async stop(): Promise<void> {
    const ending = await this.terminate();
    assert.equal(ending.code, 0, `watch ended with ${JSON.stringify(ending)}\n${this.stderr}`);
  }
}

/** A bucket that is not in the scene's folder. */
export interface BucketPlace {
  /** Where its objects lie as files, by key. */
  readonly directory: string;
  /** What `-b` gets. */
  readonly url: string;
  /** What every walrust gets: endpoint and credentials. */
  readonly env: Readonly<Record<string, string>>;
}

/** The bucket of a server that keeps objects as files. */
export function placeOn(server: S3Server, bucket: string, endpoint: string = server.endpoint): BucketPlace {
  return {
    directory: `${server.directory}/${bucket}`,
    url: `s3://${bucket}`,
    env: {
      AWS_ACCESS_KEY_ID: server.accessKeyId,
      AWS_SECRET_ACCESS_KEY: server.secretAccessKey,
      AWS_ENDPOINT_URL_S3: endpoint,
    },
  };
}

/** One test's folder: a database, its bucket, and the processes around them, all gone after the test. */
export class Scene {
  readonly directory: string = mkdtempSync(join(realpathSync(tmpdir()), "walrust-e2e-"));
  /** The bucket as a folder of objects. */
  readonly bucket: string;
  readonly bucketUrl: string;
  readonly #env: Readonly<Record<string, string>>;
  readonly #processes: Running[] = [];

  constructor(place?: BucketPlace) {
    this.bucket = place?.directory ?? join(this.directory, "bucket");
    this.bucketUrl = place?.url ?? `file://${this.bucket}`;
    this.#env = place?.env ?? {};
  }

  get db(): string {
    return join(this.directory, "app.db");
  }
  get log(): string {
    return join(this.directory, "commits.log");
  }

  /** A path in the folder. */
  path(name: string): string {
    return join(this.directory, name);
  }

  /** Starts a process that ends with the scene. */
  start<T extends Running>(running: T): T {
    this.#processes.push(running);
    return running;
  }

  /** Starts `walrust watch` on the database. */
  watch(flags: readonly string[] = eagerFlags, env: Record<string, string> = {}, script?: string): WatchProcess {
    const command = [
      ...(script === undefined ? walrustCommand() : runtimeCommand(script)),
      "watch",
      this.db,
      "-b",
      this.bucketUrl,
      "--json",
      ...flags,
    ];
    return this.start(new WatchProcess(command, { ...this.#env, ...env }));
  }

  /** Starts a writer; `flags` as in writer.ts, without `--db` and `--log`. */
  writer(kind: WriterKind, flags: readonly string[] = [], env: Record<string, string> = {}): Writer {
    const command = [...writerCommand(kind), "--db", this.db, "--log", this.log, ...flags];
    return this.start(new Writer(command, this.log, env));
  }

  /** Starts an application that does what it is told. */
  application(path: string = this.db): Application {
    return this.start(new Application([...runtimeCommand(here("application.ts")), path]));
  }

  /** Runs any walrust command to its end. */
  async walrust(...args: readonly string[]): Promise<Running> {
    const running = this.start(new Running([...walrustCommand(), ...args], this.#env));
    await running.ended;
    return running;
  }

  /** Restores into a fresh file and returns its path; the command must succeed. */
  async restore(name: string, ...flags: readonly string[]): Promise<string> {
    const output = this.path(name);
    rmSync(output, { force: true });
    const run = await this.walrust("restore", "app", "-o", output, "-b", this.bucketUrl, ...flags);
    assert.equal(run.ending?.code, 0, `restore ${flags.join(" ")}: ${run.stderr}`);
    return output;
  }

  /** Highest seq in the bucket. */
  head(): bigint {
    return headSeq(this.bucket);
  }

  /** Resolves when the bucket's head has passed `seq`. */
  async headBeyond(watch: WatchProcess, seq: bigint): Promise<bigint> {
    await watch.alive(`head beyond ${seq}`, () => this.head() > seq);
    return this.head();
  }

  /** Ends every process and removes the folder, unless WALRUST_E2E_KEEP asks to look at it. */
  async close(): Promise<void> {
    await Promise.all(this.#processes.map((running) => running.kill()));
    if (process.env.WALRUST_E2E_KEEP === undefined) rmSync(this.directory, { recursive: true, force: true });
  }
}

/** Runs `body` in a scene of its own. */
export async function inScene(body: (scene: Scene) => Promise<void>, place?: BucketPlace): Promise<void> {
  const scene = new Scene(place);
  try {
    await body(scene);
  } finally {
    await scene.close();
  }
}

/** The kinds of writer. */
export type WriterKind = "runtime" | "python" | "sqlite3";

function writerCommand(kind: WriterKind): string[] {
  if (kind === "python") return ["python3", here("writer.py")];
  return runtimeCommand(here(kind === "sqlite3" ? "writer_cli.ts" : "writer.ts"));
}

/** What a writer prints at its end. */
export interface WriterSummary {
  readonly n: number;
  readonly session: number;
  readonly commits: number;
  readonly busy: number;
  readonly vacuums: number;
  readonly slowestMs: number;
}

/** A running writer. */
export class Writer extends Running {
  readonly #log: string;

  constructor(command: readonly string[], log: string, env: Record<string, string>) {
    super(command, env);
    this.#log = log;
    for (const name of ["stop", "pause", "paused"]) rmSync(`${log}.${name}`, { force: true });
  }

  /** Resolves when at least one commit was acknowledged, by this writer or one before it on the same log. */
  async started(): Promise<void> {
    await until("the writer's first commit", () => {
      assert.equal(this.ending, null, `the writer ended: ${this.stderr}`);
      return existsSync(this.#log) && /^a /m.test(readFileSync(this.#log, "latin1").slice(0, 10_000));
    });
  }

  /** Asks it to stand still (writer.ts only); resolves when it does, between two commits. */
  async pause(): Promise<void> {
    writeFileSync(`${this.#log}.pause`, "");
    await until("the writer stands still", () => {
      assert.equal(this.ending, null, `the writer ended: ${this.stderr}`);
      return existsSync(`${this.#log}.paused`);
    });
  }

  /** Lets it go on. */
  resume(): void {
    rmSync(`${this.#log}.paused`, { force: true });
  }

  /** Asks it to end after its current commit and returns what it says. */
  async finish(): Promise<WriterSummary> {
    writeFileSync(`${this.#log}.stop`, "");
    const { code } = await this.ended;
    assert.equal(code, 0, `the writer failed: ${this.stderr}`);
    return JSON.parse(this.stdout);
  }
}

/** What an application answers to one piece of SQL. */
export interface Answer {
  readonly rows: Record<string, unknown>[];
  readonly error: string | null;
}

/** An application with one connection that runs the SQL it is sent, one piece at a time. */
export class Application extends Running {
  #answered = 0;

  /** Runs SQL and returns its answer, an error included. */
  async try(sql: string): Promise<Answer> {
    const index = this.#answered++;
    this.child.stdin!.write(`${JSON.stringify(sql)}\n`);
    await until(`answer to ${sql}`, () => this.ending !== null || this.stdout.split("\n").length > index + 1);
    const line = this.stdout.split("\n")[index];
    assert.ok(line, `the application ended: ${this.stderr}`);
    return JSON.parse(line);
  }

  /** Runs SQL that must succeed and returns its rows. */
  async run(sql: string): Promise<Record<string, unknown>[]> {
    const { rows, error } = await this.try(sql);
    assert.equal(error, null, sql);
    return rows;
  }

  /** Closes the connection and ends. */
  async quit(): Promise<void> {
    this.child.stdin!.end();
    await this.ended;
  }
}
