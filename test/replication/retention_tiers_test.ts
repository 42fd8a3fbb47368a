import assert from "node:assert/strict";
import fc from "fast-check";
import { test } from "node:test";
import { keptBy, periodOf, type TierName } from "../../src/replication/retention_tiers.ts";
import { checkProperty } from "../support/property.ts";

const at = (text: string): number => Date.parse(text);

function assertPeriods(tier: TierName, groups: string[][]): void {
  const periods = groups.map((group) => {
    const [first, ...rest] = group.map((text) => periodOf(tier, at(text)));
    for (const other of rest) assert.equal(other, first, `${tier}: ${group}`);
    return first;
  });
  assert.equal(new Set(periods).size, groups.length, `${tier}: ${groups.join(" | ")}`);
}

test("[S71] periodOf: a week of number 53 goes over the new year and is one week", () => {
  // 2020 and 2026 have 53 ISO weeks; 2021-01-01 was a Friday.
  assertPeriods("weekly", [
    ["2020-12-21T00:00:00Z", "2020-12-27T23:59:59.999Z"],
    ["2020-12-28T00:00:00Z", "2020-12-31T12:00:00Z", "2021-01-01T00:00:00Z", "2021-01-03T23:59:59.999Z"],
    ["2021-01-04T00:00:00Z", "2021-01-10T23:59:59Z"],
    ["2026-12-28T00:00:00Z", "2027-01-03T23:59:59Z"],
    ["2027-01-04T00:00:00Z"],
    ["1969-12-29T00:00:00Z", "1970-01-01T00:00:00Z", "1970-01-04T23:59:59Z"],
  ]);
});

test("[S71] periodOf: 29 February is a day of February, and months end where the calendar says", () => {
  assertPeriods("monthly", [
    ["2024-01-31T23:59:59.999Z", "2024-01-01T00:00:00Z"],
    ["2024-02-01T00:00:00Z", "2024-02-29T23:59:59.999Z"],
    ["2024-03-01T00:00:00Z", "2024-03-31T23:59:59Z"],
    ["2025-02-01T00:00:00Z", "2025-02-28T23:59:59.999Z"],
    ["2025-03-01T00:00:00Z"],
    ["2024-12-31T23:59:59Z"],
    ["2025-01-01T00:00:00Z"],
  ]);
  assertPeriods("daily", [
    ["2024-02-28T00:00:00Z", "2024-02-28T23:59:59.999Z"],
    ["2024-02-29T00:00:00Z", "2024-02-29T23:59:59.999Z"],
    ["2024-03-01T00:00:00Z"],
  ]);
});

test("[S71] periodOf: no hour is left out or doubled where clocks change for the summer", () => {
  for (const day of ["2026-03-29", "2026-10-25", "2026-03-08", "2026-11-01"]) {
    const hours = Array.from(
      { length: 25 },
      (_, hour) => periodOf("hourly", at(`${day}T00:00:00Z`) + hour * 3_600_000),
    );
    hours.forEach((hour, index) => assert.equal(hour, hours[0] + index));
    assert.equal(periodOf("daily", at(`${day}T23:59:59.999Z`)), periodOf("daily", at(`${day}T00:00:00Z`)));
  }
});

test("periodOf: the next hour, day, week or month has the next number", () => {
  const time = fc.integer({ min: at("1969-01-01T00:00:00Z"), max: at("2200-01-01T00:00:00Z") });
  checkProperty(
    fc.property(time, (ms) => {
      const date = new Date(ms);
      const monday = new Date(ms);
      monday.setUTCDate(date.getUTCDate() - (date.getUTCDay() + 6) % 7 + 7);
      monday.setUTCHours(0, 0, 0, 0);
      const month = Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1);
      for (const [tier, next] of [["weekly", monday.getTime()], ["monthly", month]] as const) {
        assert.equal(periodOf(tier, next), periodOf(tier, ms) + 1);
        assert.equal(periodOf(tier, next - 1), periodOf(tier, ms));
      }
    }),
    500,
  );
});

test("keptBy: the newest of each of the newest periods that have one", () => {
  const times = ["2026-01-01T10:00:00Z", "2026-01-01T10:59:00Z", "2026-01-01T12:30:00Z", "2026-01-05T00:00:00Z"].map(
    at,
  );
  assert.deepEqual([...keptBy("hourly", 2, times)].sort(), [2, 3]);
  assert.deepEqual([...keptBy("hourly", 24, times)].sort(), [1, 2, 3]);
  assert.deepEqual([...keptBy("daily", 7, times)].sort(), [2, 3]);
  assert.deepEqual([...keptBy("monthly", 1, times)], [3]);
  assert.deepEqual([...keptBy("monthly", 0, times)], []);
  assert.deepEqual([...keptBy("daily", 7, [])], []);
});
