/**
 * Watches what this process does to the locks of its databases. POSIX locks belong to the process: whoever closes any
 * descriptor on a database, or on its `-shm`, drops those that SQLite holds there. Linux only.
 */
import { readdirSync, readFileSync, readlinkSync, statSync } from "node:fs";
import process from "node:process";
import type { Files, OpenFile, Runtime, Sqlite, SqliteConnection } from "../../src/runtime/types.ts";

/** os_unix.c: the bytes that every connection which has read the database holds as readers (`SHARED_FIRST` …). */
const shared = { first: 0x40000002, last: 0x40000002 + 509 };
/** wal.c: the bytes of `-shm` for the read marks, and the one that says that somebody is there. */
const marks = { first: 123, last: 127 };
const presence = { first: 128, last: 128 };

/** `/proc/locks` leaves lines out while others change it: a lock that is gone stays gone, so it is looked for again. */
const readsMax = 5;

interface Lock {
  readonly inode: number;
  readonly first: number;
  readonly last: number;
}

interface Connection {
  readonly path: string;
  readonly inode: number;
  /** True once it has read the database: from then on it holds SQLite's shared lock until it is closed. */
  hasRead: boolean;
  /** True within a read transaction. */
  isReading: boolean;
}

/** See the top of this file. */
export class LockWatch {
  /** What broke a rule, in words. */
  readonly violations: string[] = [];
  /** How often locks were held against what is open, while a connection lived. */
  checks = 0;
  /** Descriptors on a database that were closed, each of them after its last connection. */
  closes = 0;
  readonly #files = new Set<{ readonly file: OpenFile; readonly inode: number }>();
  readonly #connections = new Set<Connection>();
  /** Descriptors of this process on a database with locks, by inode. */
  #descriptors = new Map<number, Set<string>>();

  /** The same runtime, watched. `isDatabase` tells databases from SQLite files that are ours. */
  runtime(runtime: Runtime, isDatabase: (path: string) => boolean): Runtime {
    return {
      ...runtime,
      files: this.#watchFiles(runtime.files, isDatabase),
      sqlite: this.#watchSqlite(runtime.sqlite!, isDatabase),
    };
  }

  /** Connections and descriptors that are open. */
  get open(): number {
    return this.#files.size + this.#connections.size;
  }

  #watchFiles(files: Files, isDatabase: (path: string) => boolean): Files {
    return {
      ...files,
      open: (path, mode) => {
        if (path.endsWith("-shm")) this.violations.push(`${path} was opened`);
        const file = files.open(path, mode);
        if (!isDatabase(path)) return file;
        const entry = { file, inode: Number(file.stat().inode) };
        this.#files.add(entry);
        const { close } = file;
        file.close = () => {
          if (this.#files.delete(entry)) {
            this.closes++;
            if (this.#living(entry.inode).length > 0) {
              this.violations.push(`a descriptor on ${path} was closed while a connection lives`);
            }
          }
          close.call(file);
          this.check(`close ${path}`);
        };
        this.check(`open ${path}`);
        return file;
      },
    };
  }

  #watchSqlite(sqlite: Sqlite, isDatabase: (path: string) => boolean): Sqlite {
    return {
      version: sqlite.version,
      open: (path, options) => {
        const connection = sqlite.open(path, options);
        if (isDatabase(path)) this.#watchConnection(connection, path);
        return connection;
      },
    };
  }

  #watchConnection(connection: SqliteConnection, path: string): void {
    const entry: Connection = { path, inode: statSync(path).ino, hasRead: false, isReading: false };
    if (![...this.#files].some(({ inode }) => inode === entry.inode)) {
      this.violations.push(`a connection to ${path} was opened before our own descriptor`);
    }
    this.#connections.add(entry);
    const after: Record<string, (answer: unknown) => void> = {
      journalMode: (answer) => entry.hasRead ||= answer === "wal",
      beginRead: () => entry.hasRead = entry.isReading = true,
      beginImmediate: (answer) => entry.hasRead ||= answer === true,
      rollback: () => entry.isReading = false,
      gauge: (answer) => entry.hasRead ||= (answer as { log: number }).log >= 0,
      checkpointPassive: (answer) => entry.hasRead ||= (answer as { log: number }).log >= 0,
    };
    for (const [name, note] of Object.entries(after)) {
      const call = (connection as unknown as Record<string, () => unknown>)[name].bind(connection);
      Object.assign(connection, {
        [name]: () => {
          const answer = call();
          note(answer);
          if (name !== "gauge") this.check(`${name} ${path}`);
          return answer;
        },
      });
    }
    const close = connection.close.bind(connection);
    connection.close = () => {
      this.#connections.delete(entry);
      close();
      this.check(`disconnect ${path}`);
    };
  }

  #living(inode: number): Connection[] {
    return [...this.#connections].filter((connection) => connection.inode === inode);
  }

  /** Holds what the kernel says against what is open; `when` says in a violation what was done before. */
  check(when: string): void {
    const all = openFiles();
    const locked = [...this.#connections].filter(({ hasRead }) => hasRead);
    if (locked.length > 0) this.checks++;
    for (const { path, inode, isReading } of locked) {
      if (!isLocked([inode], shared)) this.#missing("shared lock", path, when);
      if (!isReading) continue;
      const indexes = all.filter((file) => file.path === `${path}-shm`).map((file) => file.inode);
      if (!isLocked(indexes, marks)) this.#missing("read mark of a pin", path, when);
      if (!isLocked(indexes, presence)) this.#missing("lock that keeps the wal-index", path, when);
      if (new Set(indexes).size < indexes.length) this.violations.push(`${path}-shm is open twice, after ${when}`);
    }
    this.#compareDescriptors(all, locked, when);
  }

  /** While a connection holds locks SQLite itself closes no descriptor either: none may be gone. */
  #compareDescriptors(all: readonly OpenDescriptor[], locked: readonly Connection[], when: string): void {
    const now = new Map<number, Set<string>>();
    for (const { path, inode } of locked) {
      const descriptors = new Set(all.filter((file) => file.inode === inode).map(({ descriptor }) => descriptor));
      now.set(inode, descriptors);
      for (const descriptor of this.#descriptors.get(inode) ?? []) {
        if (!descriptors.has(descriptor)) {
          this.violations.push(`${path}: descriptor ${descriptor} is gone after ${when}`);
        }
      }
    }
    this.#descriptors = now;
  }

  #missing(what: string, path: string, when: string): void {
    this.violations.push(`the ${what} on ${path} is gone after ${when}`);
  }
}

interface OpenDescriptor {
  readonly descriptor: string;
  readonly path: string;
  readonly inode: number;
}

/** The files on a disk that this process has open. */
function openFiles(): OpenDescriptor[] {
  const folder = "/proc/self/fd";
  return readdirSync(folder).flatMap((descriptor) => {
    try {
      const path = readlinkSync(`${folder}/${descriptor}`);
      if (!path.startsWith("/")) return [];
      return { descriptor, path: path.replace(/ \(deleted\)$/, ""), inode: statSync(`${folder}/${descriptor}`).ino };
    } catch {
      // The descriptor of the directory that was just listed.
      return [];
    }
  });
}

/** `1: POSIX  ADVISORY  READ  4711 fd:01:262210 124 124` */
const lockLine = /^\d+: POSIX\s+\S+\s+\S+\s+(\d+)\s+\S+:(\d+)\s+(\d+)\s+(\d+|EOF)$/;

function ownLocks(): Lock[] {
  return readFileSync("/proc/locks", "latin1").split("\n").flatMap((line) => {
    const [, pid, inode, first, last] = lockLine.exec(line) ?? [];
    if (Number(pid) !== process.pid) return [];
    return { inode: Number(inode), first: Number(first), last: last === "EOF" ? Infinity : Number(last) };
  });
}

/** True when this process holds a lock that meets `range` on one of the files. */
function isLocked(inodes: readonly number[], range: { readonly first: number; readonly last: number }): boolean {
  for (let reads = 0; reads < readsMax; reads++) {
    const isHeld = ownLocks().some(({ inode, first, last }) =>
      inodes.includes(inode) && first <= range.last && last >= range.first
    );
    if (isHeld) return true;
  }
  return false;
}
