/** The databases that one path has led to: a file that is moved over it is another database with locks of its own. */
import type { Inode, SimulatedDisk } from "./files.ts";
import type { SeededRandom } from "./random.ts";
import { WalDatabase } from "./wal_index.ts";

/** See the top of this file. */
export class DatabaseFiles {
  readonly disk: SimulatedDisk;
  readonly path: string;
  readonly random: SeededRandom;
  readonly synchronous: "normal" | "full";
  /** Called when SQLite recovered one of them. */
  onRecover: () => void = () => {};
  #known = new Map<Inode, WalDatabase>();
  /** Those whose files have lost their names while connections were open. */
  #orphans: WalDatabase[] = [];

  constructor(disk: SimulatedDisk, path: string, random: SeededRandom, synchronous: "normal" | "full") {
    this.disk = disk;
    this.path = path;
    this.random = random;
    this.synchronous = synchronous;
  }

  /** What the path leads to now; `null` where nothing is or no database. */
  get current(): WalDatabase | null {
    const inode = this.disk.lookup(this.path);
    if (inode === null || inode.size < 100) return null;
    const known = this.#known.get(inode);
    if (known !== undefined) return known;
    const size = inode.data[16] << 8 | inode.data[17];
    const { disk, path, random, synchronous } = this;
    const database = new WalDatabase({ disk, path, pageSize: size === 1 ? 65536 : size, random, synchronous });
    database.onRecover = () => this.onRecover();
    this.#known.set(inode, database);
    return database;
  }

  /** What a process gets that opens the path: its own connections or the names of log and shared memory decide. */
  open(process: string): WalDatabase | null {
    const { current } = this;
    if (current === null || current.attached.size === 0) return current;
    if (current.wal === this.disk.lookup(current.walPath)) return current;
    for (const connection of current.attached) if (connection.process === process) return current;
    this.forget(current);
    return this.current;
  }

  /** The file got another page size, or its log another name: the next to open it meet it anew. */
  forget(database: WalDatabase): void {
    for (const [inode, known] of this.#known) if (known === database) this.#known.delete(inode);
    if (database.attached.size > 0) this.#orphans.push(database);
  }

  get #all(): WalDatabase[] {
    return [...this.#known.values(), ...this.#orphans];
  }

  /** Connections that a process has, to whichever file. */
  connectionsOf(process: string): number {
    let count = 0;
    for (const { attached } of this.#all) {
      for (const connection of attached) if (connection.process === process) count++;
    }
    return count;
  }

  /** A process was killed. */
  kill(process: string): void {
    for (const database of this.#all) database.kill(process);
  }

  /** The machine died. */
  powerLoss(): void {
    for (const database of this.#all) database.powerLoss();
    this.#orphans = [];
  }
}
