/**
 * An image that stays as it is while its snapshot is uploaded: a small one is copied, so that its pin is released at
 * once; a large one is held by its pin.
 */
import type { Clock, Files, NewSha256, OpenFile } from "../runtime/types.ts";
import { CopiedImage, type ImageSource, openCopy } from "./image.ts";
import type { PageIndex } from "./page_index.ts";
import { hashImage } from "./snapshot.ts";

/** Images up to this size, in bytes, are copied. */
const copySizeMax = 64 * 1024 * 1024;

/** See the top of this file. */
export interface FrozenImage {
  readonly image: ImageSource;
  /** First 8 bytes of the SHA-256 over pages 1..N. */
  readonly rawHash: bigint;
  /** True while a pin holds it: no rollover then. */
  readonly holdsPin: boolean;
  /** Lets go of pin or copy. */
  release(): void;
}

/** Hashes an image that is held until `release`, filling `index` on the way where given. On failure it is released. */
export async function freezeImage(
  image: ImageSource,
  options: {
    release: () => void;
    /** Where a copy may be put. */
    directory: string;
    files: Files;
    sha256: NewSha256;
    clock: Clock;
    index?: PageIndex;
  },
): Promise<FrozenImage> {
  const { files, release } = options;
  const size = image.pageCount * image.pageSize;
  let copy: OpenFile | null = null;
  try {
    files.makeDirectory(options.directory);
    // Where room is scarce it belongs to the spool.
    if (size <= copySizeMax && files.freeBytes(options.directory) >= size + copySizeMax) {
      copy = openCopy(`${options.directory}/snapshot.copy`, files);
    }
    const rawHash = await hashImage(image, { ...options, ...(copy === null ? {} : { copy }) });
    if (copy === null) return { image, rawHash, holdsPin: true, release };
    const copied = copy;
    release();
    return {
      image: new CopiedImage(copied, image.pageSize, image.pageCount),
      rawHash,
      holdsPin: false,
      release: () => copied.close(),
    };
  } catch (error) {
    copy?.close();
    release();
    throw error;
  }
}
