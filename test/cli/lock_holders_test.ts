import assert from "node:assert/strict";
import process from "node:process";
import { test } from "node:test";
import { readersOf } from "../../src/cli/lock_holders.ts";
import { systemProcess } from "../../src/runtime/system_process.ts";
import { systemRuntime } from "../../src/runtime/system.ts";
import { inScene } from "../e2e/watch_process.ts";

const { files } = systemRuntime();

/** A process that reads these files, at a link to a database whose `-shm` has inode 77. */
function reader(texts: Record<string, string>): string[] {
  const stat = files.stat(process.execPath)!;
  const linked = {
    realPath: () => "/real.db",
    stat: (path: string) =>
      path.startsWith("/real.db-shm") ? { ...stat, inode: 77n } : path === "/app.db" ? stat : null,
  };
  return readersOf({ pid: 10, readText: (path) => texts[path] ?? null }, linked, "/app.db");
}

test("readersOf: who holds a read mark; not ourselves, not other bytes, not other files", () => {
  const locks = [
    "1: POSIX  ADVISORY  READ 11 fd:01:77 124 124",
    "2: POSIX  ADVISORY  READ 10 fd:01:77 125 125",
    "3: POSIX  ADVISORY  READ 12 fd:01:77 128 128",
    "4: POSIX  ADVISORY  READ 13 fd:01:78 124 124",
    "5: FLOCK  ADVISORY  WRITE 14 fd:01:77 0 EOF",
    "6: POSIX  ADVISORY  WRITE 15 fd:01:77 120 EOF",
    "7: OFDLCK ADVISORY  READ -1 fd:01:77 124 124",
    "",
  ].join("\n");
  assert.deepEqual(reader({ "/proc/locks": locks, "/proc/11/comm": "rep\u001bort\n" }), [
    "rep\\u{1b}ort (pid 11)",
    "pid 15",
  ]);
  assert.deepEqual(reader({}), [], "no such file elsewhere");
});

test("readersOf: what cannot be read of the kernel ends nothing", () => {
  const stat = files.stat(process.execPath)!;
  const linked = { realPath: (path: string) => path, stat: () => ({ ...stat, inode: 77n }) };
  const failing = (hidden: string) => (path: string): string => {
    if (path === hidden) throw Object.assign(new Error(`ESRCH: ${path}`), { code: "ESRCH" });
    return "1: POSIX  ADVISORY  READ 11 fd:01:77 124 124\n";
  };
  assert.deepEqual(readersOf({ pid: 10, readText: failing("/proc/11/comm") }, linked, "/app.db"), ["pid 11"]);
  assert.deepEqual(readersOf({ pid: 10, readText: failing("/proc/locks") }, linked, "/app.db"), []);
});

test("[S26] readersOf: the process whose transaction keeps a checkpoint partial is named", {
  skip: process.platform === "linux" ? false : "only Linux says who holds a lock",
}, () =>
  inScene(async (scene) => {
    const application = scene.application();
    await application.run("PRAGMA journal_mode = WAL");
    await application.run("CREATE TABLE t(n); INSERT INTO t VALUES (1)");
    const ours = systemProcess();
    assert.deepEqual(readersOf(ours, files, scene.db), []);
    await application.run("BEGIN; SELECT * FROM t");
    assert.match(readersOf(ours, files, scene.db).join(), new RegExp(`\\(pid ${application.child.pid}\\)$`));
    await application.run("COMMIT");
    assert.deepEqual(readersOf(ours, files, scene.db), []);
    await application.quit();
  }));
