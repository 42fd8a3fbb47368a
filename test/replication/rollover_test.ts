import assert from "node:assert/strict";
import { test } from "node:test";
import { StorageError } from "../../src/errors.ts";
import type { Files, Sqlite } from "../../src/runtime/types.ts";
import { wrapStore } from "../../src/storage/wrap.ts";
import { Scene, system, turn } from "./engine_scene.ts";

test(
  "Rollover: barriers that meet a doubt again and again hold no more pins than one",
  { timeout: 60_000 },
  async () => {
    const scene = new Scene({ minCheckpointPages: 5 });
    let [down, doubtful, open, most] = [false, false, 0, 0];
    const counted: Sqlite = {
      ...system.sqlite!,
      open: (path, options) => {
        const connection = system.sqlite!.open(path, options);
        const { close } = connection;
        most = Math.max(most, ++open);
        let isOpen = true;
        return Object.assign(connection, {
          close: () => {
            if (isOpen) open--;
            isOpen = false;
            close.call(connection);
          },
        });
      },
    };
    // The frame in front of the position reads as another one.
    const machine: Partial<Files> = {
      open: (path, mode) => {
        const file = scene.life.files.open(path, mode);
        if (!path.endsWith("-wal")) return file;
        const { read } = file;
        return Object.assign(file, {
          read: (into: Uint8Array, position: number) => {
            const length = read.call(file, into, position);
            if (doubtful && position > 32) into[into.length - 1] ^= 1;
            return length;
          },
        });
      },
    };
    const answer = (): Promise<never> => Promise.reject(new StorageError("ServiceUnavailable", "503"));
    scene.start(
      (store) => wrapStore(store, { put: (key, body, options) => down ? answer() : store.put(key, body, options) }),
      machine,
      counted,
    );
    await scene.sync();
    const atRest = open;
    down = true;
    scene.commit(4);
    await scene.sync().catch(() => undefined);
    scene.commit(400);
    doubtful = true;
    most = 0;
    for (let i = 0; i < 20; i++) {
      scene.clock.skip(2000);
      await scene.engine.step();
      await turn();
    }
    assert.ok(most > atRest, "canary: barriers were tried");
    assert.ok(open <= atRest + 1, `${open} connections where ${atRest} were at rest`);
    doubtful = down = false;
    scene.clock.skip(60_000);
    for (let i = 0; i < 4; i++) await scene.sync();
    await scene.prove();
  },
);
