/**
 * What the core needs of the world, handed in by the entry point: time, randomness, files, SQLite,
 * hashing and HTTP. Nothing else in the core is nondeterministic, so a simulator can stand in for all of it.
 */

/** Wall clock, monotonic clock and sleeping. */
export interface Clock {
  /** Wall clock, Unix milliseconds; may jump. */
  now(): number;
  /** Monotonic milliseconds with fractions, from an arbitrary start. */
  monotonic(): number;
  /** Resolves after `ms` milliseconds, with 0 as soon as all else that is ready has run; rejects with the signal's reason. */
  sleep(ms: number, signal?: AbortSignal): Promise<void>;
}

/** Source of randomness. */
export interface Random {
  /** `length` random bytes, good enough for identifiers. */
  bytes(length: number): Uint8Array;
  /** Uniform in [0, 1), for jitter. */
  number(): number;
}

/** A running SHA-256. */
export interface Sha256 {
  /** Takes in more bytes; they may be overwritten afterwards. */
  update(bytes: Uint8Array): void;
  /** The 32-byte digest; the instance is spent. */
  digest(): Uint8Array;
}

/** Begins a SHA-256. */
export interface NewSha256 {
  (): Sha256;
  /** The digest of `bytes` at once, where the runtime has a cheaper way for small pieces. */
  readonly once?: (bytes: Uint8Array) => Uint8Array;
}

/** What `stat` says of a file. */
export interface FileStat {
  /** Bytes. */
  readonly size: number;
  /** Modification time, nanoseconds since the Unix epoch; whole milliseconds on Deno. */
  readonly mtimeNs: bigint;
  /** Device number. */
  readonly device: bigint;
  /** Inode number. */
  readonly inode: bigint;
  /** Permission bits. */
  readonly mode: number;
  /** Owner. */
  readonly uid: number;
  /** What it is. */
  readonly type: "file" | "directory" | "other";
}

/** `read`: must exist. `update`: read and write, must exist. `create`: read and write, made when absent. `exclusive`: must not exist. */
export type OpenMode = "read" | "update" | "create" | "exclusive";

/** An open file with positional, synchronous I/O; offsets and lengths in bytes. */
export interface OpenFile {
  /** Path as it was opened. */
  readonly path: string;
  /** Fills `into` from `position` as far as the file reaches; returns the bytes read. */
  read(into: Uint8Array, position: number): number;
  /** Writes all of `bytes` at `position`. */
  write(bytes: Uint8Array, position: number): void;
  /** Sets the length. */
  truncate(size: number): void;
  /** Forces content and size to the disk. */
  sync(): void;
  /** What the open file is, whatever its name points to by now. */
  stat(): FileStat;
  /** Closes it; nothing happens the second time. */
  close(): void;
}

/**
 * The file system. Synchronous: a call takes microseconds, and capture must not be interrupted between two of them.
 * Every method throws the system's error (with `code`, such as `ENOENT`) unless said otherwise.
 */
export interface Files {
  /** The user whose rights we have, or null where there is no such thing. */
  readonly uid: number | null;
  /** Follows symbolic links; `null` when nothing is there. */
  stat(path: string): FileStat | null;
  /** Opens a file by its descriptor. */
  open(path: string, mode: OpenMode): OpenFile;
  /** Replaces `to` atomically. */
  rename(from: string, to: string): void;
  /** Makes `to` another name of `from`; throws `EEXIST` when `to` exists. */
  link(from: string, to: string): void;
  /** Removes a file; nothing happens when it is absent. */
  remove(path: string): void;
  /** Makes the directory and its parents. */
  makeDirectory(path: string): void;
  /** Removes an empty directory; nothing happens when it is absent or not empty. */
  removeDirectory(path: string): void;
  /** Names in a directory, sorted by code unit; empty when it is absent. */
  list(path: string): { name: string; type: "file" | "directory" | "other" }[];
  /** Forces names in a directory to the disk. */
  syncDirectory(path: string): void;
  /** Bytes free for us on the file system that holds `path`. */
  freeBytes(path: string): number;
  /** Absolute path without symbolic links; throws `ENOENT` when nothing is there. */
  realPath(path: string): string;
  /** Copies a file, and shares its blocks where the file system can; replaces nothing. */
  readonly clone?: (from: string, to: string) => void;
  /** Where a file lies; null where the system does not tell. */
  readonly placeOf?: (path: string) => FilePlace | null;
}

/** What `placeOf` says of a file. */
export interface FilePlace {
  /** Names that lead to the file itself. */
  readonly links: number;
  /** The network file system that holds it, such as `NFS`; null for one that is none, as far as is known. */
  readonly network: string | null;
}

/** What a checkpoint (or the question for its state) answers; frame counts. */
export interface CheckpointResult {
  /** True when a lock stood in the way. */
  readonly busy: boolean;
  /** Committed frames in the WAL; -1 when the database is not in WAL mode. */
  readonly log: number;
  /** Frames already copied into the database file. */
  readonly checkpointed: number;
}

/** One connection of the runtime's built-in SQLite. Keep a strong reference: a collected connection loses its locks. */
export interface SqliteConnection {
  /** Journal mode in lower case, such as `wal`. Opens the database; throws `DatabaseError`. */
  journalMode(): string;
  /** Begins a read transaction and takes its snapshot (the pin). */
  beginRead(): void;
  /** Takes the write lock; false when it is held by another. */
  beginImmediate(): boolean;
  /** Takes the exclusive lock, which keeps readers out too; false when others do not let go in time. Not for WAL mode. */
  beginExclusive(): boolean;
  /** Ends a transaction without writing; nothing happens when there is none. */
  rollback(): void;
  /** `PRAGMA wal_checkpoint(NOOP)`: changes nothing (SQLite ≥ 3.51), not inside a transaction. */
  gauge(): CheckpointResult;
  /** `PRAGMA wal_checkpoint(PASSIVE)`. */
  checkpointPassive(): CheckpointResult;
  /** `quick_check` or `integrity_check`: the findings, empty when sound. */
  check(level: "quick" | "full"): string[];
  /** Closes it; nothing happens the second time. */
  close(): void;
}

/** How a database is opened. */
export interface SqliteOpenOptions {
  /** True: nothing can be written through it. */
  readonly readOnly: boolean;
  /** How long a statement waits for a lock, milliseconds; 0 unless said otherwise. */
  readonly busyTimeoutMs?: number;
  /** Page size of a database that is still empty, bytes. A connection holds room for twenty pages. */
  readonly pageSize?: number;
}

/** The runtime's built-in SQLite. */
export interface Sqlite {
  /** Version as three numbers, such as `[3, 53, 0]`. */
  readonly version: readonly [number, number, number];
  /** Opens a database; throws `DatabaseError`. */
  open(path: string, options: SqliteOpenOptions): SqliteConnection;
  /** Files of other copies of SQLite that this process has loaded, as far as the system tells. */
  readonly otherCopies?: () => string[];
}

/** HTTP in the shape of `fetch`; the answer's body is a stream. Redirects are never followed. */
export type Fetch = (url: string, init: {
  method: string;
  headers: Record<string, string>;
  body?: Uint8Array;
  signal?: AbortSignal;
}) => Promise<FetchResponse>;

/** What comes back from {@linkcode Fetch}. */
export interface FetchResponse {
  /** HTTP status. */
  readonly status: number;
  /** Header value by lower-case name, or null. */
  header(name: string): string | null;
  /** The body; must be read to its end or cancelled by `return()`. */
  readonly body: AsyncIterable<Uint8Array>;
}

/** Says of one event that happened. */
export type Log = (
  level: "trace" | "debug" | "info" | "warning" | "error",
  message: string,
  data?: Record<string, unknown>,
) => void;

/** Everything the core needs of the world. */
export interface Runtime {
  /** Time. */
  readonly clock: Clock;
  /** Randomness. */
  readonly random: Random;
  /** The file system. */
  readonly files: Files;
  /** SHA-256. */
  readonly sha256: NewSha256;
  /** Absent where the runtime has no built-in SQLite. */
  readonly sqlite: Sqlite | null;
  /** HTTP. */
  readonly fetch: Fetch;
}

/** Signals that end a program, or that ask it to. */
export type StopSignal = "SIGINT" | "SIGTERM" | "SIGHUP" | "SIGKILL";

/** A stream that people or pipes read. */
export interface TextOutput {
  /** Writes at once and whole, so that nothing is lost by {@linkcode Process.exit}; silent when nobody reads any more. */
  write(text: string): void;
  /** True when a person reads it. */
  readonly isTerminal: boolean;
  /** Width in characters; 80 where there is no terminal. */
  readonly columns: number;
}

/** A program that we started. */
export interface ChildProcess {
  /** Process number. */
  readonly pid: number;
  /** How it ended: its exit code, or the signal that ended it; rejects when it could not be started. */
  readonly ended: Promise<{ code: number | null; signal: string | null }>;
  /** Sends a signal; nothing happens when it has ended. */
  kill(signal: StopSignal): void;
}

/** The process that we are; for the command line only. */
export interface Process {
  /** Words after the program's name. */
  readonly args: readonly string[];
  /** Value of an environment variable. */
  environment(name: string): string | undefined;
  /** Results. */
  readonly stdout: TextOutput;
  /** Errors and logs. */
  readonly stderr: TextOutput;
  /** Runtime and version for messages, such as `Node 24.21.0`. */
  readonly runtime: string;
  /** Process number. */
  readonly pid: number;
  /** Number of the process that started us, another one as soon as that is gone. */
  readonly parentPid: number;
  /** Such as `linux`. */
  readonly platform: string;
  /** Name of this host. */
  readonly hostname: string;
  /** Working directory; absolute. */
  readonly directory: string;
  /** The user's home; absolute. */
  readonly homeDirectory: string;
  /** Where temporary files go; absolute. */
  readonly temporaryDirectory: string;
  /** A file as text, or null when it is absent. Never for a live database. */
  readText(path: string): string | null;
  /** Words that start this program again under this runtime; the arguments follow them. */
  readonly selfCommand: readonly string[];
  /** Starts a program with stderr passed through; `onStdout` receives what it prints, else it is passed through too. */
  spawn(command: readonly string[], options?: { onStdout?: (text: string) => void }): ChildProcess;
  /** True when a process of this number exists. */
  isAlive(pid: number): boolean;
  /** Calls `handle` when the signal arrives, instead of ending; returns what takes it back. */
  onSignal(signal: "SIGINT" | "SIGTERM" | "SIGHUP", handle: () => void): () => void;
  /** Ends the process at once. */
  exit(code: number): never;
}
