/**
 * Builds the npm package into dist: JavaScript and declarations file by file (commands stay lazy), and the launcher.
 * With `--if-possible` nothing happens where the compiler is not installed (`npm ci --omit=dev`).
 */
import { spawnSync } from "node:child_process";
import { chmodSync, copyFileSync, existsSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";

const project = fileURLToPath(new URL("..", import.meta.url));
const dist = join(project, "dist");
const compiler = join(project, "node_modules", "typescript", "bin", "tsc");

if (!existsSync(compiler) && process.argv.includes("--if-possible")) {
  console.log("dist not built: typescript is not installed");
  process.exit(0);
}
for (const name of ["src", "mod.js", "mod.d.ts", "cli.js", "cli.d.ts", "walrust.js", "walrust.d.ts"]) {
  rmSync(join(dist, name), { recursive: true, force: true });
}
// The gate checks the types; here only code is wanted.
const { status } = spawnSync(
  process.execPath,
  [compiler, "-p", join(project, "scripts", "tsconfig.json"), "--noCheck"],
  {
    stdio: "inherit",
  },
);
if (status !== 0) process.exit(status ?? 1);
rmSync(join(dist, "cli.d.ts"), { force: true });
renameSync(join(dist, "cli.js"), join(dist, "walrust.js"));
copyFileSync(join(project, "scripts", "launcher.js"), join(dist, "cli.js"));
chmodSync(join(dist, "cli.js"), 0o755);

// In a clone `npx walrust` finds the program as if it were installed. Another build may be doing the same.
try {
  symlinkSync(join("..", "..", "dist", "cli.js"), join(project, "node_modules", ".bin", "walrust"));
} catch (error) {
  if ((error as { code?: string }).code !== "EEXIST") throw error;
}
