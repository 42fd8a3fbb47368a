/** Deliberate breakages of the code that keeps data safe; `mutate.ts` applies each and looks who notices. */

/** One breakage: `find` stands exactly once in `file` and becomes `replace`. */
export interface Mutation {
  readonly name: string;
  readonly file: string;
  readonly find: string;
  readonly replace: string;
}

const inReplication = (file: string) => (name: string, find: string, replace: string): Mutation => ({
  name,
  file: `src/replication/${file}.ts`,
  find,
  replace,
});

const adopt = inReplication("adopt");
const begin = inReplication("begin_stream");
const databaseFile = inReplication("database_file");
const engine = inReplication("engine");
const index = inReplication("page_index");
const log = inReplication("wal_log");
const observe = inReplication("observe_capture");
const observedCopy = inReplication("observed_copy");
const pin = inReplication("pin_capture");
const publisher = inReplication("publisher");
const replicaFile = inReplication("replica_file");
const replicaJournal = inReplication("replica_journal");
const resume = inReplication("resume");
const rollover = inReplication("rollover");
const sealed = inReplication("sealed");
const smallFile = inReplication("small_file");
const snapshot = inReplication("snapshot");
const snapshotTask = inReplication("snapshot_task");
const spool = inReplication("spool");
const staged = inReplication("staged_pages");
const stream = inReplication("stream");
const walk = inReplication("walk");
const objectReader = inReplication("object_reader");
const replica = inReplication("replica");
const writerCheck = inReplication("writer_check");

export const mutations: readonly Mutation[] = [
  spool("an object is spooled without fsync", "        file.sync();\n", ""),
  spool("the name of a spooled object is not forced", "      this.#files.syncDirectory(this.#directory);\n", ""),
  smallFile("the journal is written without fsync", "    file.sync();\n", ""),
  smallFile(
    "the name of the journal is not forced",
    "  files.rename(temporary, `${directory}/${name}`);\n  files.syncDirectory(directory);\n",
    "  files.rename(temporary, `${directory}/${name}`);\n",
  ),
  stream("the journal is written before the index is on disk", "    parts.index.sync();\n", ""),
  stream(
    "the index counts on an object before it is confirmed",
    "    this.publisher.add(sealed, spooled);\n",
    "    this.parts.index.apply(sealed.hashes, sealed.pageCount);\n    this.publisher.add(sealed, spooled);\n",
  ),
  engine(
    "two deltas in flight",
    "    if (stream.publisher.idle) {\n      if (this.#doubt",
    "    if (this.#live !== null) {\n      if (this.#doubt",
  ),
  rollover(
    "the old pin is released before the new one is taken",
    "    const reachable = this.#live.gauge().log;\n    const pin = this.#live.addPin();\n    this.#next",
    "    const reachable = this.#live.gauge().log;\n    this.#live.releasePin(this.#live.oldestPin);\n    const pin = this.#live.addPin();\n    this.#next",
  ),
  rollover(
    "rollover with unpublished frames",
    "    if (!publisher.idle || !reached(position, next)) return;\n",
    "    if (position === null && publisher.idle && next === null) return;\n",
  ),
  rollover("no barrier: the write lock is not taken", "!lock.beginImmediate(); tries++", "tries < 0; tries++"),
  rollover("the rest is not sealed under the barrier", '      if (!this.#seal(Infinity, "memory")) return;\n', ""),
  log("any log is the same log", "  return a.salt1 === b.salt1 && ", "  return a.pageSize === b.pageSize || "),
  pin(
    "overwritten frames are not noticed",
    "if (!guardHolds(live.wal, position)) return",
    "if (position === null) return",
  ),
  pin(
    "a log restarted twice is taken for one restarted once",
    "position !== null && header.salt1 !== (position.header.salt1 + 1) >>> 0",
    "position !== null && header.salt1 === position.header.salt1",
  ),
  log(
    "a transaction is cut",
    "      if (pageCount === 0) return;\n",
    "      if (pageCount === 0 && pending.size < pagesMax) return;\n",
  ),
  log(
    "a page is dropped",
    "  const pgnos = beyond < 0 ? sorted",
    "  const pgnos = beyond < 0 ? sorted.subarray(0, Math.max(1, sorted.length - (sorted.length > 9 ? 1 : 0)))",
  ),
  log("pages beyond the end are shipped", "pgno > commit.pageCount);", "pgno > commit.pageCount + 1e9);"),
  log(
    "growth without its pages is shipped",
    "    else if (pgno !== lockPage) return pgno;\n",
    "    else if (pgno === lockPage && at < -1) return pgno;\n",
  ),
  pin(
    "an image forgets the frames of a log that is not all copied",
    "const backfilled = after.log === limit && after.checkpointed >= limit;",
    "const backfilled = after.checkpointed >= limit;",
  ),
  pin(
    "a restart while an image is taken is not noticed",
    "if (again === null || !sameLog(header, again) || after.log < limit) return null;",
    "if (again === null) return null;",
  ),
  pin(
    "the file is trusted instead of the gauge",
    "  const before = live.gauge();\n  if (before.log < 0)",
    "  const inFile = Math.floor((live.wal.stat().size - 32) / (24 + live.pageSize));\n" +
      "  const before = { ...live.gauge(), log: Math.max(0, inFile) };\n  if (before.log < 0)",
  ),
  pin(
    "a wake-up trusts a log that was restarted",
    "header !== null && sameLog(position.header, header);",
    "header !== null;",
  ),
  pin(
    "a wake-up trusts its position although frames came",
    "position !== null && log !== position.state.frames",
    "position !== null && log < 0",
  ),
  engine(
    "a resume compares too few pages",
    "new Set([...changed, ...(doubt.pages ?? [])]);",
    "new Set([...changed].slice(1));",
  ),
  begin(
    "a replaced database is compared only where the WAL says",
    "const since = replaced || journal.position === null",
    "const since = journal.position === null",
  ),
  resume(
    "objects behind the journal are not taken into the index",
    "  for (const { hashes, head } of followers) index.apply(hashes, head.pageCount);\n",
    "",
  ),
  resume(
    "the index goes on counting on sealed objects that were overtaken",
    "    index.apply({ pgnos, hashes: new Uint8Array(pgnos.length * indexEntrySize) }, pageCount);\n",
    "",
  ),
  resume(
    "a seq is used again",
    "  for (let seq = journal.seq + 1n; seq <= head; seq++) {\n",
    "  for (let seq = journal.seq + 1n; seq < head; seq++) {\n",
  ),
  resume(
    "a state directory from another machine is believed",
    "  if (journal.machine !== options.machine) return",
    "  if (journal.machine === null) return",
  ),
  publisher(
    "no If-None-Match",
    "await this.#store.put(sealed.key, body, { ifAbsent: true });",
    "await this.#store.put(sealed.key, body);",
  ),
  publisher(
    "a spooled object is removed before it is confirmed",
    "      const { sealed } = this.#queue[0];\n",
    "      const { sealed } = this.#queue[0];\n      if (this.#queue[0].spooled && sealed.size < 1e6) Object.assign(sealed, { chunks: ((all) => () => all)([...sealed.chunks()].map((chunk) => chunk.slice())) }) && this.#spool.remove(sealed.seq);\n",
  ),
  observe(
    "a batch that was overwritten while it was read is sealed",
    "log.leadsTo(state, header, batch.begin);",
    "this.#log === log && header !== null && state !== null;",
  ),
  observe(
    "a log that was cut is taken for one that was read to its end",
    "if (over < frames && holdsFrameBefore(log.file, position))",
    "if (over < frames && holdsFrameBefore !== undefined)",
  ),
  observe(
    "after a restart the last transaction is not compared",
    "{ since, pages: this.#lastPages };",
    "{ since, pages: new Set<number>() };",
  ),
  observedCopy(
    "an image is believed whose log was restarted meanwhile",
    "(log !== null && !log.holds(header))) return null;",
    "(log !== null && header === undefined)) return null;",
  ),
  {
    name: "a read that comes up short is the end of a file",
    file: "src/replication/image.ts",
    find: "if (length === into.length || position + length >= size) return true;",
    replace: "if (length >= 0) return true;",
  },
  {
    name: "a log that cannot be read is taken for one that was cut",
    file: "src/replication/observed_log.ts",
    find: "if (!isShortRead(error) || this.countFrames() >= limit) throw error;",
    replace: "if (!isShortRead(error)) throw error;",
  },
  snapshotTask(
    "what came and went while only observed is not sealed before its snapshot",
    "if (this.#capture.pinned === null) await this.#sealUpTo(frozen);",
    "if (this.#capture.pinned === null && position !== null) await this.#sealUpTo(frozen);",
  ),
  observe(
    "a restarted log is believed to follow a commit that SQLite may not have accepted",
    "over <= (position.guard?.frame ?? frames) && guardHolds(log.file, position);",
    "over <= frames;",
  ),
  observedCopy(
    "a file that was written to a moment ago is believed as it was read",
    "!hasSettled && !await this.#isAsCopied(copy, { log, header, only })",
    "!hasSettled && copy === null",
  ),
  observedCopy(
    "an image is believed that a replaced commit was to be compared with",
    "if (passed && !this.#passes(log!, header!, since!)) return null;",
    "",
  ),
  observedCopy(
    "a database written to without a log is believed",
    "if (end === null && !sameStat(before, runtime.files.stat(path))) return null;",
    "",
  ),
  writerCheck(
    "a writer does not ask whether it still is the one",
    "    assertOwner(state, this.#root, this.#lineage);\n",
    "    void [state, assertOwner];\n",
  ),
  adopt(
    "the old journal vouches for an index that is being built",
    "  removeJournal(runtime.files, directory);\n",
    "",
  ),
  databaseFile(
    "an application's locks go with our descriptor",
    "    close: () => {},\n",
    "    close: () => file.close(),\n",
  ),
  sealed("a wrong end page count", "    yield { pgno: pageCount + 1,", "    yield { pgno: pageCount + 2,"),
  stream(
    "created_ms goes back with the clock",
    "Math.max(this.parts.runtime.clock.now(), this.sealed.createdMs)",
    "this.parts.runtime.clock.now()",
  ),
  index("entries beyond the end come back", "    this.truncate(pageCount);\n", ""),
  index(
    "hashes of pages are not keyed to their content",
    "this.#keyed.set(page, this.#keyed.length - page.length);",
    "this.#keyed.set(page.subarray(0, page.length - 16), this.#keyed.length - page.length);",
  ),
  snapshot("a snapshot may be complete before its bridge", "        await options.ready;\n", ""),
  snapshot("a snapshot that is not its bridge's is completed", "!== plan.rawHash) {", "=== 0n) {"),
  walk(
    "restore believes any predecessor",
    "      if (header.prevChecksum !== this.#chain) {",
    "      if (header.prevChecksum === this.#chain + 1n) {",
  ),
  objectReader(
    "restore believes a size that no page backs",
    "  if (absent > allowed) {",
    "  if (absent > allowed + 1e9) {",
  ),
  {
    name: "a short read becomes zeros",
    file: "src/replication/image.ts",
    find: "readTwice(file, into, position, (length) => length === into.length);",
    replace: "readTwice(file, into, position, (length) => length >= 0);",
  },
  {
    name: "the frame checksum leaves out the commit size",
    file: "src/format/wal.ts",
    find: "    sums.add(offset, offset + 8);\n",
    replace: "    sums.add(offset, offset);\n",
  },
  {
    name: "state.json is swapped without a condition",
    file: "src/replication/document_swap.ts",
    find: "etag === null ? { ifAbsent: true } : { ifMatch: etag }",
    replace: "etag === null ? {} : {}",
  },
  log(
    "a place in the log before is past the end of a shorter one",
    "  if (sameLog(position.header, log)) return position.state.frames >= end.frames;\n",
    "  if (log !== null && position.state.frames >= end.frames) return true;\n",
  ),
  spool(
    "what an earlier try left in the spool is taken for the object",
    "    const temporary = `${path}.tmp`;\n",
    "    const temporary = `${path}.tmp`;\n    if (this.#files.stat(path) !== null) return { ...sealed, chunks: () => this.#read(path) };\n",
  ),
  rollover(
    "a barrier that meets a doubt leaves its pin",
    "          this.#live.releasePin(pin);\n          return;\n",
    "          return;\n",
  ),
  engine(
    "a stop trusts the stat of an idle database",
    "!this.#wake(looks === 0)) break;",
    "!this.#wake()) break;",
  ),
  replicaFile("replica: a shrink journals nothing", "    this.#keep(journal, staged.pageCount + 1);\n", ""),
  replicaFile(
    "replica: the lock-byte page is journaled",
    "        if (pgno !== lockPage) journal.add(",
    "        journal.add(",
  ),
  replicaFile(
    "replica: nobody looks whether another wrote between two locks",
    "      this.#assertUnchanged();\n      this.#write",
    "      this.#write",
  ),
  replica("replica: the journal goes before the pages are on disk", "  file.sync();\n", ""),
  replicaFile(
    "replica: the journal's name is not forced before pages are written",
    "      files.rename(journal.path, hotPath);\n      files.syncDirectory(directory);\n",
    "      files.rename(journal.path, hotPath);\n",
  ),
  replicaFile(
    "replica: an update is told of before its journal is gone for good",
    "      files.remove(hotPath);\n      files.syncDirectory(directory);\n",
    "      files.remove(hotPath);\n",
  ),
  replica(
    "replica: readers are told of no change",
    "  const counter = (to.counter + 1) >>> 0;\n",
    "  const { counter } = to;\n",
  ),
  replicaFile(
    "replica: writers are not held off between two updates",
    "    this.#connection.rollback();\n    const heldMs = clock.monotonic() - beganMs;\n    this.#pin();\n",
    "    this.#connection.rollback();\n    const heldMs = clock.monotonic() - beganMs;\n",
  ),
  replicaJournal("replica: the journal is not forced before it counts", "      this.#file!.sync();\n", ""),
  staged(
    "replica: what a shrink cut off comes back with a growth",
    "    this.#baseCount = Math.min(this.#baseCount, this.pageCount);\n",
    "",
  ),
];
