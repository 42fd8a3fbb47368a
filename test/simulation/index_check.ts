/** `pages.idx` and journal on one machine's disk against what the bucket and the spool hold. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { hexOf } from "../../src/format/bytes.ts";
import { decodeChangeset } from "../../src/format/hadbp.ts";
import { type Journal, readJournal } from "../../src/replication/journal.ts";
import type { NewSha256 } from "../../src/runtime/types.ts";
import { type SimulatedDisk, SimulatedFiles } from "./files.ts";
import type { Ledger, LineageLedger, PageVersion } from "./ledger.ts";

const headerSize = 64;
const entrySize = 8;
const newSha256 = (): ReturnType<NewSha256> => createHash("sha256") as never;

/** Checks one state directory. */
export class IndexCheck {
  readonly #disk: SimulatedDisk;
  readonly #directory: string;
  readonly #ledger: Ledger;
  readonly #content: () => Uint8Array;
  #seen = "";
  #key = "";
  #hashes = new WeakMap<Uint8Array, bigint>();
  /** How often there was something to check. */
  checked = 0;

  /** `content` is the database as it is now. */
  constructor(disk: SimulatedDisk, directory: string, ledger: Ledger, content: () => Uint8Array) {
    this.#disk = disk;
    this.#directory = directory;
    this.#ledger = ledger;
    this.#content = content;
  }

  #hash(page: Uint8Array, key: Uint8Array): bigint {
    let hash = this.#hashes.get(page);
    if (hash === undefined) {
      const digest = createHash("sha256").update(key).update(page).digest();
      hash = digest.readBigUInt64BE(0);
      this.#hashes.set(page, hash);
    }
    return hash;
  }

  /** Journal as it is on disk; `null` when there is none or it is not whole. */
  journal(): Journal | null {
    return readJournal(new SimulatedFiles(this.#disk), this.#directory, newSha256);
  }

  /**
   * The journal names a published point. Each entry of the index is that of the newest content published up to the
   * journal, or of one published or spooled since; zeros and entries torn by a crash count on nothing, as long as they
   * are not those of an older content or of what the database holds. `whole`: all is as the head in the bucket.
   */
  run(whole: boolean): void {
    const index = this.#disk.lookup(`${this.#directory}/pages.idx`);
    if (index === null || index.size < headerSize) return;
    const journalFile = this.#disk.lookup(`${this.#directory}/journal`);
    const seen = `${index.number}:${index.version}:${journalFile?.number}:${journalFile?.version}`;
    if (seen === this.#seen && !whole) return;
    this.#seen = seen;
    const bytes = index.data.subarray(0, index.size);
    const lineage = this.#ledger.lineages.get(hexOf(bytes.subarray(8, 24)));
    const journal = this.journal();
    if (lineage === undefined || lineage.head === null || journal?.lineage !== lineage.lineage) return;
    this.checked++;
    const point = lineage.at(journal.seq);
    assert.ok(point, `the journal names seq ${journal.seq}, which is not published`);
    const { chain, pageCount, createdMs } = point;
    const { chain: ownChain, pageCount: ownCount, createdMs: ownMs } = journal;
    assert.deepEqual([ownChain, ownCount, ownMs], [chain, pageCount, createdMs], `the journal's seq ${journal.seq}`);
    this.#entries(bytes, lineage, whole ? lineage.head.seq : journal.seq, whole);
    if (!whole) return;
    assert.equal((bytes.length - headerSize) / entrySize, lineage.head.pageCount, "pages in the index");
  }

  #entries(bytes: Uint8Array, lineage: LineageLedger, sure: bigint, whole: boolean): void {
    const key = bytes.subarray(32, 48);
    const name = hexOf(key);
    if (name !== this.#key) this.#hashes = new WeakMap();
    this.#key = name;
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const end = Math.floor((bytes.length - headerSize) / entrySize);
    for (let pgno = 1; pgno <= end; pgno++) {
      const entry = view.getBigUint64(headerSize + (pgno - 1) * entrySize);
      const versions = lineage.versions.get(pgno) ?? [];
      if ((entry === 0n && !whole) || this.#isPublished(entry, versions, sure, key)) continue;
      assert.ok(!whole, `the index does not count on page ${pgno} as seq ${sure} has it`);
      this.#unknown(entry, pgno, lineage, key, sure);
    }
  }

  /** An entry that is not in the bucket: spooled, or torn. */
  #unknown(entry: bigint, pgno: number, lineage: LineageLedger, key: Uint8Array, sure: bigint): void {
    if ((this.#spooled(lineage).get(pgno) ?? []).some((page) => this.#hash(page, key) === entry)) return;
    const isOld = (lineage.versions.get(pgno) ?? []).some(({ page }) => this.#hash(page, key) === entry);
    assert.ok(!isOld, `the index counts on page ${pgno} as it was in the bucket before seq ${sure}`);
    const image = this.#content();
    const page = image.slice((pgno - 1) * lineage.pageSize, pgno * lineage.pageSize);
    const isAhead = page.length > 0 && this.#hash(page, key) === entry;
    assert.ok(
      !isAhead,
      `the index counts on page ${pgno} of the database, which is not in the bucket from seq ${sure} on`,
    );
  }

  #isPublished(entry: bigint, versions: readonly PageVersion[], sure: bigint, key: Uint8Array): boolean {
    for (let at = versions.length - 1; at >= 0; at--) {
      if (this.#hash(versions[at].page, key) === entry) return true;
      // Older contents are no longer what the bucket holds.
      if (versions[at].seq <= sure) return false;
    }
    return false;
  }

  #spooled(lineage: LineageLedger): Map<number, Uint8Array[]> {
    const pages = new Map<number, Uint8Array[]>();
    const { pageSize } = lineage;
    const directory = `${this.#directory}/spool`;
    for (const { name } of this.#disk.list(directory)) {
      const inode = this.#disk.lookup(`${directory}/${name}`)!;
      if (!name.endsWith(".hadbp")) continue;
      const known = { object: name, sha256: newSha256, expect: { pageSize } } as never;
      for (const { pgno, data } of decodeChangeset(inode.data.subarray(0, inode.size), known).entries) {
        if (data.length > 0) pages.set(pgno, [...pages.get(pgno) ?? [], data]);
      }
    }
    return pages;
  }
}
