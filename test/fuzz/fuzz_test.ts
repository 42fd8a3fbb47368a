/** Every decoder takes whatever comes in: 100,000 inputs each; `scripts/fuzz.ts` runs more, and replays one. */
import assert from "node:assert/strict";
import { test } from "node:test";
import { WalrustError } from "../../src/errors.ts";
import { testSeed as seed } from "../support/seed.ts";
import { decoders } from "./decoders.ts";
import { type Decoder, fuzz, FuzzFailure, inputOf, law } from "./fuzz.ts";

const inputs = 100_000;
const timeout = 240_000;

for (const decoder of decoders) {
  test(`${decoder.name}: ${inputs} inputs are answered or refused`, { timeout }, async () => {
    const result = await fuzz(decoder, { seed, inputs });
    // Inputs that are all refused, or all for the same reason, would prove little.
    const { accepted, refused } = result;
    assert.ok(accepted > inputs / 100 || decoder.neverAccepts === true, `seed ${seed}: ${accepted} accepted`);
    assert.ok([...refused.values()].reduce((sum, count) => sum + count, 0) > inputs / 100, `seed ${seed}: few refused`);
    for (const code of decoder.reaches ?? []) assert.ok(refused.has(code), `seed ${seed}: never ${code}`);
  });
}

test("inputOf: a seed and a number are an input, others are another", () => {
  for (const decoder of decoders) {
    const hex = (of: number, index: number): string => String(inputOf(decoder, of, index).input);
    assert.equal(hex(7, 11), hex(7, 11));
    const distinct = new Set(Array.from({ length: 200 }, (_, index) => hex(index % 2, index)));
    assert.ok(distinct.size > 100, `${decoder.name}: ${distinct.size} distinct`);
  }
});

/** Accepts everything but the inputs in which something goes wrong. */
function canary(decode: (input: Uint8Array, step: () => void) => void | Promise<void>): Decoder {
  return {
    name: "canary",
    generate: ({ random }) => random.bytes(random.integer(64)),
    async decode(input, { step }) {
      await (input[0] === 7 ? decode(input, step) : undefined);
      return null;
    },
  };
}

const wrong: Record<string, [decode: Parameters<typeof canary>[0], says: RegExp]> = {
  "a TypeError": [() => void (null as unknown as string[]).push("x"), /TypeError/],
  "a rejection": [() => Promise.reject(new RangeError("out of range")), /RangeError/],
  "undefined as an error": [() => Promise.reject(undefined), /undefined/],
  "a broken law": [() => law(false, "nothing is right"), /nothing is right/],
  "terabytes": [() => void new Uint8Array(2 ** 40), /bytes asked for/],
  "terabytes, and their refusal caught": [() => {
    try {
      new ArrayBuffer(2 ** 40);
    } catch {
      throw new WalrustError("integrity", "too_large", "too large");
    }
  }, /bytes asked for/],
  "much memory in pieces": [() => void Array.from({ length: 400 }, () => new Uint8Array(1024)), /bytes asked for/],
  "steps without end": [(_, step) => {
    for (;;) step();
  }, /steps for/],
  "words that steer a terminal": [() => {
    throw new WalrustError("integrity", "damaged", "\u001b[2J");
  }, /steer a terminal/],
  "a hint that is a function": [() => {
    throw new WalrustError("integrity", "damaged", "damaged", { hint: Object as unknown as string });
  }, /a hint that is a function/],
  "endless words": [() => {
    throw new WalrustError("integrity", "damaged", "x".repeat(100_000));
  }, /100000 characters/],
};

for (const [what, [decode, says]] of Object.entries(wrong)) {
  test(`fuzz: canary: ${what} is caught, and its input replayed`, async () => {
    const decoder = canary(decode);
    const failure = await fuzz(decoder, { seed, inputs: 20_000 }).catch((error: unknown) => error);
    assert.ok(failure instanceof FuzzFailure, String(failure));
    assert.match(failure.message, says);
    assert.match(failure.message, new RegExp(`--seed ${seed} --from ${failure.index} --inputs 1\n`));
    const hex = /^input of \d+ bytes: ([0-9a-f]*)$/m.exec(failure.message)?.[1];
    assert.ok(hex?.startsWith("07"), "the input is shown");
    await assert.rejects(fuzz(decoder, { seed, inputs: 1, from: failure.index }), FuzzFailure);
    assert.equal((await fuzz(decoder, { seed, inputs: failure.index })).accepted, failure.index, "none before it");
    assert.equal(new Uint8Array(2 ** 20).length, 2 ** 20, "nothing is measured any more");
  });
}

test("fuzz: canary: typed errors within the limits pass", async () => {
  const decoder = canary((input, step) => {
    step();
    new Uint8Array(1024);
    throw new WalrustError("integrity", `code ${input.length % 2}`, "damaged", { hint: "none" });
  });
  const { accepted, refused } = await fuzz(decoder, { seed, inputs: 20_000 });
  assert.deepEqual([...refused.keys()].sort(), ["code 0", "code 1"]);
  assert.equal(accepted + [...refused.values()].reduce((sum, count) => sum + count, 0), 20_000);
});
