/** The adapter for workers on the edge: web standards only. There are no files and no SQLite there. */
import { sha256 } from "@noble/hashes/sha2.js";
import { standardFetch } from "./standard_http.ts";
import { systemClock, systemRandom } from "./system_clock.ts";
import type { Runtime } from "./types.ts";

/** What an edge worker has of a {@linkcode Runtime}. */
export function edgeRuntime(): Pick<Runtime, "clock" | "random" | "sha256" | "fetch"> {
  return {
    clock: systemClock,
    random: systemRandom,
    sha256: () => {
      const hash = sha256.create();
      return { update: (bytes) => void hash.update(bytes), digest: () => hash.digest() };
    },
    fetch: standardFetch,
  };
}
