/** Points in time: reading them from text, and finding the changeset that stands for one. */
import { ConfigError, IntegrityError, RestoreError } from "../errors.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import { type History, readHeader, type Segment, segmentPoints } from "./history.ts";
import type { PoolObject, ReadOptions } from "./inventory.ts";
import { missingRange, rangeText, retained, seqRangeText } from "./plan.ts";

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

/** Beyond this many points a foreign lineage is searched by bisection, as if its times were ordered. */
const linearPointsMax = 2000;

/** Headers read at once in a linear search. */
const headersInFlight = 16;

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
 * it lies after the last changeset (nothing was committed since), unless it lies after `nowMs`: that is a mistake.
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
    return { segment, seq: target.seq, notes: [] };
  }
  if (target.ms > nowMs) {
    const range = await rangeOf(store, history, usable.map(segmentPoints), options);
    throw outOfRange(`${timeText(target.ms)} lies in the future and`, range);
  }
  for (const [index, segment] of usable.entries()) {
    const points = segmentPoints(segment);
    const found = await findTime(store, history.root, segment, points, target.ms, options);
    if (found === null) continue;
    const notes = index === 0 && segment !== history.segments[0] ? latest(history, segment).notes : [];
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

/** Created time of the object, or null where it cannot be read: the walk will say why if it is needed. */
async function createdMs(store: ObjectStore, root: string, object: PoolObject, options: ReadOptions): Promise<number> {
  return (await readHeader(store, root, object, options)).createdMs;
}

/** Index of the newest point not later than `ms`, or null. */
async function findTime(
  store: ObjectStore,
  root: string,
  segment: Segment,
  points: PoolObject[],
  ms: number,
  options: ReadOptions,
): Promise<{ index: number; createdMs: number } | null> {
  if (!segment.own && points.length <= linearPointsMax) {
    // Rust stamps a merge with the time of merging, so an object counts from the minimum of its own time and those
    // of all later ones: the newest point with an effective time ≤ ms is the newest one whose own time is ≤ ms.
    for (let end = points.length; end > 0; end -= headersInFlight) {
      const start = Math.max(0, end - headersInFlight);
      const times = await Promise.all(points.slice(start, end).map((point) => createdMs(store, root, point, options)));
      for (let index = end - 1; index >= start; index--) {
        if (times[index - start] <= ms) return { index, createdMs: times[index - start] };
      }
    }
    return null;
  }
  let low = 0;
  let high = points.length;
  let found: { index: number; createdMs: number } | null = null;
  while (low < high) {
    const middle = (low + high) >>> 1;
    const time = await createdMs(store, root, points[middle], options);
    if (time <= ms) {
      found = { index: middle, createdMs: time };
      low = middle + 1;
    } else high = middle;
  }
  return found;
}

/** Says (or, for damage, throws) when the time may belong to seqs that are no longer there. */
function noteGap(
  segment: Segment,
  points: PoolObject[],
  found: { index: number; createdMs: number },
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
    try {
      return await createdMs(store, history.root, object, options);
    } catch (error) {
      if (error instanceof IntegrityError) return null;
      throw error;
    }
  };
  return rangeText({ seq: first.max, createdMs: await time(first) }, { seq: last.max, createdMs: await time(last) });
}

function outOfRange(what: string, range: string): RestoreError {
  return new RestoreError("point_not_available", `${what} is not available: ${range}`, {
    hint: "Choose a point in this range.",
    data: { range },
  });
}

/** A time as people write it: RFC 3339 in UTC; a number where the calendar ends. */
export function timeText(ms: number): string {
  return Math.abs(ms) <= 8.64e15 ? new Date(ms).toISOString() : `${ms} ms`;
}
