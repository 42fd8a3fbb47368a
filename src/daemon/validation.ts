/** Verification on a schedule beside a watch: a part of the bucket at a time, so that it costs no more than it may. */
import { parseJson } from "../format/json.ts";
import { readSmallFile, writeFileAtomically } from "../replication/small_file.ts";
import type { Finding, VerifyPlace } from "../replication/verify_report.ts";
import type { Runtime } from "../runtime/types.ts";
import type { ObjectStore } from "../storage/object_store.ts";
import type { Limiter } from "./upload_limit.ts";

/** How what is stored is verified while watching. */
export interface ValidationOptions {
  /** Time between two verifications, milliseconds; 0: none. */
  readonly validationIntervalMs: number;
  /** Bytes that one of them reads, about; the next one goes on where it stopped. */
  readonly validationBudget: number;
}

/** What a verification on schedule came to. */
export type ValidationEvent =
  | {
    kind: "validated";
    path: string;
    /** Bytes read. */
    bytes: number;
    /** Points that can be restored. */
    points: number;
    /** Unix milliseconds: every byte that was stored then has been verified since; null before the first round. */
    lastVerifiedMs: number | null;
  }
  | { kind: "corruption_detected"; path: string; findings: readonly Finding[] }
  | { kind: "validation_failed"; path: string; error: unknown };

/** What {@linkcode Validation} needs. */
export interface ValidationParts {
  readonly path: string;
  readonly root: string;
  /** State directory. */
  readonly directory: string;
  readonly store: ObjectStore;
  readonly runtime: Runtime;
  readonly options: ValidationOptions;
  /** One verification at a time over all databases. */
  readonly turns: Limiter;
  readonly emit: (event: ValidationEvent) => void;
}

/** What is kept over a restart: without it a watch that is restarted often would never come to the end. */
interface Progress {
  readonly lastRunMs: number;
  /** Where the round goes on; null at its beginning. */
  readonly place: VerifyPlace | null;
  readonly roundBeganMs: number;
  readonly lastVerifiedMs: number | null;
}

const fileName = "validation";
const fileSizeMax = 4096;
const parallel = 2;
/** Timers do not reach further than weeks, and wall clocks jump. */
const sleepMaxMs = 3_600_000;

/** The verifications of one database. */
export class Validation {
  readonly #parts: ValidationParts;

  constructor(parts: ValidationParts) {
    this.#parts = parts;
  }

  /** Verifies whenever it is due, until the signal. */
  async run(signal: AbortSignal): Promise<void> {
    const { runtime: { clock }, options: { validationIntervalMs: intervalMs }, turns, path, emit } = this.#parts;
    let since = clock.now();
    while (!signal.aborted) {
      try {
        const now = clock.now();
        const last = this.#read()?.lastRunMs ?? since;
        // After a clock was put back what was noted may lie years ahead.
        since = Math.min(since, now);
        const waitMs = (last > now ? since : last) + intervalMs - now;
        if (waitMs > 0) await clock.sleep(Math.min(waitMs, sleepMaxMs), signal);
        else await turns(() => this.#verify(signal), signal);
      } catch (error) {
        if (signal.aborted) return;
        emit({ kind: "validation_failed", path, error });
        await clock.sleep(intervalMs, signal).catch(() => undefined);
      }
    }
  }

  async #verify(signal: AbortSignal): Promise<void> {
    const { store, root, runtime, options, path, emit } = this.#parts;
    const now = runtime.clock.now();
    const before = this.#read();
    const after = before?.place ?? null;
    const budget = { bytes: options.validationBudget, after };
    // Loaded when it is first used: most watches never do.
    const { verify } = await import("../replication/verify.ts");
    const report = await verify({ store, root, level: "full", runtime, budget, parallel, signal });
    const roundBeganMs = after === null ? now : before!.roundBeganMs;
    const lastVerifiedMs = report.next === null ? roundBeganMs : before?.lastVerifiedMs ?? null;
    this.#write({ lastRunMs: now, place: report.next, roundBeganMs, lastVerifiedMs });
    const findings = report.findings.filter(({ severity }) => severity === "error");
    if (findings.length > 0) emit({ kind: "corruption_detected", path, findings });
    const { readBytes: bytes, restorable } = report;
    emit({ kind: "validated", path, bytes, points: restorable?.points ?? 0, lastVerifiedMs });
  }

  #read(): Progress | null {
    const { directory, runtime } = this.#parts;
    const path = `${directory}/${fileName}`;
    try {
      const bytes = readSmallFile(runtime.files, path, fileSizeMax);
      return bytes === null ? null : parseProgress(bytes, path);
    } catch {
      // It only says where to go on.
      return null;
    }
  }

  #write({ lastRunMs, place, roundBeganMs, lastVerifiedMs }: Progress): void {
    const { directory, runtime } = this.#parts;
    const seq = place === null ? null : String(place.seq);
    const text = JSON.stringify({ lastRunMs, roundBeganMs, lastVerifiedMs, lineage: place?.lineage ?? null, seq });
    writeFileAtomically(runtime.files, directory, fileName, new TextEncoder().encode(text));
  }
}

function parseProgress(bytes: Uint8Array, path: string): Progress | null {
  const fields = parseJson(bytes, path);
  if (!(fields instanceof Map)) return null;
  const time = (name: string): number | null => {
    const value = fields.get(name);
    return typeof value === "bigint" ? Number(value) : null;
  };
  const [lastRunMs, roundBeganMs] = [time("lastRunMs"), time("roundBeganMs")];
  if (lastRunMs === null || roundBeganMs === null) return null;
  const [lineage, seq] = [fields.get("lineage"), fields.get("seq")];
  const place = typeof seq === "string" && /^\d{1,20}$/.test(seq)
    ? { lineage: typeof lineage === "string" ? lineage : null, seq: BigInt(seq) }
    : null;
  return { lastRunMs, place, roundBeganMs, lastVerifiedMs: time("lastVerifiedMs") };
}
