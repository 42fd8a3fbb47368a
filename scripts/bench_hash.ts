/** Prints this runtime's own SHA-256 rates in MB/s, for the benchmarks to compare with. */
import { createHash, hash } from "node:crypto";

function rate(size: number, work: (bytes: Uint8Array) => void): number {
  const bytes = new Uint8Array(size).fill(7);
  const until = performance.now() + 700;
  const begun = performance.now();
  let done = 0;
  while (performance.now() < until) {
    for (let i = 0; i < Math.max(1, (1 << 20) / size); i++) {
      work(bytes);
      done += size;
    }
  }
  return done / 1e3 / (performance.now() - begun);
}

const running = createHash("sha256");
const stream = rate(1 << 20, (bytes) => running.update(bytes));
const pages = rate(4096, (bytes) => hash("sha256", bytes, "buffer"));
const perPage = rate(4096, (bytes) => createHash("sha256").update(bytes).digest());
console.log(JSON.stringify({ stream, pages, perPage }));
