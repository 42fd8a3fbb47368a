/**
 * What a start finds: the journal, the bucket and the spool, brought together to the head of our lineage.
 * The difference that follows makes the head equal to the database.
 */
import { FormatError, isAbsentObject } from "../errors.ts";
import { decodeHeader, headerSize, isBridge } from "../format/hadbp.ts";
import { renderKey } from "../format/keys.ts";
import type { Files, NewSha256 } from "../runtime/types.ts";
import { getBytes, type ObjectStore } from "../storage/object_store.ts";
import { lastSeqOf } from "./inventory.ts";
import { type Journal, readJournal } from "./journal.ts";
import { listLineage, ownerOf, readState } from "./lineage.ts";
import { IndexedDecoder } from "./indexed_decoder.ts";
import { indexEntrySize, type PageHashes, PageIndex } from "./page_index.ts";
import type { Sealed } from "./sealed.ts";
import type { Spool } from "./spool.ts";

/** The end of a chain. */
export interface Head {
  readonly seq: bigint;
  /** Chain value. */
  readonly chain: bigint;
  readonly createdMs: number;
  /** Database size, pages. */
  readonly pageCount: number;
}

/** A lineage that we may continue. */
export interface Resumed {
  readonly journal: Journal;
  readonly index: PageIndex;
  /** Head in the bucket. */
  readonly published: Head;
  /** Objects of the spool behind it, in order. */
  readonly spooled: readonly Sealed[];
  /** Sealed objects whose place in the chain another one took: they are forgotten. */
  readonly overtaken: number;
  /** Pages published, spooled or forgotten behind the journal: the index may not have been sure of them. */
  readonly pages: ReadonlySet<number>;
}

/** Why there is nothing to continue; `expected` when that is how a first start looks. */
export interface NothingToResume {
  readonly reason: string;
  readonly expected: boolean;
}

/** What {@linkcode resumeLineage} needs. */
export interface ResumeOptions {
  readonly store: ObjectStore;
  readonly root: string;
  readonly destination: string;
  readonly directory: string;
  readonly files: Files;
  readonly sha256: NewSha256;
  readonly spool: Spool;
  readonly machine: string;
  /** Page size of the database, bytes. */
  readonly pageSize: number;
}

/** Finds the head of our lineage, or says why a new lineage must begin. */
export async function resumeLineage(options: ResumeOptions): Promise<Resumed | NothingToResume> {
  const { files, sha256, directory } = options;
  const journal = readJournal(files, directory, sha256);
  if (journal === null) {
    const first = files.stat(`${directory}/journal`) === null && files.stat(`${directory}/pages.idx`) === null;
    return { reason: first ? "first start" : "the journal is lost", expected: first };
  }
  const stop = (reason: string): NothingToResume => ({ reason, expected: false });
  if (journal.destination !== options.destination) return stop(`the journal belongs to ${journal.destination}`);
  if (journal.machine !== options.machine) return stop("the state directory comes from another machine");
  if (journal.pageSize !== options.pageSize) return stop("the page size changed");
  const index = PageIndex.open(files, `${directory}/pages.idx`, journal.lineage, sha256);
  if (index === null) return stop("the page index is lost");
  let resumed: Resumed | string | null = null;
  try {
    resumed = await continueFrom(journal, index, options);
  } catch (error) {
    if (!isAbsentObject(error)) throw error;
    resumed = `${error.key ?? "an object"} vanished from the bucket while it was read`;
  } finally {
    if (resumed === null || typeof resumed === "string") index.close();
  }
  return typeof resumed === "string" ? stop(resumed) : resumed;
}

async function continueFrom(journal: Journal, index: PageIndex, options: ResumeOptions): Promise<Resumed | string> {
  const { store, root } = options;
  const { state } = await readState(store, root);
  const owner = ownerOf(state);
  if (owner !== journal.lineage) {
    // Another writer, or an old state.json that somebody put back: what we remember tells people which.
    return `lineage ${owner ?? "none"} is active in the bucket, not ${journal.lineage}, ` +
      `which we published up to seq ${journal.seq}`;
  }
  const objects = await listLineage(store, root, journal.lineage, journal.seq);
  const head = lastSeqOf(objects);
  const deltas = new Map(objects.filter(({ pool }) => pool === "delta").map((object) => [object.min, object]));
  const anchor = deltas.get(journal.seq);
  const chain = anchor !== undefined
    ? await chainEndOf(store, anchor.info.key, anchor.info.size)
    // The first snapshot of a lineage has no bridge: the pointer knows its hash, or the next delta continues from it.
    : objects.some(({ pool, min }) => pool === "snapshot" && min === journal.seq)
    ? (state.currentSeq === journal.seq ? state.dbChecksum : deltas.has(journal.seq + 1n) ? journal.chain : null)
    : null;
  if (chain !== journal.chain) return `seq ${journal.seq} is not in the bucket as we published it`;

  const followers: Published[] = [];
  let published: Head = journal;
  for (let seq = journal.seq + 1n; seq <= head; seq++) {
    const object = deltas.get(seq);
    if (object === undefined) return `seq ${seq} is missing in the bucket`;
    const next = await readPublished(object.info.key, object.info.size, seq, published, index, options);
    if (next === null) return `seq ${seq} in the bucket does not continue our chain`;
    followers.push(next);
    published = next.head;
  }
  const spool = readSpool(journal.lineage, index, options);
  if (typeof spool === "string") return spool;
  const inBucket = new Map(followers.map((follower) => [follower.head.seq, follower.head.chain]));
  const spooled: Sealed[] = [];
  const overtaken: Sealed[] = [];
  let last = published;
  for (const { sealed, prevChecksum } of spool) {
    const { seq, chainEnd, createdMs, pageCount } = sealed;
    if (seq === last.seq + 1n && prevChecksum === last.chain) {
      spooled.push(sealed);
      last = { seq, chain: chainEnd, createdMs, pageCount };
    } else if (seq > journal.seq && inBucket.get(seq) !== chainEnd) overtaken.push(sealed);
    else options.spool.remove(seq);
  }
  forgetOvertaken(overtaken, index, options.spool);
  for (const { hashes, head } of followers) index.apply(hashes, head.pageCount);
  for (const { hashes, pageCount } of spooled) index.apply(hashes, pageCount);
  const pages = new Set<number>();
  for (const { hashes } of [...followers, ...overtaken, ...spooled]) {
    for (let i = 0; i < hashes.pgnos.length; i++) pages.add(hashes.pgnos[i]);
  }
  return { journal, index, published, spooled, overtaken: overtaken.length, pages };
}

/** Everything in the spool; a reason when something there cannot be read as what it must be. */
function readSpool(lineage: string, index: PageIndex, options: ResumeOptions): ReturnType<Spool["load"]>[] | string {
  const loaded: ReturnType<Spool["load"]>[] = [];
  for (const seq of options.spool.seqs()) {
    const key = renderKey(options.root, { kind: "delta", lineage, seq });
    try {
      loaded.push(options.spool.load(seq, { key, index, sha256: options.sha256 }));
    } catch (error) {
      // A disk that cannot be read now may be read later; only other bytes say that the index may be wrong.
      if (error instanceof FormatError) return `seq ${seq} in the spool is damaged`;
      throw error;
    }
  }
  return loaded;
}

/**
 * An upload of an earlier process arrived late and took the place of what was sealed since: that can never be published.
 * The index may already count on it; an entry of zeros is no page's hash, so the difference publishes these pages.
 */
function forgetOvertaken(overtaken: readonly Sealed[], index: PageIndex, spool: Spool): void {
  if (overtaken.length === 0) return;
  for (const { hashes: { pgnos }, pageCount } of overtaken) {
    index.apply({ pgnos, hashes: new Uint8Array(pgnos.length * indexEntrySize) }, pageCount);
  }
  index.sync();
  for (const { seq } of overtaken) spool.remove(seq);
}

/** Chain value after an object: what a bridge declares, else the trailer. */
async function chainEndOf(store: ObjectStore, key: string, size: number): Promise<bigint> {
  const { bytes: first } = await getBytes(store, key, headerSize(2), { range: { start: 0, end: headerSize(2) } });
  const header = decodeHeader(first, key);
  if (header.declaredEnd !== null) return header.declaredEnd;
  const { bytes: last } = await getBytes(store, key, 8, { range: { start: size - 8, end: size } });
  return new DataView(last.buffer, last.byteOffset, 8).getBigUint64(0);
}

/** What an object in the bucket adds. */
interface Published {
  readonly head: Head;
  readonly hashes: PageHashes;
}

/** Reads a published object; `null` when it does not continue the chain. */
async function readPublished(
  key: string,
  size: number,
  seq: bigint,
  before: Head,
  index: PageIndex,
  options: ResumeOptions,
): Promise<Published | null> {
  const decoder = new IndexedDecoder(index, {
    object: key,
    sha256: options.sha256,
    size,
    expect: { seq, pageSize: index.pageSize, prevChecksum: before.chain },
  });
  const { body } = await options.store.get(key);
  try {
    for await (const chunk of body) decoder.push(chunk);
    const { header, end, hashes } = decoder.finish();
    const { chainEnd, endPageCount } = end;
    if (endPageCount === null || (header.declaredEnd !== null && !isBridge(header))) return null;
    return { head: { seq, chain: chainEnd, createdMs: header.createdMs, pageCount: endPageCount }, hashes };
  } catch (error) {
    if (error instanceof FormatError) return null;
    throw error;
  }
}
