/** A table of rows of one page each. */
import type { Application, Scene } from "./watch_process.ts";

/** SQL that adds `rows` rows to `t`. */
export function insertRows(rows: number): string {
  return `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ${rows})
    INSERT INTO t(bytes) SELECT randomblob(3900) FROM n`;
}

/** An application that holds the database at `path` open, in WAL mode, with `rows` rows more in `t(id, bytes)`. */
export async function openWithRows(scene: Scene, rows: number, path: string = scene.db): Promise<Application> {
  const application = scene.application(path);
  await application.run("PRAGMA journal_mode = WAL");
  await application.run("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, bytes BLOB)");
  await application.run(insertRows(rows));
  return application;
}
