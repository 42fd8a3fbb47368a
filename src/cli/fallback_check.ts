/** SQLite's opinion of a file where the runtime has no SQLite of its own: loaded only then. */
import type { ImageCheck } from "../replication/image_check.ts";

/** Asks sql.js. */
export const fallbackCheck: ImageCheck = async (files, path, level) =>
  (await import("../runtime/sql_js_check.ts")).checkWithSqlJs(files, path, level);
