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
import { systemClock, systemRandom } from "./system_clock.ts";
import { systemFiles } from "./system_files.ts";
import { systemFetch } from "./system_http.ts";
import { systemSha256 } from "./system_sha256.ts";
import { systemSqlite } from "./system_sqlite.ts";
import type { Runtime, Sqlite } from "./types.ts";

export type * from "./types.ts";

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
