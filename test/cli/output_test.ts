import assert from "node:assert/strict";
import test from "node:test";
import {
  formatBytes,
  formatDuration,
  formatLocalTime,
  formatTime,
  Output,
  renderJson,
  table,
} from "../../src/cli/output.ts";
import { checksumHex } from "../../src/format/hadbp.ts";
import { ConfigError, RestoreError, StorageError } from "../../src/errors.ts";

function capture(options: { json: boolean; quiet: boolean }): { output: Output; out: () => string; err: () => string } {
  let out = "";
  let err = "";
  const output = new Output({ stdout: (part) => out += part, stderr: (part) => err += part }, options);
  return { output, out: () => out, err: () => err };
}

test("Output: lines for people, JSON for machines, nothing but errors with --quiet", () => {
  const people = capture({ json: false, quiet: false });
  const machine = capture({ json: true, quiet: false });
  const quiet = capture({ json: false, quiet: true });
  for (const { output } of [people, machine, quiet]) {
    output.line("hello");
    output.json({ hello: 1n });
  }
  assert.equal(people.out(), "hello\n");
  assert.equal(machine.out(), '{"hello":"1"}\n');
  assert.equal(quiet.out(), "");
  assert.equal(quiet.output.error(new ConfigError("x", "bad")), 2);
  assert.equal(quiet.err(), "error: bad\n");
});

test("Output.error: message and hint on stderr, exit code of the kind", () => {
  const { output, out, err } = capture({ json: false, quiet: false });
  assert.equal(output.error(new RestoreError("no_snapshot", "nothing here", { hint: "look there" })), 6);
  assert.equal(output.error(new Error("boom")), 1);
  assert.equal(output.error("text"), 1);
  assert.equal(err(), "error: nothing here\nhint: look there\nerror: boom\nerror: text\n");
  assert.equal(out(), "");
});

test("Output.error: with --json one object with code, kind, exit code and data", () => {
  const { output, err } = capture({ json: true, quiet: false });
  const error = new StorageError("AccessDenied", "no", { status: 403, requestId: "r", key: "k", data: { seq: 7n } });
  assert.equal(output.error(error), 4);
  assert.deepEqual(JSON.parse(err()), {
    error: {
      code: "AccessDenied",
      kind: "storage",
      exitCode: 4,
      message: "no",
      data: { seq: "7" },
      status: 403,
      requestId: "r",
      key: "k",
    },
  });
});

test("Output.error: control characters from the bucket do not reach the terminal [S74]", () => {
  for (const json of [false, true]) {
    const { output, err } = capture({ json, quiet: false });
    output.error(new StorageError("X", "key \u001b[2Jevil\u009b\r"));
    // deno-lint-ignore no-control-regex
    assert.doesNotMatch(err(), /[\u0000-\u0009\u000b-\u001f\u007f-\u009f]/);
  }
  // deno-lint-ignore no-control-regex
  assert.doesNotMatch(table([["a\u001b[31m", "b"]]).join(""), /\u001b/);
});

test("renderJson: bigints keep their digits", () => {
  assert.equal(renderJson({ seq: 18446744073709551615n }), '{"seq":"18446744073709551615"}');
});

test("formatBytes, formatDuration, checksumHex, times", () => {
  const sizes: [number, string][] = [[0, "0 B"], [1023, "1023 B"], [1024, "1 KB"], [16384, "16 KB"], [1536, "1.5 KB"], [
    1024 * 1024 - 1,
    "1 MB",
  ], [3 * 1024 ** 3, "3 GB"]];
  for (const [bytes, expected] of sizes) assert.equal(formatBytes(bytes), expected);
  const durations: [number, string][] = [
    [0, "0 ms"],
    [999, "999 ms"],
    [2400, "2.4 s"],
    [59_960, "1 min 0 s"],
    [
      200_000,
      "3 min 20 s",
    ],
    [7_500_000, "2 h 5 min"],
    [172_700_000, "47 h 58 min"],
    [5_200_000_000, "60 d 4 h"],
  ];
  for (const [ms, expected] of durations) assert.equal(formatDuration(ms), expected);
  assert.equal(checksumHex(255n), "00000000000000ff");
  assert.match(formatLocalTime(0), /^(1970-01-01|1969-12-31) \d\d:\d\d:00$/);
  assert.equal(formatTime(0), "1970-01-01T00:00:00.000Z");
  assert.equal(formatTime(1e300), "1e+300 ms");
});

test("table: columns line up", () => {
  assert.deepEqual(table([["a", "bb", "c"], ["aaa", "b", "cc"]]), ["a    bb  c", "aaa  b   cc"]);
});
