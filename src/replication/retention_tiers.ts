/**
 * Grandfather, father, son: of every hour, day, ISO week and month (UTC) that has snapshots the newest one is kept, for
 * as many of the newest hours, days, weeks and months as a tier says. Hours without a snapshot do not count, so that a
 * database that was idle for a year still has as many snapshots as one that was not.
 */

/** How many of each are kept; 0 keeps none. */
export interface RetentionTiers {
  /** Hours. */
  readonly hourly: number;
  /** Days. */
  readonly daily: number;
  /** Weeks, from Monday. */
  readonly weekly: number;
  /** Months. */
  readonly monthly: number;
}

/** 55 snapshots at most. */
export const retentionTiers: RetentionTiers = { hourly: 24, daily: 7, weekly: 12, monthly: 12 };

/** How long what was marked is left alone before it is deleted, unless said otherwise, milliseconds. */
export const graceDefaultMs = 3_600_000;

/** A tier's name. */
export type TierName = keyof RetentionTiers;

/** Names of the tiers, finest first. */
export const tierNames: readonly TierName[] = ["hourly", "daily", "weekly", "monthly"];

const hourMs = 3_600_000;
const dayMs = 86_400_000;

/** The period that a time lies in, counted so that the next one has the next number. */
export function periodOf(tier: TierName, ms: number): number {
  const day = Math.floor(ms / dayMs);
  if (tier === "hourly") return Math.floor(ms / hourMs);
  if (tier === "daily") return day;
  // The epoch was a Thursday: three days earlier a week began, and 7 days make a week in every year, also one of 53.
  if (tier === "weekly") return Math.floor((day + 3) / 7);
  const date = new Date(ms);
  return date.getUTCFullYear() * 12 + date.getUTCMonth();
}

/** Which of the times (ascending by age in their own order, the newest last) a tier keeps: their positions. */
export function keptBy(tier: TierName, count: number, times: readonly number[]): Set<number> {
  const newest = new Map<number, number>();
  times.forEach((ms, index) => newest.set(periodOf(tier, ms), index));
  const periods = [...newest.keys()].sort((a, b) => b - a).slice(0, count);
  return new Set(periods.map((period) => newest.get(period)!));
}
