/**
 * Sealed objects on disk that must outlive their frames in the WAL: temp, fsync, rename, fsync of the directory.
 * Uploaded in order and removed when confirmed.
 */
import { seqHex } from "../format/keys.ts";
import type { Files, NewSha256 } from "../runtime/types.ts";
import { IndexedDecoder } from "./indexed_decoder.ts";
import type { PageIndex } from "./page_index.ts";
import { objectInMemoryMax, type Sealed } from "./sealed.ts";

const suffix = ".hadbp";

/** How much a spool may take, bytes. */
export interface SpoolLimits {
  /** Of all its objects. */
  readonly sizeMax: number;
  /** What must stay free on its file system. */
  readonly freeMin: number;
}

/** The spool directory of one database. */
export class Spool {
  readonly #files: Files;
  readonly #directory: string;

  constructor(files: Files, directory: string) {
    this.#files = files;
    this.#directory = directory;
    files.makeDirectory(directory);
    for (const { name } of files.list(directory)) if (!name.endsWith(suffix)) files.remove(`${directory}/${name}`);
  }

  #path(seq: bigint): string {
    return `${this.#directory}/${seqHex(seq)}${suffix}`;
  }

  /** Bytes in the spool. */
  get size(): number {
    return this.seqs().reduce((sum, seq) => sum + (this.#files.stat(this.#path(seq))?.size ?? 0), 0);
  }

  /** Why `bytes` more must not be put here; `null` when there is room. */
  full(bytes: number, limits: SpoolLimits): "limit" | "disk" | null {
    if (this.size + bytes > limits.sizeMax) return "limit";
    return this.#files.freeBytes(this.#directory) - bytes < limits.freeMin ? "disk" : null;
  }

  /** Seqs in the spool, ascending. */
  seqs(): bigint[] {
    return this.#files.list(this.#directory)
      .filter(({ name }) => /^[0-9a-f]{16}\.hadbp$/.test(name))
      .map(({ name }) => BigInt(`0x${name.slice(0, 16)}`));
  }

  /**
   * Makes `sealed` durable here; the answer reads its bytes from the spool from now on. `null`, and nothing is kept, when
   * `holds` says that what it was read from changed meanwhile.
   */
  add(sealed: Sealed): Sealed;
  add(sealed: Sealed, holds: () => boolean): Sealed | null;
  add(sealed: Sealed, holds: () => boolean = () => true): Sealed | null {
    const path = this.#path(sealed.seq);
    const temporary = `${path}.tmp`;
    this.#files.remove(temporary);
    const file = this.#files.open(temporary, "exclusive");
    try {
      try {
        let position = 0;
        for (const chunk of sealed.chunks()) {
          file.write(chunk, position);
          position += chunk.length;
        }
        if (!holds()) {
          this.#files.remove(temporary);
          return null;
        }
        file.sync();
      } finally {
        file.close();
      }
      // Replaces what an earlier try left: it may be another object of this seq, sealed before more was committed.
      this.#files.rename(temporary, path);
      this.#files.syncDirectory(this.#directory);
    } catch (error) {
      // Where there is no room, half an object must not take what is left.
      this.#files.remove(temporary);
      this.#files.remove(path);
      throw error;
    }
    return { ...sealed, chunks: () => this.#read(path) };
  }

  /**
   * Reads an object of an earlier process back, and the chain value it continues from; throws `FormatError` when it is
   * not whole.
   */
  load(
    seq: bigint,
    known: { key: string; index: PageIndex; sha256: NewSha256 },
  ): { sealed: Sealed; prevChecksum: bigint } {
    const path = this.#path(seq);
    const decoder = new IndexedDecoder(known.index, {
      object: path,
      sha256: known.sha256,
      size: this.#files.stat(path)?.size ?? 0,
      expect: { seq, pageSize: known.index.pageSize, kind: "delta" },
    });
    for (const chunk of this.#read(path)) decoder.push(chunk);
    const { header, end, hashes } = decoder.finish();
    const sealed: Sealed = {
      kind: header.declaredEnd === null ? "delta" : "bridge",
      key: known.key,
      seq,
      createdMs: header.createdMs,
      size: end.size,
      chainEnd: end.chainEnd,
      pageCount: end.endPageCount!,
      hashes,
      position: undefined,
      frames: 0,
      chunks: () => this.#read(path),
    };
    return { sealed, prevChecksum: header.prevChecksum };
  }

  /** Forgets an object that is confirmed in the bucket. */
  remove(seq: bigint): void {
    this.#files.remove(this.#path(seq));
  }

  /** Forgets everything, when a new lineage begins. */
  clear(): void {
    for (const seq of this.seqs()) this.remove(seq);
  }

  *#read(path: string): Generator<Uint8Array> {
    const file = this.#files.open(path, "read");
    try {
      const { size } = file.stat();
      const buffer = new Uint8Array(Math.min(size, objectInMemoryMax));
      for (let position = 0; position < size;) {
        const length = file.read(buffer, position);
        if (length === 0) throw new Error(`${path} became shorter while it was read`);
        yield buffer.subarray(0, length);
        position += length;
      }
    } finally {
      file.close();
    }
  }
}
