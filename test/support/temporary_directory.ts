/** A folder of its own for a test. */
import { mkdtempSync, realpathSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after } from "node:test";

/** Makes an empty folder, removed when the test file has ended. */
export function temporaryDirectory(name: string = "test"): string {
  const path = mkdtempSync(join(realpathSync(tmpdir()), `walrust-${name}-`));
  made.add(path);
  return path;
}

const made: Set<string> = new Set();

function removeAll(): void {
  for (const path of made) rmSync(path, { recursive: true, force: true });
  made.clear();
}

after(removeAll);
// Deno leaves `after` out when the file's last test is skipped, but ends with this event of the web.
globalThis.addEventListener?.("unload", removeAll);
