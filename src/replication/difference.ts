/**
 * The answer to every doubt: the pages of an image that differ from what the index says the bucket holds.
 */
import { lockBytePage } from "../format/sqlite_header.ts";
import type { Clock } from "../runtime/types.ts";
import type { ImageAt } from "./capture.ts";
import type { ImageSource } from "./image.ts";
import { indexEntrySize, type PageIndex } from "./page_index.ts";
import type { Keep, Stream } from "./stream.ts";

const runSize = 4 * 1024 * 1024;

/**
 * Page numbers, ascending, whose content differs from the index, or that the index does not cover yet.
 * `candidates` limits the pages within `indexedCount` that are compared; `null` compares all.
 */
export async function differingPages(
  image: ImageSource,
  index: PageIndex,
  indexedCount: number,
  candidates: ReadonlySet<number> | null,
  clock: Clock,
): Promise<number[]> {
  const { pageSize, pageCount } = image;
  const lockPage = lockBytePage(pageSize);
  const differing: number[] = [];
  const perRun = Math.max(1, Math.min(Math.floor(runSize / pageSize), pageCount));
  const buffer = new Uint8Array(perRun * pageSize);
  const hash = new Uint8Array(indexEntrySize);
  for (const { first, count } of runs(candidates, indexedCount, pageCount, perRun)) {
    image.read(first, count, buffer);
    const known = index.read(first, count);
    for (let i = 0; i < count; i++) {
      const pgno = first + i;
      if (pgno === lockPage) continue;
      index.hashPage(buffer.subarray(i * pageSize, (i + 1) * pageSize), hash, 0);
      const same = pgno <= indexedCount && hash.every((byte, at) => byte === known[i * indexEntrySize + at]);
      if (!same) differing.push(pgno);
    }
    await clock.sleep(0);
  }
  return differing;
}

/** Seals the pages of an image that differ from the index, or moves on where none does; returns their numbers. */
export async function sealDifference(
  stream: Stream,
  { image, end }: Pick<ImageAt, "image" | "end">,
  candidates: ReadonlySet<number> | null,
  keep: Keep,
  clock: Clock,
): Promise<number[]> {
  const { pageCount } = stream.sealed;
  const pgnos = await differingPages(image, stream.parts.index, pageCount, candidates, clock);
  if (pgnos.length === 0 && image.pageCount === pageCount) stream.moveTo(end);
  else stream.sealImagePages(image, pgnos, end, keep);
  return pgnos;
}

/** Runs of pages to compare: the candidates, then everything beyond the indexed count. */
function* runs(
  candidates: ReadonlySet<number> | null,
  indexedCount: number,
  pageCount: number,
  perRun: number,
): Generator<{ first: number; count: number }> {
  if (candidates !== null) {
    const known = [...candidates].filter((pgno) => pgno <= Math.min(indexedCount, pageCount)).sort((a, b) => a - b);
    for (let i = 0; i < known.length;) {
      let count = 1;
      while (count < perRun && known[i + count] === known[i] + count) count++;
      yield { first: known[i], count };
      i += count;
    }
  }
  for (let first = candidates === null ? 1 : indexedCount + 1; first <= pageCount; first += perRun) {
    yield { first, count: Math.min(perRun, pageCount - first + 1) };
  }
}
