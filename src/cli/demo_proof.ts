/** Proves that a restored database is an exact prefix of what the demo's writer committed. Trusts nothing of the restore. */
import { decodeHeader } from "../format/hadbp.ts";
import { parseKey } from "../format/keys.ts";
import { getBytes, type ObjectStore } from "../storage/object_store.ts";
import { openDatabase, type SqlDatabase } from "../runtime/system_database.ts";
import { type CommitTimes, rowPayload, rowsOfCommit, rowSum } from "./demo_writer.ts";

/** A changeset in the bucket. */
export interface PublishedPoint {
  readonly seq: bigint;
  readonly createdMs: number;
}

/** One thing that was looked at. */
export interface Finding {
  readonly isProven: boolean;
  readonly text: string;
}

/** What was proven of one restored file. */
export interface Proof {
  readonly commits: number;
  readonly findings: Finding[];
}

/** Every seq in the bucket with its time, ascending, read from the headers of the objects themselves. */
export async function publishedPoints(store: ObjectStore, root: string): Promise<PublishedPoint[]> {
  const points = new Map<bigint, number>();
  for await (const { key } of store.list(root)) {
    const parsed = parseKey(root, key);
    if (parsed === null || (parsed.kind !== "delta" && parsed.kind !== "snapshot")) continue;
    const { bytes } = await getBytes(store, key, 48, { range: { start: 0, end: 48 } });
    const { createdMs } = decodeHeader(bytes, key);
    points.set(parsed.seq, Math.min(createdMs, points.get(parsed.seq) ?? Infinity));
  }
  return [...points].map(([seq, createdMs]) => ({ seq, createdMs })).sort((a, b) => a.seq < b.seq ? -1 : 1);
}

/** A restored file, the point it claims to be and the time that was asked for; `null`: the newest point. */
export interface Restored {
  readonly path: string;
  readonly seq: bigint;
  readonly askedMs: number | null;
}

/** Compares the restored file with the writer's log, with the point it claims to be and with what was asked for. */
export function proveRestored(
  { path, seq, askedMs }: Restored,
  points: readonly PublishedPoint[],
  log: readonly CommitTimes[],
): Proof {
  const wanted = points.findLast(({ createdMs }) => askedMs === null || createdMs <= askedMs);
  const index = points.findIndex((point) => point.seq === seq);
  if (index < 0) return { commits: 0, findings: [{ isProven: false, text: `seq ${seq} is in the bucket` }] };
  const chosenMs = points[index].createdMs;
  // Everything acknowledged before the changeset before was sealed was there when this one was captured.
  const beforeMs = index === 0 ? -Infinity : points[index - 1].createdMs;
  const database = openDatabase(path);
  try {
    const content = readContent(database);
    const missing = log.filter((c) =>
      c.acknowledgedMs !== null && c.acknowledgedMs < beforeMs && c.commit > content.commits
    );
    const tooNew = log.filter((c) => c.beganMs > chosenMs && c.commit <= content.commits);
    const acknowledged = log.filter((c) => c.acknowledgedMs !== null && c.acknowledgedMs < beforeMs).length;
    const isKnown = content.commits <= log.length;
    return {
      commits: content.commits,
      findings: [
        {
          isProven: content.problem === null && isKnown && content.commits > 0,
          text: content.problem ?? `content is exactly commits 1…${content.commits} of the writer's ${log.length} ` +
              `(${content.rows} rows, every checksum right)`,
        },
        {
          isProven: missing.length === 0,
          text: `all ${acknowledged} commits acknowledged before the previous sync are there`,
        },
        { isProven: tooNew.length === 0, text: "no commit begun after this point is there" },
        {
          isProven: wanted?.seq === seq,
          text: `seq ${seq} is the newest in the bucket${askedMs === null ? "" : " at that time"}` +
            (wanted?.seq === seq ? "" : `: no, that is seq ${wanted?.seq ?? "none"}`),
        },
        { isProven: content.integrity === "ok", text: `PRAGMA integrity_check: ${content.integrity}` },
      ],
    };
  } finally {
    database.close();
  }
}

interface Content {
  readonly commits: number;
  readonly rows: number;
  /** `null` when the rows are exactly those of commits 1 to {@linkcode commits}. */
  readonly problem: string | null;
  readonly integrity: string;
}

function readContent(database: SqlDatabase): Content {
  const integrity = database.prepare("PRAGMA integrity_check").all()
    .map((row) => String(Object.values(row as object)[0])).join("; ");
  const [{ commits, rows }] = database.prepare("SELECT commits, rows FROM totals").all() as {
    commits: number;
    rows: number;
  }[];
  return { commits, rows, integrity, problem: rowProblem(database, commits, rows) };
}

function rowProblem(database: SqlDatabase, commits: number, rows: number): string | null {
  const found = database.prepare("SELECT id, commit_no, payload, sum FROM events ORDER BY id").all() as {
    id: number;
    commit_no: number;
    payload: string;
    sum: number;
  }[];
  if (found.length !== rows) return `${found.length} rows where the totals say ${rows}`;
  let next = 0;
  for (let commit = 1; commit <= commits; commit++) {
    for (let i = 0; i < rowsOfCommit(commit); i++, next++) {
      const row = found[next];
      const id = next + 1;
      if (row === undefined || row.id !== id || row.commit_no !== commit) {
        return `row ${id} of commit ${commit} is missing`;
      }
      if (row.payload !== rowPayload(id) || row.sum !== rowSum(id, commit, row.payload)) return `row ${id} is damaged`;
    }
  }
  return next === rows ? null : `${rows - next} rows beyond commit ${commits}`;
}
