import assert from "node:assert/strict";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import test from "node:test";
import fc from "fast-check";
import { commands, program } from "../../src/cli/commands.ts";
import type { GivenSettings } from "../../src/cli/config.ts";
import type { CommandCall } from "../../src/cli/context.ts";
import { parseArguments } from "../../src/cli/parser.ts";
import { originText, resolveSettings } from "../../src/cli/resolved.ts";
import {
  fileSettings,
  flagOf,
  inUnit,
  retainSettings,
  retentionSettings,
  s3Settings,
  type Setting,
  syncSettings,
  textOf,
  watchSettings,
} from "../../src/cli/settings.ts";
import { systemFiles } from "../../src/runtime/system_files.ts";
import { addressSettings } from "../../src/storage/open.ts";
import { checkProperty } from "../support/property.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";

/** A word that is not the default, for each setting that a flag has. */
const words: Record<string, string> = {
  bucket: "s3://abc",
  endpoint: "http://127.0.0.1:9",
  walSyncInterval: "0.25",
  snapshotInterval: "0",
  onStartup: "false",
  checkpointInterval: "7",
  minCheckpointPages: "8",
  walTruncateThreshold: "9",
  validationInterval: "3600",
  compactInterval: "86400",
  validationBudget: "5MiB",
  spoolMaxSize: "2MiB",
  minFreeSpace: "1KiB",
  stateDir: "/s",
  mode: "observe",
};
const flagged = [...s3Settings, ...watchSettings].filter(({ flags }) => flags?.includes("<") === true);

function call(line: string[]): ReturnType<typeof parseArguments> & { kind: "command" } {
  const parsed = parseArguments(program, line);
  assert.ok(parsed.kind === "command");
  return parsed;
}

test("settings: names and keys are told apart, and each flag reaches its name with the value of its parser", () => {
  const all = [...fileSettings, ...watchSettings];
  assert.equal(new Set(all.map(({ name }) => name)).size, new Set(all).size);
  assert.equal(new Set(fileSettings.map(({ table, key }) => `${table}.${key}`)).size, fileSettings.length);
  assert.deepEqual(flagged.map(({ name }) => name).sort(), Object.keys(words).sort());
  for (const setting of flagged) {
    const long = /--[\w-]+/.exec(setting.flags!)![0];
    const { options, given } = call(["watch", "a.db", long, words[setting.name]]);
    assert.deepEqual([...given], [setting.name]);
    assert.deepEqual(options[setting.name], setting.parse(words[setting.name], long));
    assert.notDeepEqual(options[setting.name], setting.fallback, "the word is another than the default");
    assert.deepEqual(call(["watch", "a.db"]).options[setting.name], setting.fallback);
  }
});

test("settings: a flag without a value is true where it is given, and retention has flags of its own beside a watch", () => {
  const plain = call(["watch", "a.db"]);
  const { options, given, positionals } = call(["watch", "--compact-after-snapshot", "a.db", "--retain-daily", "3"]);
  assert.deepEqual(positionals, [["a.db"]]);
  assert.deepEqual([plain.options.compactAfterSnapshot, options.compactAfterSnapshot], [false, true]);
  const file = new Map([["daily", { value: 5, place: "walrust.toml:1:1" }]]);
  const daily = (its: CommandCall): unknown => resolveSettings(retainSettings, its, file).get("retainDaily")!.value;
  assert.deepEqual([daily(plain), daily({ options, given, positionals })], [5, 3]);
});

test("settings: the help shows every flag of the table with its default, as it would be given", () => {
  const parsed = parseArguments(program, ["help", "watch"]);
  assert.ok(parsed.kind === "text");
  const help = parsed.text.replace(/\s+/g, " ");
  for (const setting of watchSettings) {
    assert.ok(help.includes(flagOf(setting).flags), setting.name);
    if (setting.fallback === undefined) continue;
    const shown = inUnit(setting, setting.fallback);
    assert.ok(
      help.includes(`${setting.description} (default: ${setting.name === "mode" ? `"${shown}"` : shown})`),
      help,
    );
    assert.deepEqual(setting.parse(String(shown), "x"), setting.fallback, "what is shown can be given");
  }
});

test("settings: explain has the arguments and options of watch, so that the same words fit both", () => {
  const [watch, explain] = ["watch", "explain"].map((name) => commands.find((command) => command.name === name)!);
  assert.deepEqual(explain.arguments, watch.arguments);
  assert.deepEqual(explain.options, watch.options);
});

test("settings: values for people", () => {
  const text = (name: string, value: unknown): string => {
    const setting = [...watchSettings, ...retentionSettings].find((candidate) => candidate.name === name)!;
    return textOf(setting, value);
  };
  assert.equal(text("walSyncInterval", 250), "0.25 s");
  assert.equal(text("snapshotInterval", 0), "0 (none)");
  assert.equal(text("minCheckpointPages", 1), "1 page");
  assert.equal(text("hourly", 24), "24 snapshots");
  assert.equal(text("spoolMaxSize", 1536), "1536B");
  assert.equal(text("spoolMaxSize", 3 * 1024 ** 2), "3MiB");
  assert.equal(text("stateDir", undefined), "beside each database");
  assert.equal(text("onStartup", false), "false");
});

/** Which of the settings a place speaks of. */
const chosen = fc.subarray([...syncSettings], { minLength: 0 });

function given(settings: readonly Setting[], value: string): GivenSettings {
  return new Map(settings.map(({ name }) => [name, { value: `${value} ${name}`, place: `walrust.toml:1:${name}` }]));
}

test("resolveSettings: flag beats database beats [sync] beats default, with its origin [S82]", () => {
  checkProperty(
    fc.property(chosen, chosen, chosen, (flags, ofDatabase, ofSync) => {
      const line = flags.flatMap(({ flags: its, name }) => [/--[\w-]+/.exec(its!)![0], words[name]]);
      const resolved = resolveSettings(
        syncSettings,
        call(["watch", ...line]),
        given(ofDatabase, "database"),
        given(ofSync, "sync"),
      );
      for (const setting of syncSettings) {
        const { value, origin } = resolved.get(setting.name)!;
        const { name } = setting;
        if (flags.includes(setting)) {
          assert.deepEqual([value, origin.kind], [setting.parse(words[name], "x"), "flag"]);
          assert.ok(setting.flags!.startsWith(`${origin.name} `));
        } else if (ofDatabase.includes(setting)) {
          assert.deepEqual([value, origin], [`database ${name}`, { kind: "file", name: `walrust.toml:1:${name}` }]);
        } else if (ofSync.includes(setting)) assert.deepEqual([value, origin.kind], [`sync ${name}`, "file"]);
        else assert.deepEqual([value, origin], [setting.fallback, { kind: "default", name: null }]);
      }
    }),
    300,
  );
});

test("resolveSettings: a flag that repeats the default still beats the file [S82]", () => {
  const file = given(syncSettings, "file");
  const resolved = resolveSettings(syncSettings, call(["watch", "--wal-sync-interval", "1"]), file);
  assert.deepEqual(resolved.get("walSyncInterval"), {
    value: 1000,
    origin: { kind: "flag", name: "--wal-sync-interval" },
  });
  assert.equal(resolved.get("snapshotInterval")!.origin.kind, "file");
});

const place = fc.constantFrom("http://option", "http://s3.eu-west-3.example", "https://fly.storage.tigris.dev");

test("addressSettings: option, environment, configuration, profile, what the endpoint implies, default [S82]", () => {
  const profiles = join(temporaryDirectory("settings"), "config");
  writeFileSync(profiles, "[default]\nregion = r-4\nendpoint_url = http://profile\n");
  const maybe = <T>(value: fc.Arbitrary<T>): fc.Arbitrary<T | undefined> =>
    fc.option(value, { nil: undefined, freq: 2 });
  const sources = fc.record({
    profile: fc.boolean(),
    option: maybe(place),
    specific: maybe(place),
    general: maybe(fc.constantFrom("http://general", "")),
    configured: maybe(place),
    region: maybe(fc.constantFrom("r-1", "")),
    defaultRegion: maybe(fc.constant("r-2")),
    configuredRegion: maybe(fc.constant("r-3")),
  });
  const seen = new Set<string>();
  checkProperty(
    fc.property(sources, (from) => {
      const { endpoint, region } = addressSettings({
        endpoint: from.option,
        configured: { endpoint: from.configured, region: from.configuredRegion },
        environment: {
          AWS_ENDPOINT_URL_S3: from.specific,
          AWS_ENDPOINT_URL: from.general,
          AWS_REGION: from.region,
          AWS_DEFAULT_REGION: from.defaultRegion,
          AWS_CONFIG_FILE: from.profile ? profiles : "",
        },
        homeDirectory: "/nowhere",
        runtime: { files: systemFiles },
      });
      assert.equal(
        endpoint?.value,
        from.option || from.specific || from.general || from.configured ||
          (from.profile ? "http://profile" : undefined),
      );
      const implied = /tigris/.test(endpoint?.value ?? "")
        ? "auto"
        : /eu-west-3/.test(endpoint?.value ?? "")
        ? "eu-west-3"
        : "";
      const asked = from.region || from.defaultRegion || from.configuredRegion || (from.profile ? "r-4" : "");
      assert.equal(region.value, implied === "auto" ? "auto" : asked || implied || "us-east-1");
      seen.add(`endpoint ${endpoint?.source}`).add(`region ${region.source}`);
      if (endpoint?.source === "environment") {
        assert.equal(endpoint.variable, from.specific ? "AWS_ENDPOINT_URL_S3" : "AWS_ENDPOINT_URL");
      }
    }),
    1000,
  );
  assert.equal(seen.size, 10, [...seen].join(", "));
});

test("originText: what decided a value, in words", () => {
  assert.equal(originText({ kind: "flag", name: "--mode" }), "--mode");
  assert.equal(originText({ kind: "environment", name: "AWS_REGION" }), "AWS_REGION");
  assert.equal(originText({ kind: "file", name: "walrust.toml:3:1" }), "walrust.toml:3:1");
  assert.equal(originText({ kind: "profile", name: "default" }), "AWS profile default");
  assert.equal(originText({ kind: "endpoint", name: null }), "implied by the endpoint");
});

test("settings: canary, a wrong order is noticed", () => {
  const swapped = resolveSettings(
    syncSettings,
    call(["watch"]),
    given(syncSettings, "sync"),
    given(syncSettings, "database"),
  );
  assert.notEqual(swapped.get("onStartup")!.value, "database onStartup");
});
