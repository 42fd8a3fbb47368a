/**
 * How committed pages leave a live database: held by a pin (`pin_capture.ts`), or read from its files without any lock
 * (`observe_capture.ts`).
 */
import type { FileStat, NewSha256 } from "../runtime/types.ts";
import type { FrozenImage } from "./frozen_image.ts";
import type { ImageSource } from "./image.ts";
import type { FilesSeen, LiveDatabase } from "./live_database.ts";
import type { PageIndex } from "./page_index.ts";
import type { Stream } from "./stream.ts";
import type { Batch, LogEnd, WalPlace, WalPosition } from "./wal_log.ts";

/** A reason to compare the database with the index. */
export interface Doubt {
  readonly reason: string;
  /** Where the log was followed to: if it still passes there, only pages in frames behind it may differ. */
  readonly since?: WalPlace;
  /** Candidates beside those that the log names. */
  readonly pages?: ReadonlySet<number>;
  /**
   * Commits may have come and gone unseen: their points in time are lost, their content is not. `possible`: so it is
   * when a page differs that the log does not bring.
   */
  readonly gap?: "possible" | "likely";
}

/** What a look at the WAL found. `wait`: SQLite is in the middle of something; `doubt`: only a difference helps. */
export type Look =
  | { readonly kind: "none" }
  | { readonly kind: "wait" }
  | { readonly kind: "doubt" } & Doubt
  | { readonly kind: "batch"; readonly batch: Batch };

/** An image and the place in the WAL it stands for. */
export interface ImageAt {
  readonly image: ImageSource;
  /** `null` when the WAL is empty. */
  readonly end: WalPosition | null;
  /** The pages that may differ, when the log passed exactly at the place asked for; else `null`: any page. */
  readonly changed: ReadonlySet<number> | null;
  /** The pages that the log brings, where that was asked for. */
  readonly inLog?: ReadonlySet<number>;
}

/** An image that stays as it is until it is released. */
export interface HeldImage extends ImageAt {
  release(): void;
}

/** An image and its hash, for a snapshot. */
export interface FrozenAt extends FrozenImage, Pick<ImageAt, "end" | "changed"> {
  /** Wall clock when its end was known, Unix milliseconds: later than every commit in it. */
  readonly takenMs: number;
}

/** What was committed when a snapshot began. */
export interface SnapshotPoint extends LogEnd {
  release(): void;
}

/** What is known of the bucket when an image is asked for. */
export interface HoldOptions extends Pick<Doubt, "since" | "pages"> {
  /** Pages that the index covers. */
  readonly indexedCount: number;
}

/** One open database. */
export interface Capture {
  readonly path: string;
  /** Bytes. */
  readonly pageSize: number;
  /** Version of the SQLite that wrote page 1 last, such as 3051003. */
  readonly sqliteVersion: number;
  /** Device and inode of what we opened. */
  readonly identity: FileStat;
  /** The pinned database, whose pins a rollover moves; `null` where it is only observed. */
  readonly pinned: LiveDatabase | null;
  /** Whether the names still lead to the files that we hold; `seen` is what they lead to now. */
  inPlace(seen: FilesSeen): "same" | "database" | "wal";
  /** Where the log ends now. */
  end(at: WalPosition | null): LogEnd;
  /**
   * Committed frames behind `position` (`null`: the WAL was empty there), cut at the first commit that reaches
   * `sizeMax` bytes of distinct pages.
   */
  look(position: WalPosition | null, sizeMax: number): Look;
  /** After a time without a look: why `position` is not where to go on; `seen` is the file as it was left. */
  lookBack(position: WalPosition | null, seen: FileStat | null): Doubt | null;
  /** True when the log goes on behind `position` with frames that are not committed yet, or never will be. */
  goesOn(position: WalPosition | null): boolean;
  /** Seals a batch; false when its frames changed meanwhile and nothing was sealed. */
  seal(stream: Stream, batch: Batch): boolean;
  /** The image at the last commit; `null` when it changed while it was taken. */
  hold(options: HoldOptions): Promise<HeldImage | null>;
  /** Begins a snapshot. */
  beginSnapshot(position: WalPosition | null): SnapshotPoint;
  /**
   * The image of a snapshot, hashed; `null` when it must be begun again. `point` is released in any case, by the image
   * where that is held. `position`, where given, is the sealed head, which has passed `point`.
   */
  freeze(point: SnapshotPoint, options: FreezeOptions): Promise<FrozenAt | null>;
  close(): void;
}

/** Options of {@linkcode Capture.freeze}. */
export interface FreezeOptions {
  readonly position?: WalPosition | null;
  /** Filled on the way. */
  readonly index?: PageIndex;
  readonly sha256: NewSha256;
  /** Where a copy may be put. */
  readonly directory: string;
}
