import assert from "node:assert/strict";
import test from "node:test";
import { levelOf, openLog } from "../../src/cli/log.ts";
import { ConfigError } from "../../src/errors.ts";

function logged(
  environment: Record<string, string>,
  flags: { verbose?: boolean; quiet?: boolean; json?: boolean } = {},
) {
  let text = "";
  const log = openLog({
    environment: (name) => environment[name],
    verbose: flags.verbose ?? false,
    quiet: flags.quiet ?? false,
    json: flags.json ?? false,
    write: (part) => text += part,
  });
  for (const level of ["trace", "debug", "info", "warning", "error"] as const) log(level, `a ${level}`, { seq: 7n });
  return text;
}

function levels(text: string): string[] {
  return text.trimEnd().split("\n").map((line) => line.split(" ")[1]).filter((word) => word !== undefined);
}

test("openLog: warnings and errors by default, levels of WALRUST_LOG and RUST_LOG, flags last", () => {
  assert.deepEqual(levels(logged({})), ["warning", "error"]);
  assert.deepEqual(levels(logged({ WALRUST_LOG: "walrust=debug" })), ["debug", "info", "warning", "error"]);
  assert.deepEqual(levels(logged({ RUST_LOG: "info" })), ["info", "warning", "error"]);
  assert.deepEqual(levels(logged({ RUST_LOG: "trace", WALRUST_LOG: "error" })), ["error"]);
  assert.deepEqual(levels(logged({ RUST_LOG: "hyper=trace" })), ["warning", "error"]);
  assert.deepEqual(levels(logged({}, { verbose: true })), ["debug", "info", "warning", "error"]);
  assert.deepEqual(levels(logged({ WALRUST_LOG: "trace" }, { quiet: true })), ["error"]);
  assert.equal(logged({ WALRUST_LOG: "off" }), "");
});

test("openLog: a line has time, level, message and facts; JSON with --json", () => {
  assert.match(logged({}), /^\d{4}-\d\d-\d\dT[\d:.]+Z warning a warning seq=7\n/);
  const [first] = logged({}, { json: true }).split("\n");
  const { time, ...rest } = JSON.parse(first);
  assert.match(time, /Z$/);
  assert.deepEqual(rest, { level: "warning", message: "a warning", seq: "7" });
});

test("openLog: braces in a message stay as they are, control characters do not", () => {
  let text = "";
  const log = openLog({
    environment: () => undefined,
    verbose: false,
    quiet: false,
    json: false,
    write: (t) => text += t,
  });
  log("error", "file {name} \u001b[31m", { path: "{x}" });
  assert.ok(text.includes("file {name} "), text);
  assert.ok(!text.includes("\u001b"), text);
});

test("levelOf: a word that is no level is refused for WALRUST_LOG, ignored for RUST_LOG", () => {
  assert.throws(() => levelOf("loud", "WALRUST_LOG"), ConfigError);
  assert.throws(() => levelOf("constructor", "WALRUST_LOG"), ConfigError);
  assert.equal(levelOf("loud", "RUST_LOG"), undefined);
  assert.equal(levelOf("info,walrust=trace", "WALRUST_LOG"), "trace");
});
