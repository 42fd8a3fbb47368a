import assert from "node:assert/strict";
import { test } from "node:test";
import { openIfThere, readSmallFile, writeFileAtomically } from "../../src/replication/small_file.ts";
import { temporaryDirectory } from "../support/temporary_directory.ts";
import { Crash, Life, SkippingClock, system } from "./engine_scene.ts";

test("writeFileAtomically: killed at any step the file is the old or the new one, whole", () => {
  const directory = temporaryDirectory("small-file");
  const old = new TextEncoder().encode("old");
  const next = new TextEncoder().encode("next one");
  for (let kill = 1; kill < 20; kill++) {
    writeFileAtomically(system.files, directory, "file", old);
    const life = new Life();
    const { files } = life.runtime(new SkippingClock());
    let count = 0;
    life.onOperation = () => ++count === kill ? life.crash() : undefined;
    try {
      writeFileAtomically(files, directory, "file", next);
    } catch (error) {
      assert.ok(error instanceof Crash);
    }
    const found = new TextDecoder().decode(readSmallFile(system.files, `${directory}/file`, 100)!);
    assert.ok(found === "old" || found === "next one", found);
    writeFileAtomically(system.files, directory, "file", next);
  }
  assert.equal(readSmallFile(system.files, `${directory}/file`, 3), null, "larger than the limit");
  assert.equal(readSmallFile(system.files, directory, 3), null, "a directory");
});

test("openIfThere: a file that is removed while it is opened was not there", () => {
  const directory = temporaryDirectory("small-file");
  const path = `${directory}/file`;
  const files = { ...system.files, stat: system.files.stat, open: system.files.open };
  files.open = (opened, mode) => {
    system.files.remove(opened);
    return system.files.open(opened, mode);
  };
  writeFileAtomically(system.files, directory, "file", new Uint8Array(1));
  assert.equal(openIfThere(files, path), null);
  writeFileAtomically(system.files, directory, "file", new Uint8Array(1));
  openIfThere(system.files, path)!.close();
  files.open = () => {
    throw Object.assign(new Error("EACCES"), { code: "EACCES" });
  };
  assert.throws(() => openIfThere(files, path), /EACCES/);
});
