/** The command line inside the test's own process: quick, for commands that open no database. */
import { main } from "../../src/cli/main.ts";
import { systemProcess } from "../../src/runtime/system_process.ts";
import { systemRuntime } from "../../src/runtime/system.ts";
import type { Process } from "../../src/runtime/types.ts";

/** What a command said, and how it ended. */
export interface Said {
  readonly code: number;
  readonly stdout: string;
  readonly stderr: string;
}

/** Runs `walrust words` in the test's working directory; `environment` is all there is of one. */
export async function walrustInProcess(words: string[], environment: Record<string, string> = {}): Promise<Said> {
  const said = { stdout: "", stderr: "" };
  const stream = (name: "stdout" | "stderr"): Process["stdout"] => ({
    write: (text) => void (said[name] += text),
    isTerminal: false,
    columns: 80,
  });
  const process: Process = {
    ...systemProcess(),
    args: words,
    environment: (name) => environment[name],
    homeDirectory: environment.HOME ?? "/nowhere",
    stdout: stream("stdout"),
    stderr: stream("stderr"),
    onSignal: () => () => {},
  };
  const code = await main(process, systemRuntime());
  return { code, ...said };
}
