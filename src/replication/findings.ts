/** What a verification finds: data, not errors. */
import type { SeqRange } from "./plan.ts";

/** One thing that is not as it should be. */
export interface Finding {
  /** `error`: damage or loss; `warning`: nothing is lost yet, or only storage is; `info`: good to know. */
  readonly severity: "error" | "warning" | "info";
  /** Short stable word for machines, such as `missing_changesets`. */
  readonly code: string;
  /** In words. */
  readonly message: string;
  /** Key of the object it is about; null when it is about more. */
  readonly object: string | null;
  /** Points it is about; null when it is about none. */
  readonly seqs: SeqRange | null;
  /** What to do; null when there is nothing. */
  readonly hint: string | null;
}

/** More findings than this are only counted. */
const findingsMax = 1000;

/** Collects findings, bounded. */
export class Findings {
  readonly list: Finding[] = [];
  readonly counts: Record<Finding["severity"], number> = { error: 0, warning: 0, info: 0 };

  add(severity: Finding["severity"], code: string, message: string, more: Partial<Finding> = {}): void {
    this.counts[severity]++;
    if (this.list.length >= findingsMax) return;
    this.list.push({ severity, code, message, object: null, seqs: null, hint: null, ...more });
  }
}
