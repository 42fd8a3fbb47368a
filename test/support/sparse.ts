/** Databases of gigabytes that are nearly all zeros: on disk as holes, in a bucket as nothing. */
import { Buffer } from "node:buffer";
import { closeSync, ftruncateSync, openSync, readSync, writeSync } from "node:fs";
import type { Files } from "../../src/runtime/types.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import type { ObjectStore } from "../../src/storage/object_store.ts";
import { wrapStore } from "../../src/storage/wrap.ts";

const blockSize = 4096;
const zeros = Buffer.alloc(1024 * 1024);

function isZero(bytes: Uint8Array): boolean {
  return bytes.length <= zeros.length && zeros.compare(bytes, 0, bytes.length, 0, bytes.length) === 0;
}

/** Makes a database that nobody has open `pageCount` pages long; the new ones are unused, and holes. */
export function extendDatabase(path: string, pageCount: number, pageSize: number): void {
  const file = openSync(path, "r+");
  try {
    const header = Buffer.alloc(100);
    readSync(file, header, 0, header.length, 0);
    header.writeUInt32BE(pageCount, 28);
    // The count is valid only while these two agree.
    header.copy(header, 92, 24, 28);
    writeSync(file, header, 0, header.length, 0);
    ftruncateSync(file, pageCount * pageSize);
  } finally {
    closeSync(file);
  }
}

/** The same files, in which zeros that are written behind the end become holes, and nothing is forced to the disk. */
export function sparseFiles(files: Files): Files {
  return {
    ...files,
    open: (path, mode) => {
      const file = files.open(path, mode);
      const write = file.write.bind(file);
      let size = file.stat().size;
      file.write = (bytes, position) => {
        for (let at = 0; at < bytes.length; at += zeros.length) {
          const part = bytes.subarray(at, at + zeros.length);
          if (position + at < size || !isZero(part)) write(part, position + at);
          else file.truncate(position + at + part.length);
          size = Math.max(size, position + at + part.length);
        }
      };
      file.sync = () => {};
      return file;
    },
  };
}

/** A store in memory whose streamed objects take no room for zeros. */
export function sparseStore(small: MemoryStore = new MemoryStore()): ObjectStore {
  const large = new Map<string, { size: number; blocks: Map<number, Uint8Array> }>();
  const infoOf = <T extends { key: string; size: number }>(info: T): T => ({
    ...info,
    size: large.get(info.key)?.size ?? info.size,
  });
  return wrapStore(small, {
    async putStream(key, chunks, options) {
      const object = { size: 0, blocks: new Map<number, Uint8Array>() };
      for await (const chunk of chunks) {
        for (let at = 0; at < chunk.length; at += blockSize) {
          const block = chunk.subarray(at, at + blockSize);
          if (!isZero(block)) object.blocks.set(object.size + at, block.slice());
        }
        object.size += chunk.length;
      }
      large.set(key, object);
      return await small.put(key, new Uint8Array(0), options);
    },
    async get(key, options = {}) {
      const object = large.get(key);
      if (object === undefined) return await small.get(key, options);
      const { start, end } = options.range ?? { start: 0, end: object.size };
      return { size: object.size, etag: "", body: read(object.blocks, start, Math.min(end, object.size)) };
    },
    async head(key, options) {
      const info = await small.head(key, options);
      return info === null ? null : infoOf(info);
    },
    async *list(prefix, options) {
      for await (const info of small.list(prefix, options)) yield infoOf(info);
    },
  });
}

/** Chunks are stored at offsets of their own, so a block may begin anywhere. */
async function* read(blocks: ReadonlyMap<number, Uint8Array>, start: number, end: number): AsyncGenerator<Uint8Array> {
  const offsets = [...blocks.keys()].sort((a, b) => a - b);
  const buffer = new Uint8Array(Math.min(zeros.length, end - start));
  let next = 0;
  for (let at = start; at < end; at += zeros.length) {
    const chunk = buffer.subarray(0, end - at).fill(0);
    while (next < offsets.length && offsets[next] + blockSize <= at) next++;
    for (let i = next; i < offsets.length && offsets[i] < at + chunk.length; i++) {
      const block = blocks.get(offsets[i])!;
      const from = Math.max(0, at - offsets[i]);
      const until = Math.min(block.length, at + chunk.length - offsets[i]);
      if (from < until) chunk.set(block.subarray(from, until), offsets[i] + from - at);
    }
    yield chunk;
  }
}
