import assert from "node:assert/strict";
import { test } from "node:test";
import { monthlyCost } from "../../src/cli/monthly_cost.ts";

const hourly = { syncInterval: 1, snapshotInterval: 3600, snapshotsMax: null, databaseSize: 4096 };

test("monthlyCost: a PUT for every interval, three for a small snapshot", () => {
  const { puts, snapshots, snapshotBytes, requestsUsd } = monthlyCost(hourly);
  assert.deepEqual([puts, snapshots, snapshotBytes], [2_592_000 + 720 * 3, 720, 720 * 4096]);
  assert.equal(requestsUsd.toFixed(4), "12.9708");
  assert.equal(monthlyCost({ ...hourly, syncInterval: 60 }).puts, 43_200 + 720 * 3);
  assert.equal(monthlyCost({ ...hourly, snapshotInterval: 0 }).puts, 2_592_000 + 3);
});

test("monthlyCost: a large snapshot goes up in parts, and those that are kept are paid for", () => {
  const large = { ...hourly, databaseSize: 1e9 };
  const { puts, storageUsd } = monthlyCost(large);
  assert.equal(puts, 2_592_000 + 720 * (2 + 120 + 2));
  assert.equal(storageUsd.toFixed(2), "16.56");
  const kept = monthlyCost({ ...large, snapshotsMax: 55 });
  assert.deepEqual([kept.snapshots, kept.snapshotBytes], [55, 55e9]);
  assert.equal(kept.storageUsd.toFixed(3), "1.265");
});
