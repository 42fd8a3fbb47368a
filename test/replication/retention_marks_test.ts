import assert from "node:assert/strict";
import fc from "fast-check";
import { test } from "node:test";
import { parseRetention, renderRetention, type RetentionDocument } from "../../src/format/documents.ts";
import type { PoolObject } from "../../src/replication/inventory.ts";
import type { Segment } from "../../src/replication/history.ts";
import {
  dueRemovals,
  dueSources,
  markRetention,
  type MergedRange,
  withMarks,
} from "../../src/replication/retention_marks.ts";
import type { SegmentRetention } from "../../src/replication/retention_plan.ts";
import { unite } from "../../src/replication/seq_ranges.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { wrapStore } from "../../src/storage/wrap.ts";
import { checkProperty } from "../support/property.ts";

const graceMs = 1000;
const lineage = "a".repeat(32);

function object(kind: PoolObject["kind"], min: number, max: number = min, level: number = 1): PoolObject {
  return {
    kind,
    lineage,
    level: kind === "level" ? level : 0,
    min: BigInt(min),
    max: BigInt(max),
    size: 1000,
    lastModifiedMs: 0,
  };
}

function planOf(keep: PoolObject[], remove: PoolObject[]): SegmentRetention {
  const segment = { lineage } as Segment;
  const descending = [...remove].sort((a, b) => Number(b.max - a.max));
  const chain = remove.filter(({ kind }) => kind !== "snapshot");
  return { segment, keep, remove: descending, ranges: unite(chain) };
}

function deltas(min: number, max: number): PoolObject[] {
  return Array.from({ length: max - min + 1 }, (_, index) => object("delta", min + index));
}

const shown = (document: RetentionDocument): string[] => [
  ...document.ranges.map(({ min, max, reason, level, markedMs }) =>
    `${min}-${max} ${reason}${level ?? ""} ${markedMs}`
  ),
  ...(document.snapshots ?? []).map(({ seq, markedMs }) => `snapshot ${seq} ${markedMs}`),
];

test("withMarks, dueRemovals: nothing goes before the grace has passed since it was marked, then all of it", () => {
  const plan = planOf([object("snapshot", 5), ...deltas(6, 9)], [object("snapshot", 1), ...deltas(2, 4)]);
  const marked = withMarks({ ranges: [] }, plan, [], { nowMs: 5000, graceMs });
  assert.deepEqual(shown(marked), ["2-4 retention 5000", "snapshot 1 5000"]);
  assert.deepEqual(dueRemovals({ ranges: [] }, plan, { nowMs: 9e9, graceMs }), [], "never without a mark");
  assert.deepEqual(dueRemovals(marked, plan, { nowMs: 5999, graceMs }), []);
  assert.deepEqual(dueRemovals(marked, plan, { nowMs: 6000, graceMs }).map(({ max }) => max), [4n, 3n, 2n, 1n]);
  const later = withMarks(marked, plan, [], { nowMs: 6000, graceMs });
  assert.deepEqual(shown(later), shown(marked), "a second look changes no moment");
});

test("withMarks: what stays after all is not marked any more, and what is gone is not forgotten", () => {
  const first = planOf([...deltas(8, 9)], [object("snapshot", 1), ...deltas(2, 7)]);
  const marked = withMarks({ ranges: [] }, first, [], { nowMs: 5000, graceMs });
  const second = planOf([object("snapshot", 1), object("delta", 4), ...deltas(6, 9)], [object("delta", 5)]);
  const changed = withMarks(marked, second, [], { nowMs: 7000, graceMs });
  assert.deepEqual(shown(changed), ["2-3 retention 5000", "5-5 retention 5000"]);
});

test("withMarks: a moment in the far future counts as now, and so does none", () => {
  const plan = planOf([], deltas(2, 3));
  for (const markedMs of [9e12, undefined]) {
    const before: RetentionDocument = { ranges: [{ min: 2n, max: 3n, reason: "retention", markedMs }] };
    assert.deepEqual(shown(withMarks(before, plan, [], { nowMs: 5000, graceMs })), ["2-3 retention 5000"]);
    assert.deepEqual(dueRemovals(before, plan, { nowMs: 5000, graceMs }), []);
  }
});

test("withMarks: ranges that touch become one when nothing waits for them any more", () => {
  const one = withMarks({ ranges: [] }, planOf([], deltas(2, 5)), [], { nowMs: 1000, graceMs });
  const two = withMarks(one, planOf([], deltas(6, 9)), [], { nowMs: 1500, graceMs });
  assert.deepEqual(shown(two), ["2-5 retention 1000", "6-9 retention 1500"]);
  const three = withMarks(two, planOf([], []), [], { nowMs: 2500, graceMs });
  assert.deepEqual(shown(three), ["2-9 retention 1500"]);
});

test("dueSources: what was merged goes after the grace, only below a merged object that is there and was proven", () => {
  const merged: MergedRange[] = [{ min: 2n, max: 5n, level: 1 }];
  const bridge = { ...object("delta", 5), size: 64 };
  const keep = [object("snapshot", 1), ...deltas(2, 4), bridge, object("level", 2, 5), ...deltas(6, 7)];
  const plan = planOf(keep, []);
  const marked = withMarks({ ranges: [] }, plan, merged, { nowMs: 1000, graceMs });
  assert.deepEqual(shown(marked), ["2-5 merge1 1000"]);
  assert.deepEqual(dueSources(marked, plan, { nowMs: 1999, graceMs }), []);
  assert.deepEqual(dueSources(marked, plan, { nowMs: 2000, graceMs }).map(({ max }) => max), [5n, 4n, 3n, 2n]);
  const withSnapshot = planOf([...keep, object("snapshot", 5)], []);
  assert.deepEqual(dueSources(marked, withSnapshot, { nowMs: 2000, graceMs }).map(({ max }) => max), [4n, 3n, 2n]);
  const gone = planOf(keep.filter(({ kind }) => kind !== "level"), []);
  assert.deepEqual(dueSources(marked, gone, { nowMs: 2000, graceMs }), [], "no merged object, no deletion");
  const higher = planOf([object("level", 2, 5), object("level", 6, 7), object("level", 2, 7, 2)], []);
  assert.deepEqual(dueSources(marked, higher, { nowMs: 2000, graceMs }), [], "the mark is for level 1 and not for 2");
});

test("withMarks: what retention gives up stands there once, merged or not", () => {
  const merged: MergedRange[] = [{ min: 2n, max: 9n, level: 1 }];
  const before = withMarks({ ranges: [] }, planOf([object("level", 2, 9)], []), merged, { nowMs: 1000, graceMs });
  const plan = { ...planOf([object("snapshot", 10)], [object("level", 2, 9)]) };
  assert.deepEqual(shown(withMarks(before, plan, [], { nowMs: 2000, graceMs })), ["2-9 retention 2000"]);
});

test("withMarks: any sequence of plans leaves marks for what was removed, and a document that reads back the same", () => {
  const step = fc.record({
    cut: fc.integer({ min: 1, max: 30 }),
    stays: fc.subarray([3, 7, 11, 19, 23]),
    ms: fc.nat(3000),
  });
  checkProperty(
    fc.property(fc.array(step, { maxLength: 8 }), (steps) => {
      let document: RetentionDocument = { ranges: [] };
      let objects = deltas(1, 30);
      const removed = new Set<bigint>();
      let nowMs = 0;
      for (const { cut, stays, ms } of steps) {
        nowMs += ms;
        const goes = objects.filter(({ max }) => max < BigInt(cut) && !stays.includes(Number(max)));
        const plan = planOf(objects.filter((each) => !goes.includes(each)), goes);
        document = withMarks(document, plan, [], { nowMs, graceMs });
        assert.deepEqual(parseRetention(renderRetention(document), "retention.json"), document);
        const marked = new Set(
          unite(document.ranges).flatMap(({ min, max }) => deltas(Number(min), Number(max))).map((d) => d.max),
        );
        for (const { max } of goes) assert.ok(marked.has(max), `seq ${max} goes unmarked`);
        for (const seq of removed) assert.ok(marked.has(seq), `seq ${seq} is forgotten`);
        for (const { max } of plan.keep) assert.ok(!marked.has(max), `seq ${max} stays and is marked`);
        const due = dueRemovals(document, plan, { nowMs, graceMs });
        objects = objects.filter((each) => !due.includes(each));
        for (const { max } of due) removed.add(max);
      }
      assert.ok(document.ranges.length <= 30);
    }),
    300,
  );
});

test("markRetention: swapped by the version it was read with; another writer's marks are taken in", async () => {
  const store = new MemoryStore();
  const key = `app/lineages/${lineage}/retention.json`;
  let rivals = 2;
  let writes = 0;
  const contested = wrapStore(store, {
    put: async (name, body, options) => {
      writes++;
      if (rivals-- > 0) {
        const rival = { ranges: [{ min: 100n, max: BigInt(110 - rivals), reason: "retention" as const, markedMs: 1 }] };
        await store.put(name, renderRetention(rival));
      }
      return await store.put(name, body, options);
    },
  });
  const plan = planOf([], deltas(2, 5));
  const clock = { nowMs: 5000, graceMs };
  const document = await markRetention(contested, "app/", plan, [], clock);
  assert.deepEqual(shown(document), ["2-5 retention 5000", "100-110 retention 1"]);
  assert.equal(writes, 3);
  const stored = new Uint8Array((await Array.fromAsync((await store.get(key)).body)).flatMap((chunk) => [...chunk]));
  assert.deepEqual(parseRetention(stored, key), document);
  await markRetention(contested, "app/", plan, [], { ...clock, nowMs: 5500 });
  assert.equal(writes, 3, "nothing new, nothing written");
});
