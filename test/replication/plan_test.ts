import assert from "node:assert/strict";
import fc from "fast-check";
import { test } from "node:test";
import { WalrustError } from "../../src/errors.ts";
import type { Segment } from "../../src/replication/history.ts";
import type { PoolObject } from "../../src/replication/inventory.ts";
import { planRestore, type RestorePlan } from "../../src/replication/plan.ts";

function object(kind: PoolObject["kind"], min: number, max: number = min): PoolObject {
  const level = kind === "level" ? 1 : 0;
  return { kind, lineage: null, level, min: BigInt(min), max: BigInt(max), size: 100, lastModifiedMs: 0 };
}

function segment(objects: PoolObject[], own: boolean = true): Segment {
  const of = (kind: PoolObject["kind"]) =>
    objects.filter((each) => each.kind === kind).sort((a, b) => Number(a.min - b.min || a.max - b.max));
  return {
    lineage: null,
    document: null,
    retention: null,
    ignoredKeys: 0,
    bytes: 0,
    warnings: [],
    own,
    from: 0n,
    through: null,
    deltas: of("delta"),
    snapshots: of("snapshot"),
    levels: of("level"),
  };
}

/** What the plan must be: contiguous from its snapshot to the target. */
function assertPath(plan: RestorePlan, seq: bigint, own: boolean): void {
  let next = plan.snapshot.max + 1n;
  for (const step of plan.steps) {
    assert.equal(step.kind === "hole" ? step.max : step.min, next);
    if (step.kind === "hole") assert.ok(!own && step.max < seq);
    next = step.max + 1n;
  }
  assert.equal(next, seq + 1n);
}

/** The oracle: which seqs are reachable from any snapshot, by brute force. */
function reachable(objects: PoolObject[], seq: number, own: boolean): boolean {
  const snapshots = new Set(objects.filter((each) => each.kind === "snapshot").map((each) => Number(each.max)));
  const seen = new Set([...snapshots].filter((at) => at <= seq));
  for (const at of seen) {
    for (const each of objects) {
      if (each.kind !== "snapshot" && Number(each.min) === at + 1 && Number(each.max) <= seq) {
        seen.add(Number(each.max));
      }
    }
    if (!own && snapshots.has(at + 1) && at + 1 < seq) seen.add(at + 1);
  }
  return seen.has(seq);
}

const someObjects = fc.array(
  fc.oneof(
    fc.integer({ min: 1, max: 12 }).map((seq) => object("delta", seq)),
    fc.integer({ min: 1, max: 12 }).map((seq) => object("delta", seq)),
    fc.integer({ min: 1, max: 12 }).map((seq) => object("snapshot", seq)),
    fc.tuple(fc.integer({ min: 1, max: 12 }), fc.integer({ min: 0, max: 4 }))
      .map(([min, more]) => object("level", min, min + more)),
  ),
  { maxLength: 24 },
);

/** Holds planRestore against the oracle. */
function checkPlan(plan: typeof planRestore, objects: PoolObject[], seq: number, own: boolean): void {
  let found: RestorePlan | null = null;
  try {
    found = plan(segment(objects, own), BigInt(seq));
  } catch (error) {
    assert.ok(error instanceof WalrustError && [5, 6].includes(error.exitCode), String(error));
  }
  assert.equal(found !== null, reachable(objects, seq, own), "found a path exactly when there is one");
  if (found !== null) assertPath(found, BigInt(seq), own);
}

test("planRestore: finds a contiguous path exactly when there is one, whatever overlaps or is missing", () => {
  const property = fc.property(someObjects, fc.integer({ min: 1, max: 14 }), fc.boolean(), (objects, seq, own) => {
    checkPlan(planRestore, objects, seq, own);
  });
  fc.assert(property, { numRuns: 3000 });
});

test("canary: checkPlan fails for a planner that skips a missing delta", () => {
  const careless: typeof planRestore = (all, seq) => {
    const snapshot = all.snapshots.findLast((each) => each.max <= seq)!;
    return { segment: all, snapshot, steps: all.deltas.filter((each) => each.max > snapshot.max), seq, bytes: 0 };
  };
  const objects = [object("snapshot", 1), object("delta", 2), object("delta", 4)];
  assert.throws(() => checkPlan(careless, objects, 4, true));
});

test("planRestore: the newest snapshot and the longest merged ranges are taken", () => {
  const objects = [object("snapshot", 1), object("snapshot", 6), object("level", 2, 5), object("level", 7, 9)];
  for (let seq = 2; seq <= 10; seq++) objects.push(object("delta", seq));
  const late = planRestore(segment(objects), 10n);
  assert.equal(late.snapshot.max, 6n);
  assert.deepEqual(late.steps.map((step) => step.max), [9n, 10n]);
  const early = planRestore(segment(objects), 5n);
  assert.deepEqual(early.steps.map((step) => step.max), [5n]);
});

test("planRestore: 200,000 deltas are planned without trouble", () => {
  const objects = [object("snapshot", 1)];
  for (let seq = 2; seq <= 200_000; seq++) objects.push(object("delta", seq));
  assert.equal(planRestore(segment(objects), 200_000n).steps.length, 199_999);
});
