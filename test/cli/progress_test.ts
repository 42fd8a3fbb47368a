import assert from "node:assert/strict";
import test from "node:test";
import { progressText, TransferProgress } from "../../src/cli/progress.ts";
import type { Clock } from "../../src/runtime/types.ts";

test("progressText: percent, bytes, rate and time left", () => {
  assert.equal(progressText(0, 10_485_760, 0), "0% 0 B of 10 MB");
  assert.equal(progressText(1_048_576, 10_485_760, 1000), "10% 1 MB of 10 MB, 1 MB/s, 9.0 s left");
  assert.equal(progressText(10, 10, 1000), "100% 10 B of 10 B, 10 B/s, 0 ms left");
  assert.equal(progressText(0, 0, 5), "100% 0 B of 0 B");
});

test("TransferProgress: rewrites its line on a terminal, plain lines elsewhere, not too often", () => {
  let now = 0;
  const clock: Clock = { now: () => now, monotonic: () => now, sleep: () => Promise.resolve() };
  const written = { terminal: "", pipe: "" };
  const terminal = new TransferProgress({ clock, write: (text) => written.terminal += text, isTerminal: true });
  const pipe = new TransferProgress({ clock, write: (text) => written.pipe += text, isTerminal: false });
  for (; now <= 10_000; now += 10) {
    terminal.update(now, 10_000);
    pipe.update(now, 10_000);
  }
  terminal.clear();
  pipe.clear();
  assert.equal(written.terminal.split("\r").length - 1, 102, "101 updates and the clearing");
  assert.ok(written.terminal.endsWith("\r\u001b[K"));
  assert.equal(written.pipe.split("\n").length - 1, 2);
  assert.ok(!written.pipe.includes("\r") && !written.pipe.includes("\u001b"));
});
