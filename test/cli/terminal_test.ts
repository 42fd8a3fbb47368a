/** What a person at a terminal sees: `walrust restore` behind a real pseudo-terminal, which Python opens for us. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import test from "node:test";
import { need } from "../support/need.ts";
import { walrustCommand } from "../support/runtime.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { vectorsDirectory } from "../support/vectors.ts";

const script = "import pty, sys, os; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))";

test("restore: progress rewrites its line on a terminal and leaves plain lines elsewhere", {
  timeout: 60_000,
  skip: need("python3"),
}, () => {
  const folder = temporaryDirectory("terminal");
  const bucket = `file://${vectorsDirectory}/owned-lineage/bucket/backups`;
  const restore = (name: string): string[] => {
    return [...walrustCommand(), "restore", "app", "-o", join(folder, name), "-b", bucket];
  };
  const onTerminal = spawnSync("python3", ["-c", script, ...restore("terminal.db")], { encoding: "utf8" });
  assert.equal(onTerminal.status, 0, onTerminal.stdout + onTerminal.stderr);
  assert.match(onTerminal.stdout, /\r\[[#.]{24}\] \d+% .* of /);
  assert.ok(onTerminal.stdout.includes("\u001b[K"), "a shorter line leaves nothing of a longer one");
  const [program, ...args] = restore("pipe.db");
  const inPipe = spawnSync(program, args, { encoding: "utf8" });
  assert.equal(inPipe.status, 0, inPipe.stderr);
  for (const control of ["\r", "\u001b"]) assert.ok(!(inPipe.stdout + inPipe.stderr).includes(control));
});
