/**
 * Every error the world can cause, and the exit code each one ends the command with.
 * Mistakes of the calling program are `TypeError` and `RangeError` instead.
 */

/** Exit codes of the command, by kind of error; 0 is success. */
export const exitCodes = {
  general: 1,
  config: 2,
  database: 3,
  storage: 4,
  integrity: 5,
  restore: 6,
} as const;

/** Kind of a {@linkcode WalrustError}; each kind has one exit code in {@linkcode exitCodes}. */
export type ErrorKind = keyof typeof exitCodes;

/** What an error may carry besides its message. */
export interface ErrorDetails {
  /** What the user can do about it, as a sentence. */
  hint?: string;
  /** Facts for machines: key, offset, expected, actual. */
  data?: Record<string, unknown>;
  /** The error underneath. */
  cause?: unknown;
}

/** An error of the world, not of the calling program: what happened, where, and what to do. */
export class WalrustError extends Error {
  /** Kind, which decides the exit code. */
  readonly kind: ErrorKind;
  /** Short stable word for machines, such as `checksum_mismatch`. */
  readonly code: string;
  /** What the user can do about it, as a sentence. */
  readonly hint: string | undefined;
  /** Facts for machines: key, offset, expected, actual. */
  readonly data: Record<string, unknown>;

  /** What happened, where, and what to do; `code` is a short stable word for machines. */
  constructor(kind: ErrorKind, code: string, message: string, details: ErrorDetails = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    this.name = new.target.name;
    this.kind = kind;
    this.code = code;
    this.hint = details.hint;
    this.data = details.data ?? {};
  }

  /** Exit code of the command that ends with this error. */
  get exitCode(): number {
    return exitCodes[this.kind];
  }
}

/** Flags, environment or configuration file: exit code 2. */
export class ConfigError extends WalrustError {
  /** What happened, where, and what to do; `code` is a short stable word for machines. */
  constructor(code: string, message: string, details?: ErrorDetails) {
    super("config", code, message, details);
  }
}

/** The database is missing, not SQLite, not in WAL mode, or SQLite itself failed: exit code 3. */
export class DatabaseError extends WalrustError {
  /** What happened, where, and what to do; `code` is a short stable word for machines. */
  constructor(code: string, message: string, details?: ErrorDetails) {
    super("database", code, message, details);
  }
}

/** Where a request to the object store went and what came back. */
export interface StorageErrorDetails extends ErrorDetails {
  /** HTTP status, where there was an answer. */
  status?: number;
  /** Request id of the server, to quote to its operator. */
  requestId?: string;
  /** Bucket or directory. */
  bucket?: string;
  /** Object key. */
  key?: string;
  /** True when the same request may succeed later. */
  retryable?: boolean;
  /** How long the server asked us to wait, in milliseconds. */
  retryAfterMs?: number;
}

/** Network, credentials, bucket, object: exit code 4. `code` is the S3 error code where there is one. */
export class StorageError extends WalrustError {
  /** HTTP status, where there was an answer. */
  readonly status: number | undefined;
  /** Request id of the server. */
  readonly requestId: string | undefined;
  /** Bucket or directory. */
  readonly bucket: string | undefined;
  /** Object key. */
  readonly key: string | undefined;
  /** True when the same request may succeed later. */
  readonly retryable: boolean;
  /** How long the server asked us to wait, in milliseconds. */
  readonly retryAfterMs: number | undefined;

  /** What happened, where, and what to do; `code` is a short stable word for machines. */
  constructor(code: string, message: string, details: StorageErrorDetails = {}) {
    super("storage", code, message, details);
    this.status = details.status;
    this.requestId = details.requestId;
    this.bucket = details.bucket;
    this.key = details.key;
    this.retryable = details.retryable ?? false;
    this.retryAfterMs = details.retryAfterMs;
  }
}

/** No such object (or bucket, code `NoSuchBucket`). */
export class NotFoundError extends StorageError {}

/** True for an object that is not there; a bucket that is not there is another matter. */
export function isAbsentObject(error: unknown): error is NotFoundError {
  return error instanceof NotFoundError && error.code !== "NoSuchBucket";
}

/** A conditional write found another state than the one it asked for. */
export class PreconditionError extends StorageError {}

/** Checksum, chain, identity, or another writer in our lineage: exit code 5. */
export class IntegrityError extends WalrustError {
  /** What happened, where, and what to do; `code` is a short stable word for machines. */
  constructor(code: string, message: string, details?: ErrorDetails) {
    super("integrity", code, message, details);
  }
}

/** Bytes that are not what their format says; `data` holds `object`, `offset` and `expected`. */
export class FormatError extends IntegrityError {
  /** What happened, where, and what to do; `code` is a short stable word for machines. */
  constructor(
    code: string,
    message: string,
    details: ErrorDetails & { data: { object: string; offset: number; expected: string } },
  ) {
    super(code, message, details);
  }
}

/** No snapshot, or the point asked for is not available: exit code 6. */
export class RestoreError extends WalrustError {
  /** What happened, where, and what to do; `code` is a short stable word for machines. */
  constructor(code: string, message: string, details?: ErrorDetails) {
    super("restore", code, message, details);
  }
}

/** Exit code for any thrown value: that of a {@linkcode WalrustError}, else 1. */
export function exitCodeOf(error: unknown): number {
  return error instanceof WalrustError ? error.exitCode : exitCodes.general;
}

/** Throws when our own reasoning is wrong; never for the world's mistakes. */
export function assert(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`assertion failed: ${message}`);
}
