/** Where the state of a database is kept, and which machine it belongs to. */
import type { Runtime } from "../runtime/types.ts";
import { readSmallFile } from "./journal.ts";

/** `.walrust-<file name>/` beside the database, or below the directory given. */
export function stateDirectoryOf(path: string, stateDirectory: string | null): string {
  const slash = path.lastIndexOf("/");
  const name = `.walrust-${path.slice(slash + 1)}`;
  return stateDirectory === null ? `${path.slice(0, slash)}/${name}` : `${stateDirectory}/${name}`;
}

/** The machine's name for itself where it has one, else empty: a state directory copied to another host is noticed. */
export function machineName(runtime: Pick<Runtime, "files">): string {
  const bytes = readSmallFile(runtime.files, "/etc/machine-id", 256);
  return bytes === null ? "" : new TextDecoder().decode(bytes).trim();
}
