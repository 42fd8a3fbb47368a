import assert from "node:assert/strict";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import { test } from "node:test";
import { findHolder, isLocked, lockInstance } from "../../src/daemon/instance_lock.ts";
import { locateDatabase } from "../../src/daemon/locate.ts";
import { makeStatePlace, type StateOptions, type StatePlace } from "../../src/replication/state_directory.ts";
import type { Files } from "../../src/runtime/types.ts";
import { Scene, system } from "../replication/engine_scene.ts";

const timeout = 20_000;

function placeOf(path: string, options: Partial<StateOptions> = {}, files: Files = system.files): StatePlace {
  const runtime = { ...system, files };
  const state = { stateDirectory: null, fallbackStateDirectory: null, ...options };
  return makeStatePlace(runtime, locateDatabase(files, path, { mode: "auto", isShared: false }), state);
}

/** A file system where nothing can be made or opened for writing below `forbidden`, as for an ordinary user. */
function withoutRight(forbidden: string): Files {
  const refuse = (path: string): void => {
    if (!path.startsWith(forbidden)) return;
    throw Object.assign(new Error(`EACCES: permission denied, '${path}'`), { code: "EACCES" });
  };
  return {
    ...system.files,
    uid: 1234,
    makeDirectory: (path) => {
      if (system.files.stat(path) === null) refuse(path);
      system.files.makeDirectory(path);
    },
    open: (path, mode) => {
      if (mode !== "read") refuse(path);
      return system.files.open(path, mode);
    },
  };
}

function lock(path: string, place: StatePlace, name: string = "pid 7"): { release(): void } {
  return lockInstance(system, { path, place, name, role: "watch" });
}

test("lockInstance: the second one is refused and told who holds it; asking harms nobody", { timeout }, () => {
  const scene = new Scene();
  const place = placeOf(scene.path);
  assert.equal(findHolder(system, place), null);
  const held = lock(scene.path, place);
  assert.equal(findHolder(system, place)?.name, "pid 7");
  assert.throws(() => lock(scene.path, place), { code: "locked_by_walrust", exitCode: 3, message: /pid 7/ });
  assert.equal(isLocked(system, scene.state), true);
  held.release();
  lock(scene.path, place).release();
});

test("[S64] lockInstance: another state directory is no way round, and the holder's own is named", { timeout }, () => {
  const scene = new Scene();
  const [one, two] = ["one", "two"].map((name) =>
    placeOf(scene.path, { stateDirectory: `${scene.directory}/${name}` })
  );
  const held = lock(scene.path, one);
  for (const other of [two, placeOf(scene.path)]) {
    assert.throws(() => lock(scene.path, other), { code: "locked_by_walrust", message: /pid 7/ });
    assert.equal(findHolder(system, other)?.directory, one.directory);
  }
  held.release();
  // Refused as a whole: the lock that it could take is free again.
  lock(scene.path, two).release();
});

test("[S64] lockInstance: a link and the file it leads to are one database", { timeout }, () => {
  const scene = new Scene();
  symlinkSync(scene.path, `${scene.directory}/link.db`);
  const link = placeOf(`${scene.directory}/link.db`);
  assert.equal(link.directory, `${scene.directory}/.walrust-link.db`);
  const held = lock("link.db", link);
  assert.throws(() => lock(scene.path, placeOf(scene.path)), { code: "locked_by_walrust" });
  held.release();
});

test("lockInstance: a lock that we may not write to is no lock, its owner is named [S42]", { timeout }, () => {
  const scene = new Scene();
  const place = placeOf(scene.path);
  lock(scene.path, place).release();
  const files = withoutRight(scene.state);
  const take = () => lockInstance({ ...system, files }, { path: scene.path, place, name: "pid 8", role: "watch" });
  assert.throws(take, {
    code: "state_not_writable",
    exitCode: 3,
    message: /\.walrust-app\.db .*user 1234/,
    hint: /user 0/,
  });
  lock(scene.path, place).release();
});

test("makeStatePlace: two databases of one name have a folder each, an earlier version's is kept by its own", {
  timeout,
}, async () => {
  const [a, b] = [new Scene(), new Scene()];
  const stateDirectory = `${a.directory}/state`;
  const earlier = `${stateDirectory}/.walrust-app.db`;
  // What an earlier version left there for the first of them.
  Object.assign(a, { state: earlier });
  a.start();
  await a.sync();
  await a.engine.stop(5000);
  const first = placeOf(a.path, { stateDirectory });
  const second = placeOf(b.path, { stateDirectory });
  assert.equal(first.directory, earlier);
  assert.match(second.directory, /\/state\/app\.db-[0-9a-f]{12}$/);
  assert.deepEqual(placeOf(b.path, { stateDirectory }), second);
  // Also when the file was exchanged since.
  a.app.close();
  b.app.close();
  system.files.rename(b.path, a.path);
  assert.equal(placeOf(a.path, { stateDirectory }).directory, earlier);
});

test("[S42] makeStatePlace: where nothing may be made beside the database its state goes to the user's own", {
  timeout,
}, () => {
  const scene = new Scene();
  const files = withoutRight(`${scene.directory}/.walrust`);
  const fallbackStateDirectory = `${scene.directory}/home/.local/state/walrust`;
  const place = placeOf(scene.path, { fallbackStateDirectory }, files);
  assert.match(place.directory, /\/home\/\.local\/state\/walrust\/app\.db-[0-9a-f]{12}$/);
  assert.deepEqual(place.locks, [place.directory]);
  assert.throws(() => placeOf(scene.path, {}, files), {
    code: "state_not_writable",
    exitCode: 3,
    message: /\.walrust-app\.db .*user 1234/,
    hint: /--state-dir/,
  });
});

test("[S42] makeStatePlace: a --state-dir that is a file or not ours is named, exit 2", { timeout }, () => {
  const scene = new Scene();
  const file = `${scene.directory}/file`;
  writeFileSync(file, "");
  const expected = { code: "bad_state_directory", exitCode: 2, message: /\/file .*user/, hint: /--state-dir/ };
  assert.throws(() => placeOf(scene.path, { stateDirectory: file }), expected);
  const foreign = `${scene.directory}/foreign`;
  mkdirSync(foreign);
  const files = withoutRight(foreign);
  const denied = { ...expected, message: /\/foreign .*user 1234/ };
  assert.throws(() => placeOf(scene.path, { stateDirectory: foreign }, files), denied);
});

test("[S42] locateDatabase: what cannot be reached names path and user; what is no database leaves nothing", {
  timeout,
}, () => {
  const scene = new Scene();
  const unreadable: Files = {
    ...system.files,
    uid: 1234,
    stat: (path) => {
      throw Object.assign(new Error(`EACCES: permission denied, stat '${path}'`), { code: "EACCES" });
    },
  };
  const reached = { code: "not_readable", exitCode: 3, message: /app\.db .*user 1234/, hint: /user/ };
  assert.throws(() => locateDatabase(unreadable, scene.path, { mode: "auto", isShared: false }), reached);
  assert.throws(() => locateDatabase(system.files, scene.directory, { mode: "auto", isShared: false }), {
    code: "not_a_file",
    hint: /path/,
  });
  assert.throws(
    () => locateDatabase(system.files, scene.path, { mode: "auto", isShared: false, taken: new Set([scene.path]) }),
    {
      code: "same_database",
    },
  );
});
