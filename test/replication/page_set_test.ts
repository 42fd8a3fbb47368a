import assert from "node:assert/strict";
import fc from "fast-check";
import { test } from "node:test";
import { PageSet } from "../../src/replication/page_set.ts";
import { checkProperty } from "../support/property.ts";

const page = fc.oneof(
  fc.integer({ min: 1, max: 200 }),
  fc.integer({ min: 65_500, max: 65_600 }),
  fc.integer({ min: 1, max: 0xffff_ffff }),
);

test("PageSet: counts what a set of numbers counts, up to any number", () => {
  checkProperty(
    fc.property(fc.array(page, { maxLength: 300 }), fc.array(page, { maxLength: 20 }), (pages, lasts) => {
      const set = new PageSet();
      for (const pgno of pages) set.add(pgno);
      for (const last of [...lasts, 31, 32, 63, 64, 65_535, 65_536, 0xffff_ffff]) {
        assert.equal(set.countUpTo(last), new Set(pages.filter((pgno) => pgno <= last)).size, `up to ${last}`);
      }
    }),
    300,
  );
});

test("PageSet: numbers spread as no database spreads them are refused before they cost memory", () => {
  const set = new PageSet();
  assert.throws(() => {
    for (let pgno = 1; pgno < 2 ** 32; pgno += 65_536) set.add(pgno);
  }, { code: "too_many_pages", exitCode: 5 });
});
