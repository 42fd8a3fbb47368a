/** Databases and transactions of random content that SQLite still takes for a database. */
import type { SeededRandom } from "./random.ts";
import type { WalDatabase } from "./wal_index.ts";
import type { ModelConnection } from "./wal_model.ts";

/** Page 1: the database header in WAL mode and an empty schema; the free space is random. */
export function firstPage(random: SeededRandom, pageSize: number, pageCount: number, counter: number): Uint8Array {
  const page = random.bytes(pageSize);
  page.fill(0, 0, 108);
  page.set(new TextEncoder().encode("SQLite format 3\0"));
  const view = new DataView(page.buffer);
  view.setUint16(16, pageSize === 65536 ? 1 : pageSize);
  page[18] = page[19] = 2;
  page[21] = 64;
  page[22] = page[23] = 32;
  view.setUint32(24, counter);
  view.setUint32(28, pageCount);
  view.setUint32(44, 4);
  view.setUint32(56, 1);
  view.setUint32(92, counter);
  page[100] = 13;
  view.setUint16(105, pageSize === 65536 ? 0 : pageSize);
  return page;
}

/** Writes a database of random pages, in WAL mode and with no WAL yet, safely on disk. */
export function createDatabase(database: WalDatabase, pageCount: number): void {
  const { disk, path, pageSize, random } = database;
  const parent = path.slice(0, Math.max(1, path.lastIndexOf("/")));
  disk.makeDirectory(parent);
  const file = disk.inode(path, "create");
  disk.write(file, firstPage(random, pageSize, pageCount, 1), 0);
  for (let page = 1; page < pageCount; page++) disk.write(file, random.bytes(pageSize), page * pageSize);
  disk.sync(file);
  for (let directory = parent;; directory = directory.slice(0, Math.max(1, directory.lastIndexOf("/")))) {
    disk.syncDirectory(directory);
    if (directory === "/") break;
  }
}

/** What one transaction changes: some pages, sometimes the size; page 1 when the size changes. */
export function randomPages(
  connection: ModelConnection,
  random: SeededRandom,
  share: number,
): { pages: Map<number, Uint8Array>; pageCount: number } {
  const { pageSize } = connection.database;
  const old = connection.pageCount;
  let pageCount = old;
  if (random.chance(0.2)) pageCount = Math.max(2, old + random.between(-6, 6));
  if (pageCount > 60) pageCount = 12;
  const pages = new Map<number, Uint8Array>();
  for (let pgno = 2; pgno <= pageCount; pgno++) {
    if (pgno > old || random.chance(share)) pages.set(pgno, random.bytes(pageSize));
  }
  // A spilled page 1 may name another size than the commit.
  if (pageCount !== old || pages.size === 0 || connection.spilled > 0 || random.chance(0.3)) {
    pages.set(1, firstPage(random, pageSize, pageCount, random.next()));
  }
  return { pages, pageCount };
}
