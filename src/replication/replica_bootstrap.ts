/** The first state of a replica: the newest point restored and checked, then given the form in which it is updated. */
import { hexOf } from "../format/bytes.ts";
import { parseSqliteHeader, setRollbackForm, sqliteHeaderSize } from "../format/sqlite_header.ts";
import type { Log } from "../runtime/types.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { installImage, io, type MovedAside, removeLeftovers, sidecarSuffixes, unsound } from "./apply.ts";
import { readWhole } from "./image.ts";
import type { ReplicaRuntime } from "./replica.ts";
import { type ReplicaPoint, type ReplicaState, writeReplicaState } from "./replica_state.ts";
import { restore, type RestoreProgress, type RestoreReport } from "./restore.ts";

/** Options of {@linkcode bootstrapReplica}. */
export interface BootstrapOptions {
  store: ObjectStore;
  root: string;
  /** Absolute. */
  localPath: string;
  /** As the state document names it. */
  source: string;
  runtime: ReplicaRuntime;
  /** Move what stands there aside. */
  force: boolean;
  parallel: number;
  signal?: AbortSignal;
  onProgress?: (progress: RestoreProgress) => void;
  log?: Log;
}

/** What {@linkcode bootstrapReplica} did. */
export interface Bootstrap {
  readonly state: ReplicaState;
  readonly report: RestoreReport;
  readonly moved: MovedAside;
}

/** Between a replica's name and that of the file in the making. */
const buildingSuffix = "-replica-bootstrap";

/** Removes what a bootstrap left behind when it was killed; only under the replica's lock. */
export function removeBootstrap({ files }: ReplicaRuntime, localPath: string): void {
  const path = localPath + buildingSuffix;
  for (const suffix of ["", ...sidecarSuffixes]) files.remove(path + suffix);
  removeLeftovers(files, path, Infinity);
}

/** Makes the replica at its newest point. A kill leaves no file, or the whole one with its state document. */
export async function bootstrapReplica(options: BootstrapOptions): Promise<Bootstrap> {
  const { store, root, localPath, source, runtime, force, parallel, signal, onProgress, log } = options;
  const { files } = runtime;
  const outputPath = localPath + buildingSuffix;
  removeBootstrap(runtime, localPath);
  try {
    const report = await restore({
      ...{ store, root, outputPath, runtime, parallel, signal, onProgress, log },
      target: { kind: "latest" },
      integrityCheck: "quick",
    });
    const point = giveRollbackForm(runtime, outputPath, report);
    const state: ReplicaState = { source, before: point, after: point };
    const write = (): void => writeReplicaState(files, localPath, state);
    return { state, report, moved: installImage(files, { path: outputPath }, localPath, force, runtime.random, write) };
  } finally {
    removeBootstrap(runtime, localPath);
  }
}

/** Rewrites page 1 and returns the point that the file is then at. */
function giveRollbackForm({ files, sha256 }: ReplicaRuntime, path: string, report: RestoreReport): ReplicaPoint {
  const { lineage, seq } = report;
  const [pageSize, pageCount] = [report.pageSize!, report.pageCount!];
  const file = io(() => files.open(path, "update"), path);
  try {
    const page = new Uint8Array(pageSize);
    readWhole(file, page, 0);
    const header = parseSqliteHeader(page);
    if (typeof header === "string") throw unsound(`its header is not that of a SQLite database (${header})`);
    const sourceHeader = hexOf(page.subarray(0, sqliteHeaderSize));
    const counter = (header.changeCounter + 1) >>> 0;
    setRollbackForm(page, counter, pageCount);
    io(() => {
      file.write(page, 0);
      file.sync();
    }, path);
    const hash = sha256();
    hash.update(page);
    const firstPageSha256 = hexOf(hash.digest());
    const [chain, createdMs] = [report.chain!, report.createdMs!];
    return { lineage, seq, chain, createdMs, pageSize, pageCount, counter, firstPageSha256, sourceHeader };
  } finally {
    file.close();
  }
}
