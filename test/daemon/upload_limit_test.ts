import assert from "node:assert/strict";
import { test } from "node:test";
import { limitUploads } from "../../src/daemon/upload_limit.ts";
import { MemoryStore } from "../../src/storage/memory.ts";

const body = new Uint8Array(1);

class SlowStore extends MemoryStore {
  running = 0;
  most = 0;
  release: (() => void)[] = [];

  override async put(key: string, bytes: Uint8Array): Promise<{ etag: string }> {
    this.most = Math.max(this.most, ++this.running);
    await new Promise<void>((resolve) => this.release.push(resolve));
    this.running--;
    if (key === "bad") throw new Error("bad");
    return await super.put(key, bytes);
  }
}

async function turns(): Promise<void> {
  for (let i = 0; i < 20; i++) await Promise.resolve();
}

test("limitUploads: no more than allowed at a time, a failure gives its place on", async () => {
  const store = new SlowStore();
  const limited = limitUploads(store, 2, 1);
  const puts = ["a", "bad", "b", "c", "d"].map((key) => limited.put(key, body));
  const settled = Promise.allSettled(puts);
  for (let i = 0; i < 5; i++) {
    await turns();
    assert.equal(store.running, Math.min(2, 5 - i));
    store.release.shift()!();
  }
  const results = await settled;
  assert.deepEqual(results.map(({ status }) => status), [
    "fulfilled",
    "rejected",
    "fulfilled",
    "fulfilled",
    "fulfilled",
  ]);
  assert.equal(store.most, 2);
});

test("limitUploads: who gives up while waiting leaves the line", async () => {
  const store = new SlowStore();
  const limited = limitUploads(store, 1, 1);
  const first = limited.put("a", body);
  const abort = new AbortController();
  const second = limited.put("b", body, { signal: abort.signal });
  const third = limited.put("c", body);
  abort.abort(new Error("enough"));
  await assert.rejects(second, /enough/);
  await turns();
  store.release.shift()!();
  await first;
  await turns();
  store.release.shift()!();
  await third;
  assert.equal(await store.head("b"), null);
});

test("limitUploads: streams that wait for an object in one piece do not keep it out", async () => {
  const limited = limitUploads(new MemoryStore(), 1, 2);
  let bridged: () => void = () => {};
  const bridge = new Promise<void>((resolve) => bridged = resolve);
  const streams = ["s1", "s2"].map((key) =>
    limited.putStream(
      key,
      (async function* () {
        await bridge;
        yield body;
      })(),
    )
  );
  await turns();
  await limited.put("bridge", body);
  bridged();
  await Promise.all(streams);
});
