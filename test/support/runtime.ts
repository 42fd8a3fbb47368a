/** The runtime that runs this test, and how to start another program under the same one. */
import process from "node:process";
import { fileURLToPath } from "node:url";

/** The runtime that runs this test. */
export const runtimeName: "node" | "bun" | "deno" = process.versions.deno !== undefined
  ? "deno"
  : process.versions.bun !== undefined
  ? "bun"
  : "node";

/** Words that run `script` (a path) under this runtime; its arguments follow them. */
export function runtimeCommand(script: string): string[] {
  return runtimeName === "deno" ? [process.execPath, "run", "-A", "--no-check", script] : [process.execPath, script];
}

/** The clone's top folder, absolute and without a slash at its end. */
export const projectDirectory: string = fileURLToPath(new URL("../..", import.meta.url)).replace(/\/$/, "");

/** Words that run this clone's `walrust` under this runtime. */
export function walrustCommand(): string[] {
  return runtimeCommand(`${projectDirectory}/cli.ts`);
}
