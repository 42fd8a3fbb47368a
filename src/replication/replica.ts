/** What every replica has in common, whichever way its file is updated (replica_file.ts, replica_copy.ts). */
import { assert, DatabaseError } from "../errors.ts";
import { hexOf } from "../format/bytes.ts";
import { parseSqliteHeader, setRollbackForm, sqliteHeaderSize } from "../format/sqlite_header.ts";
import type { Files, NewSha256, OpenFile, Runtime } from "../runtime/types.ts";
import { assertHeader } from "./apply.ts";
import { readWhole } from "./image.ts";
import type { ReplicaJournal } from "./replica_journal.ts";
import type { ReplicaPoint, ReplicaState } from "./replica_state.ts";
import { type StageBase, StagedPages } from "./staged_pages.ts";

/** What a replica needs of the machine. */
export type ReplicaRuntime = Pick<Runtime, "files" | "sha256" | "sqlite" | "random" | "clock">;

/** What a replica is opened with. */
export interface ReplicaOptions {
  runtime: ReplicaRuntime;
  /** Absolute path of the database. */
  localPath: string;
  /** True where other code of this process may have the replica open. */
  isShared: boolean;
}

/** An open replica. Call {@linkcode Replica.close} when done. */
export interface Replica extends StageBase {
  /** The point it is at. */
  readonly point: ReplicaPoint;
  /** Sees to it that the file is ours; throws `DatabaseError` (`replica_changed`) when others wrote to it. */
  hold(): void;
  /** Begins to stage an update. */
  stage(): StagedPages;
  /** Prepares what is staged, without holding up anybody; its last changeset belongs to `lineage`. */
  prepare(staged: StagedPages, lineage: string | null): PreparedUpdate;
  /**
   * Makes a prepared update happen. Returns how long readers were kept out, milliseconds, or null when they did not let
   * go: nothing has changed then, and it may be tried again.
   */
  commit(update: PreparedUpdate): number | null;
  /** Lets go of the file; nothing happens the second time. */
  close(): void;
}

/** An update that is ready to happen. */
export interface PreparedUpdate {
  /** Where it leads. */
  readonly to: ReplicaPoint;
  /** Pages it writes. */
  readonly pages: number;
  /** What takes it back when it is cut short; null where nothing needs to be. */
  readonly journal: ReplicaJournal | null;
  readonly staged: StagedPages;
  /** Page 1 as it will be. */
  readonly firstPage: Uint8Array;
}

/** Bytes read, compared and written at once. */
export const runSize: number = 1024 * 1024;

/** Begins to stage an update of the replica at `path`. */
export function stageOn(base: StageBase, { files, sha256 }: ReplicaRuntime, path: string): StagedPages {
  return new StagedPages({ files, sha256, path: `${path}-replica-staged`, base });
}

/** Where what is staged leads to, with page 1 as the source has it; its own header is still that of before. */
export function targetOf(
  staged: StagedPages,
  old: ReplicaPoint,
  base: StageBase,
  lineage: string | null,
): { to: ReplicaPoint; firstPage: Uint8Array } {
  const { last, pageSize, pageCount } = staged;
  assert(last !== null, "an update has at least one changeset");
  staged.fillCutPages(old.pageCount * old.pageSize);
  const firstPage = new Uint8Array(pageSize);
  if (staged.pgnos.has(1)) staged.read(1, firstPage);
  else base.readAsSource(1, firstPage);
  staged.pgnos.delete(1);
  assertHeader(firstPage, pageSize, pageCount);
  const { header, chain } = last;
  const to = { ...old, lineage, seq: header.seq, chain, createdMs: header.createdMs, pageSize, pageCount };
  return { to, firstPage };
}

/** Gives page 1 the form of a replica with the next counter; returns the point that it then stands for. */
export function withOwnHeader(to: ReplicaPoint, firstPage: Uint8Array, sha256: NewSha256): ReplicaPoint {
  const sourceHeader = hexOf(firstPage.subarray(0, sqliteHeaderSize));
  const counter = (to.counter + 1) >>> 0;
  setRollbackForm(firstPage, counter, to.pageCount);
  return { ...to, counter, sourceHeader, firstPageSha256: digestOf(firstPage, sha256) };
}

/** How many pages an update writes, the first included. */
export function pagesOf({ pgnos, pageCount }: StagedPages): number {
  let pages = 1;
  for (const { count } of pgnos.runs(pageCount)) pages += count;
  return pages;
}

/** Writes page 1, the staged pages and the size, and forces them to the disk. */
export function writeUpdate(file: OpenFile, { staged, to, firstPage }: PreparedUpdate, run: Uint8Array): void {
  const { pageSize, pageCount } = to;
  file.write(firstPage, 0);
  for (const { first, count } of staged.pgnos.runs(runSize / pageSize)) {
    const pages = run.subarray(0, count * pageSize);
    staged.read(first, pages);
    file.write(pages, (first - 1) * pageSize);
  }
  if (file.stat().size !== pageCount * pageSize) file.truncate(pageCount * pageSize);
  file.sync();
}

/** The one of a document's points that the file is at; throws `DatabaseError` (`replica_changed`) when it is neither. */
export function pointOfFile(
  file: OpenFile,
  path: string,
  state: ReplicaState,
  machine: { files: Files; sha256: NewSha256 },
): ReplicaPoint {
  const point = [state.after, state.before].find((candidate) => differenceOf(file, path, candidate, machine) === null);
  if (point !== undefined) return point;
  throw changed(path, differenceOf(file, path, state.after, machine)!);
}

/** Says in what the file at `path` is not the one of `point`; null when it is. */
export function differenceOf(
  file: OpenFile,
  path: string,
  point: ReplicaPoint,
  { files, sha256 }: { files: Files; sha256: NewSha256 },
): string | null {
  const stat = file.stat();
  const named = files.stat(path);
  if (named === null || named.inode !== stat.inode || named.device !== stat.device) {
    return "another file has its name";
  }
  const size = point.pageCount * point.pageSize;
  if (stat.size !== size) return `it has ${stat.size} bytes, expected ${size}`;
  const page = new Uint8Array(point.pageSize);
  readWhole(file, page, 0);
  const header = parseSqliteHeader(page);
  if (typeof header === "string") return "it is no SQLite database";
  if (header.changeCounter !== point.counter) {
    return `its change counter is ${header.changeCounter}, expected ${point.counter}`;
  }
  return digestOf(page, sha256) === point.firstPageSha256 ? null : "its first page is another one";
}

/** Somebody else wrote to the replica. */
export function changed(localPath: string, reason: string): DatabaseError {
  return new DatabaseError("replica_changed", `${localPath} is not as walrust left it: ${reason}`, {
    hint: "somebody wrote to it; --rebootstrap makes it anew and keeps what is there now aside",
    data: { path: localPath, reason },
  });
}

function digestOf(bytes: Uint8Array, sha256: NewSha256): string {
  const hash = sha256();
  hash.update(bytes);
  return hexOf(hash.digest());
}
