import assert from "node:assert/strict";
import { test } from "node:test";
import { parsePointInTime } from "../../src/replication/point_in_time.ts";

const at = Date.UTC(2026, 0, 15, 10, 30, 0);

test("parsePointInTime: RFC 3339 with zone, fractions and lower case", () => {
  for (
    const [text, ms] of [
      ["2026-01-15T10:30:00Z", at],
      ["2026-01-15t10:30:00z", at],
      ["2026-01-15 10:30:00Z", at],
      ["2026-01-15T11:30:00+01:00", at],
      ["2026-01-15T05:00:00-05:30", at],
      ["2026-01-15T10:30:00.5Z", at + 500],
      ["2026-01-15T10:30:00.123999999Z", at + 123],
      ["2024-02-29T00:00:00Z", Date.UTC(2024, 1, 29)],
      ["0099-01-01T00:00:00Z", Date.parse("0099-01-01T00:00:00Z")],
      ["2026-01-01T00:00:00+23:59", Date.UTC(2025, 11, 31, 0, 1)],
    ] as const
  ) assert.equal(parsePointInTime(text), ms, text);
});

test("[S69] parsePointInTime: a time without zone is refused with a hint", () => {
  for (const text of ["2026-01-15T10:30:00", "2026-01-15 10:30:00", "2026-01-15T10:30:00.25"]) {
    assert.throws(() => parsePointInTime(text), (error: { exitCode: number; code: string; hint: string }) => {
      assert.equal(error.exitCode, 2);
      assert.equal(error.code, "point_in_time_zone");
      assert.match(error.hint, /Z for UTC/);
      return true;
    });
  }
});

test("[S69] parsePointInTime: an impossible date or time is refused", () => {
  for (
    const text of [
      "2026-02-30T00:00:00Z",
      "2025-02-29T00:00:00Z",
      "2026-13-01T00:00:00Z",
      "2026-00-10T00:00:00Z",
      "2026-04-31T00:00:00Z",
      "2026-01-15T24:00:00Z",
      "2026-01-15T10:60:00Z",
      "2026-01-15T10:30:60Z",
      "2026-01-15T10:30:00+24:00",
      "2026-01-15T10:30:00+01:60",
      "2026-01-15",
      "yesterday",
      "",
      "1700000000",
      "2026-01-15T10:30:00+0100",
    ]
  ) assert.throws(() => parsePointInTime(text), { exitCode: 2 }, text);
});
