/** How an engine begins: it resumes its lineage, adopts the bucket's where that is asked for, or begins a new one. */
import { adoptLineage } from "./adopt.ts";
import type { Capture, Doubt } from "./capture.ts";
import { takenOver } from "./engine_failure.ts";
import { startLineage } from "./lineage_start.ts";
import type { EngineParts } from "./options.ts";
import type { PageIndex } from "./page_index.ts";
import { type Head, type Resumed, resumeLineage } from "./resume.ts";
import { SnapshotTask } from "./snapshot_task.ts";
import { Spool } from "./spool.ts";
import { machineName } from "./state_directory.ts";
import { Stream, type StreamParts } from "./stream.ts";
import { momentOf } from "./writer_check.ts";

/** A stream of changesets that goes on from here. */
export interface BegunStream {
  readonly stream: Stream;
  readonly task: SnapshotTask;
  /** What is to be compared first; `null` in a new lineage. */
  readonly doubt: Doubt | null;
  readonly isNew: boolean;
}

/** What of a lineage is known that goes on. */
interface KnownLineage {
  readonly lineage: string;
  readonly index: PageIndex;
  readonly published: Head;
  readonly snapshot: { readonly seq: bigint; readonly createdMs: number };
}

type SharedParts = Omit<StreamParts, "lineage" | "index">;

/**
 * Begins. With `isContested` a new lineage is refused: our first object met another writer's, so it is not that nobody
 * was there. Throws `IntegrityError` (`fenced`) then.
 */
export async function beginStream(capture: Capture, parts: EngineParts, isContested: boolean): Promise<BegunStream> {
  const { path, root, directory, store, runtime, options, emit } = parts;
  const { files, sha256 } = runtime;
  const { pageSize } = capture;
  files.makeDirectory(directory);
  const spool = new Spool(files, `${directory}/spool`);
  const destination = `${store.location}/${root}`;
  const machine = machineName(runtime);
  const ownerSeen = momentOf(runtime.clock);
  const resumed = await resumeLineage({ store, root, destination, directory, files, sha256, spool, machine, pageSize });
  const shared: SharedParts = { path, root, destination, directory, machine, store, runtime, spool, emit, ownerSeen };
  if (!("reason" in resumed)) return resume(capture, shared, resumed, parts);
  const { reason } = resumed;
  const adopted = options.adopt ? await adoptLineage({ ...shared, runtime, pageSize }) : null;
  if (adopted !== null) {
    const { lineage, published: { seq }, bytes } = adopted;
    const begun = continueLineage(capture, shared, adopted, parts);
    emit({ kind: "adopted", path, lineage, seq, reason, bytes });
    return { ...begun, doubt: { reason: "adopted" }, isNew: false };
  }
  if (isContested) throw takenOver(root, reason);
  const { stream, plan, frozen, parentSeq } = await startLineage(capture, shared, runtime);
  const { lineage } = stream.parts;
  const task = new SnapshotTask({ capture, stream, runtime, emit });
  emit({ kind: "started", path, destination, lineage, seq: plan.seq });
  if (!resumed.expected || parentSeq > 0n) emit({ kind: "new_lineage", path, lineage, reason });
  task.beginFirst(plan, frozen);
  return { stream, task, doubt: null, isNew: true };
}

function resume(capture: Capture, shared: SharedParts, resumed: Resumed, parts: EngineParts): BegunStream {
  const { journal, index, published, overtaken, pages } = resumed;
  const snapshot = { seq: journal.snapshotSeq, createdMs: journal.snapshotMs };
  const known = { lineage: journal.lineage, index, published, snapshot };
  const { stream, task } = continueLineage(capture, shared, known, parts);
  const { device, inode } = capture.identity;
  const replaced = journal.device !== device || journal.inode !== inode;
  if (replaced) parts.emit({ kind: "database_replaced", path: parts.path });
  for (const sealed of resumed.spooled) stream.adopt(sealed);
  const since = replaced || journal.position === null
    ? undefined
    : { header: journal.position, state: journal.position };
  const late = overtaken === 0 ? "" : `; an upload that arrived late took the place of ${overtaken} sealed before`;
  return { stream, task, doubt: { reason: `resume${late}`, pages, since }, isNew: false };
}

function continueLineage(
  capture: Capture,
  shared: SharedParts,
  { lineage, index, published, snapshot }: KnownLineage,
  { path, runtime, emit }: EngineParts,
): Pick<BegunStream, "stream" | "task"> {
  const stream = new Stream({ ...shared, lineage, index }, published);
  stream.snapshotComplete(snapshot.seq, snapshot.createdMs);
  emit({ kind: "started", path, destination: shared.destination, lineage, seq: published.seq });
  return { stream, task: new SnapshotTask({ capture, stream, runtime, emit }) };
}
