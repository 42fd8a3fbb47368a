/** One file in memory, as much of a file system as a decoder of small files asks for. */
import type { Files, FileStat, OpenFile } from "../../src/runtime/types.ts";

/** Bytes that a file may come to have: what writes beyond was led there by a hostile number. */
const sizeMax = 1 << 16;

/** A file system with this file; `content` gives what it holds by now. */
export function fileOf(initial: Uint8Array): { files: Files; path: string; content(): Uint8Array } {
  const path = "/state/file";
  let content = initial;
  const stat = (): FileStat => ({
    size: content.length,
    mtimeNs: 0n,
    device: 1n,
    inode: 2n,
    mode: 0o600,
    uid: 0,
    type: "file",
  });
  const resize = (size: number): void => {
    if (size > sizeMax) return;
    const larger = content.slice(0, size);
    content = new Uint8Array(size);
    content.set(larger);
  };
  const file: OpenFile = {
    path,
    read(into, position) {
      const part = content.subarray(position, position + into.length);
      into.set(part);
      return part.length;
    },
    write(bytes, position) {
      if (position + bytes.length > sizeMax) return;
      if (position + bytes.length > content.length) resize(position + bytes.length);
      content.set(bytes, position);
    },
    truncate: resize,
    sync() {},
    stat,
    close() {},
  };
  const files: Files = {
    uid: 0,
    stat,
    open: () => file,
    rename() {},
    link() {},
    remove() {},
    makeDirectory() {},
    removeDirectory() {},
    list: () => [],
    syncDirectory() {},
    freeBytes: () => sizeMax,
    realPath: (name) => name,
  };
  return { files, path, content: () => content };
}
