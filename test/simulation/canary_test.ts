/** Canaries: for each thing that must hold, an engine or a world in which it does not, which the simulation must notice. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { test } from "node:test";
import type { OpenFile, Runtime } from "../../src/runtime/types.ts";
import { databasePath } from "./machine.ts";
import { calmNetwork } from "./store.ts";
import { simulate, SimulationFailure, type SimulationOptions } from "./watch_simulation.ts";

const timeout = 120_000;

/** What the first history says in which the breakage is noticed; `null` when none of them notices it. */
async function notice(sabotage: NonNullable<SimulationOptions["sabotage"]>, seedMax = 80): Promise<string | null> {
  for (let seed = 1; seed <= seedMax; seed++) {
    try {
      await simulate(seed, { steps: 20, sabotage });
    } catch (error) {
      assert.ok(error instanceof SimulationFailure);
      return error.message;
    }
  }
  return null;
}

type Connection = ReturnType<NonNullable<Runtime["sqlite"]>["open"]>;

/** Wraps the engine's SQLite. */
function withSqlite(change: (connection: Connection) => void): () => (runtime: Runtime) => Runtime {
  return () => (runtime) => ({
    ...runtime,
    sqlite: {
      version: runtime.sqlite!.version,
      open: (path, options) => {
        const connection = runtime.sqlite!.open(path, options);
        change(connection);
        return connection;
      },
    },
  });
}

/** Wraps the files that the engine opens. */
function withFiles(change: (file: OpenFile, path: string) => void): (runtime: Runtime) => Runtime {
  return (runtime) => {
    const { files } = runtime;
    const open = files.open.bind(files);
    files.open = (path, mode) => {
      const file = open(path, mode);
      change(file, path);
      return file;
    };
    return runtime;
  };
}

test("simulate: canary: a PUT that loses a byte", { timeout }, async () => {
  const found = await notice(({ bucket, random }) => {
    bucket.corrupt = (key, bytes) => {
      if (!key.includes("/0000/") || bytes.length < 200 || !random.chance(0.2)) return bytes;
      const copy = bytes.slice();
      copy[100] ^= 1;
      return copy;
    };
  });
  assert.match(found ?? "nothing", /expected checksum [0-9a-f]{16}, found/);
});

test("simulate: canary: an engine without its pin", { timeout }, async () => {
  const found = await notice(withSqlite((connection) => {
    const begin = connection.beginRead.bind(connection);
    connection.beginRead = () => {
      begin();
      connection.rollback();
    };
  }));
  assert.ok(found !== null);
});

test("simulate: canary: an fsync that does nothing", { timeout }, async () => {
  const found = await notice(({ chaos }) => {
    chaos.power = 0.002;
    return (runtime) => {
      runtime.files.syncDirectory = () => {};
      return withFiles((file) => void (file.sync = () => {}))(runtime);
    };
  });
  assert.ok(found !== null);
});

test("simulate: canary [S117]: an engine that trusts the file instead of the gauge", { timeout }, async () => {
  const found = await notice(({ machine, application }) => {
    application.habits.crash = 0.05;
    return withSqlite((connection) => {
      const gauge = connection.gauge.bind(connection);
      connection.gauge = () => {
        const answer = gauge();
        return { ...answer, log: Math.max(answer.log, machine.files.current?.recover().header.mxFrame ?? 0) };
      };
    })();
  });
  assert.ok(found !== null);
});

test("simulate: canary: an engine that is quiet although something was committed", { timeout }, async () => {
  const found = await notice(({ machine, troubles }) => {
    troubles.stop = 0;
    troubles.second = null;
    const start = machine.start.bind(machine);
    machine.start = () => {
      const life = start();
      const step = life.engine.step.bind(life.engine);
      const isLate = (): boolean => machine.world.clock.elapsedMs > 15_000;
      life.engine.step = () => isLate() && life.engine.atRest ? Promise.resolve(1000) : step();
      return life;
    };
  });
  assert.match(found ?? "nothing", /the engine is quiet at/);
});

test("simulate: canary: an object that is confirmed and not there", { timeout }, async () => {
  const found = await notice(({ bucket, random }) => {
    const write = bucket.write.bind(bucket);
    bucket.write = (key, bytes, options, sender) =>
      key.includes("/0000/") && random.chance(0.2)
        ? Promise.resolve({ etag: '"0"' })
        : write(key, bytes, options, sender);
  });
  assert.match(found ?? "nothing", /journal names|index counts|no hole|what the deltas/);
});

test("simulate: canary: an index that counts on less than the bucket holds", { timeout }, async () => {
  const found = await notice(({ random }) =>
    withFiles((file, path) => {
      const write = file.write.bind(file);
      if (!path.endsWith("pages.idx")) return;
      file.write = (bytes, at) => write(at >= 64 && random.chance(0.2) ? new Uint8Array(bytes.length) : bytes, at);
    })
  );
  assert.match(found ?? "nothing", /does not count/);
});

test("simulate: canary: an index ahead of the bucket", { timeout }, async () => {
  const found = await notice(({ machine, bucket, random }) => {
    bucket.network = { ...calmNetwork, delayMs: 2000 };
    const { application, disk } = machine;
    const heard = application.onContent;
    application.onContent = () => {
      heard();
      const index = disk.lookup(`${machine.directory}/pages.idx`);
      if (index === null || index.size < 80 || !random.chance(0.2)) return;
      const { pageSize } = machine.files.current!;
      const page = machine.files.current!.content().subarray(pageSize, 2 * pageSize);
      const hash = createHash("sha256").update(index.data.subarray(32, 48)).update(page).digest();
      disk.write(index, hash.subarray(0, 8), 64 + 8);
    };
  });
  assert.match(found ?? "nothing", /which is not in the bucket/);
});

test("simulate: canary: a store that ignores conditions while requests arrive late", { timeout }, async () => {
  const found = await notice(({ bucket, chaos, troubles }) => {
    chaos.crash = 0.003;
    troubles.second = null;
    // Without the wait for what is on its way, which the simulation grants to such a store.
    Object.defineProperty(bucket, "underway", { get: () => 0, set: () => {} });
    bucket.network = { ...calmNetwork, delayMs: 50, slow: 0.2, slowMs: 5000, ignoresConditions: true };
  });
  assert.match(found ?? "nothing", /two contents|no hole/);
});

test("simulate: canary: a published object that is gone, and nobody said so", { timeout }, async () => {
  const found = await notice(({ bucket, random }) => {
    const { onWrite } = bucket;
    bucket.onWrite = (key, bytes, sender) => {
      onWrite(key, bytes, sender);
      if (key.includes("/0000/") && random.chance(0.1)) bucket.clock.at(100_000, () => bucket.vanish(key));
    };
  });
  assert.match(found ?? "nothing", /no such object|never changes|without need|is missing/);
});

test("simulate: canary: a new lineage without need", { timeout }, async () => {
  const found = await notice(({ machine, bucket }) => {
    bucket.clock.at(25_000, () => {
      machine.disk.remove(`${machine.directory}/journal`);
      machine.crash("the canary");
    });
  });
  assert.match(found ?? "nothing", /without need/);
});

test("simulate: canary: descriptors that stay open", { timeout }, async () => {
  const found = await notice(() => withFiles((file) => void (file.close = () => {})));
  assert.match(found ?? "nothing", /descriptors/);
});

test("simulate: canary: connections that stay open", { timeout }, async () => {
  const found = await notice(() => (runtime) => {
    const { sqlite } = runtime;
    const open = sqlite!.open.bind(sqlite!);
    const visible = (path: string): Connection => {
      const connection = open(path, { readOnly: true });
      connection.journalMode();
      return connection;
    };
    const leaking = (path: string, options: { readOnly: boolean }): Connection => {
      const connection = open(path, options);
      const gauge = connection.gauge.bind(connection);
      connection.gauge = () => (visible(path), gauge());
      return connection;
    };
    return { ...runtime, sqlite: { version: sqlite!.version, open: leaking } };
  });
  assert.match(found ?? "nothing", /connections/);
});

test("simulate: canary: a descriptor on the database that closes under a connection", { timeout }, async () => {
  const found = await notice(({ random }) => (runtime) => {
    const { files } = runtime;
    const stat = files.stat.bind(files);
    files.stat = (path) => {
      if (path === `${databasePath}-wal` && random.chance(0.1)) files.open(databasePath, "read").close();
      return stat(path);
    };
    return runtime;
  });
  assert.match(found ?? "nothing", /closed under a connection/);
});

test("simulate: canary: tries that follow each other too fast", { timeout }, async () => {
  const found = await notice(({ bucket }) => {
    bucket.network = { ...calmNetwork };
    bucket.clock.at(10_000, () => bucket.network.failure = 1);
    return (runtime) => ({
      ...runtime,
      clock: {
        ...runtime.clock,
        monotonic: () => runtime.clock.monotonic() * 1000,
        sleep: () => runtime.clock.sleep(1),
      },
    });
  });
  assert.match(found ?? "nothing", /repeats|requests/);
});

test("simulate: canary: two deltas in flight", { timeout }, async () => {
  const found = await notice(({ machine, bucket }) => {
    bucket.clock.at(10_000, () => ["1", "2"].forEach((seq) => machine.bounds.sent("put", `app/0000/${seq}`)));
  });
  assert.match(found ?? "nothing", /2 deltas are in flight/);
});

test("simulate: canary: a stop that says more than is true", { timeout }, async () => {
  const found = await notice(({ machine, troubles }) => {
    troubles.stop = 0.3;
    const start = machine.start.bind(machine);
    machine.start = () => {
      const life = start();
      life.engine.stop = () => Promise.resolve(null);
      return life;
    };
  });
  assert.match(found ?? "nothing", /the stop says/);
});
