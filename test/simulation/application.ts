/** The application whose database is replicated: several connections that read, write, checkpoint, close and die. */
import { createHash } from "node:crypto";
import type { DatabaseFiles } from "./databases.ts";
import type { SeededRandom } from "./random.ts";
import { randomPages } from "./wal_content.ts";
import { SqliteFailure } from "./wal_index.ts";
import { type CheckpointMode, ModelConnection } from "./wal_model.ts";

/** How an application behaves; probabilities per action. */
export interface Habits {
  connections: number;
  /** Whose connections these are: one that is killed leaves those of the other. */
  processes: number;
  /** Share of the pages that a transaction changes. */
  share: number;
  spill: number;
  rollback: number;
  close: number;
  read: number;
  checkpoint: number;
  crash: number;
  /** Growth by pages whose content nobody writes: they read as zeros. */
  holes: number;
  /** Frames from which a commit is followed by a PASSIVE checkpoint; 0 for never. */
  autocheckpoint: number;
  modes: readonly CheckpointMode[];
}

/** Draws the habits of one history. */
export function drawHabits(random: SeededRandom): Habits {
  return {
    connections: random.between(1, 3),
    processes: random.pick([1, 1, 2]),
    share: random.pick([0.03, 0.1, 0.4]),
    spill: random.pick([0, 0.2]),
    rollback: random.pick([0, 0.1]),
    close: random.pick([0, 0.02, 0.2]),
    read: random.pick([0, 0.1]),
    checkpoint: random.pick([0, 0.02, 0.1]),
    crash: random.pick([0, 0.003, 0.02]),
    holes: random.pick([0, 0, 0.3]),
    autocheckpoint: random.pick([0, 10, 40]),
    modes: random.pick([["passive"], ["passive", "full", "restart", "truncate"]] as const),
  };
}

const unpublished = "commit frame written, wal-index not";

const nameOf = (process: number): string => `application ${process}`;

interface Running {
  connection: ModelConnection;
  what: string;
  steps: Generator<string, unknown>;
}

/** True for a page that neither the file nor the log has ever held: what it was once would be read where zeros are due. */
function isUnknown({ database }: ModelConnection, pgno: number): boolean {
  return pgno * database.pageSize > database.file.size && !database.index!.frames.includes(pgno);
}

/** SHA-256 of a database image. */
export function contentHash(image: Uint8Array): string {
  return createHash("sha256").update(image).digest("hex");
}

export class Application {
  readonly #files: DatabaseFiles;
  readonly #random: SeededRandom;
  readonly #trace: (line: string) => void;
  readonly habits: Habits;
  /** Hash of every content the database ever had, in order; a power loss may bring an old one back. */
  readonly timeline: string[] = [];
  /**
   * True where only the files are seen, without the wal-index: what they hold counts as a content too, be it a commit
   * that SQLite is about to accept, or one that it never will.
   */
  isObserved = false;
  /** What there is now to be published: one content, or that of the files and that of the database. */
  now: readonly string[] = [];
  /** Called when the content changed. */
  onContent: () => void = () => {};
  #connections: ModelConnection[] = [];
  #running: Running[] = [];
  #acting = false;
  /** Turns until it is started again after a crash. */
  #down = 0;

  constructor(files: DatabaseFiles, random: SeededRandom, habits: Habits, trace: (line: string) => void) {
    this.#files = files;
    this.#random = random;
    this.habits = habits;
    this.#trace = trace;
    files.onRecover = () => this.record();
  }

  /** Notes what the database holds now, if it is not what it held before. */
  record(): void {
    const { current } = this.#files;
    if (current === null) return;
    const content = contentHash(current.content());
    const now = this.isObserved ? [contentHash(current.contentOfFiles()), content] : [content];
    if (now.join() === this.now.join()) return;
    this.now = now;
    for (const hash of now) {
      if (this.timeline.at(-1) === hash) continue;
      this.timeline.push(hash);
      this.onContent();
      this.#trace(`content ${this.timeline.length - 1} is ${hash.slice(0, 8)}`);
    }
  }

  /** Does one thing. */
  act(): void {
    if (this.#acting || this.#down-- > 0) return;
    this.#acting = true;
    try {
      if (this.#running.length > 0 && this.#random.chance(0.8)) this.#continue(this.#random.pick(this.#running));
      else if (this.#random.chance(this.habits.crash)) this.crash();
      else this.#begin();
    } catch (error) {
      if (!(error instanceof SqliteFailure)) throw error;
    } finally {
      this.#acting = false;
    }
  }

  #continue(running: Running): void {
    try {
      const { done, value } = running.steps.next();
      if (!done) {
        // The moment that leaves a valid commit frame of a transaction that never was.
        if (value === unpublished && this.#random.chance(this.habits.crash * 5)) this.crash();
        return;
      }
      this.#running = this.#running.filter((other) => other !== running);
      const result = value === undefined ? "" : ` → ${JSON.stringify(value)}`;
      this.#trace(`app ${running.what} done${result}`);
    } catch (error) {
      this.#running = this.#running.filter((other) => other !== running);
      running.connection.rollback();
      throw error;
    }
    if (running.what.startsWith("commit")) this.#committed(running.connection);
  }

  #committed(connection: ModelConnection): void {
    this.record();
    const { autocheckpoint } = this.habits;
    if (autocheckpoint > 0 && (connection.database.index?.header.mxFrame ?? 0) >= autocheckpoint) {
      this.#start(connection, "checkpoint passive", connection.checkpoint("passive"));
    }
  }

  #start(connection: ModelConnection, what: string, steps: Generator<string, unknown>): void {
    const running = { connection, what, steps };
    this.#running.push(running);
    this.#continue(running);
  }

  #begin(): void {
    const { habits } = this;
    const random = this.#random;
    if (this.#connections.length < habits.connections && (this.#connections.length === 0 || random.chance(0.2))) {
      const process = nameOf(random.integer(habits.processes));
      const database = this.#files.open(process);
      if (database === null || !database.isInWalMode) return;
      this.#connections.push(new ModelConnection(database, process, false));
    }
    const connection = random.pick(this.#connections);
    if (this.#running.some((running) => running.connection === connection)) return;
    if (connection.readLock >= 0) {
      if (random.chance(0.3)) connection.rollback();
    } else if (random.chance(habits.close)) {
      this.#trace("app closes a connection");
      this.#connections = this.#connections.filter((other) => other !== connection);
      connection.close();
      this.record();
    } else if (random.chance(habits.read)) connection.beginRead();
    else if (random.chance(habits.checkpoint)) {
      const mode = random.pick(habits.modes);
      this.#start(connection, `checkpoint ${mode}`, connection.checkpoint(mode));
    } else this.#write(connection);
  }

  #write(connection: ModelConnection): void {
    const random = this.#random;
    if (!connection.beginWrite()) return;
    const { habits } = this;
    const spills = random.chance(habits.spill);
    const rollback = random.chance(habits.rollback);
    const steps = function* (): Generator<string, void> {
      if (spills) {
        yield* connection.spill(randomPages(connection, random, habits.share * 2).pages);
        yield "spilled";
      }
      if (rollback) return connection.rollback();
      const { pages, pageCount } = randomPages(connection, random, habits.share);
      const isHole = habits.holes > 0 && pageCount > connection.pageCount + 1 && random.chance(habits.holes);
      if (isHole && isUnknown(connection, pageCount - 1)) pages.delete(pageCount - 1);
      yield* connection.commit(pages, pageCount);
    };
    this.#start(connection, rollback ? "rollback" : "commit", steps());
  }

  /** A process dies; perhaps while it was publishing a commit in the wal-index, which another may keep as it is. */
  crash(): void {
    const committing = this.#running.find(({ what }) => what === "commit")?.connection;
    const process = committing?.process ?? nameOf(this.#random.integer(this.habits.processes));
    const index = committing?.database.index ?? null;
    const tears = index !== null && this.#random.chance(0.2);
    this.#kill(process);
    if (tears) index.torn = true;
    const down = this.#random.pick([0, 3, 20]);
    if (this.#connections.length === 0) this.#down = down;
    this.#trace(`${process} crashes${tears ? " with a torn wal-index" : ""}`);
    this.record();
  }

  /** Every process of it dies. */
  crashWhole(): void {
    for (let at = 0; at < this.habits.processes; at++) this.#kill(nameOf(at));
    this.#trace("app crashes");
    this.record();
  }

  #kill(process: string): void {
    this.#files.kill(process);
    this.#connections = this.#connections.filter((connection) => connection.process !== process);
    this.#running = this.#running.filter(({ connection }) => connection.process !== process);
  }

  /** The machine died with everything on it. */
  powerLoss(): void {
    this.#connections = [];
    this.#running = [];
    this.record();
  }

  /** Ends what is under way, closes every connection and does nothing for a moment. */
  shutDown(): void {
    this.#endTransactions();
    for (const connection of this.#connections) connection.close();
    this.#connections = [];
    this.#trace("app is stopped");
    this.record();
  }

  /** Ends what is under way and stays open and quiet. */
  rest(): void {
    this.#endTransactions();
    this.record();
  }

  #endTransactions(): void {
    while (this.#running.length > 0) {
      for (const running of [...this.#running]) {
        try {
          if (this.#running.includes(running)) this.#continue(running);
        } catch (error) {
          if (!(error instanceof SqliteFailure)) throw error;
        }
      }
    }
    for (const connection of this.#connections) connection.rollback();
  }
}
