/**
 * The adapter for Node, Bun and Deno: everything the core needs of the machine, by the `node:` built-ins
 * that all three have.
 *
 * ```ts ignore
 * import { systemRuntime } from "@walrust/walrust/system";
 * const runtime = systemRuntime();
 * console.log(runtime.clock.now(), runtime.sqlite?.version);
 * ```
 *
 * @module
 */
import { createHash, hash } from "node:crypto";
import { systemClock, systemRandom } from "./system_clock.ts";
import { systemFiles } from "./system_files.ts";
import { systemFetch } from "./system_http.ts";
import { systemSqlite } from "./system_sqlite.ts";
import type { NewSha256, Runtime, Sha256, Sqlite } from "./types.ts";

export type * from "./types.ts";

function beginSha256(): Sha256 {
  const running = createHash("sha256");
  return {
    update: (bytes) => void running.update(bytes),
    digest: () => new Uint8Array(running.digest()),
  };
}

const systemSha256: NewSha256 = Object.assign(beginSha256, {
  once: (bytes: Uint8Array) => new Uint8Array(hash("sha256", bytes, "buffer")),
});

/** What of the machine to use. */
export interface SystemRuntimeOptions {
  /** False: behave as where the runtime has no built-in SQLite. */
  sqlite?: boolean;
}

/** The machine we run on: Node, Bun or Deno. Nothing is loaded or opened before it is used. */
export function systemRuntime(options: SystemRuntimeOptions = {}): Runtime {
  return {
    clock: systemClock,
    random: systemRandom,
    files: systemFiles,
    sha256: systemSha256,
    get sqlite(): Sqlite | null {
      return options.sqlite === false ? null : systemSqlite();
    },
    fetch: systemFetch(),
  };
}
