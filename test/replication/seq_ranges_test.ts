import assert from "node:assert/strict";
import fc from "fast-check";
import { test } from "node:test";
import type { SeqRange } from "../../src/replication/plan.ts";
import { covers, touches, unite, without } from "../../src/replication/seq_ranges.ts";
import { checkProperty } from "../support/property.ts";

const someRanges = fc.array(
  fc.tuple(fc.integer({ min: 0, max: 40 }), fc.integer({ min: 0, max: 8 })).map(([min, more]) => ({
    min: BigInt(min),
    max: BigInt(min + more),
  })),
  { maxLength: 8 },
);

function seqsOf(ranges: readonly SeqRange[]): Set<bigint> {
  const seqs = new Set<bigint>();
  for (const { min, max } of ranges) for (let seq = min; seq <= max; seq++) seqs.add(seq);
  return seqs;
}

function assertNormal(ranges: readonly SeqRange[]): void {
  ranges.forEach(({ min, max }, at) => {
    assert.ok(min <= max);
    if (at > 0) assert.ok(min > ranges[at - 1].max + 1n, "disjoint, with a gap");
  });
}

test("unite, without, covers, touches: agree with sets of numbers", () => {
  checkProperty(
    fc.property(someRanges, someRanges, fc.integer({ min: 0, max: 50 }), fc.nat(5), (one, two, from, more) => {
      const [a, b] = [unite(one), unite(two)];
      assertNormal(a);
      assert.deepEqual(seqsOf(a), new Set([...seqsOf(one)].sort((x, y) => Number(x - y))));
      const rest = without(a, b);
      assertNormal(rest);
      assert.deepEqual([...seqsOf(rest)], [...seqsOf(a)].filter((seq) => !seqsOf(b).has(seq)));
      const range = { min: BigInt(from), max: BigInt(from + more) };
      const asked = [...seqsOf([range])];
      assert.equal(covers(a, range), asked.every((seq) => seqsOf(a).has(seq)));
      assert.equal(touches(a, range), asked.some((seq) => seqsOf(a).has(seq)));
    }),
    500,
  );
});

test("canary: assertNormal fails for ranges that touch", () => {
  assert.throws(() => assertNormal([{ min: 1n, max: 2n }, { min: 3n, max: 4n }]));
});
