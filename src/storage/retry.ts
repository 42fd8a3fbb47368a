import { StorageError } from "../errors.ts";
import type { Clock, Random } from "../runtime/types.ts";

/** How often, how long apart and for how long altogether a call is tried. */
export interface RetryPolicy {
  /** Tries after the first one. */
  readonly retriesMax: number;
  /** Upper bound of the first delay, milliseconds; doubles with each retry. */
  readonly baseDelayMs: number;
  /** Upper bound of any delay, milliseconds. */
  readonly delayMaxMs: number;
  /** No second retry begins later than this after the first try began, and none waits longer, milliseconds. */
  readonly budgetMs: number;
}

/** The policy where the configuration says nothing. */
export const defaultRetryPolicy: RetryPolicy = {
  retriesMax: 5,
  baseDelayMs: 100,
  delayMaxMs: 30_000,
  budgetMs: 120_000,
};

/** What a retry needs of the world, and whom to tell. */
export interface RetryOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly policy: RetryPolicy;
  readonly signal?: AbortSignal;
  /** Told before each wait. */
  readonly onRetry?: (error: StorageError, delayMs: number, attempt: number) => void;
}

/**
 * Waits before retry number `attempt` (from 1): full jitter (uniform between nothing and the doubled bound, so that
 * many clients do not come back together), but at least what the server asked for.
 * Throws `error` itself when it is not retryable, or tries or budget are used up.
 */
export async function waitForRetry(
  error: unknown,
  attempt: number,
  startedAt: number,
  options: RetryOptions,
): Promise<void> {
  const { clock, random, policy, signal } = options;
  signal?.throwIfAborted();
  if (!(error instanceof StorageError) || !error.retryable || attempt > policy.retriesMax) throw error;
  const bound = Math.min(policy.delayMaxMs, policy.baseDelayMs * 2 ** (attempt - 1));
  const delay = Math.max(random.number() * bound, error.retryAfterMs ?? 0);
  // The first retry is granted even when the first try was silent for longer than the budget.
  const elapsed = attempt === 1 ? 0 : clock.monotonic() - startedAt;
  if (elapsed + delay > policy.budgetMs) throw error;
  options.onRetry?.(error, delay, attempt);
  await clock.sleep(delay, signal);
}

/** Calls `action` until it succeeds, fails for good, or the policy ends it; then throws its last error. */
export async function retry<T>(action: (attempt: number) => Promise<T>, options: RetryOptions): Promise<T> {
  const startedAt = options.clock.monotonic();
  for (let attempt = 1;; attempt++) {
    options.signal?.throwIfAborted();
    try {
      return await action(attempt);
    } catch (error) {
      await waitForRetry(error, attempt, startedAt, options);
    }
  }
}

/** Milliseconds of a `Retry-After` header (seconds or a date), or undefined; a day at most. */
export function parseRetryAfter(text: string | null, nowMs: number): number | undefined {
  if (text === null) return undefined;
  const trimmed = text.trim();
  const ms = /^\d+$/.test(trimmed) ? Number(trimmed) * 1000 : Date.parse(trimmed) - nowMs;
  return Number.isFinite(ms) ? Math.min(Math.max(ms, 0), 86_400_000) : undefined;
}
