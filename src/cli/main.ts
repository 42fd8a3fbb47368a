/** Dispatch: words → command → exit code. Knows no runtime; `cli.ts` hands in the real one, tests another. */
import { ConfigError } from "../errors.ts";
import type { Files, Process, Runtime } from "../runtime/types.ts";
import { type SharedOptions, sharedOptionsOf } from "./args.ts";
import { commands, program } from "./commands.ts";
import type { Configuration } from "./config.ts";
import { openLog } from "./log.ts";
import { Output } from "./output.ts";
import { parseArguments, type Parsed } from "./parser.ts";
import { defaultFile } from "./settings.ts";

const signalExitCodes = { SIGINT: 130, SIGTERM: 143 } as const;

/** Runs the command line and returns the exit code. Nothing is thrown: errors are printed. */
export async function main(process: Process, runtime: Runtime): Promise<number> {
  const streams = {
    stdout: (text: string) => process.stdout.write(text),
    stderr: (text: string) => process.stderr.write(text),
  };
  // Errors of parsing must be JSON too, before it is known what was parsed.
  let output = new Output(streams, { json: process.args.includes("--json"), quiet: false });
  const stop = new AbortController();
  let interruptedBy: keyof typeof signalExitCodes | null = null;
  for (const name of ["SIGINT", "SIGTERM"] as const) {
    process.onSignal(name, () => {
      if (interruptedBy !== null) process.exit(signalExitCodes[name]);
      interruptedBy = name;
      stop.abort(new DOMException(`stopped by ${name}`, "AbortError"));
    });
  }
  try {
    const parsed: Parsed = parseArguments(program, process.args);
    if (parsed.kind === "text") {
      output.text(parsed.text);
      return parsed.error === null ? 0 : output.error(parsed.error);
    }
    const shared = sharedOptionsOf(parsed.options);
    output = new Output(streams, shared);
    const log = openLog({
      environment: (name) => process.environment(name),
      verbose: shared.verbose,
      quiet: shared.quiet,
      json: shared.json,
      write: streams.stderr,
    });
    const entry = commands.find((command) => command.name === parsed.name);
    if (entry === undefined) throw new ConfigError("usage", `unknown command ${parsed.name}`);
    const configuration = entry.withoutConfiguration === true ? null : await configurationOf(shared, process, runtime);
    const command = await entry.load();
    return await command.run({ runtime, process, output, log, signal: stop.signal, shared, configuration }, parsed);
  } catch (error) {
    if (interruptedBy !== null && stop.signal.aborted && isAbort(error)) {
      streams.stderr(`${interruptedBy}: stopped\n`);
      return signalExitCodes[interruptedBy];
    }
    return output.error(error);
  }
}

/** What reads TOML is loaded only where there is some. */
async function configurationOf(
  { config }: SharedOptions,
  process: Process,
  { files }: Runtime,
): Promise<Configuration | null> {
  if (config === false || (config === undefined && !isHere(files, defaultFile))) return null;
  const { readConfiguration } = await import("./config.ts");
  return readConfiguration({ file: config, files, environment: (name) => process.environment(name) });
}

function isHere(files: Files, name: string): boolean {
  try {
    return files.stat(name) !== null;
  } catch {
    // A working directory that this user may not enter, as after sudo.
    return false;
  }
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === "AbortError";
}
