import assert from "node:assert/strict";
import { test } from "node:test";
import type { Clock } from "../../src/runtime/types.ts";
import { Watchdog } from "../../src/storage/watchdog.ts";

/** Time that passes only when it is told to, and knows its sleepers. */
class ManualClock implements Clock {
  begun = 0;
  running = 0;
  #now = 0;
  #sleepers: { at: number; end: () => void }[] = [];

  now(): number {
    return this.#now;
  }

  monotonic(): number {
    return this.#now;
  }

  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    this.begun++;
    this.running++;
    const sleeper = { at: this.#now + ms, end: () => {} };
    this.#sleepers.push(sleeper);
    try {
      await new Promise<void>((resolve, reject) => {
        sleeper.end = resolve;
        signal?.addEventListener("abort", () => reject(signal.reason), { once: true });
      });
    } finally {
      this.running--;
      this.#sleepers = this.#sleepers.filter((other) => other !== sleeper);
    }
  }

  /** Lets so many milliseconds pass, and everything run that they wake. */
  async pass(ms: number): Promise<void> {
    const end = this.#now + ms;
    await settled();
    for (;;) {
      const next = this.#sleepers.filter(({ at }) => at <= end).sort((a, b) => a.at - b.at)[0];
      if (next === undefined) break;
      this.#now = next.at;
      next.end();
      await settled();
    }
    this.#now = end;
  }
}

function settled(): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, 0));
}

const first = new Error("first");
const second = new Error("second");

function begin(parent?: AbortSignal): { clock: ManualClock; watchdog: Watchdog } {
  const clock = new ManualClock();
  return { clock, watchdog: new Watchdog(clock, parent) };
}

test("Watchdog.arm: a nearer deadline counts, although the sleep for a later one is running", async () => {
  const { clock, watchdog } = begin();
  watchdog.arm(3000, first);
  await clock.pass(100);
  watchdog.arm(200, second);
  await clock.pass(199);
  assert.equal(watchdog.signal.aborted, false);
  assert.equal(clock.running, 1, "one timer at a time");
  await clock.pass(1);
  assert.equal(watchdog.signal.reason, second);
  assert.equal(clock.running, 0);
});

test("Watchdog.arm: a later deadline counts, and begins no sleep of its own", async () => {
  const { clock, watchdog } = begin();
  watchdog.arm(200, first);
  await clock.pass(100);
  watchdog.arm(3000, second);
  await clock.pass(2999);
  assert.equal(watchdog.signal.aborted, false);
  assert.equal(clock.begun, 2, "the first, and the rest of the second when the first had ended");
  await clock.pass(1);
  assert.equal(watchdog.signal.reason, second);
});

test("Watchdog.arm: nearer ones at once, the last one counts", async () => {
  const { clock, watchdog } = begin();
  for (const ms of [5000, 1000, 300, 700, 400]) watchdog.arm(ms, first);
  watchdog.arm(2000, second);
  await clock.pass(1999);
  assert.equal(watchdog.signal.aborted, false);
  await clock.pass(1);
  assert.equal(watchdog.signal.reason, second);
});

test("Watchdog.arm: a thousand chunks in time cost a sleep per limit, not one each", async () => {
  const { clock, watchdog } = begin();
  for (let chunk = 0; chunk < 1000; chunk++) {
    watchdog.arm(30_000, first);
    watchdog.disarm();
    if (chunk % 100 === 0) await clock.pass(1000);
  }
  assert.equal(clock.begun, 1);
  watchdog.arm(30_000, first);
  await clock.pass(29_999);
  assert.equal(watchdog.signal.aborted, false);
  assert.ok(clock.begun <= 3, `${clock.begun} sleeps`);
  await clock.pass(1);
  assert.equal(watchdog.signal.reason, first);
});

test("Watchdog.disarm, close: nothing is aborted any more, and no timer stays", async () => {
  const disarmed = begin();
  disarmed.watchdog.arm(200, first);
  disarmed.watchdog.disarm();
  await disarmed.clock.pass(5000);
  assert.equal(disarmed.watchdog.signal.aborted, false);
  const closed = begin();
  closed.watchdog.arm(200, first);
  closed.watchdog.close();
  closed.watchdog.arm(100, second);
  await closed.clock.pass(5000);
  assert.equal(closed.watchdog.signal.aborted, false);
  assert.deepEqual([closed.clock.running, closed.clock.begun], [0, 1]);
});

test("Watchdog: the caller's abort is passed on until it is closed", () => {
  const caller = new AbortController();
  const { watchdog } = begin(caller.signal);
  const over = begin(caller.signal);
  over.watchdog.close();
  caller.abort(first);
  assert.equal(watchdog.signal.reason, first);
  assert.equal(over.watchdog.signal.aborted, false);
  assert.equal(begin(caller.signal).watchdog.signal.reason, first);
});

test("Watchdog: a clock that fails ends the watch, not the program", async () => {
  const clock: Clock = { now: () => 0, monotonic: () => 0, sleep: () => Promise.reject(second) };
  const watchdog = new Watchdog(clock, undefined);
  watchdog.arm(200, first);
  await settled();
  assert.equal(watchdog.signal.aborted, false);
});
