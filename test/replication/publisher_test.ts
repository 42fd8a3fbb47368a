import assert from "node:assert/strict";
import { test } from "node:test";
import { StorageError } from "../../src/errors.ts";
import { PageIndex } from "../../src/replication/page_index.ts";
import { Publisher } from "../../src/replication/publisher.ts";
import { sealDelta, type Sealed } from "../../src/replication/sealed.ts";
import { Spool } from "../../src/replication/spool.ts";
import { MemoryStore } from "../../src/storage/memory.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { SkippingClock, system, turn } from "./engine_scene.ts";

class Bench {
  readonly clock = new SkippingClock();
  readonly objects = new MemoryStore();
  readonly confirmed: bigint[] = [];
  readonly retries: number[] = [];
  readonly spool: Spool;
  readonly publisher: Publisher;
  readonly #index: PageIndex;
  /** Called before each PUT. */
  fault: (key: string) => void | Promise<void> = () => {};
  mayWrite: () => Promise<void> = () => Promise.resolve();
  onConfirmed: () => void = () => {};
  onFailed: () => void = () => {};

  constructor() {
    const directory = temporaryDirectory("publisher");
    this.spool = new Spool(system.files, `${directory}/spool`);
    const options = { lineage: "0".repeat(32), pageSize: 512, ...system };
    this.#index = PageIndex.create(system.files, `${directory}/pages.idx`, options);
    const put = this.objects.put.bind(this.objects);
    this.objects.put = async (key, body, putOptions) => {
      await this.fault(key);
      return await put(key, body, putOptions);
    };
    this.publisher = new Publisher({
      store: this.objects,
      spool: this.spool,
      clock: this.clock,
      random: system.random,
      events: {
        confirmed: (sealed) => {
          this.onConfirmed();
          this.confirmed.push(sealed.seq);
        },
        failed: (_, __, retryMs) => {
          this.retries.push(retryMs);
          this.onFailed();
        },
      },
      mayWrite: () => this.mayWrite(),
    });
  }

  seal(seq: bigint): Sealed {
    const target = { key: `d/${seq}`, seq, prevChecksum: seq - 1n, createdMs: 1, pageSize: 512 };
    const read = (_: number, into: Uint8Array): void => void into.fill(Number(seq));
    const content = { pgnos: [1], read, pageCount: 1, position: null, frames: 1 };
    return sealDelta(target, content, this.#index, system.sha256);
  }

  async until(done: () => boolean): Promise<void> {
    for (let i = 0; i < 500 && !done(); i++) {
      this.publisher.send();
      await turn(1);
    }
    assert.ok(done(), "did not happen");
  }
}

test("Publisher: strictly in order, spooled ones are removed when confirmed", async () => {
  const bench = new Bench();
  bench.publisher.add(bench.seal(1n), false);
  bench.publisher.spoolAll();
  for (const seq of [2n, 3n, 4n]) bench.publisher.add(bench.spool.add(bench.seal(seq)), true);
  assert.deepEqual(bench.spool.seqs(), [1n, 2n, 3n, 4n]);
  await bench.until(() => bench.publisher.idle);
  assert.deepEqual(bench.confirmed, [1n, 2n, 3n, 4n]);
  assert.deepEqual(bench.spool.seqs(), []);
});

test("[S46] Publisher: failures are repeated with growing pauses, nothing overtakes", async () => {
  const bench = new Bench();
  let failures = 6;
  bench.fault = (key) => {
    if (key === "d/2" && failures-- > 0) throw new StorageError("SlowDown", "503", { retryable: true });
  };
  for (const seq of [1n, 2n, 3n]) bench.publisher.add(bench.spool.add(bench.seal(seq)), true);
  await bench.until(() => {
    bench.clock.skip(bench.publisher.retryInMs);
    return bench.publisher.idle;
  });
  assert.deepEqual(bench.confirmed, [1n, 2n, 3n]);
  assert.equal(bench.retries.length, 6);
  assert.ok(bench.retries[5] > 4 * bench.retries[0] && bench.retries[5] <= 45_000, bench.retries.join());
});

test("[S48] Publisher: stored although the reply was lost → the same bytes again count as confirmed", async () => {
  const bench = new Bench();
  const sealed = bench.seal(1n);
  for (const body of sealed.chunks()) await bench.objects.put(sealed.key, body);
  bench.publisher.add(sealed, false);
  await bench.until(() => bench.publisher.idle);
  assert.deepEqual(bench.confirmed, [1n]);
});

test("[S65] Publisher: other bytes under the key end it as fenced, and nothing more is sent", async () => {
  const bench = new Bench();
  await bench.objects.put("d/1", new Uint8Array(9));
  bench.publisher.add(bench.spool.add(bench.seal(1n)), true);
  bench.publisher.add(bench.spool.add(bench.seal(2n)), true);
  await bench.publisher.settled();
  assert.throws(() => bench.publisher.send(), { code: "fenced" });
  assert.deepEqual(bench.confirmed, []);
  assert.equal(await bench.objects.head("d/2"), null);
  assert.deepEqual(bench.spool.seqs(), [1n, 2n], "kept");
});

test("Publisher: an error of whoever listens is said by the next send, never left unhandled", async () => {
  for (const kind of ["confirmed", "failed"] as const) {
    const bench = new Bench();
    const trouble = (): never => {
      throw Object.assign(new Error("no room"), { code: "ENOSPC" });
    };
    if (kind === "confirmed") bench.onConfirmed = trouble;
    else bench.onFailed = trouble;
    if (kind === "failed") bench.fault = () => Promise.reject(new StorageError("x", "y"));
    bench.publisher.add(bench.seal(1n), false);
    await bench.publisher.settled();
    assert.throws(() => bench.publisher.send(), { code: "ENOSPC" });
    assert.equal(bench.publisher.idle, false);
  }
});
