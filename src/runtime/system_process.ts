/** The process on Node, Bun and Deno, by `node:process` and its like. */
import childProcess from "node:child_process";
import fs from "node:fs";
import os from "node:os";
import path from "node:path";
import process from "node:process";
import tty from "node:tty";
import { setFlagsFromString } from "node:v8";
import type { ChildProcess, Process, StopSignal, TextOutput } from "./types.ts";

function codeOf(error: unknown): string | undefined {
  return (error as { code?: string } | null)?.code;
}

const pause = new Int32Array(new SharedArrayBuffer(4));

/**
 * Writes to the descriptor itself, at once and whole: `process.stdout.write` is not finished when it returns on
 * every runtime, and what it still holds is lost by an exit.
 */
function output(descriptor: 1 | 2): TextOutput {
  let open = true;
  return {
    write(text) {
      const bytes = new TextEncoder().encode(text);
      for (let done = 0; open && done < bytes.length;) {
        try {
          done += fs.writeSync(descriptor, bytes, done, bytes.length - done);
        } catch (error) {
          // A full pipe that its other end made non-blocking: wait until somebody has read.
          if (codeOf(error) === "EAGAIN") Atomics.wait(pause, 0, 0, 5);
          else open = false; // EPIPE: `walrust list | head` is no error.
        }
      }
    },
    isTerminal: tty.isatty(descriptor),
    get columns(): number {
      const stream = descriptor === 1 ? process.stdout : process.stderr;
      return tty.isatty(descriptor) ? stream.columns || 80 : 80;
    },
  };
}

function runtimeName(): string {
  const { bun, deno, node } = process.versions;
  return deno !== undefined ? `Deno ${deno}` : bun !== undefined ? `Bun ${bun}` : `Node ${node}`;
}

function selfCommand(): string[] {
  const { bun, deno } = process.versions;
  const script = process.argv[1] ?? "";
  // A compiled executable starts itself; its script lies in a file system that only it sees.
  if (bun !== undefined) return script.startsWith("/$bunfs/") ? [process.execPath] : [process.execPath, script];
  if (deno === undefined) return [process.execPath, ...process.execArgv, script];
  const isCompiled = !path.basename(process.execPath).startsWith("deno");
  return isCompiled ? [process.execPath] : [process.execPath, "run", "-A", "--no-check", script];
}

const spawn: Process["spawn"] = (command, { onStdout } = {}): ChildProcess => {
  const [program, ...args] = command;
  if (program === undefined) throw new TypeError("spawn: no program");
  const child = childProcess.spawn(program, args, {
    stdio: ["ignore", onStdout === undefined ? "inherit" : "pipe", "inherit"],
  });
  if (onStdout !== undefined) child.stdout?.setEncoding("utf8").on("data", onStdout);
  const ended = new Promise<{ code: number | null; signal: string | null }>((resolve, reject) => {
    child.on("error", reject);
    child.on("close", (code, signal) => resolve({ code, signal }));
  });
  // Whoever awaits `ended` sees the failure; whoever does not must not be ended by it.
  ended.catch(() => {});
  const kill = (signal: StopSignal): void => {
    // Deno's `child.kill` sends one signal only, whatever comes later. An ended child's number may be another's.
    if (child.pid !== undefined && child.exitCode === null && child.signalCode === null) {
      signalProcess(child.pid, signal);
    }
  };
  return { pid: child.pid ?? -1, ended, kill };
};

function signalProcess(pid: number, signal: StopSignal): void {
  try {
    process.kill(pid, signal);
  } catch (error) {
    if (codeOf(error) !== "ESRCH") throw error;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return codeOf(error) === "EPERM";
  }
}

function readText(file: string): string | null {
  try {
    return fs.readFileSync(file, "utf8");
  } catch (error) {
    if (codeOf(error) === "ENOENT") return null;
    throw error;
  }
}

/**
 * Node doubles the room for young objects up to 16 MB and never gives it back: 8 to 15 MB resident for nothing, since
 * what is large here lies outside of it. Only for a process of our own.
 */
export function keepHeapSmall(): void {
  const { bun, deno } = process.versions;
  if (bun === undefined && deno === undefined) setFlagsFromString("--semi-space-growth-factor=1");
}

/** The process that we are. */
export function systemProcess(): Process {
  return {
    args: process.argv.slice(2),
    environment: (name) => process.env[name],
    stdout: output(1),
    stderr: output(2),
    runtime: runtimeName(),
    pid: process.pid,
    get parentPid(): number {
      return process.ppid;
    },
    platform: process.platform,
    get hostname(): string {
      return os.hostname();
    },
    get directory(): string {
      return process.cwd();
    },
    get homeDirectory(): string {
      return os.homedir();
    },
    get temporaryDirectory(): string {
      return os.tmpdir();
    },
    readText,
    selfCommand: selfCommand(),
    spawn,
    isAlive,
    onSignal(signal, handle) {
      process.on(signal, handle);
      return () => void process.off(signal, handle);
    },
    exit: (code) => process.exit(code),
  };
}
