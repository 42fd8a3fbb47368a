/** Logs that SQLite left, damages to them, and what SQLite itself recovers from each: asked of Python's copy of it. */
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { readFileSync, writeFileSync } from "node:fs";
import { parseWalHeader, walFrameOffset } from "../../src/format/wal.ts";
import { projectDirectory } from "../support/runtime.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { sha256 } from "../support/vectors.ts";
import { resum, scan } from "./wal_files.ts";

const script = `${projectDirectory}/test/format/wal_recovery.py`;

/** A log as SQLite left it, with its database. */
export interface Log {
  readonly name: string;
  readonly pageSize: number;
  readonly database: Uint8Array;
  readonly wal: Uint8Array<ArrayBuffer>;
}

/** One damage: everything from `cut` on is gone, or the byte at `flip` has some bits the other way. */
export type Damage = { readonly cut: number } | { readonly flip: number; readonly mask: number };

/** The log with a damage. */
export function damaged({ wal }: Log, damage: Damage): Uint8Array<ArrayBuffer> {
  if ("cut" in damage) return wal.slice(0, damage.cut);
  const bytes = wal.slice();
  bytes[damage.flip] ^= damage.mask;
  return bytes;
}

/** SHA-256 in hexadecimal, as SQLite's answers are given. */
export function hashOf(bytes: Uint8Array): string {
  const hash = sha256();
  hash.update(bytes);
  return [...hash.digest()].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** How often a log commits: sizes in pages. */
export function commitsOf(log: Log): number[] {
  return scan(log.wal).visits.filter(({ commit }) => commit !== 0).map(({ commit }) => commit);
}

/** A folder of logs that SQLite is asked about. */
export class RecoveredLogs {
  readonly directory: string = temporaryDirectory("wal-recovery");

  /** Makes a log of each page size, copied while a transaction was spilling, over the stale tail of an older log. */
  make(pageSizes: readonly number[]): void {
    python("make", this.directory, ...pageSizes.map(String));
  }

  /** A log that the sqlite3 command wrote, and copied before its last close would have checkpointed it. */
  makeByCommand(name: string): Log {
    const source = `${this.directory}/source-${name}.db`;
    const path = `${this.directory}/${name}.db`;
    const sql = [
      "PRAGMA page_size=512;",
      "PRAGMA journal_mode=WAL;",
      "PRAGMA wal_autocheckpoint=0;",
      "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT);",
      "INSERT INTO t(v) SELECT hex(randomblob(150)) FROM (VALUES (1), (2));",
      "DELETE FROM t WHERE id > 1;",
      "VACUUM;",
      `.shell cp ${source} ${path}`,
      `.shell cp ${source}-wal ${path}-wal`,
    ].join("\n");
    const result = spawnSync("sqlite3", [source], { input: `${sql}\n`, encoding: "utf8" });
    assert.equal(result.status, 0, result.stderr);
    return this.read(name, 512);
  }

  read(name: string, pageSize: number): Log {
    const path = `${this.directory}/${name}.db`;
    return {
      name,
      pageSize,
      database: new Uint8Array(readFileSync(path)),
      wal: new Uint8Array(readFileSync(`${path}-wal`)),
    };
  }

  /** The same database with another log, put beside the first one. */
  add(log: Log, name: string, wal: Uint8Array<ArrayBuffer>): Log {
    const path = `${this.directory}/${name}.db`;
    writeFileSync(path, log.database);
    writeFileSync(`${path}-wal`, wal);
    return { ...log, name, wal };
  }

  /** The log with its checksums in the other byte order; both orders thus occur. */
  other(log: Log): Log {
    const header = parseWalHeader(log.wal);
    assert.ok(typeof header !== "string");
    const order = header.byteOrder === "little" ? "big" : "little";
    // Stale frames keep their old salts, so they stay invalid with right checksums too.
    return this.add(log, `${log.name}-${order}`, resum(log.wal, log.pageSize, order));
  }

  /** SHA-256 of the database that SQLite recovers and checkpoints after each damage, or `error`. */
  answers(cases: readonly { log: Log; damage: Damage }[]): string[] {
    const lines = cases.map(({ log, damage }) => textOf(log, damage));
    // By files: Deno's spawnSync hangs when input and output both fill a pipe.
    writeFileSync(`${this.directory}/commands`, lines.join("\n"));
    python("check", this.directory);
    const answers = readFileSync(`${this.directory}/answers`, "utf8").split("\n");
    assert.equal(answers.length, cases.length);
    return answers;
  }
}

/** A damage in the words that messages and wal_recovery.py use. */
export function textOf(log: Log, damage: Damage): string {
  return "cut" in damage ? `${log.name} cut ${damage.cut}` : `${log.name} flip ${damage.flip} ${damage.mask}`;
}

function python(...args: string[]): void {
  const result = spawnSync("python3", [script, ...args], { encoding: "utf8" });
  assert.equal(result.status, 0, result.stderr);
}

/** The fields of a frame's header, and its page at both ends and in the middle: offsets of a byte in each. */
export function frameFields(pageSize: number): number[] {
  return [3, 7, 8, 11, 12, 15, 16, 19, 20, 23, 24, 24 + pageSize / 2, 24 + pageSize - 1];
}

/** Where the frames of a file begin, stale ones included. */
export function frameOffsets({ pageSize, wal }: Log): number[] {
  const offsets: number[] = [];
  for (let frame = 0; walFrameOffset(pageSize, frame) < wal.length; frame++) {
    offsets.push(walFrameOffset(pageSize, frame));
  }
  return offsets;
}
