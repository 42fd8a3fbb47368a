import assert from "node:assert/strict";
import fc from "fast-check";
import { test } from "node:test";
import { WalrustError } from "../../src/errors.ts";
import { type Segment, segmentPoints } from "../../src/replication/history.ts";
import type { PoolObject } from "../../src/replication/inventory.ts";
import { planRestore, retained } from "../../src/replication/plan.ts";
import { planRetention, type RetentionOptions, type RetentionPlan } from "../../src/replication/retention_plan.ts";
import { type RetentionTiers, retentionTiers } from "../../src/replication/retention_tiers.ts";
import { checkProperty } from "../support/property.ts";

const hourMs = 3_600_000;
const dayMs = 24 * hourMs;
const nowMs = Date.parse("2026-06-15T12:30:00Z");
const noTiers: RetentionTiers = { hourly: 0, daily: 0, weekly: 0, monthly: 0 };

type Times = Map<PoolObject, number | null>;

interface Scene {
  /** Newest first. */
  segments: Segment[];
  times: Times;
}

function object(kind: PoolObject["kind"], min: number, max: number = min, size: number = 1000): PoolObject {
  return {
    kind,
    lineage: null,
    level: kind === "level" ? 1 : 0,
    min: BigInt(min),
    max: BigInt(max),
    size,
    lastModifiedMs: 0,
  };
}

function segmentOf(objects: PoolObject[], fields: Partial<Segment> = {}): Segment {
  const of = (kind: PoolObject["kind"]): PoolObject[] =>
    objects.filter((each) => each.kind === kind).sort((a, b) => Number(a.min - b.min || a.max - b.max));
  return {
    lineage: null,
    document: null,
    retention: null,
    ignoredKeys: 0,
    bytes: 0,
    warnings: [],
    own: true,
    from: 0n,
    through: null,
    ...fields,
    deltas: of("delta"),
    snapshots: of("snapshot"),
    levels: of("level"),
  };
}

/** Snapshots at `agesMs`, the oldest first, with `deltas` deltas after each. */
function scene(agesMs: number[], deltas: number = 2): Scene {
  const objects: PoolObject[] = [];
  const times: Times = new Map();
  let seq = 0;
  for (const age of agesMs) {
    const snapshot = object("snapshot", ++seq);
    times.set(snapshot, nowMs - age);
    objects.push(snapshot);
    if (seq > 1) objects.push(object("delta", seq, seq, 64));
    for (let index = 0; index < deltas; index++) objects.push(object("delta", ++seq));
  }
  return { segments: [segmentOf(objects)], times };
}

function plan(given: Scene, options: Partial<RetentionOptions> = {}): RetentionPlan {
  return planRetention(given, given.times, { tiers: retentionTiers, fineWindowMs: dayMs, nowMs, ...options });
}

/** What is left when a plan was carried out, as far as `removed` says. */
function afterwards(planned: RetentionPlan, removed: ReadonlySet<PoolObject>): Segment[] {
  return planned.segments.map(({ segment, ranges }) => {
    const left = [...segment.deltas, ...segment.snapshots, ...segment.levels].filter((each) => !removed.has(each));
    const marks = [...ranges].map((range) => ({ ...range, reason: "retention" as const }));
    return segmentOf(left, { ...segment, retention: { ranges: [...segment.retention?.ranges ?? [], ...marks] } });
  });
}

function allRemoved(planned: RetentionPlan): Set<PoolObject> {
  return new Set(planned.segments.flatMap(({ remove }) => remove));
}

/** What a restore of each seq comes to: `ok`, or the exit code. */
function outcomes(segments: Segment[], last: number): string[] {
  const found: string[] = [];
  for (let seq = 1n; seq <= BigInt(last); seq++) {
    const segment = segments.find((each) => seq >= each.from);
    try {
      if (segment !== undefined) planRestore(segment, seq);
      found.push(segment === undefined ? "6" : "ok");
    } catch (error) {
      assert.ok(error instanceof WalrustError, String(error));
      found.push(String(error.exitCode));
    }
  }
  return found;
}

const someScene: fc.Arbitrary<Scene & { last: number }> = fc.record({
  steps: fc.array(
    fc.record({
      what: fc.constantFrom("delta", "delta", "delta", "snapshot", "lineage", "hole", "level", "bare bridge"),
      age: fc.integer({ min: 0, max: 3 * dayMs }),
      time: fc.constantFrom("own", "own", "own", "own", "future", "unreadable"),
      stored: fc.constantFrom(0, nowMs - dayMs, nowMs + 100 * dayMs),
    }),
    { minLength: 1, maxLength: 40 },
  ),
  own: fc.boolean(),
}).map(({ steps, own }) => {
  const times: Times = new Map();
  const segments: Segment[] = [];
  let objects: PoolObject[] = [];
  let from = 0;
  let seq = 0;
  let ms = nowMs - 30 * dayMs;
  const close = (through: number | null): void => {
    if (objects.length === 0) return;
    segments.unshift(
      segmentOf(objects, { own, from: BigInt(from), through: through === null ? null : BigInt(through) }),
    );
    objects = [];
    from = through! + 1;
  };
  for (const { what, age, time, stored } of steps) {
    ms = Math.min(nowMs, ms + age);
    if (what === "lineage") {
      close(seq);
      continue;
    }
    seq++;
    if (what === "snapshot") {
      const snapshot = { ...object("snapshot", seq), lastModifiedMs: stored };
      times.set(snapshot, time === "own" ? ms : time === "future" ? nowMs + 3650 * dayMs : null);
      objects.push(snapshot);
    }
    if (what === "delta") objects.push(object("delta", seq));
    if (what === "bare bridge" || (what === "snapshot" && own && objects.length > 1)) {
      objects.push(object("delta", seq, seq, 64));
    }
    if (what === "level") {
      const min = Math.max(from, 1, seq - 1 - age % 4);
      objects.push({ ...object("level", min, seq) });
      // Its sources may still be there.
      if (age % 2 === 0) objects.push(object("delta", seq));
    }
  }
  close(null);
  return { segments, times, last: seq + 1 };
});

const someTiers = fc.record({
  hourly: fc.constantFrom(0, 1, 24),
  daily: fc.constantFrom(0, 3),
  weekly: fc.constantFrom(0, 2),
  monthly: fc.constantFrom(0, 1),
});

/** Holds a plan against what a restore finds before and after it. */
function checkPlan(given: Scene & { last: number }, planned: RetentionPlan): void {
  const before = outcomes(given.segments, given.last);
  const after = afterwards(planned, allRemoved(planned));
  const outcome = outcomes(after, given.last);
  const kept = new Set(planned.snapshots.filter(({ keptBy }) => keptBy.length > 0).map(({ object: { max } }) => max));
  for (let seq = 1; seq <= given.last; seq++) {
    const [was, is] = [before[seq - 1], outcome[seq - 1]];
    const isPromised = kept.has(BigInt(seq)) || (planned.fineFrom !== null && planned.fineFrom.seq <= BigInt(seq));
    if (was === "ok") assert.ok(is === "ok" || (is === "6" && !isPromised), `seq ${seq} was ok, is ${is}`);
  }
  const removed = [...allRemoved(planned)];
  for (const segment of after) {
    const points = segmentPoints(segment);
    points.forEach(({ max }, at) => {
      const gap = { min: max + 1n, max: (points[at + 1]?.max ?? 0n) - 1n };
      const isOurs = removed.some((each) => each.max >= gap.min && each.max <= gap.max && each.min >= segment.from);
      const isMerged = segment.levels.some((level) => level.min <= gap.min && level.max > gap.max);
      if (gap.max >= gap.min && isOurs) assert.ok(isMerged || retained(segment, gap), `gap ${gap.min} to ${gap.max}`);
    });
  }
  const readable = planned.snapshots.filter(({ createdMs }) => createdMs !== null);
  assert.ok(readable.slice(0, 2).every(({ keptBy }) => keptBy.length > 0), "the newest two stay");
}

test("[S97] planRetention: what it promised is restorable afterwards, and what it gave up is no damage", () => {
  checkProperty(
    fc.property(someScene, someTiers, fc.constantFrom(0, dayMs, 5 * dayMs), (given, tiers, fineWindowMs) => {
      checkPlan(given, plan(given, { tiers, fineWindowMs }));
    }),
    1500,
  );
});

test("planRetention: killed after any deletion, no point that is left has lost the ones before it", () => {
  checkProperty(
    fc.property(someScene, someTiers, (given, tiers) => {
      const planned = plan(given, { tiers });
      const before = outcomes(given.segments, given.last);
      const removed = new Set<PoolObject>();
      const steps = planned.segments.flatMap(({ remove }) => remove);
      for (const [at, each] of steps.entries()) {
        removed.add(each);
        // Objects that end at the same seq stand for one point.
        if (steps[at + 1]?.max === each.max) continue;
        const after = outcomes(afterwards(planned, removed), given.last);
        before.forEach((was, at) => assert.ok(was !== "ok" || after[at] !== "5", `seq ${at + 1}`));
      }
    }),
    200,
  );
});

test("canary: checkPlan fails for a plan that removes a base or names no ranges", () => {
  const given = { ...scene([70 * dayMs, 39 * dayMs, 20 * dayMs, 2 * dayMs, hourMs]), last: 15 };
  const sound = plan(given, { tiers: { ...noTiers, monthly: 12 } });
  checkPlan(given, sound);
  const [only] = sound.segments;
  assert.throws(() => checkPlan(given, { ...sound, segments: [{ ...only, ranges: [] }] }), /was ok, is 5/);
  const remove = [...only.remove, only.segment.snapshots[3]];
  assert.throws(() => checkPlan(given, { ...sound, segments: [{ ...only, remove }] }), /was ok, is 5/);
});

test("[S97] planRetention: the newest two snapshots and what lies between them stay, whatever the tiers say", () => {
  const given = scene([40 * dayMs, 20 * dayMs, 10 * dayMs]);
  const { snapshots, fineFrom, segments, lost } = plan(given, { tiers: noTiers });
  assert.deepEqual(snapshots.map(({ object: { max }, keptBy }) => [max, ...keptBy]), [[7n, "newest"], [4n, "second"], [
    1n,
  ]]);
  assert.equal(fineFrom!.seq, 4n);
  assert.deepEqual(segments[0].remove.map(({ kind, max }) => [kind, max]), [["delta", 3n], ["delta", 2n], [
    "snapshot",
    1n,
  ]]);
  assert.deepEqual(segments[0].ranges, [{ min: 1n, max: 3n }]);
  assert.deepEqual(lost, [
    { lineage: null, min: 1n, max: 3n, points: 3, before: null, after: { seq: 4n, createdMs: nowMs - 20 * dayMs } },
  ]);
  assert.equal(plan(given, { tiers: noTiers, fineWindowMs: 0 }).fineFrom!.seq, 4n, "also without a window");
  for (const ages of [[], [dayMs], [50 * dayMs]]) assert.deepEqual([...allRemoved(plan(scene(ages)))], []);
});

test("planRetention: hours, days, weeks and months each keep their newest, and a kept snapshot its bridge", () => {
  const ages = Array.from({ length: 24 * 400 }, (_, hour) => hour * hourMs).reverse();
  const { snapshots, segments, fineFrom } = plan(scene(ages, 1));
  const kept = snapshots.filter(({ keptBy }) => keptBy.length > 0);
  for (const [tier, count] of Object.entries(retentionTiers)) {
    assert.equal(kept.filter(({ keptBy }) => keptBy.some((reason) => reason === tier)).length, count, tier);
  }
  assert.ok(kept.length <= 24 + 7 + 12 + 12 + 1);
  assert.equal(fineFrom!.createdMs, nowMs - dayMs);
  const bridges = segments[0].keep.filter(({ kind, size }) => kind === "delta" && size === 64).map(({ max }) => max);
  assert.deepEqual(kept.map(({ object: { max } }) => max).filter((max) => !bridges.includes(max)), []);
});

test("planRetention: the fine window is whole: the snapshot before it stays with everything after it", () => {
  const given = scene([50, 26, 20, 10, 1].map((hour) => hour * hourMs));
  const { fineFrom, segments } = plan(given, { tiers: noTiers });
  assert.equal(fineFrom!.seq, 4n);
  assert.deepEqual(
    segments[0].remove.map(({ max }) => max),
    [7n, 3n, 2n, 1n],
    "snapshots inside go, their bridges stay",
  );
  assert.deepEqual(segments[0].ranges, [{ min: 1n, max: 3n }]);
});

test("planRetention: in a lineage without bridges a snapshot that paths lead over stays", () => {
  const given = scene([50 * hourMs, 26 * hourMs, 10 * hourMs, hourMs]);
  const [own] = given.segments;
  const deltas = own.deltas.filter(({ size }) => size !== 64);
  const foreign = segmentOf([...deltas, ...own.snapshots], { own: false });
  const { snapshots } = plan({ segments: [foreign], times: given.times }, { tiers: noTiers });
  assert.deepEqual(snapshots.map(({ object: { max }, keptBy }) => [max, ...keptBy]), [
    [10n, "newest"],
    [7n, "second"],
    [4n, "base"],
    [1n],
  ]);
});

test("[S68] planRetention: snapshots of the far future push no other out and are thinned by the store's clock", () => {
  const given = scene([30, 29, 28, 27, 26, 25].map((day) => day * dayMs));
  const sane = plan(given, { tiers: { ...noTiers, daily: 3 } });
  const reasons = ({ snapshots }: RetentionPlan): unknown[] =>
    snapshots.filter(({ createdMs }) => createdMs! < nowMs).map(({ object: { max }, keptBy }) => [max, ...keptBy]);
  const objects: PoolObject[] = [];
  for (let seq = 100; seq < 130; seq++) {
    const snapshot = { ...object("snapshot", seq), lastModifiedMs: nowMs - (130 - seq) * hourMs };
    objects.push(snapshot, object("delta", seq, seq, 64));
    given.times.set(snapshot, nowMs + 3650 * dayMs);
  }
  const [segment] = given.segments;
  const all = [...segment.deltas, ...segment.snapshots, ...objects];
  const jumped = plan({ ...given, segments: [segmentOf(all)] }, { tiers: { ...noTiers, daily: 3 } });
  const withoutNewest = (list: unknown[]): string =>
    JSON.stringify(list, (_, value) => typeof value === "bigint" ? `${value}` : value).replaceAll(
      /,"(newest|second)"/g,
      "",
    );
  assert.equal(withoutNewest(reasons(jumped)), withoutNewest(reasons(sane)));
  const future = jumped.snapshots.filter(({ createdMs }) => createdMs! > nowMs);
  const kept = future.filter(({ keptBy }) => keptBy.some((reason) => reason === "daily"));
  assert.equal(kept.length, 2, "the store saw them on two days");
  assert.ok(future.some(({ keptBy }) => keptBy.length === 0));
});

test("[S68] planRetention: a clock of ours that is wrong removes nothing it should not", () => {
  const given = scene([30 * 24, 20, 15, 10, 5, 1].map((hour) => hour * hourMs));
  const right = plan(given, { tiers: noTiers });
  const ahead = plan(given, { tiers: noTiers, nowMs: nowMs + 3650 * dayMs });
  assert.ok(allRemoved(right).size > 0);
  assert.deepEqual(allRemoved(ahead), allRemoved(right), "ten years ahead");
  const behind = plan(given, { nowMs: 0 });
  assert.equal(allRemoved(behind).size, 0, "in 1970 every time lies in the future");
});

test("planRetention: parent lineages are part of the history, and the newest snapshots may lie in them", () => {
  const parent = segmentOf([object("snapshot", 1), object("delta", 2), object("snapshot", 3), object("delta", 4)], {
    lineage: "a".repeat(32),
    through: 6n,
  });
  const child = segmentOf([object("snapshot", 7), object("delta", 8)], { lineage: "b".repeat(32), from: 7n });
  const times: Times = new Map([
    [parent.snapshots[0], nowMs - 400 * dayMs],
    [parent.snapshots[1], nowMs - 300 * dayMs],
    [child.snapshots[0], nowMs - 10 * dayMs],
  ]);
  const planned = plan({ segments: [child, parent], times }, { tiers: noTiers });
  assert.deepEqual(planned.segments[1].remove.map(({ max }) => max), [2n, 1n]);
  assert.deepEqual(planned.segments[0].remove, []);
  const later = segmentOf(
    [...child.deltas, ...child.snapshots, object("snapshot", 9), object("delta", 9, 9, 64)],
    child,
  );
  times.set(later.snapshots[1], nowMs - 9 * dayMs);
  const gone = plan({ segments: [later, parent], times }, { tiers: noTiers });
  assert.deepEqual(gone.segments[1].remove.map(({ max }) => max), [4n, 3n, 2n, 1n]);
  assert.deepEqual(gone.segments[1].ranges, [{ min: 1n, max: 6n }], "up to the fork");
});

test("planRetention: what can only be reached from a snapshot that cannot be read is no reason to give one up", () => {
  const given = scene([5, 4, 3, 2, 1].map((hour) => hour * hourMs));
  const [segment] = given.segments;
  // Damage before the second snapshot; the third, which it leads to, is then the first that can be relied on.
  const deltas = segment.deltas.filter(({ max }) => max !== 3n);
  const damaged = segmentOf([...deltas, ...segment.snapshots]);
  const third = (times: Times): string[] => {
    const { snapshots } = planRetention({ segments: [damaged] }, times, {
      tiers: noTiers,
      fineWindowMs: dayMs,
      nowMs,
    });
    return [...snapshots.find(({ object: { max } }) => max === 7n)!.keptBy];
  };
  assert.deepEqual(third(given.times), []);
  given.times.set(segment.snapshots[1], null);
  assert.deepEqual(third(given.times), ["base"]);
});

test("planRetention: a snapshot whose header cannot be read stays and is the base of nothing", () => {
  const given = scene([40 * dayMs, 30 * dayMs, 20 * dayMs, 10 * dayMs]);
  const [segment] = given.segments;
  given.times.set(segment.snapshots[3], null);
  const { snapshots, fineFrom } = plan(given, { tiers: noTiers });
  assert.deepEqual(snapshots.map(({ keptBy }) => keptBy.join()), ["unreadable", "newest", "second", ""]);
  assert.equal(fineFrom!.seq, 4n);
});
