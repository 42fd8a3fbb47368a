/** The file a restore builds: written beside the output under a temporary name, proven, then put in its place whole. */
import { ConfigError, IntegrityError, RestoreError, WalrustError } from "../errors.ts";
import { hexOf, shellQuoted } from "../format/bytes.ts";
import { parseSqliteHeader } from "../format/sqlite_header.ts";
import type { Files, NewSha256, OpenFile, Random } from "../runtime/types.ts";
import { absolutePath, directoryOf, nameOf } from "./paths.ts";
import type { ChangesetSink, VerifiedChangeset } from "./walk.ts";

/** Files that SQLite would read together with a database. */
export const sidecarSuffixes = ["-wal", "-shm", "-journal"] as const;

/** Between an output's name and the random end of the temporary file's. */
const temporaryMark = ".tmp-";

/** A temporary file that was not written for so long is no running restore's, milliseconds. */
const leftoverAgeMin = 3_600_000;

/** Bytes hashed or read at once. */
const readSize = 1024 * 1024;

/** A database image under construction. */
export class ImageFile implements ChangesetSink {
  /** Path of the temporary file. */
  readonly path: string;
  readonly #files: Files;
  readonly #sha256: NewSha256;
  #file: OpenFile | null;
  #pageSize = 0;
  #pageCount = 0;
  /** Highest page ever written, so that what lies beyond an end is cut off. */
  #written = 0;

  constructor(options: { files: Files; sha256: NewSha256; random: Random; outputPath: string }) {
    this.#files = options.files;
    this.#sha256 = options.sha256;
    this.path = `${options.outputPath}${temporaryMark}${hexOf(options.random.bytes(8))}`;
    this.#file = io(() => options.files.open(this.path, "exclusive"), options.outputPath);
  }

  /** Starts over. */
  reset(): void {
    io(() => this.#open().truncate(0), this.path);
    this.#pageSize = this.#pageCount = this.#written = 0;
  }

  pages(first: number, bytes: Uint8Array, pageSize: number): void {
    this.#pageSize = pageSize;
    io(() => this.#open().write(bytes, (first - 1) * pageSize), this.path);
    this.#written = Math.max(this.#written, first - 1 + bytes.length / pageSize);
  }

  end(changeset: VerifiedChangeset): void {
    this.#pageCount = changeset.pageCount;
    this.#pageSize = changeset.header.pageSize;
    // Pages beyond the end must not come back when the database grows again.
    if (this.#written > this.#pageCount) this.#resize();
  }

  imageDigest(): Uint8Array {
    this.#resize();
    const hash = this.#sha256();
    const size = this.#pageCount * this.#pageSize;
    const buffer = new Uint8Array(Math.min(readSize, size));
    for (let at = 0; at < size;) {
      const length = io(() => this.#open().read(buffer.subarray(0, Math.min(buffer.length, size - at)), at), this.path);
      if (length === 0) throw shortRead(this.path);
      hash.update(buffer.subarray(0, length));
      at += length;
    }
    return hash.digest();
  }

  /** Sets the size, checks the database header against it and forces everything to the disk. */
  finish(): void {
    this.#resize();
    const file = this.#open();
    const size = this.#pageCount * this.#pageSize;
    if (io(() => file.stat().size, this.path) !== size) throw shortRead(this.path);
    const bytes = new Uint8Array(100);
    if (io(() => file.read(bytes, 0), this.path) !== bytes.length) throw shortRead(this.path);
    assertHeader(bytes, this.#pageSize, this.#pageCount);
    io(() => file.sync(), this.path);
    this.close();
  }

  /** Closes the file; it stays on disk. */
  close(): void {
    this.#file?.close();
    this.#file = null;
  }

  /** Removes the temporary file and what SQLite may have put beside it. */
  remove(): void {
    this.close();
    for (const suffix of ["", ...sidecarSuffixes]) this.#files.remove(this.path + suffix);
  }

  #resize(): void {
    io(() => this.#open().truncate(this.#pageCount * this.#pageSize), this.path);
    this.#written = this.#pageCount;
  }

  #open(): OpenFile {
    if (this.#file === null) throw new Error("assertion failed: the image is closed");
    return this.#file;
  }
}

/** Throws when something stands where the output goes, also a stale sidecar that SQLite would replay onto it. */
export function checkOutput(files: Files, outputPath: string, force: boolean): void {
  const directory = directoryOf(outputPath);
  if (files.stat(directory)?.type !== "directory") {
    throw new ConfigError("output_directory", `the directory ${directory} does not exist`, {
      hint: "Create it first.",
    });
  }
  const listed = new Set(files.list(directory).map(({ name }) => name));
  for (const suffix of ["", ...sidecarSuffixes]) {
    // Where a link leads nowhere, there is no file, and yet the name is taken.
    if (files.stat(outputPath + suffix) !== null || !listed.has(nameOf(outputPath) + suffix)) continue;
    throw new ConfigError("output_not_file", `${outputPath + suffix} is a symbolic link that leads nowhere`, {
      hint: "Remove it, or choose another output.",
    });
  }
  const found = ["", ...sidecarSuffixes].filter((suffix) => files.stat(outputPath + suffix) !== null);
  for (const suffix of found) {
    if (files.stat(outputPath + suffix)!.type === "file") continue;
    throw new ConfigError("output_not_file", `${outputPath + suffix} is not a file`, {
      hint: "Choose another output.",
    });
  }
  if (found.length === 0 || force) return;
  throw new RestoreError("output_exists", `${found.map((suffix) => outputPath + suffix).join(", ")} exists already`, {
    hint: "Choose another output, or use --force: it moves the old files aside.",
    data: { outputPath },
  });
}

/**
 * Removes what restores to this output left behind when they were killed: files of the temporary name, not written for
 * an hour. Returns their paths.
 */
export function removeLeftovers(files: Files, outputPath: string, nowMs: number): string[] {
  const directory = directoryOf(outputPath);
  const begin = `${nameOf(outputPath)}${temporaryMark}`;
  const removed: string[] = [];
  for (const { name, type } of files.list(directory)) {
    if (type !== "file" || !name.startsWith(begin)) continue;
    if (!/^[0-9a-f]{16}(-wal|-shm|-journal)?$/.test(name.slice(begin.length))) continue;
    const path = `${directory}/${name}`;
    const stat = files.stat(path);
    if (stat === null || nowMs - Number(stat.mtimeNs / 1_000_000n) < leftoverAgeMin) continue;
    files.remove(path);
    removed.push(path);
  }
  return removed;
}

/** What stood at the output before, and how it comes back. */
export interface MovedAside {
  /** Where its files are now. */
  readonly paths: string[];
  /** One shell command line that puts them back and keeps what was restored; null when nothing was moved. */
  readonly undo: string | null;
}

/**
 * Gives the proven image its name and forces it to the disk. What stood there is moved aside first; `whileAway` runs when
 * nothing has the name.
 */
export function installImage(
  files: Files,
  image: { readonly path: string },
  outputPath: string,
  force: boolean,
  random: Random,
  whileAway: () => void = () => {},
): MovedAside {
  checkOutput(files, outputPath, force);
  const tag = hexOf(random.bytes(4));
  const backup = `${outputPath}.bak-${tag}`;
  const moved: string[] = [];
  // The database first: without it its sidecars are harmless, while a database without its WAL lacks commits.
  for (const suffix of ["", ...sidecarSuffixes]) {
    if (files.stat(outputPath + suffix) === null) continue;
    files.rename(outputPath + suffix, backup + suffix);
    moved.push(suffix);
  }
  try {
    whileAway();
    linkInto(files, image.path, outputPath);
  } catch (error) {
    for (const suffix of moved) files.rename(backup + suffix, outputPath + suffix);
    throw error;
  }
  files.syncDirectory(directoryOf(outputPath));
  const paths = moved.map((suffix) => backup + suffix);
  return { paths, undo: moved.length === 0 ? null : undoCommand(absolutePath(files, outputPath), tag, moved) };
}

/**
 * What stands at the output by then goes away first, with the sidecars it got since, so that no file meets those of
 * another database; then the old database comes back, then its sidecars. Sidecars that had no database stay aside.
 * Nothing is deleted or replaced, and where a part fails the rest does not run.
 */
function undoCommand(output: string, tag: string, moved: readonly string[]): string {
  const [backup, kept] = [`${output}.bak-${tag}`, `${output}.restored-${tag}`];
  const exists = (path: string): string => `test -e ${shellQuoted(path)}`;
  const move = (from: string, to: string): string => `mv ${shellQuoted(from)} ${shellQuoted(to)}`;
  const away = ["", ...sidecarSuffixes].map((suffix) =>
    `{ ! ${exists(output + suffix)} || ${move(output + suffix, kept + suffix)}; }`
  );
  const back = moved.includes("") ? moved.map((suffix) => move(backup + suffix, output + suffix)) : [];
  const guards = [...(back.length > 0 ? [exists(backup)] : []), `! ${exists(kept)}`];
  const told = `echo ${shellQuoted(`the restored database is now ${kept}`)}`;
  return [...guards, ...away, ...back, told].join(" && ");
}

/** A link refuses an existing name in the same step; file systems without links get a rename. */
function linkInto(files: Files, from: string, to: string): void {
  try {
    files.link(from, to);
    files.remove(from);
  } catch (error) {
    const code = systemCode(error);
    if (code === "EEXIST" || files.stat(to) !== null) {
      throw new RestoreError("output_exists", `${to} appeared while restoring`, { cause: error });
    }
    if (!["EPERM", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EMLINK", "EACCES"].includes(code)) throw error;
    files.rename(from, to);
  }
}

function shortRead(path: string): RestoreError {
  return new RestoreError("output_short", `${path} is shorter than what was written to it`, {
    hint: "The disk or file system loses data; restore to another one.",
  });
}

/** Throws `IntegrityError` when page 1 does not describe a database of this size. */
export function assertHeader(firstPage: Uint8Array, pageSize: number, pageCount: number): void {
  const header = parseSqliteHeader(firstPage);
  if (typeof header === "string") throw unsound(`its header is not that of a SQLite database (${header})`);
  if (header.pageSize !== pageSize) {
    throw unsound(`its header says page size ${header.pageSize}, the changesets ${pageSize}`);
  }
  // The count in the header is valid only while these two agree (SQLite file format, §1.3.8).
  if (header.versionValidFor === header.changeCounter && header.pageCount !== pageCount) {
    throw unsound(`its header says ${header.pageCount} pages, the last changeset ${pageCount}`);
  }
}

/** The restored image is not a sound database, although every changeset was as published. */
export function unsound(reason: string, findings: string[] = []): IntegrityError {
  return new IntegrityError("image_unsound", `the restored image is not a sound database: ${reason}`, {
    hint: "The fault lies in what was published; try an older point (--seq), see walrust list.",
    data: { findings },
  });
}

/** Runs file calls on `path`, turning the system's errors into `RestoreError`. */
export function io<T>(call: () => T, path: string): T {
  try {
    return call();
  } catch (error) {
    if (error instanceof WalrustError || systemCode(error) === "") throw error;
    if (systemCode(error) === "ENOSPC" || systemCode(error) === "EDQUOT") {
      throw new RestoreError("no_space", `no space is left while writing ${path}`, { cause: error });
    }
    const message = error instanceof Error ? error.message : String(error);
    throw new RestoreError("output_failed", `cannot write ${path}: ${message}`, { cause: error });
  }
}

function systemCode(error: unknown): string {
  return error instanceof Error && "code" in error && typeof error.code === "string" ? error.code : "";
}
