/** Parts of paths. */
import type { Files } from "../runtime/types.ts";

/** Directory part of a path, `.` when it has none. */
export function directoryOf(path: string): string {
  const slash = path.lastIndexOf("/");
  return slash < 0 ? "." : slash === 0 ? "/" : path.slice(0, slash);
}

/** The path as every working directory and every reader of names understands it. */
export function absolutePath(files: Pick<Files, "realPath">, path: string): string {
  const directory = files.realPath(directoryOf(path));
  return `${directory === "/" ? "" : directory}/${nameOf(path)}`;
}

/** The last part of a path. */
export function nameOf(path: string): string {
  return path.slice(path.lastIndexOf("/") + 1);
}
