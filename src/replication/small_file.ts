/** Small files of our own: read whole, replaced whole; and files that others may take away. */
import type { Files, OpenFile } from "../runtime/types.ts";
import { readWhole } from "./image.ts";

/** Writes a small file so that a crash leaves the old one or the new one, whole. */
export function writeFileAtomically(files: Files, directory: string, name: string, bytes: Uint8Array): void {
  const temporary = `${directory}/${name}.tmp`;
  files.remove(temporary);
  const file = files.open(temporary, "exclusive");
  try {
    file.write(bytes, 0);
    file.sync();
  } finally {
    file.close();
  }
  files.rename(temporary, `${directory}/${name}`);
  files.syncDirectory(directory);
}

/** Whole content of a small file; `null` when it is absent or larger than `limit` bytes. Throws when it cannot be read. */
export function readSmallFile(files: Files, path: string, limit: number): Uint8Array | null {
  const file = openIfThere(files, path);
  if (file === null) return null;
  try {
    const size = file.stat().size;
    if (size > limit) return null;
    const bytes = new Uint8Array(size);
    readWhole(file, bytes, 0);
    return bytes;
  } finally {
    file.close();
  }
}

/** Opens a file for reading; `null` when nothing is there, or no file. Others may remove it at any moment. */
export function openIfThere(files: Files, path: string): OpenFile | null {
  if (files.stat(path)?.type !== "file") return null;
  try {
    return files.open(path, "read");
  } catch (error) {
    if ((error as { code?: unknown }).code === "ENOENT") return null;
    throw error;
  }
}
