/** SHA-256 of the runtime's own `node:crypto`. */
import { createHash, hash } from "node:crypto";
import process from "node:process";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import type { NewSha256, Sha256 } from "./types.ts";

/**
 * Deno frees the native state of a hash, some 200 bytes, only in a full garbage collection, which objects this small
 * never bring about: hashing 3 GB in pages of 4096 bytes left 130 MB behind. So every so many hashes it is told to.
 */
const hashesPerCollection = 32_768;

let hashes = 0;
let collector: (() => void) | null = null;

function count(): void {
  hashes += 1;
  // In a turn of its own: it takes some 10 ms, and whoever hashes may hold a lock; but not for ever.
  if (hashes === hashesPerCollection) setImmediate(collect);
  else if (hashes === 4 * hashesPerCollection) collect();
}

function collect(): void {
  hashes = 0;
  collector ??= exposedCollector();
  collector();
}

function exposedCollector(): () => void {
  setFlagsFromString("--expose-gc");
  return runInNewContext("gc");
}

const counted: () => void = process.versions.deno === undefined ? () => {} : count;

function begin(): Sha256 {
  counted();
  const running = createHash("sha256");
  return {
    update: (bytes) => void running.update(bytes),
    digest: () => new Uint8Array(running.digest()),
  };
}

function once(bytes: Uint8Array): Uint8Array {
  counted();
  return new Uint8Array(hash("sha256", bytes, "buffer"));
}

/** Begins hashes. */
export const systemSha256: NewSha256 = Object.assign(begin, { once });
