/**
 * A disk that forgets: what was not forced to it may be gone after a power loss, in part and out of order.
 * A process that dies loses its descriptors only; a machine that dies loses un-synced writes and names as well.
 */
import type { Files, FileStat, OpenFile, OpenMode } from "../../src/runtime/types.ts";
import type { SeededRandom } from "./random.ts";

/** The process is dead: thrown out of the call in which it died and out of every later one. */
export class SimulatedCrash extends Error {
  override name = "SimulatedCrash";
}

/** An error of the operating system, such as `ENOSPC`. */
export function systemError(code: string, operation: string, path: string): Error {
  return Object.assign(new Error(`${code}: ${operation} '${path}'`), { code });
}

type PendingChange = { position: number; bytes: Uint8Array } | { size: number };

/** Bytes that grow; `data` may have more room than `size`. */
interface Content {
  data: Uint8Array;
  size: number;
}

/** A file's or directory's content, apart from its names. */
export interface Inode extends Content {
  readonly number: bigint;
  readonly type: "file" | "directory";
  /** What a power loss leaves for certain. */
  durable: Content;
  pending: PendingChange[];
  mtimeNs: bigint;
  /** Counts the changes of its content. */
  version: number;
}

interface NameChange {
  readonly directories: readonly string[];
  readonly changes: readonly { path: string; inode: Inode | null }[];
}

function applyTo(content: Content, change: PendingChange): void {
  if ("size" in change) return setSize(content, change.size);
  if (change.position > content.size) setSize(content, change.position);
  writeInto(content, change.bytes, change.position);
}

const copyOf = ({ data, size }: Content): Content => ({ data: data.slice(0, size), size });

const parentOf = (path: string): string => path.slice(0, Math.max(1, path.lastIndexOf("/")));

function writeInto(inode: Content, bytes: Uint8Array, position: number): void {
  const end = position + bytes.length;
  if (end > inode.data.length) {
    const grown = new Uint8Array(Math.max(end, inode.data.length * 2, 4096));
    grown.set(inode.data.subarray(0, inode.size));
    inode.data = grown;
  }
  inode.data.set(bytes, position);
  inode.size = Math.max(inode.size, end);
}

function setSize(inode: Content, size: number): void {
  if (size < inode.size) inode.data.fill(0, size, inode.size);
  else if (size > inode.data.length) writeInto(inode, new Uint8Array(size - inode.size), inode.size);
  inode.size = size;
}

/** The disk all processes share. */
export class SimulatedDisk {
  #names = new Map<string, Inode>();
  #durableNames = new Map<string, Inode>();
  #pendingNames: NameChange[] = [];
  #nextInode = 1000n;
  #fileTimeNs: () => bigint;
  /** What `freeBytes` answers. */
  freeBytes: number = 2 ** 40;

  constructor(fileTimeNs: () => bigint) {
    this.#fileTimeNs = fileTimeNs;
    const root = this.#newInode("directory");
    this.#names.set("/", root);
    this.#durableNames.set("/", root);
  }

  #newInode(type: "file" | "directory"): Inode {
    return {
      number: this.#nextInode++,
      type,
      data: new Uint8Array(0),
      size: 0,
      durable: { data: new Uint8Array(0), size: 0 },
      pending: [],
      mtimeNs: this.#fileTimeNs(),
      version: 0,
    };
  }

  #change(changes: { path: string; inode: Inode | null }[]): void {
    for (const { path, inode } of changes) {
      if (inode === null) this.#names.delete(path);
      else this.#names.set(path, inode);
      const parent = this.#names.get(parentOf(path));
      if (parent) parent.mtimeNs = this.#fileTimeNs();
    }
    this.#pendingNames.push({ directories: changes.map(({ path }) => parentOf(path)), changes });
  }

  lookup(path: string): Inode | null {
    return this.#names.get(path) ?? null;
  }

  /** Opens without any hook, for the simulated application. */
  inode(path: string, mode: OpenMode): Inode {
    const found = this.#names.get(path);
    if (found !== undefined) {
      if (mode === "exclusive") throw systemError("EEXIST", "open", path);
      if (found.type === "directory") throw systemError("EISDIR", "open", path);
      return found;
    }
    if (mode === "read" || mode === "update") throw systemError("ENOENT", "open", path);
    if (this.#names.get(parentOf(path))?.type !== "directory") throw systemError("ENOENT", "open", path);
    const inode = this.#newInode("file");
    this.#change([{ path, inode }]);
    return inode;
  }

  read(inode: Inode, into: Uint8Array, position: number): number {
    const length = Math.max(0, Math.min(into.length, inode.size - position));
    into.set(inode.data.subarray(position, position + length));
    return length;
  }

  write(inode: Inode, bytes: Uint8Array, position: number): void {
    const copy = bytes.slice();
    if (position > inode.size) setSize(inode, position);
    writeInto(inode, copy, position);
    inode.pending.push({ position, bytes: copy });
    inode.version++;
    inode.mtimeNs = this.#fileTimeNs();
  }

  truncate(inode: Inode, size: number): void {
    setSize(inode, size);
    inode.pending.push({ size });
    inode.version++;
    inode.mtimeNs = this.#fileTimeNs();
  }

  sync(inode: Inode): void {
    if (inode.pending.length === 0) return;
    for (const change of inode.pending) applyTo(inode.durable, change);
    inode.pending = [];
  }

  syncDirectory(path: string): void {
    this.#pendingNames = this.#pendingNames.filter((change) => {
      if (!change.directories.includes(path)) return true;
      this.#makeDurable(change);
      return false;
    });
  }

  #makeDurable(change: NameChange): void {
    for (const { path, inode } of change.changes) {
      if (inode === null) this.#durableNames.delete(path);
      else this.#durableNames.set(path, inode);
    }
  }

  rename(from: string, to: string): void {
    const inode = this.#names.get(from);
    if (inode === undefined) throw systemError("ENOENT", "rename", from);
    this.#change([{ path: from, inode: null }, { path: to, inode }]);
  }

  link(from: string, to: string): void {
    const inode = this.#names.get(from);
    if (inode === undefined) throw systemError("ENOENT", "link", from);
    if (this.#names.has(to)) throw systemError("EEXIST", "link", to);
    this.#change([{ path: to, inode }]);
  }

  remove(path: string): void {
    if (this.#names.has(path)) this.#change([{ path, inode: null }]);
  }

  makeDirectory(path: string): void {
    if (this.#names.has(path)) return;
    this.makeDirectory(parentOf(path));
    this.#change([{ path, inode: this.#newInode("directory") }]);
  }

  list(path: string): { name: string; type: "file" | "directory" | "other" }[] {
    const prefix = path === "/" ? "/" : `${path}/`;
    const found: { name: string; type: "file" | "directory" | "other" }[] = [];
    for (const [name, inode] of this.#names) {
      const rest = name.slice(prefix.length);
      if (name.startsWith(prefix) && rest !== "" && !rest.includes("/")) found.push({ name: rest, type: inode.type });
    }
    return found.sort((a, b) => (a.name < b.name ? -1 : 1));
  }

  /** The machine dies: each un-synced change survives whole, in part or not at all; names survive in order. */
  powerLoss(random: SeededRandom): void {
    const inodes = new Set([...this.#names.values(), ...this.#durableNames.values()]);
    const names = random.between(0, this.#pendingNames.length);
    for (const change of this.#pendingNames.slice(0, names)) this.#makeDurable(change);
    this.#pendingNames = [];
    this.#names = new Map(this.#durableNames);
    for (const inode of inodes) this.#forget(inode, random);
  }

  #forget(inode: Inode, random: SeededRandom): void {
    if (inode.pending.length === 0) return;
    const keep = random.pick([0, 0.5, 0.9, 1]);
    const pending = inode.pending;
    Object.assign(inode, copyOf(inode.durable));
    inode.pending = [];
    for (const change of pending) {
      if (!random.chance(keep)) continue;
      if ("size" in change || random.chance(0.8)) applyTo(inode, change);
      else {
        const { bytes, position } = change;
        applyTo(inode, { bytes: bytes.subarray(0, random.integer(bytes.length + 1)), position });
      }
    }
    inode.durable = copyOf(inode);
    inode.version++;
  }

  /** Another machine's disk that holds what this one holds now. */
  clone(fileTimeNs: () => bigint): SimulatedDisk {
    const copy = new SimulatedDisk(fileTimeNs);
    copy.freeBytes = this.freeBytes;
    const inodes = new Map<Inode, Inode>();
    for (const [path, inode] of this.#names) {
      if (!inodes.has(inode)) {
        inodes.set(inode, { ...inode, ...copyOf(inode), durable: copyOf(inode), pending: [] });
      }
      copy.#names.set(path, inodes.get(inode)!);
      copy.#durableNames.set(path, inodes.get(inode)!);
    }
    copy.#nextInode = this.#nextInode;
    return copy;
  }
}

/** One call that a process makes on its files. */
export interface FileCall {
  readonly operation: string;
  readonly path: string;
  /** Bytes of a read or write. */
  readonly length: number;
}

/**
 * Runs before each call: others may act, or it throws to make the call fail. `partial` bytes of a read are
 * all that is read; of a write they are written before `error` is thrown.
 */
export type FileHook = (call: FileCall) => void | { partial: number; error?: Error };

/** The files as one process sees them; ends with the process. */
export class SimulatedFiles implements Files {
  readonly uid = 1000;
  #disk: SimulatedDisk;
  #hook: FileHook;
  /** Called when a descriptor closes: POSIX then drops the process's locks on that file. */
  onClose: (inode: Inode, path: string) => void = () => {};
  /** Descriptors open now, by path. */
  readonly openCounts: Map<string, number> = new Map();

  constructor(disk: SimulatedDisk, hook: FileHook = () => {}) {
    this.#disk = disk;
    this.#hook = hook;
  }

  #before(operation: string, path: string, length = 0): void | { partial: number; error?: Error } {
    return this.#hook({ operation, path, length });
  }

  stat(path: string): FileStat | null {
    this.#before("stat", path);
    const inode = this.#disk.lookup(path);
    return inode && statOf(inode);
  }

  open(path: string, mode: OpenMode): OpenFile {
    this.#before("open", path);
    const inode = this.#disk.inode(path, mode);
    let closed = false;
    const live = (operation: string, length = 0): void | { partial: number; error?: Error } => {
      if (closed) throw systemError("EBADF", operation, path);
      return this.#before(operation, path, length);
    };
    const writable = (operation: string): void => {
      if (mode === "read") throw systemError("EBADF", operation, path);
    };
    this.openCounts.set(path, (this.openCounts.get(path) ?? 0) + 1);
    return {
      path,
      read: (into, position) => {
        const limit = live("read", into.length);
        if (limit?.error) throw limit.error;
        return this.#disk.read(inode, limit ? into.subarray(0, limit.partial) : into, position);
      },
      write: (bytes, position) => {
        writable("write");
        const limit = live("write", bytes.length);
        this.#disk.write(inode, limit ? bytes.subarray(0, limit.partial) : bytes, position);
        if (limit?.error) throw limit.error;
      },
      truncate: (size) => {
        writable("truncate");
        live("truncate");
        this.#disk.truncate(inode, size);
      },
      sync: () => {
        live("sync");
        this.#disk.sync(inode);
      },
      stat: () => {
        live("fstat");
        return statOf(inode);
      },
      close: () => {
        if (closed) return;
        closed = true;
        this.#before("close", path);
        this.openCounts.set(path, this.openCounts.get(path)! - 1);
        this.onClose(inode, path);
      },
    };
  }

  rename(from: string, to: string): void {
    this.#before("rename", to);
    this.#disk.rename(from, to);
  }

  link(from: string, to: string): void {
    this.#before("link", to);
    this.#disk.link(from, to);
  }

  remove(path: string): void {
    this.#before("remove", path);
    this.#disk.remove(path);
  }

  makeDirectory(path: string): void {
    this.#before("makeDirectory", path);
    this.#disk.makeDirectory(path);
  }

  removeDirectory(path: string): void {
    this.#before("removeDirectory", path);
    if (this.#disk.lookup(path) !== null && this.#disk.list(path).length === 0) this.#disk.remove(path);
  }

  list(path: string): { name: string; type: "file" | "directory" | "other" }[] {
    this.#before("list", path);
    return this.#disk.list(path);
  }

  syncDirectory(path: string): void {
    this.#before("syncDirectory", path);
    this.#disk.syncDirectory(path);
  }

  freeBytes(path: string): number {
    this.#before("freeBytes", path);
    return this.#disk.freeBytes;
  }

  realPath(path: string): string {
    this.#before("realPath", path);
    if (this.#disk.lookup(path) === null) throw systemError("ENOENT", "realpath", path);
    return path;
  }
}

function statOf(inode: Inode): FileStat {
  return {
    size: inode.size,
    mtimeNs: inode.mtimeNs,
    device: 1n,
    inode: inode.number,
    mode: inode.type === "file" ? 0o644 : 0o755,
    uid: 1000,
    type: inode.type,
  };
}
