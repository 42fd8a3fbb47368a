/**
 * A runtime that says what walrust is about to do to the world and has just done, one moment after the other, and that
 * dies by SIGKILL at the moment it was told. Nothing of walrust is changed: everything it touches is handed in.
 *
 * A moment reads `before|amid|after <operation> <object> | <pins>, <writers>, <lock>[, copied]`, such as
 * `after link delta | 1 pins, 0 writers, free`. Amid a write half of the bytes are there; amid a request it was sent.
 */
import { writeSync } from "node:fs";
import process from "node:process";
import type { Fetch, Files, OpenFile, Runtime, Sqlite, SqliteConnection } from "../../src/runtime/types.ts";

/** When to die. */
export interface KillPlan {
  /** Patterns of moments, met in this order; the last one is deadly. */
  readonly moments?: readonly string[];
  /** Instead: so many moments from now, whatever they are. */
  readonly after?: number;
  /** From now on deltas vanish on their way although the store confirms them: for canaries. */
  readonly lose?: boolean;
}

const walPage = 4096;
const forever = new Int32Array(new SharedArrayBuffer(4));

/** Follows the moments of a process and ends it at one of them. */
export class KillHook {
  #patterns: RegExp[] = [];
  #left = Infinity;
  loses = false;
  readonly connections: Connections = new Connections();

  /** From now on the process dies as `plan` says. */
  arm(plan: KillPlan): void {
    this.#patterns = (plan.moments ?? []).map((pattern) => new RegExp(pattern));
    this.#left = plan.after ?? Infinity;
    this.loses = plan.lose === true;
  }

  /** True when the process must die at this moment; the caller does what belongs to it, then calls {@linkcode die}. */
  isDeadly(moment: string): boolean {
    if (--this.#left <= 0) return true;
    if (this.#patterns[0]?.test(`${moment} | ${this.connections.state}`) !== true) return false;
    return this.#patterns.shift() !== undefined && this.#patterns.length === 0;
  }

  /** Dies if this is the moment. */
  pass(moment: string): void {
    if (this.isDeadly(moment)) this.die(moment);
  }

  /** SIGKILL. */
  die(moment: string): never {
    writeSync(2, `killed: ${moment} | ${this.connections.state}\n`);
    for (;;) {
      process.kill(process.pid, "SIGKILL");
      Atomics.wait(forever, 0, 0, 1000);
    }
  }

  /** Runs one call between its two moments. */
  around<T>(what: string, run: () => T): T {
    this.pass(`before ${what}`);
    const value = run();
    this.pass(`after ${what}`);
    return value;
  }
}

/** What the connections to the database hold. */
class Connections {
  pins = 0;
  writers = 0;
  lock: "free" | "locked" | "unlocked" = "free";
  /** Everything in the WAL was copied by the checkpoint just made. */
  copied = false;

  get state(): string {
    return `${this.pins} pins, ${this.writers} writers, ${this.lock}${this.copied ? ", copied" : ""}`;
  }

  unpin(): void {
    this.pins--;
    this.copied = false;
  }
}

/** What a path is to walrust. */
function objectOf(path: string): string {
  const kinds: [RegExp, string][] = [
    [/-wal$/, "wal"],
    [/-replica-journal$/, "replica.journal"],
    [/-replica-state(\.tmp)?$/, "replica.state"],
    [/-journal$/, "rollback"],
    [/\/pages\.idx$/, "index"],
    [/\/journal\.tmp$/, "journal.tmp"],
    [/\/journal$/, "journal"],
    [/\/spool\/snapshot\.copy$/, "copy"],
    [/\/spool\/[0-9a-f]{16}\.hadbp\.tmp$/, "spool.tmp"],
    [/\/spool\/[0-9a-f]{16}\.hadbp$/, "spool"],
    [/\.walrust-tmp\/lock$/, "store.lock"],
    [/\.walrust-tmp\/[0-9a-f]+$/, "upload"],
    [/\/0000\/[0-9a-f]{16}\.hadbp$/, "delta"],
    [/\/0001\/[0-9a-f]{16}\.hadbp$/, "snapshot"],
    [/\/state\.json$/, "state"],
    [/\/lineage\.json$/, "lineage"],
    [/\.tmp-[0-9a-f]+$/, "output"],
    [/\.db$/, "database"],
  ];
  return kinds.find(([pattern]) => pattern.test(path))?.[1] ?? "other";
}

/** A bridge is a delta of no pages. */
const bridgeSize = 64;

function contentOf(path: string, size: number): string {
  const object = objectOf(path);
  return object === "delta" && size === bridgeSize ? "bridge" : object;
}

class HookedFile implements OpenFile {
  readonly path: string;
  readonly #file: OpenFile;
  readonly #hook: KillHook;
  readonly #object: string;

  constructor(file: OpenFile, hook: KillHook) {
    this.path = file.path;
    this.#file = file;
    this.#hook = hook;
    this.#object = objectOf(file.path);
  }

  read(into: Uint8Array, position: number): number {
    const part = this.#object !== "wal"
      ? ""
      : into.length <= 32
      ? " header"
      : into.length === walPage
      ? " page"
      : " log";
    return this.#hook.around(`read ${this.#object}${part}`, () => this.#file.read(into, position));
  }

  write(bytes: Uint8Array, position: number): void {
    const what = `write ${this.#object}`;
    this.#hook.pass(`before ${what}`);
    if (this.#hook.isDeadly(`amid ${what}`)) {
      this.#file.write(bytes.subarray(0, bytes.length >> 1), position);
      this.#hook.die(`amid ${what}`);
    }
    this.#file.write(bytes, position);
    this.#hook.pass(`after ${what}`);
  }

  truncate(size: number): void {
    this.#hook.around(`truncate ${this.#object}`, () => this.#file.truncate(size));
  }

  sync(): void {
    this.#hook.around(`sync ${this.#object}`, () => this.#file.sync());
  }

  stat(): ReturnType<OpenFile["stat"]> {
    return this.#file.stat();
  }

  close(): void {
    this.#file.close();
  }
}

function hookedFiles(files: Files, hook: KillHook, hasRoom: boolean): Files {
  const sizeOf = (path: string): number => files.stat(path)?.size ?? 0;
  return {
    uid: files.uid,
    stat: (path) => files.stat(path),
    open: (path, mode) => hook.around(`open ${objectOf(path)}`, () => new HookedFile(files.open(path, mode), hook)),
    rename(from, to) {
      hook.around(`rename ${contentOf(to, sizeOf(from))}`, () => files.rename(from, to));
    },
    link(from, to) {
      const object = contentOf(to, sizeOf(from));
      if (hook.loses && object === "delta") return;
      hook.around(`link ${object}`, () => files.link(from, to));
    },
    remove(path) {
      hook.around(`remove ${objectOf(path)}`, () => files.remove(path));
    },
    makeDirectory: (path) => files.makeDirectory(path),
    removeDirectory: (path) => files.removeDirectory(path),
    list: (path) => files.list(path),
    syncDirectory(path) {
      hook.around(`syncDirectory`, () => files.syncDirectory(path));
    },
    freeBytes: (path) => hasRoom ? files.freeBytes(path) : 0,
    realPath: (path) => files.realPath(path),
  };
}

/** A connection to the database: who reads is a pin, who may write rolls over. */
class HookedConnection implements SqliteConnection {
  readonly #connection: SqliteConnection;
  readonly #hook: KillHook;
  readonly #isReader: boolean;
  #inTransaction = false;

  constructor(connection: SqliteConnection, hook: KillHook, isReader: boolean) {
    this.#connection = connection;
    this.#hook = hook;
    this.#isReader = isReader;
    if (!isReader) hook.connections.writers++;
  }

  journalMode(): string {
    return this.#connection.journalMode();
  }

  beginRead(): void {
    this.#hook.around("pin", () => {
      this.#connection.beginRead();
      this.#inTransaction = true;
      this.#hook.connections.pins++;
    });
  }

  beginImmediate(): boolean {
    if (!this.#connection.beginImmediate()) return false;
    this.#inTransaction = true;
    this.#hook.connections.lock = "locked";
    this.#hook.pass("after lock");
    return true;
  }

  beginExclusive(): boolean {
    if (!this.#connection.beginExclusive()) return false;
    this.#inTransaction = true;
    this.#hook.connections.lock = "locked";
    this.#hook.pass("after lock");
    return true;
  }

  rollback(): void {
    if (this.#inTransaction && !this.#isReader) this.#hook.pass("before unlock");
    this.#connection.rollback();
    this.#ended();
  }

  gauge(): ReturnType<SqliteConnection["gauge"]> {
    return this.#hook.around("gauge", () => this.#connection.gauge());
  }

  checkpointPassive(): ReturnType<SqliteConnection["checkpointPassive"]> {
    this.#hook.pass("before checkpoint");
    const result = this.#connection.checkpointPassive();
    this.#hook.connections.copied = !result.busy && result.log >= 0 && result.log === result.checkpointed;
    this.#hook.pass("after checkpoint");
    return result;
  }

  check(level: "quick" | "full"): string[] {
    return this.#connection.check(level);
  }

  close(): void {
    this.#hook.pass(`before close ${this.#isReader ? "reader" : "writer"}`);
    this.#connection.close();
    this.#ended();
    const { connections } = this.#hook;
    if (this.#isReader) return;
    connections.writers--;
    connections.copied = false;
    if (connections.writers === 0) connections.lock = "free";
    this.#hook.pass("after close writer");
  }

  #ended(): void {
    if (!this.#inTransaction) return;
    this.#inTransaction = false;
    if (this.#isReader) this.#hook.connections.unpin();
    else this.#hook.connections.lock = "unlocked";
    this.#hook.pass(this.#isReader ? "after unpin" : "after unlock");
  }
}

function hookedSqlite(sqlite: Sqlite, hook: KillHook): Sqlite {
  return {
    version: sqlite.version,
    open(path, options) {
      const connection = sqlite.open(path, options);
      return objectOf(path) === "database" ? new HookedConnection(connection, hook, options.readOnly) : connection;
    },
  };
}

/** Names a request of S3: `put delta`, `part 2 snapshot`, `complete delta`. */
function requestOf(url: string, method: string, size: number): string {
  const { pathname, searchParams } = new URL(url);
  const object = contentOf(pathname, size);
  const part = searchParams.get("partNumber");
  if (part !== null) return `part ${part} ${object}`;
  if (method === "POST") return `${searchParams.has("uploads") ? "create" : "complete"} ${object}`;
  return `${method.toLowerCase()} ${object}`;
}

function hookedFetch(fetch: Fetch, hook: KillHook): Fetch {
  return async (url, init) => {
    const what = requestOf(url, init.method, init.body?.length ?? 0);
    hook.pass(`before ${what}`);
    const answer = fetch(url, init);
    if (hook.isDeadly(`amid ${what}`)) {
      answer.catch(() => {});
      // Long enough for some of it to leave, seldom for an answer.
      await new Promise((resolve) => setTimeout(resolve, 1));
      hook.die(`amid ${what}`);
    }
    const response = await answer;
    hook.pass(`after ${what}`);
    return response;
  };
}

/** `runtime` with every call followed by `hook`; without `hasRoom` the disk is said to be full wherever that is asked. */
export function hookedRuntime(runtime: Runtime, hook: KillHook, hasRoom: boolean): Runtime {
  return {
    ...runtime,
    files: hookedFiles(runtime.files, hook, hasRoom),
    sqlite: hookedSqlite(runtime.sqlite!, hook),
    fetch: hookedFetch(runtime.fetch, hook),
  };
}
