/** What a verification says of a bucket. */
import type { DrilledRun } from "./drill.ts";
import type { Finding } from "./findings.ts";
import type { Point } from "./plan.ts";

export type { DrilledRun } from "./drill.ts";
export type { Finding } from "./findings.ts";

/**
 * How thoroughly: `list` looks at keys and sizes, `headers` at 48 bytes of each object, `full` at every byte and the
 * whole chain, `drill` also rebuilds the database and compares it wherever the chain declares its hash.
 */
export type VerifyLevel = "list" | "headers" | "full" | "drill";

/** How far a verification in parts has come. */
export interface VerifyPlace {
  /** Null is the layout without lineages. */
  readonly lineage: string | null;
  /** Seq up to which it was looked at. */
  readonly seq: bigint;
}

/** What {@linkcode verify} found. */
export interface VerifyReport {
  /** `${prefix}${name}/` */
  readonly root: string;
  /** How thoroughly it was looked at. */
  readonly level: VerifyLevel;
  /** Lineages of the history. */
  readonly lineages: number;
  /** Whole images. */
  readonly snapshots: number;
  /** Deltas and bridges. */
  readonly deltas: number;
  /** Merged objects. */
  readonly levels: number;
  /** Of all of them, as listed. */
  readonly bytes: number;
  /** Objects that are as they must be, as far as the level looks. */
  readonly soundObjects: number;
  /** Bytes read. */
  readonly readBytes: number;
  /** Where the budget was used up; null when everything was looked at to the end. */
  readonly next: VerifyPlace | null;
  /** First and last point that can be restored; null when there is none. */
  readonly restorable: { readonly first: Point; readonly last: Point; readonly points: number } | null;
  /** What a drill proved; empty on other levels. */
  readonly drilled: readonly DrilledRun[];
  /** Bounded; {@linkcode VerifyReport.counts} counts all of them. */
  readonly findings: readonly Finding[];
  /** Findings of each severity. */
  readonly counts: Readonly<Record<Finding["severity"], number>>;
  /** Keys that `fix` removed. */
  readonly removed: readonly string[];
}

/** Exit code of a report: 0 clean, 1 warnings, 5 damage or loss, 6 nothing restorable. */
export function verifyExitCode({ restorable, counts }: Pick<VerifyReport, "restorable" | "counts">): number {
  if (restorable === null) return 6;
  if (counts.error > 0) return 5;
  return counts.warning > 0 ? 1 : 0;
}
