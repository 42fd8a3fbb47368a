import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { PageIndex } from "../../src/replication/page_index.ts";
import { objectInMemoryMax, sealDelta, type Sealed } from "../../src/replication/sealed.ts";
import { Spool } from "../../src/replication/spool.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { Crash, Life, SkippingClock, system } from "./engine_scene.ts";

const lineage = "0".repeat(32);

function bench(): { directory: string; index: PageIndex; seal: (seq: bigint, pages: number) => Sealed } {
  const top = temporaryDirectory("spool");
  const index = PageIndex.create(system.files, `${top}/pages.idx`, { lineage, pageSize: 4096, ...system });
  const seal = (seq: bigint, pages: number): Sealed =>
    sealDelta(
      { key: `k/${seq}`, seq, prevChecksum: 7n, createdMs: 99, pageSize: 4096 },
      {
        pgnos: Array.from({ length: pages }, (_, i) => i + 1),
        read: (at, into) => void into.fill(at % 251),
        pageCount: pages,
        position: null,
        frames: pages,
      },
      index,
      system.sha256,
    );
  return { directory: `${top}/spool`, index, seal };
}

function join(chunks: Iterable<Uint8Array>): Uint8Array {
  const parts = Array.from(chunks, (chunk) => chunk.slice());
  const bytes = new Uint8Array(parts.reduce((sum, { length }) => sum + length, 0));
  parts.reduce((at, part) => (bytes.set(part, at), at + part.length), 0);
  return bytes;
}

test("Spool: gives back the same bytes, small and streamed, also to the next process", () => {
  for (const pages of [1, 3, objectInMemoryMax / 4096 + 5]) {
    const { directory, index, seal } = bench();
    const sealed = seal(5n, pages);
    const expected = join(sealed.chunks());
    const spooled = new Spool(system.files, directory).add(sealed);
    assert.deepEqual(join(spooled.chunks()), expected);
    const next = new Spool(system.files, directory);
    assert.deepEqual(next.seqs(), [5n]);
    assert.equal(next.size, sealed.size);
    const { sealed: loaded, prevChecksum } = next.load(5n, { key: sealed.key, index, sha256: system.sha256 });
    assert.equal(prevChecksum, 7n);
    assert.deepEqual(join(loaded.chunks()), expected);
    assert.equal(loaded.chainEnd, sealed.chainEnd);
    assert.equal(loaded.createdMs, 99);
    assert.deepEqual(loaded.hashes, sealed.hashes);
    next.clear();
    assert.deepEqual(readdirSync(directory), []);
    index.close();
  }
});

test("Spool.add: a try whose last step failed leaves nothing that another object of its seq could be taken for", () => {
  const { directory, index, seal } = bench();
  let fails = true;
  const syncDirectory = (path: string): void => {
    if (fails) throw Object.assign(new Error("EIO"), { code: "EIO" });
    system.files.syncDirectory(path);
  };
  const spool = new Spool({ ...system.files, syncDirectory }, directory);
  assert.throws(() => spool.add(seal(5n, 2)), { code: "EIO" });
  assert.deepEqual(spool.seqs(), []);
  fails = false;
  const later = seal(5n, 3);
  const expected = join(later.chunks());
  assert.deepEqual(join(spool.add(later).chunks()), expected);
  // Nor does what a process before left there, whatever its length.
  const again = seal(5n, 1);
  assert.deepEqual(join(spool.add(again).chunks()), join(again.chunks()));
  index.close();
});

test("Spool.load: a byte changed anywhere and a cut are refused", () => {
  const { directory, index, seal } = bench();
  const spool = new Spool(system.files, directory);
  spool.add(seal(5n, 2));
  const path = `${directory}/${readdirSync(directory)[0]}`;
  const whole = readFileSync(path);
  const load = (): unknown => spool.load(5n, { key: "k", index, sha256: system.sha256 });
  load();
  for (let at = 48; at < whole.length; at += 97) {
    const flipped = Uint8Array.from(whole);
    flipped[at] ^= 4;
    writeFileSync(path, flipped);
    assert.throws(() => load(), `byte ${at}`);
    writeFileSync(path, whole.subarray(0, at));
    assert.throws(() => load(), `cut at ${at}`);
  }
  index.close();
});

test("Spool.add: killed at any step there is the whole object or none, and no rubbish after the next start", () => {
  for (let kill = 1; kill <= 8; kill++) {
    const { directory, index, seal } = bench();
    const sealed = seal(1n, 2);
    const life = new Life();
    const { files } = life.runtime(new SkippingClock());
    const spool = new Spool(files, directory);
    let count = 0;
    life.onOperation = () => ++count === kill ? life.crash() : undefined;
    try {
      spool.add(sealed);
    } catch (error) {
      assert.ok(error instanceof Crash);
    }
    const next = new Spool(system.files, directory);
    assert.ok(readdirSync(directory).every((name) => name.endsWith(".hadbp")));
    for (const seq of next.seqs()) next.load(seq, { key: "k", index, sha256: system.sha256 });
    index.close();
  }
});

test("Spool.add: content, then name, then the directory are on the disk before it returns", () => {
  const { directory, index, seal } = bench();
  const life = new Life();
  const spool = new Spool(life.runtime(new SkippingClock()).files, directory);
  const steps: string[] = [];
  life.onOperation = (name, target) => steps.push(`${name} ${target.slice(directory.length)}`);
  spool.add(seal(1n, 1));
  const [name, temporary] = ["/0000000000000001.hadbp", "/0000000000000001.hadbp.tmp"];
  assert.deepEqual(steps.filter((step) => !step.startsWith("write")), [
    `remove ${temporary}`,
    `open ${temporary}`,
    `sync ${temporary}`,
    `rename ${name}`,
    "syncDirectory ",
  ]);
  index.close();
});

test("[S37] Spool.add: a full disk leaves nothing behind that takes room", () => {
  const { directory, index, seal } = bench();
  const life = new Life();
  const spool = new Spool(life.runtime(new SkippingClock()).files, directory);
  life.onOperation = (name) => {
    if (name === "sync") throw Object.assign(new Error("ENOSPC"), { code: "ENOSPC" });
  };
  assert.throws(() => spool.add(seal(1n, 3)), { code: "ENOSPC" });
  assert.deepEqual(readdirSync(directory), []);
  life.onOperation = () => {};
  spool.add(seal(1n, 3));
  assert.deepEqual(spool.seqs(), [1n]);
  index.close();
});
