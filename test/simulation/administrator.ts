/**
 * What is done to a database by hand while its application is stopped: a copy moved over it, deleted and made anew,
 * another page size, switched out of WAL mode for a while. Each is done in steps that others come between.
 */
import type { Application } from "./application.ts";
import type { DatabaseFiles } from "./databases.ts";
import type { SeededRandom } from "./random.ts";
import { createDatabase, firstPage } from "./wal_content.ts";
import { WalDatabase } from "./wal_index.ts";

const pageSizes = [512, 1024] as const;

/** See the top of this file. */
export class Administrator {
  readonly #application: Application;
  readonly #files: DatabaseFiles;
  readonly #random: SeededRandom;
  readonly #trace: (line: string) => void;
  #task: Generator<void> | null = null;
  #backup: { bytes: Uint8Array; pageSize: number } | null = null;
  /** Called when the page size changes: only then a new lineage is right. */
  onPageSize: () => void = () => {};
  /** How many of its tasks are done. */
  done = 0;

  constructor(application: Application, files: DatabaseFiles, random: SeededRandom, trace: (line: string) => void) {
    this.#application = application;
    this.#files = files;
    this.#random = random;
    this.#trace = trace;
  }

  /** True while the application must wait. */
  get busy(): boolean {
    return this.#task !== null;
  }

  /** Begins something. */
  begin(): void {
    const random = this.#random;
    const { current } = this.#files;
    if (this.#task !== null || current === null) return;
    if (random.chance(0.3)) {
      this.#backup = { bytes: current.content(), pageSize: current.pageSize };
      return;
    }
    if (random.chance(0.7)) this.#application.shutDown();
    else this.#application.crashWhole();
    this.#task = random.pick([() => this.#replace(), () => this.#recreate(), () => this.#leaveWal()])();
    this.act();
  }

  /** Goes on with it. */
  act(): void {
    if (this.#task === null) return;
    if (!this.#task.next().done) return;
    this.#task = null;
    this.done++;
    this.#application.record();
  }

  /** Goes on to its end. */
  finish(): void {
    while (this.busy) this.act();
  }

  /** The machine died: whoever was at work gives up, and what is there is there. */
  powerLoss(): void {
    this.#task = null;
    const { disk, path } = this.#files;
    if (this.#files.current !== null) return this.#backToWal();
    disk.remove(path);
    this.#removeLog();
    this.#create(2, 512);
  }

  #removeLog(): void {
    const { disk, path } = this.#files;
    disk.remove(`${path}-wal`);
    disk.remove(`${path}-shm`);
  }

  #create(pageCount: number, pageSize: number): void {
    const { disk, path, random, synchronous } = this.#files;
    createDatabase(new WalDatabase({ disk, path, pageSize, random, synchronous }), pageCount);
    this.#application.record();
  }

  *#replace(): Generator<void> {
    const random = this.#random;
    const { disk, path } = this.#files;
    const old = this.#files.current!;
    const copy = random.chance(0.6) ? this.#backup : { bytes: old.content(), pageSize: old.pageSize };
    const temporary = `${path}.copy`;
    disk.remove(temporary);
    if (copy !== null) {
      const file = disk.inode(temporary, "create");
      disk.write(file, copy.bytes, 0);
      disk.sync(file);
    } else {
      const { synchronous } = this.#files;
      const pageSize = random.chance(0.2) ? random.pick(pageSizes) : old.pageSize;
      createDatabase(
        new WalDatabase({ disk, path: temporary, pageSize, random: random.fork(), synchronous }),
        random.between(2, 30),
      );
    }
    yield;
    // As an administrator must: a log that is left beside another file would be taken for its own.
    this.#removeLog();
    disk.rename(temporary, path);
    this.#trace("a copy is moved over the database");
    const next = this.#files.current!;
    if (next.pageSize !== old.pageSize) this.onPageSize();
    this.#application.record();
    yield;
    if (random.chance(0.5)) disk.syncDirectory("/data");
  }

  *#recreate(): Generator<void> {
    const random = this.#random;
    const { disk, path } = this.#files;
    const { pageSize } = this.#files.current!;
    disk.remove(path);
    this.#removeLog();
    this.#trace("the database is deleted");
    for (let turns = random.pick([0, 2, 20]); turns > 0; turns--) yield;
    const next = random.chance(0.2) ? random.pick(pageSizes) : pageSize;
    this.#create(random.between(2, 20), next);
    this.#trace(`the database is made anew, page size ${next}`);
    if (next !== pageSize) this.onPageSize();
    yield;
  }

  /** Out of WAL mode, changed there, perhaps with another page size, and back. */
  *#leaveWal(): Generator<void> {
    const random = this.#random;
    const { disk, path } = this.#files;
    const database = this.#files.current!;
    // SQLite refuses while another connection is open; a log that is left would have to be recovered first.
    if (database.attached.size > 0 || disk.lookup(`${path}-wal`) !== null) return;
    this.#setMode(1);
    this.#trace("the database leaves WAL mode");
    let { pageSize } = database;
    for (let turns = random.pick([1, 3, 20]); turns > 0; turns--) {
      yield;
      if (this.#files.current !== database) return;
      const { file } = database;
      const next = random.chance(0.05) ? random.pick(pageSizes) : pageSize;
      const pages = random.between(2, 30);
      const image = next === pageSize ? file.data.slice(0, file.size) : random.bytes(pages * next);
      image.set(firstPage(random, next, image.length / next, random.next()).fill(1, 18, 20));
      if (random.chance(0.7)) image.set(random.bytes(next), random.between(1, image.length / next - 1) * next);
      disk.write(file, image, 0);
      disk.truncate(file, image.length);
      disk.sync(file);
      if (next !== pageSize) {
        this.onPageSize();
        this.#trace(`VACUUM with page size ${next}`);
      }
      pageSize = next;
      this.#application.record();
    }
    this.#backToWal();
    this.#trace("the database is back in WAL mode");
    if (pageSize !== database.pageSize) this.#files.forget(database);
  }

  #backToWal(): void {
    const { current } = this.#files;
    if (current === null || current.isInWalMode) return;
    this.#setMode(2);
    const size = current.file.data[16] << 8 | current.file.data[17];
    if (size !== current.pageSize) this.#files.forget(current);
    this.#application.record();
  }

  #setMode(version: number): void {
    const { disk, current } = this.#files;
    disk.write(current!.file, new Uint8Array([version, version]), 18);
    disk.sync(current!.file);
    this.#application.record();
  }
}
