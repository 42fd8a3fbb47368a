/** A copy of what a clone holds, to build and pack in: tests that run at the same time must not share `dist`. */
import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, symlinkSync } from "node:fs";
import { createHash } from "node:crypto";
import { join } from "node:path";
import process from "node:process";
import { projectDirectory } from "../support/runtime.ts";
import { vectorsDirectory } from "../support/vectors.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";

const parts = ["src", "scripts", "mod.ts", "cli.ts", "package.json", "package-lock.json", "deno.json", "README.md"];

/** Makes the copy; the installed packages are shared. */
export function copyClone(): string {
  const clone = join(temporaryDirectory("clone"), "walrust");
  mkdirSync(clone);
  for (const part of [...parts, "LICENSE"]) {
    cpSync(join(projectDirectory, part), join(clone, part), { recursive: true });
  }
  symlinkSync(join(projectDirectory, "node_modules"), join(clone, "node_modules"));
  return clone;
}

/** What a command did. */
export interface Outcome {
  readonly code: number | null;
  readonly output: string;
}

/** Runs a command with the clone's programs first in the path, as npm does. */
export function run(words: readonly string[], directory: string, environment: Record<string, string> = {}): Outcome {
  const [command = "", ...args] = words;
  const path = `${join(projectDirectory, "node_modules", ".bin")}:${process.env.PATH}`;
  const { status, stdout, stderr, error } = spawnSync(command, args, {
    cwd: directory,
    encoding: "utf8",
    maxBuffer: 1 << 28,
    env: { ...process.env, PATH: path, NO_COLOR: "1", NODE_OPTIONS: "", ...environment },
  });
  return { code: status, output: `${stdout}${stderr}${error?.message ?? ""}` };
}

/** A golden bucket, and what restoring its newest state must give. */
export const golden: { bucket: string; sha256: string } = {
  bucket: `file://${vectorsDirectory}/owned-lineage/bucket/backups`,
  sha256: /^latest\tok\t(\w+)$/m.exec(
    readFileSync(`${vectorsDirectory}/owned-lineage/expected.tsv`, "utf8"),
  )?.[1] ?? "none",
};

/** SHA-256 of a file, in hex. */
export function fileSha256(path: string): string {
  return createHash("sha256").update(readFileSync(path)).digest("hex");
}
