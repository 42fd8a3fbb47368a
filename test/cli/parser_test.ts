import assert from "node:assert/strict";
import test from "node:test";
import { ConfigError } from "../../src/errors.ts";
import { sharedOptionsOf } from "../../src/cli/args.ts";
import { commands, program } from "../../src/cli/commands.ts";
import { parseArguments, type Parsed } from "../../src/cli/parser.ts";

function parse(line: string): Parsed {
  return parseArguments(program, line === "" ? [] : line.split(" "));
}

function parseCommand(line: string): Parsed & { kind: "command" } {
  const parsed = parse(line);
  assert.equal(parsed.kind, "command", line);
  return parsed as Parsed & { kind: "command" };
}

test("parseArguments: shared options count before and after the command", () => {
  for (const line of ["--json -b s3://bucket list", "list -b s3://bucket --json", "-b s3://bucket list --json"]) {
    const { name, options } = parseCommand(line);
    assert.equal(name, "list");
    const shared = sharedOptionsOf(options);
    assert.deepEqual([shared.bucket, shared.json, shared.quiet, shared.color], ["s3://bucket", true, false, true]);
  }
});

test("parseArguments: watch takes several databases and the documented defaults", () => {
  const { positionals, options } = parseCommand("watch a.db dir/b.db -b bucket");
  assert.deepEqual(positionals, [["a.db", "dir/b.db"]]);
  assert.equal(options.walSyncInterval, 1000);
  assert.equal(options.snapshotInterval, 3_600_000);
  assert.equal(options.onStartup, true);
  assert.equal(options.checkpointInterval, 60_000);
  assert.equal(options.minCheckpointPages, 1000);
  assert.equal(options.walTruncateThreshold, 121_359);
});

test("parseArguments: every watch flag reaches its option", () => {
  const { options } = parseCommand(
    "watch a.db -b bucket --wal-sync-interval 0.25 --snapshot-interval 0 --on-startup false --checkpoint-interval 5 " +
      "--min-checkpoint-pages 7 --wal-truncate-threshold 8 --state-dir /s --wait",
  );
  assert.equal(options.walSyncInterval, 250);
  assert.equal(options.snapshotInterval, 0);
  assert.equal(options.onStartup, false);
  assert.equal(options.checkpointInterval, 5000);
  assert.equal(options.minCheckpointPages, 7);
  assert.equal(options.walTruncateThreshold, 8);
  assert.equal(options.stateDir, "/s");
  assert.equal(options.wait, true);
});

test("parseArguments: restore flags", () => {
  const { positionals, options } = parseCommand(
    "restore app -o out.db -b bucket --seq 18446744073709551615 --dry-run --force --integrity-check full --parallel 8",
  );
  assert.deepEqual(positionals, [["app"]]);
  assert.equal(options.output, "out.db");
  assert.equal(options.seq, 18446744073709551615n);
  assert.equal(options.dryRun, true);
  assert.equal(options.force, true);
  assert.equal(options.integrityCheck, "full");
  assert.equal(options.parallel, 8);
});

test("parseArguments: --version, --help and nothing at all give texts, the last with an error", () => {
  assert.deepEqual(parse("--version"), { kind: "text", text: "0.1.0\n", error: null });
  for (const line of ["", "--help", "-h", "help", "-b x --help", "-b x help", "help --json"]) {
    const parsed = parse(line);
    assert.ok(parsed.kind === "text");
    if (line !== "") assert.equal(parsed.error, null, line);
    else assert.deepEqual([parsed.error?.message, parsed.error?.exitCode], ["no command was given", 2]);
    for (const word of ["watch", "snapshot", "restore", "list", "demo", "--bucket", "Exit codes:", "AWS_PROFILE"]) {
      assert.ok(parsed.text.includes(word), `${line}: ${word}`);
    }
    assert.ok(!parsed.text.includes("demo-writer"), "hidden commands stay hidden");
  }
});

test("parseArguments: the help of every command names its options, the shared ones and an example", () => {
  for (const command of commands.filter((entry) => entry.hidden !== true)) {
    for (const line of [`${command.name} --help`, `help ${command.name}`]) {
      const parsed = parse(line);
      assert.ok(parsed.kind === "text" && parsed.error === null, line);
      assert.ok(parsed.text.includes(`Usage: walrust ${command.name}`), line);
      for (const { flags, hidden = false } of [...command.options, ...program.shared]) {
        assert.equal(parsed.text.includes(flags), !hidden, `${line}: ${flags}`);
      }
      if (command.epilogue !== undefined) assert.ok(parsed.text.includes(command.epilogue), line);
    }
  }
});

test("parseArguments: what makes no sense is a ConfigError with a hint", () => {
  const cases: [line: string, message: RegExp, hint: RegExp][] = [
    ["wach app.db", /unknown command 'wach'/, /watch/],
    ["-b x", /^no command was given$/, /walrust --help/],
    ["--json", /^no command was given$/, /walrust --help/],
    ["--quiet -v --endpoint http://x", /^no command was given$/, /walrust --help/],
    ["help nope", /^unknown command 'nope'$/, /walrust --help/],
    ["-b x help restor", /^unknown command 'restor'$/, /Did you mean restore\?/],
    ["list --jsn", /unknown option '--jsn'/, /--json.*walrust list --help/],
    ["restore", /missing required argument 'name'/, /walrust restore --help/],
    ["snapshot", /missing required argument 'database'/, /walrust snapshot --help/],
    ["restore app extra", /too many arguments/, /walrust restore --help/],
    ["list -b", /argument missing/, /walrust list --help/],
    ["watch a.db --wal-sync-interval x", /--wal-sync-interval: "x"/, /seconds/],
    ["restore app --integrity-check deep", /--integrity-check: "deep"/, /none, quick, full/],
    ["restore app --seq 0", /--seq: "0"/, /sequence number/],
    ["restore app --parallel 0", /--parallel: "0"/, /whole number/],
    ["list --endpoint ftp://x", /--endpoint/, /https?:\/\//],
  ];
  for (const [line, message, hint] of cases) {
    assert.throws(() => parse(line), (error) => {
      assert.ok(error instanceof ConfigError, line);
      assert.equal(error.exitCode, 2, line);
      assert.match(error.message, message, line);
      assert.match(error.hint ?? "", hint, line);
      return true;
    });
  }
});

test("parseArguments: canary, a good line does not throw", () => {
  assert.throws(() => assert.throws(() => parse("list -b bucket")));
});

test("commands: every command module loads and exports run", async () => {
  for (const command of commands) assert.equal(typeof (await command.load()).run, "function", command.name);
});
