import assert from "node:assert/strict";
import test from "node:test";
import {
  byteSize,
  duration,
  oneOf,
  secondsAsMs,
  sequenceNumber,
  text,
  truth,
  url,
  wholeNumber,
} from "../../src/cli/args.ts";
import { ConfigError } from "../../src/errors.ts";

test("option values: accepted words and what they mean", () => {
  assert.equal(secondsAsMs(10)("0.01", "--x"), 10);
  assert.equal(secondsAsMs(10)("1", "--x"), 1000);
  assert.equal(secondsAsMs(0)("0", "--x"), 0);
  assert.equal(wholeNumber(1, 64)("64", "--x"), 64);
  for (
    const [text, ms] of [["500ms", 500], ["5s", 5000], ["5", 5000], ["1.5s", 1500], ["2m", 120_000], ["1h", 3_600_000]]
  ) {
    assert.equal(duration(10)(text as string, "--x"), ms);
  }
  for (const [text, bytes] of [["0", 0], ["1024", 1024], ["500MB", 5e8], ["1.5 GiB", 1.5 * 2 ** 30], ["2g", 2 ** 31]]) {
    assert.equal(byteSize(text as string, "--x"), bytes);
  }
  assert.equal(sequenceNumber("9007199254740993", "--x"), 9007199254740993n);
  assert.equal(truth("true", "--x"), true);
  assert.equal(truth("false", "--x"), false);
  assert.equal(oneOf("a", "b")("b", "--x"), "b");
  assert.equal(text("a b", "--x"), "a b");
  assert.equal(url("http://127.0.0.1:9000", "--x"), "http://127.0.0.1:9000");
});

test("option values: refused words [S89]", () => {
  const refused: [(value: string, flag: string) => unknown, string[]][] = [
    [secondsAsMs(10), ["", "0", "-1", "1s", "NaN", "Infinity", "1e3", "0.001", "99999999999"]],
    [duration(10), ["", "0", "9ms", "-1s", "5 s", "5d", "1e3", "800h"]],
    [byteSize, ["", "-1", "1GX", "GiB", "1e3", "9000000TiB", "1,5GB"]],
    [wholeNumber(1, 64), ["", "0", "65", "-1", "1.5", "0x10", " 1"]],
    [sequenceNumber, ["", "0", "-1", "1.0", "18446744073709551616", "0x1"]],
    [truth, ["", "yes", "1", "TRUE"]],
    [oneOf("none", "quick"), ["", "full", "toString"]],
    [text, [""]],
    [url, ["", "localhost:9000", "http://", "ftp://a", "http://[", "file:///x"]],
  ];
  for (const [parse, words] of refused) {
    for (const word of words) {
      assert.throws(() => parse(word, "--flag"), (error) => {
        assert.ok(error instanceof ConfigError, word);
        assert.match(error.message, /--flag/);
        return true;
      }, `${parse.name} ${JSON.stringify(word)}`);
    }
  }
});

test("url: a password in a refused URL is not repeated [S84]", () => {
  assert.throws(() => url("ftp://user:hunter2@host", "--endpoint"), (error) => {
    assert.ok(error instanceof ConfigError);
    assert.ok(!JSON.stringify([error.message, error.hint, error.data]).includes("hunter2"));
    return true;
  });
});
