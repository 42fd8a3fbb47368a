/** An application with one connection: reads a JSON string of SQL per line, answers with a line of JSON; ends with its input. */
import process from "node:process";
import { createInterface } from "node:readline";
import { DatabaseSync } from "node:sqlite";

const db = new DatabaseSync(process.argv[2]);
db.exec("PRAGMA busy_timeout = 5000");
for await (const line of createInterface({ input: process.stdin })) {
  const sql = JSON.parse(line) as string;
  let answer: { rows: unknown[]; error: string | null };
  try {
    // Only a single statement can return rows.
    const isQuery = /^\s*(SELECT|PRAGMA)[^;]*;?\s*$/i.test(sql);
    answer = { rows: isQuery ? db.prepare(sql).all() : [], error: null };
    if (!isQuery) db.exec(sql);
  } catch (error) {
    answer = { rows: [], error: (error as Error).message };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
db.close();
