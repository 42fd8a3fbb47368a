/** What a command receives from the entry point, and how it is found. */
import type { Log, Process, Runtime } from "../runtime/types.ts";
import type { SharedOptions } from "./args.ts";
import type { Configuration } from "./config.ts";
import type { Output } from "./output.ts";

/** Everything a command may touch. It never prints or exits by itself: it returns its exit code or throws. */
export interface CommandContext {
  readonly runtime: Runtime;
  readonly process: Process;
  readonly output: Output;
  readonly log: Log;
  /** Aborted by the first SIGINT or SIGTERM; the second one ends the process at once. */
  readonly signal: AbortSignal;
  readonly shared: SharedOptions;
  /** What walrust.toml says; `null` where there is none. */
  readonly configuration: Configuration | null;
}

/** A parsed call of a command. */
export interface CommandCall {
  /** One list per declared argument. */
  readonly positionals: string[][];
  readonly options: Record<string, unknown>;
  /** Names of the options that stand on the command line. */
  readonly given: ReadonlySet<string>;
}

/** What every `command_<verb>.ts` exports. */
export interface CommandModule {
  /** Does the work and returns the exit code; throws `WalrustError` when it cannot. */
  run(context: CommandContext, call: CommandCall): Promise<number>;
}
