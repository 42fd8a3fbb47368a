/** The same application as writer.ts through the `sqlite3` command, one transaction at a time over its standard input. */
import { spawn } from "node:child_process";
import { closeSync, existsSync, openSync, writeSync } from "node:fs";
import process from "node:process";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { isVacuum, schema, type Statement, statements, type Workload } from "./workload.ts";

const { values: flags } = parseArgs({
  options: {
    db: { type: "string" },
    log: { type: "string" },
    seconds: { type: "string", default: "3600" },
    commits: { type: "string", default: "1000000000" },
    "pace-ms": { type: "string", default: "0" },
    autocheckpoint: { type: "string", default: "1000" },
    "busy-timeout": { type: "string", default: "5000" },
    synchronous: { type: "string", default: "NORMAL" },
    "page-size": { type: "string", default: "4096" },
    seed: { type: "string", default: "walrust" },
    cycle: { type: "string", default: "2000" },
    bulk: { type: "string", default: "1000" },
  },
});
const workload: Workload = { seed: flags.seed!, cycle: Number(flags.cycle), bulk: Number(flags.bulk) };
const logFile = openSync(flags.log!, "a");
// `.bail on` ends the command at the first error: after a refused BEGIN the rest would run without a transaction.
const shell = spawn("sqlite3", ["-batch", "-bail", flags.db!], { stdio: ["pipe", "pipe", "inherit"] });
const answers = createInterface({ input: shell.stdout })[Symbol.asyncIterator]();
let asked = 0;

function log(line: string): void {
  writeSync(logFile, `${line}\n`);
}

/** Sends SQL and reads its output up to a mark of our own. */
async function ask(sql: string): Promise<string[]> {
  const mark = `mark-${++asked}`;
  shell.stdin.write(`${sql}\nSELECT '${mark}';\n`);
  const lines: string[] = [];
  for (;;) {
    const { value, done } = await answers.next();
    if (done) throw new Error(`sqlite3 ended in: ${sql.slice(0, 100)}`);
    if (value === mark) return lines;
    lines.push(value);
  }
}

function render({ sql, values }: Statement): string {
  let index = 0;
  return `${
    sql.replaceAll("?", () => {
      const value = values[index++];
      return typeof value === "number" ? String(value) : `'${value}'`;
    })
  };`;
}

await ask(`.timeout ${Number(flags["busy-timeout"])}
PRAGMA page_size = ${Number(flags["page-size"])};
PRAGMA journal_mode = WAL;
PRAGMA synchronous = ${flags.synchronous};
PRAGMA wal_autocheckpoint = ${Number(flags.autocheckpoint)};`);
if ((await ask("SELECT 1 FROM sqlite_schema WHERE name = 'counter';")).length === 0) {
  await ask(`BEGIN IMMEDIATE;\n${schema.map((sql) => `${sql};`).join("\n")}\nCOMMIT;`);
}
const origin = Number((await ask("SELECT n FROM counter;"))[0]);
const session = Number((await ask("SELECT coalesce(max(id), 0) + 1 FROM session;"))[0]);
log(`w ${workload.seed} ${workload.cycle} ${workload.bulk}`);
log(`s ${session} ${origin} ${Date.now()}`);
await ask(`INSERT INTO session(id, origin) VALUES (${session}, ${origin});`);

const endMs = Date.now() + Number(flags.seconds) * 1000;
let n = origin;
let vacuums = 0;
let slowestMs = 0;
while (n - origin < Number(flags.commits) && Date.now() < endMs && !existsSync(`${flags.log}.stop`)) {
  n++;
  const sql = [...statements(workload, n, session)].map(render).join("\n");
  const beganMs = Date.now();
  log(`b ${n} ${session} ${beganMs}`);
  await ask(`BEGIN IMMEDIATE;\n${sql}\nCOMMIT;`);
  log(`a ${n} ${session} ${Date.now()}`);
  slowestMs = Math.max(slowestMs, Date.now() - beganMs);
  if (isVacuum(workload, n)) {
    await ask("VACUUM;");
    vacuums++;
  }
  if (Number(flags["pace-ms"]) > 0) await new Promise((resolve) => setTimeout(resolve, Number(flags["pace-ms"])));
}
const ended = new Promise<void>((resolve) => shell.on("close", () => resolve()));
shell.stdin.end(".quit\n");
await ended;
closeSync(logFile);
process.stdout.write(`${JSON.stringify({ n, session, commits: n - origin, busy: 0, vacuums, slowestMs })}\n`);
process.exit(0);
