/**
 * The one place that opens a live database's file itself. On POSIX closing any descriptor on it drops every lock that
 * this process has there, also those of connections that we know nothing of.
 */
import type { Files, OpenFile } from "../runtime/types.ts";

/** Descriptors that are never closed, by device, inode and mode. */
const kept = new Map<string, OpenFile>();

/** How a database file is opened. */
export interface DatabaseFileOptions {
  readonly mode: "read" | "update";
  /** True where other code of this process may have the database open: the descriptor then outlives its `close`. */
  readonly isShared: boolean;
}

/** Opens a database file; throws the system's error. */
export function openDatabaseFile(path: string, files: Files, { mode, isShared }: DatabaseFileOptions): OpenFile {
  if (!isShared) return files.open(path, mode);
  const stat = files.stat(path);
  const known = stat === null ? undefined : kept.get(keyOf(stat, mode));
  const file = known ?? files.open(path, mode);
  if (known === undefined) kept.set(keyOf(file.stat(), mode), file);
  return {
    path,
    read: (into, position) => file.read(into, position),
    write: (bytes, position) => file.write(bytes, position),
    truncate: (size) => file.truncate(size),
    sync: () => file.sync(),
    stat: () => file.stat(),
    close: () => {},
  };
}

function keyOf({ device, inode }: { device: bigint; inode: bigint }, mode: string): string {
  return `${device}:${inode}:${mode}`;
}
