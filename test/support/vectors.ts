/** The golden buckets, and SHA-256 for tests of the format layer. */
import { createHash } from "node:crypto";
import { readdirSync, readFileSync } from "node:fs";
import type { NewSha256 } from "../../src/runtime/types.ts";
import { projectDirectory } from "./runtime.ts";

export const vectorsDirectory: string = `${projectDirectory}/test/fixtures/vectors`;

/** The runtime's own SHA-256. */
export const sha256: NewSha256 = () => {
  const hash = createHash("sha256");
  return {
    update: (bytes) => void hash.update(bytes),
    digest: () => new Uint8Array(hash.digest()),
  };
};

/** An object of a golden bucket. */
export interface VectorObject {
  vector: string;
  /** As stored: begins with `backups/app/`. */
  key: string;
  bytes: Uint8Array<ArrayBuffer>;
}

/** Every object of the golden buckets in our own format, by key. */
export function vectorObjects(): VectorObject[] {
  const objects: VectorObject[] = [];
  for (const vector of readdirSync(vectorsDirectory).filter((name) => name.startsWith("owned-")).sort()) {
    const bucket = `${vectorsDirectory}/${vector}/bucket`;
    const walk = (path: string): void => {
      for (const entry of readdirSync(`${bucket}/${path}`, { withFileTypes: true })) {
        const key = path === "" ? entry.name : `${path}/${entry.name}`;
        if (entry.isDirectory()) walk(key);
        else objects.push({ vector, key, bytes: new Uint8Array(readFileSync(`${bucket}/${key}`)) });
      }
    };
    walk("");
  }
  return objects.sort((a, b) => (a.vector + a.key < b.vector + b.key ? -1 : 1));
}
