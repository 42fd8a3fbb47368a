/** Which processes are in the middle of reading a database, as far as the kernel tells: `/proc/locks` of Linux. */
import { printable } from "../format/bytes.ts";
import type { Files, Process } from "../runtime/types.ts";

/** The bytes of `-shm` that SQLite locks for its read marks (wal.c: `WALINDEX_LOCK_OFFSET` + 3 … + 7). */
const [marksFirst, marksLast] = [123, 127];

/** `1: POSIX  ADVISORY  READ  4711 fd:01:262210 124 124` */
const lockLine = /^\d+: (?:->\s)?POSIX\s+\S+\s+\S+\s+(\d+)\s+\S+:(\d+)\s+(\d+)\s+(\d+|EOF)$/;

/** Other processes that hold a read mark, as `name (pid 4711)`; empty where the kernel says nothing. */
export function readersOf(
  process: Pick<Process, "readText" | "pid">,
  files: Pick<Files, "stat" | "realPath">,
  path: string,
): string[] {
  const shm = files.stat(path) === null ? null : files.stat(`${files.realPath(path)}-shm`);
  const locks = readProc(process, "/proc/locks");
  if (shm === null || locks === null) return [];
  const pids = new Set<number>();
  for (const line of locks.split("\n")) {
    const [, pid, inode, first, last] = lockLine.exec(line) ?? [];
    const overlaps = Number(first) <= marksLast && (last === "EOF" || Number(last) >= marksFirst);
    if (inode === String(shm.inode) && overlaps && Number(pid) !== process.pid) pids.add(Number(pid));
  }
  return [...pids].map((pid) => {
    const name = readProc(process, `/proc/${pid}/comm`)?.trim();
    return name ? `${printable(name)} (pid ${pid})` : `pid ${pid}`;
  });
}

/** Null also where reading fails: who just ended (ESRCH), or what a sandbox hides, is no reason to end a watch. */
function readProc(process: Pick<Process, "readText">, path: string): string | null {
  try {
    return process.readText(path);
  } catch {
    return null;
  }
}
