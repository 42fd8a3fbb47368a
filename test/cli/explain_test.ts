import assert from "node:assert/strict";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import process from "node:process";
import test from "node:test";
import { exitCodes } from "../../src/errors.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { type Said, walrustInProcess } from "./in_process.ts";

const folder = temporaryDirectory("explain");
process.chdir(folder);
mkdirSync("data");
mkdirSync("sidecars");
for (const name of ["a.db", "b.db", "a.db-wal", "b.db-shm", "special.db"]) writeFileSync(`data/${name}`, "");
writeFileSync("sidecars/x.db-wal", "");

const canaries = {
  AWS_SECRET_ACCESS_KEY: "canary-Secret/1",
  AWS_SESSION_TOKEN: "canary-Token/2",
  AWS_ACCESS_KEY_ID: "canary-Id-3",
};

function explain(text: string | null, words: string[] = [], environment: Record<string, string> = {}): Promise<Said> {
  writeFileSync("test.toml", text ?? "");
  return walrustInProcess(
    ["explain", ...(text === null ? ["--no-config"] : ["--config", "test.toml"]), ...words],
    environment,
  );
}

interface Fact {
  key: string;
  value: unknown;
  unit?: string;
  origin: { kind: string; name: string | null } | null;
}

interface Explained {
  configuration: string | null;
  storage: Fact[];
  settings: Fact[];
  retention: { settings: Fact[]; snapshotsMax: number };
  databases: {
    path: string;
    destination: string | null;
    origin: { kind: string; name: string };
    settings: Fact[];
    monthlyCost: { puts: number; snapshots: number; storageUsd: number } | null;
  }[];
}

async function explained(...args: Parameters<typeof explain>): Promise<Explained> {
  const [text, words = [], environment] = args;
  const { code, stdout, stderr } = await explain(text, [...words, "--json"], environment);
  assert.deepEqual([code, stderr], [0, ""], stderr);
  return JSON.parse(stdout);
}

/** Value, unit and what decided it, of the setting with this key. */
function fact(facts: Fact[], key: string): unknown[] {
  const { value, unit, origin } = facts.find((candidate) => candidate.key === key)!;
  return [value, ...(unit === undefined ? [] : [unit]), origin === null ? null : origin.name ?? origin.kind];
}

const whole = `[s3]
bucket = "s3://my-bucket/\${STAGE}"
endpoint = "https://s3.example.com"
region = "eu-central-1"

[sync]
snapshot_interval = 7200
wal_sync_interval = 0.5

[retention]
daily = 30

[[databases]]
path = "data/*.db"

[[databases]]
path = "data/special.db"
prefix = "tenants/special"
wal_sync_interval = 5
`;
const stage = { STAGE: "prod" };

test("explain: every value with what decided it, databases with their destinations [S82]", async () => {
  const { configuration, storage, settings, retention, databases } = await explained(whole, [], stage);
  assert.equal(configuration, "test.toml");
  assert.deepEqual(fact(storage, "bucket"), ["s3://my-bucket/prod", "test.toml:2:10"]);
  assert.deepEqual(fact(storage, "endpoint"), ["https://s3.example.com", "test.toml:3:12"]);
  assert.deepEqual(fact(storage, "region"), ["eu-central-1", "test.toml:4:10"]);
  assert.deepEqual(fact(storage, "credentials"), ["none", null]);
  assert.deepEqual(fact(settings, "snapshot_interval"), [7200, "seconds", "test.toml:7:21"]);
  assert.deepEqual(fact(settings, "wal_sync_interval"), [0.5, "seconds", "test.toml:8:21"]);
  assert.deepEqual(fact(settings, "checkpoint_interval"), [60, "seconds", "default"]);
  assert.deepEqual(fact(settings, "min_checkpoint_page_count"), [1000, "pages", "default"]);
  assert.deepEqual(fact(settings, "spool_max_size"), [1024 ** 3, "bytes", "default"]);
  assert.deepEqual(fact(settings, "state_dir"), [null, "default"]);
  assert.deepEqual(fact(retention.settings, "daily"), [30, "snapshots", "test.toml:11:9"]);
  assert.equal(retention.snapshotsMax, 24 + 30 + 12 + 12);
  assert.deepEqual(databases.map(({ path, destination, origin }) => [path, destination, origin.name]), [
    ["data/a.db", "s3://my-bucket/prod/a/", "test.toml:14:8"],
    ["data/b.db", "s3://my-bucket/prod/b/", "test.toml:14:8"],
    ["data/special.db", "s3://my-bucket/prod/tenants/special/", "test.toml:17:8"],
  ]);
  assert.deepEqual(fact(databases[0].settings, "wal_sync_interval"), [0.5, "seconds", "test.toml:8:21"]);
  assert.deepEqual(fact(databases[2].settings, "wal_sync_interval"), [5, "seconds", "test.toml:19:21"]);
  assert.deepEqual(fact(databases[2].settings, "snapshot_interval"), [7200, "seconds", "test.toml:7:21"]);
});

test("explain: flag beats environment beats file [S82]", async () => {
  const words = ["-b", "s3://flag-bucket", "--wal-sync-interval", "2", "--state-dir", "state", "--mode", "pin"];
  const environment = { ...stage, AWS_ENDPOINT_URL_S3: "http://127.0.0.1:9000", AWS_REGION: "us-west-2" };
  const { storage, settings, databases } = await explained(whole, words, environment);
  assert.deepEqual(fact(storage, "bucket"), ["s3://flag-bucket", "--bucket"]);
  assert.deepEqual(fact(storage, "endpoint"), ["http://127.0.0.1:9000", "AWS_ENDPOINT_URL_S3"]);
  assert.deepEqual(fact(storage, "region"), ["us-west-2", "AWS_REGION"]);
  assert.deepEqual(fact(settings, "wal_sync_interval"), [2, "seconds", "--wal-sync-interval"]);
  assert.deepEqual(fact(settings, "state_dir"), ["state", "--state-dir"]);
  assert.deepEqual(fact(settings, "mode"), ["pin", "--mode"]);
  for (const database of databases) {
    assert.deepEqual(
      fact(database.settings, "wal_sync_interval"),
      [2, "seconds", "--wal-sync-interval"],
      database.path,
    );
  }
  const flagged = await explained(whole, ["--endpoint", "http://127.0.0.1:1"], environment);
  assert.deepEqual(fact(flagged.storage, "endpoint"), ["http://127.0.0.1:1", "--endpoint"]);
});

test("explain: databases of the command line, also those that the file names", async () => {
  const { databases } = await explained(whole, [`${folder}/data/special.db`, "data/a.db", "absent.db"], stage);
  assert.deepEqual(databases.map(({ destination, origin }) => [destination, origin.kind]), [
    ["s3://my-bucket/prod/tenants/special/", "file"],
    ["s3://my-bucket/prod/a/", "file"],
    ["s3://my-bucket/prod/absent/", "argument"],
  ]);
  assert.deepEqual(fact(databases[0].settings, "wal_sync_interval"), [5, "seconds", "test.toml:19:21"]);
});

test("explain: without a file, without a bucket, without databases", async () => {
  const nothing = await explained(null);
  assert.equal(nothing.configuration, null);
  assert.deepEqual(nothing.storage, [{ key: "bucket", value: null, origin: null }]);
  assert.equal(nothing.retention.snapshotsMax, 55);
  assert.deepEqual(nothing.databases, []);
  const aws = await explained(null, ["-b", "abc", "x/app.db"]);
  assert.deepEqual(fact(aws.storage, "endpoint"), [null, "default"]);
  assert.deepEqual(fact(aws.storage, "region"), ["us-east-1", "default"]);
  assert.deepEqual(aws.databases.map(({ destination }) => destination), ["s3://abc/app/"]);
  const directory = await explained(`[s3]\nbucket = "file://${folder}/bucket"`, []);
  assert.deepEqual(directory.storage.map(({ key }) => key), ["bucket"]);
  assert.deepEqual(readdirSync(folder).filter((name) => name === "bucket"), [], "nothing is made");
});

test("explain: what a month costs at most, where the database is there and the bucket is not a directory", async () => {
  writeFileSync("large.db", new Uint8Array(1_000_000));
  const costs = async (...words: string[]): Promise<unknown[]> =>
    (await explained(null, words)).databases.map(({ monthlyCost }) => monthlyCost?.snapshots ?? null);
  assert.deepEqual(await costs("-b", "abc", "large.db", "absent-too.db"), [720, null]);
  assert.deepEqual(await costs("-b", "abc", "large.db", "--compact-after-snapshot"), [55]);
  assert.deepEqual(await costs("-b", `file://${folder}/bucket`, "large.db"), [null]);
  assert.deepEqual(await costs("large.db"), [null]);
  const { stdout } = await explain(null, ["-b", `file://${folder}/bucket`, "large.db"]);
  assert.doesNotMatch(stdout, /cost/);
});

test("explain: where a path in a file elsewhere leads to", async () => {
  mkdirSync("etc");
  writeFileSync(
    "etc/walrust.toml",
    '[s3]\nbucket = "abc"\n[[databases]]\npath = "../data/a.*"\n[[databases]]\npath = "/x/y.db"',
  );
  const { stdout } = await walrustInProcess(["explain", "--config", "etc/walrust.toml", "--json"]);
  const paths = (JSON.parse(stdout) as Explained).databases.map(({ path }) => path);
  assert.deepEqual(paths, ["etc/../data/a.db", "/x/y.db"]);
});

test("explain: for people, the same facts", async () => {
  const { code, stdout } = await explain(whole, ["--mode", "observe"], { ...stage, ...canaries });
  assert.equal(code, 0);
  for (
    const line of [
      /^configuration: test\.toml$/m,
      /^ {2}bucket +s3:\/\/my-bucket\/prod +test\.toml:2:10$/m,
      /^ {2}credentials +found +AWS_ACCESS_KEY_ID$/m,
      /^ {2}wal_sync_interval +0\.5 s +test\.toml:8:21$/m,
      /^ {2}checkpoint_interval +60 s +default$/m,
      /^ {2}mode +observe +--mode$/m,
      /^ {2}daily +30 snapshots +test\.toml:11:9$/m,
      /^ {2}in all at most 78 snapshots of each database$/m,
      /^ {2}data\/b\.db → s3:\/\/my-bucket\/prod\/b\/ {2}\(test\.toml:14:8\)\n {2}data\/special\.db → /m,
      /special\/ {2}\(test\.toml:17:8\)\n {4}wal_sync_interval {2}5 s {2}test\.toml:19:21\nestimated monthly cost/,
      /^ {2}data\/special\.db +2\.60 USD for 519480 PUTs +0\.00 USD for 360 snapshots \(0 B\)$/m,
      /^ {2}in all 54\.\d\d USD, by the prices of S3 Standard: /m,
    ]
  ) {
    assert.match(stdout, line);
  }
});

test("explain: secrets are in none of its outputs [S84]", async () => {
  const profiles = join(folder, "home/.aws");
  mkdirSync(profiles, { recursive: true });
  writeFileSync(
    join(profiles, "credentials"),
    "[default]\naws_access_key_id = canary-Id-4\naws_secret_access_key = canary-Secret/5\nregion = eu-west-3\n[half]\naws_access_key_id = canary-Id-6\n",
  );
  const userinfo = "https://canary-User-7:canary-Password-8@s3.example.com";
  const home = { ...stage, HOME: join(folder, "home") };
  const cases: [code: number, Parameters<typeof explain>][] = [
    [0, [whole, [], { ...stage, ...canaries }]],
    [0, [whole, ["--verbose"], { ...stage, ...canaries }]],
    [0, [whole, [], home]],
    [0, [whole, [], { ...home, AWS_PROFILE: "half" }]],
    [0, [whole, [], { ...home, AWS_PROFILE: "nobody" }]],
    [2, [whole, [], { ...stage, ...canaries, AWS_ENDPOINT_URL_S3: userinfo }]],
    [2, [whole, ["--endpoint", userinfo], stage]],
    [2, [null, ["-b", "abc", "--endpoint", userinfo]]],
    [2, [whole.replace("https://s3.example.com", userinfo), [], stage]],
    [2, [`${whole}\nsecret = "canary-Value-9"`, [], stage]],
    [2, [`[s3]\nsecret_access_key = "canary-Value-9"`]],
    [2, [`[s3]\nregion = "\${AWS_SECRET_ACCESS_KEY}"`, [], canaries]],
    [2, ['[[databases]]\npath = "a"\nprefix = "/${AWS_SESSION_TOKEN}"', [], canaries]],
  ];
  for (const [code, [text, words = [], environment]] of cases) {
    for (const more of [[], ["--json"]]) {
      const said = await explain(text, [...words, ...more], environment);
      assert.equal(said.code, code, said.stdout + said.stderr);
      assert.ok(!/canary/.test(said.stdout + said.stderr), said.stdout + said.stderr);
      if (text === whole && environment === home) assert.match(said.stdout, /found/);
    }
  }
  const half = await explained(whole, [], { ...home, AWS_PROFILE: "half" });
  assert.match(String(fact(half.storage, "credentials")[0]), /^not usable: profile "half" has one key/);
  const own = await explained(`[s3]\nbucket = "abc"`, [], home);
  assert.deepEqual(own.storage.find(({ key }) => key === "region")!.origin, { kind: "profile", name: "default" });
  assert.deepEqual(fact(own.storage, "credentials"), ["found", "default"]);
});

interface Refusal {
  name: string;
  databases: string;
  message: RegExp;
  hint?: RegExp;
}

const refusals: Refusal[] = [
  {
    name: "two databases with one prefix [S88]",
    databases: '[[databases]]\npath = "x/app.db"\n[[databases]]\npath = "y/app.sqlite"',
    message: /^error: test\.toml:6:8: x\/app\.db and y\/app\.sqlite would both be stored as app\/$/m,
    hint: /another prefix \(the other is named at test\.toml:4:8\)/,
  },
  {
    name: "one prefix given twice [S88]",
    databases: '[[databases]]\npath = "x.db"\nprefix = "p/"\n[[databases]]\npath = "y.db"\nprefix = "p"',
    message: /^error: test\.toml:7:8: .* stored as p\//m,
  },
  {
    name: "one prefix for a pattern that matches several [S88]",
    databases: '[[databases]]\npath = "data/?.db"\nprefix = "p"',
    message: /^error: test\.toml:4:8: data\/a\.db and data\/b\.db would both be stored as p\/$/m,
    hint: /leave the prefix of a pattern out/,
  },
  {
    name: "one database named twice [S88]",
    databases: `[[databases]]\npath = "data/a.db"\n[[databases]]\npath = "${folder}/data/a.db"`,
    message: /^error: test\.toml:6:8: .* stored as a\/$/m,
  },
  {
    name: "two patterns that match one database [S88]",
    databases: '[[databases]]\npath = "data/a*"\n[[databases]]\npath = "*/a.db"',
    message: /^error: test\.toml:6:8: data\/a\.db and data\/a\.db would both/m,
  },
  {
    name: "a place inside that of another [S88]",
    databases: '[[databases]]\npath = "app.db"\n[[databases]]\npath = "b.db"\nprefix = "app/0000"',
    message: /^error: test\.toml:6:8: app\.db and b\.db would be stored as app\/ and inside it as app\/0000\/$/m,
  },
  {
    name: "a pattern that matches nothing [S88]",
    databases: '[[databases]]\npath = "data/*.sqlite"',
    message: /^error: test\.toml:4:8: data\/\*\.sqlite matches nothing$/m,
    hint: /once, at the start/,
  },
  {
    name: "a pattern that matches sidecars only [S88]",
    databases: '[[databases]]\npath = "sidecars/**"',
    message:
      /^error: test\.toml:4:8: .* matches no database, only files that belong to one, such as sidecars\/x\.db-wal$/m,
  },
];

for (const { name, databases, message, hint } of refusals) {
  test(`databases: refused with its place: ${name}`, async () => {
    const text = `[s3]\nbucket = "file://${folder}/bucket"\n${databases}`;
    const said = await explain(text);
    assert.deepEqual([said.code, said.stdout], [exitCodes.config, ""], said.stdout);
    assert.match(said.stderr, message);
    if (hint !== undefined) assert.match(said.stderr, hint);
    // What explain refuses watch refuses: both before anything is opened or made.
    const watch = await walrustInProcess(["watch", "--config", "test.toml"]);
    assert.deepEqual(watch, said);
  });
}

test("databases: canary, what stands beside the refused is not refused", async () => {
  const { databases } = await explained(
    '[[databases]]\npath = "data/a*"\n[[databases]]\npath = "data/a.db"\nprefix = "p"\n[[databases]]\npath = "pp.db"',
  );
  assert.deepEqual(databases.map(({ path, origin }) => [path, origin.name]), [
    ["data/a.db", "test.toml:4:8"],
    ["pp.db", "test.toml:7:8"],
  ]);
});

test("commands: walrust.toml is read by those that need a bucket, not by the others", async () => {
  mkdirSync("broken");
  writeFileSync("broken/walrust.toml", "[s3");
  process.chdir("broken");
  try {
    const out = join(folder, "never.db");
    for (const words of [["list"], ["restore", "app", "-o", out], ["snapshot", "app.db"], ["watch"], ["explain"]]) {
      const { code, stderr } = await walrustInProcess([...words, "-b", `file://${folder}/bucket`]);
      assert.equal(code, exitCodes.config);
      assert.match(stderr, /^error: walrust\.toml:1:/, words[0]);
      const without = await walrustInProcess([...words, "--no-config"]);
      assert.doesNotMatch(without.stderr, /walrust\.toml:/, words[0]);
    }
    assert.equal((await walrustInProcess(["pragma"])).code, 0);
    assert.equal((await walrustInProcess(["list", "-b", `file://${folder}/bucket`, "--no-config"])).code, 0);
  } finally {
    process.chdir(folder);
  }
  const named = await walrustInProcess(["list", "--config", "nowhere.toml"]);
  assert.equal(named.code, exitCodes.config);
  assert.match(named.stderr, /^error: nowhere\.toml: no such file\nhint: /);
  writeFileSync("test.toml", "[sync]");
  const bare = await walrustInProcess(["list", "--config", "test.toml"]);
  assert.match(bare.stderr, /no bucket was given, nor in test\.toml\nhint: /);
  const noDatabase = await walrustInProcess(["watch", "--config", "test.toml"]);
  assert.match(noDatabase.stderr, /no database was given, nor in test\.toml\nhint: /);
  assert.equal(readFileSync("test.toml", "utf8"), "[sync]");
});
