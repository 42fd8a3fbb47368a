/** A replica as a process of its own, of a source that the test writes, and programs that read it meanwhile. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { DirectoryStore } from "../../src/storage/directory.ts";
import { runtime } from "../replication/replica_scene.ts";
import { SqliteSource } from "../replication/sqlite_source.ts";
import { runtimeCommand, walrustCommand } from "../support/runtime.ts";
import { Running, type Scene, WatchProcess } from "./watch_process.ts";

const ledgerReader = fileURLToPath(new URL("ledger_reader.py", import.meta.url));
/** 0 as long as only whole commits are seen. */
export const ledgerSql = "SELECT (SELECT sum(amount) FROM debit) + (SELECT sum(amount) FROM credit);";

/** Starts `walrust replicate` of the scene's database into `replica.db`; `script` instead of the command line itself. */
export function replicate(
  scene: Scene,
  flags: readonly string[],
  env: Record<string, string> = {},
  script?: string,
): WatchProcess {
  const program = script === undefined ? walrustCommand() : runtimeCommand(script);
  const words = ["replicate", `${scene.bucketUrl}/app`, "--local", scene.path("replica.db"), "--json", ...flags];
  return scene.start(new WatchProcess([...program, ...words], env));
}

/** A source in the scene's bucket. */
export function sourceIn(scene: Scene): SqliteSource<DirectoryStore> {
  const store = new DirectoryStore({ directory: scene.bucket, files: runtime.files, random: runtime.random });
  return new SqliteSource(store, scene.path("source.db"));
}

/** SHA-256 of a database but for what a replica has of its own: journal mode and counters. Never of a live database. */
export function pagesHash(path: string): string {
  const bytes = readFileSync(path);
  for (const [start, end] of [[18, 20], [24, 32], [92, 96]]) bytes.fill(0, start, end);
  return createHash("sha256").update(bytes).digest("hex");
}

/** What ledger_reader.py says at its end. */
export interface Readings {
  readonly reads: number;
  readonly inconsistent: number;
  readonly unsound: number;
  readonly errors: string[];
  /** Commits that it saw in the connection it kept. */
  readonly states: number;
  /** Schemas that it saw there. */
  readonly schemas: number;
}

/** Programs that read the replica until they are asked to end. */
export class LedgerReaders {
  readonly #python: Running;
  readonly #shell: Running;
  readonly #stop: string;
  readonly #lines: string;

  constructor(scene: Scene) {
    const local = scene.path("replica.db");
    this.#stop = scene.path("readers.stop");
    this.#lines = scene.path("readers.sqlite3");
    this.#python = scene.start(new Running(["python3", ledgerReader, local, this.#stop]));
    // Each turn is a process of its own, as a script of cron would be.
    const loop =
      'while [ ! -e "$1" ]; do sqlite3 -cmd ".timeout 20000" "$2" "$3" >>"$4" 2>&1 || echo failed >>"$4"; done';
    this.#shell = scene.start(new Running(["sh", "-c", loop, "sh", this.#stop, local, ledgerSql, this.#lines]));
  }

  /** Ends them and returns what Python saw; asserts that nobody ever saw half a commit. */
  async finish(): Promise<Readings> {
    writeFileSync(this.#stop, "");
    await Promise.all([this.#python.ended, this.#shell.ended]);
    assert.equal(this.#python.ending?.code, 0, this.#python.stderr);
    const readings: Readings = JSON.parse(this.#python.stdout);
    const lines = readFileSync(this.#lines, "utf8").trimEnd().split("\n");
    const facts = `${JSON.stringify(readings)} ${[...new Set(lines)].slice(0, 5)}`;
    assert.deepEqual([readings.inconsistent, readings.unsound, readings.errors], [0, 0, []], facts);
    assert.deepEqual(lines.filter((line) => line !== "0"), [], "the sqlite3 command sees whole commits");
    assert.ok(readings.reads > 50 && lines.length > 5, facts);
    return readings;
  }
}
