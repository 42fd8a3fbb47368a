/** Points in time: reading them from text, and finding the changeset that stands for one. */
import { ConfigError, IntegrityError, RestoreError } from "../errors.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { type History, type Segment, segmentPoints, tryReadHeader } from "./history.ts";
import type { PoolObject, ReadOptions } from "./inventory.ts";
import { missingRange, rangeText, retained, seqRangeText, timeText } from "./plan.ts";
import { type FoundPoint, searchTime } from "./time_search.ts";

/** What to restore. */
export type RestoreTarget =
  | { readonly kind: "latest" }
  | { readonly kind: "time"; readonly ms: number }
  | { readonly kind: "seq"; readonly seq: bigint };

/** A target, found in the history. */
export interface ResolvedTarget {
  /** Lineage it belongs to. */
  readonly segment: Segment;
  /** Seq it stands for. */
  readonly seq: bigint;
  /** What the user should know of the choice, in words. */
  readonly notes: string[];
}

const rfc3339 = /^(\d{4})-(\d{2})-(\d{2})[Tt ](\d{2}):(\d{2}):(\d{2})(?:\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2})?$/;

/**
 * Unix milliseconds of an RFC 3339 time; digits beyond milliseconds are dropped. The zone is required, because a guess
 * would restore another hour, and a date must exist.
 */
export function parsePointInTime(text: string): number {
  const match = rfc3339.exec(text.trim());
  if (match === null) {
    throw new ConfigError("point_in_time", `"${text}" is not a time of RFC 3339`, {
      hint: "Write it like 2026-01-15T10:30:00Z or 2026-01-15T11:30:00+01:00.",
    });
  }
  const [year, month, day, hour, minute, second] = match.slice(1, 7).map(Number);
  const zone = match[8];
  if (zone === undefined) {
    throw new ConfigError("point_in_time_zone", `"${text}" does not say its time zone`, {
      hint: `Add Z for UTC or an offset: ${text.trim().replace(" ", "T")}Z`,
    });
  }
  const date = new Date(0);
  date.setUTCFullYear(year, month - 1, day);
  date.setUTCHours(hour, minute, second, Number((match[7] ?? "").padEnd(3, "0").slice(0, 3)));
  const exists = date.getUTCFullYear() === year && date.getUTCMonth() === month - 1 && date.getUTCDate() === day &&
    hour < 24 && minute < 60 && second < 60;
  const [zoneHours, zoneMinutes] = /^[Zz]$/.test(zone) ? [0, 0] : zone.slice(1).split(":").map(Number);
  if (!exists || zoneHours > 23 || zoneMinutes > 59) {
    throw new ConfigError("point_in_time", `"${text}" does not exist`, {
      hint: "Check the day, the hour and the zone.",
    });
  }
  const offsetMs = (zoneHours * 60 + zoneMinutes) * 60_000;
  return date.getTime() - (zone[0] === "-" ? -offsetMs : offsetMs);
}

/**
 * Finds the seq a target stands for. A time stands for the newest changeset whose created_ms is not later: also when
 * it lies after the last changeset (nothing newer is stored), unless it lies after `nowMs`: that is a mistake.
 */
export async function resolveTarget(
  store: ObjectStore,
  history: History,
  target: RestoreTarget,
  nowMs: number,
  options: ReadOptions = {},
): Promise<ResolvedTarget> {
  const usable = history.segments.filter((segment) => segment.snapshots.length > 0);
  if (usable.length === 0) throw nothingThere(history, store.location);
  if (target.kind === "latest") return latest(history, usable[0]);
  if (target.kind === "seq") {
    const points = usable.map(segmentPoints);
    const segment = usable.find((candidate) => target.seq >= candidate.snapshots[0].max);
    const last = points[0].at(-1)!;
    if (segment === undefined || target.seq > last.max) {
      throw outOfRange(`seq ${target.seq}`, await rangeOf(store, history, points, options));
    }
    // Where retention took the first points of a lineage, the parent's last one is the nearest, but no way leads there.
    const owner = history.segments.find(({ from }) => target.seq >= from);
    if (owner !== undefined && owner !== segment && retained(owner, { min: target.seq, max: target.seq })) {
      throw removedPoint(target.seq, history.segments);
    }
    return { segment, seq: target.seq, notes: [] };
  }
  if (target.ms > nowMs) {
    const range = await rangeOf(store, history, usable.map(segmentPoints), options);
    throw outOfRange(`${timeText(target.ms)} lies in the future and`, range);
  }
  const notes: string[] = [];
  for (const [index, segment] of usable.entries()) {
    const points = segmentPoints(segment);
    const olderSeq = index + 1 < usable.length ? segmentPoints(usable[index + 1]).at(-1)!.max : null;
    const { root } = history;
    const search = await searchTime({ ...options, store, root, segment, points, ms: target.ms, nowMs, olderSeq });
    const { found } = search;
    notes.push(...search.notes);
    if (found === null) continue;
    if (index === 0) notes.push(...latest(history, segment).notes);
    notes.push(...noteGap(segment, points, found, target.ms));
    return { segment, seq: points[found.index].max, notes };
  }
  throw outOfRange(timeText(target.ms), await rangeOf(store, history, usable.map(segmentPoints), options));
}

function latest(history: History, segment: Segment): ResolvedTarget {
  const points = segmentPoints(segment);
  const seq = points.at(-1)!.max;
  const head = history.segments[0];
  if (segment === head) return { segment, seq, notes: [] };
  const note = `lineage ${
    head.lineage ?? "bare"
  } has no complete snapshot yet; the latest point is seq ${seq} of its parent`;
  return { segment, seq, notes: [note] };
}

function nothingThere(history: History, location: string): RestoreError {
  const objects = history.segments.reduce((sum, segment) => sum + segment.deltas.length + segment.levels.length, 0);
  const where = `${location} below ${history.root}`;
  if (objects > 0) {
    return new RestoreError(
      "no_snapshot",
      `there are ${objects} changesets in ${where}, but no snapshot to start from`,
      {
        hint: "Run walrust snapshot on the live database.",
        data: { root: history.root },
      },
    );
  }
  return new RestoreError("nothing_stored", `nothing is stored in ${where}`, {
    hint: "Check bucket, prefix and name; walrust list shows what is there.",
    data: { root: history.root },
  });
}

/** Says (or, for damage, throws) when the time may belong to seqs that are no longer there. */
function noteGap(
  segment: Segment,
  points: PoolObject[],
  found: FoundPoint,
  ms: number,
): string[] {
  const point = points[found.index];
  const next = points[found.index + 1];
  if (next === undefined) {
    return ms > found.createdMs ? [`the last point is seq ${point.max} of ${timeText(found.createdMs)}`] : [];
  }
  if (next.max === point.max + 1n) return [];
  const gap = { min: point.max + 1n, max: next.max - 1n };
  const merged = segment.levels.some((level) => level.min <= gap.min && level.max >= next.max);
  if (merged || retained(segment, gap)) {
    const why = merged ? "were merged" : "were removed by retention";
    return [`the points ${seqRangeText(gap)} ${why}; the nearest earlier point, seq ${point.max}, is taken`];
  }
  if (ms === found.createdMs) return [];
  const missing = missingRange(segment, gap.min, gap.max);
  throw new IntegrityError(
    "missing_changesets",
    `${timeText(ms)} falls where ${seqRangeText(missing)} should be, which is missing`,
    {
      hint: `The nearest points are --seq ${point.max} and --seq ${next.max}.`,
      data: { missing: seqRangeText(missing), before: String(point.max), after: String(next.max) },
    },
  );
}

async function rangeOf(
  store: ObjectStore,
  history: History,
  points: PoolObject[][],
  options: ReadOptions,
): Promise<string> {
  const first = points.at(-1)![0];
  const last = points[0].at(-1)!;
  const time = async (object: PoolObject): Promise<number | null> => {
    const header = await tryReadHeader(store, history.root, object, options);
    return typeof header === "string" ? null : header.createdMs;
  };
  return rangeText({ seq: first.max, createdMs: await time(first) }, { seq: last.max, createdMs: await time(last) });
}

/** The refusal of a seq before the first point that retention left in its lineage. */
function removedPoint(seq: bigint, segments: readonly Segment[]): RestoreError {
  const points = segments.flatMap(segmentPoints).map(({ max }) => max).sort((a, b) => a < b ? -1 : a > b ? 1 : 0);
  const [before, after] = [points.findLast((point) => point < seq), points.find((point) => point > seq)];
  return new RestoreError(
    "inside_merged_range",
    `seq ${seq} lies in a range that retention removed; the nearest points are seq ${before} and seq ${after}`,
    {
      hint: `Restore with --seq ${before}.`,
      data: { seq: String(seq), before: String(before), after: String(after) },
    },
  );
}

function outOfRange(what: string, range: string): RestoreError {
  return new RestoreError("point_not_available", `${what} is not available: ${range}`, {
    hint: "Choose a point in this range.",
    data: { range },
  });
}
