/** What goes wrong on the disk of a machine as its engine sees it: no room, no answer, less than was asked for. */
import { type FileHook, SimulatedCrash, systemError } from "./files.ts";
import { databasePath, type Machine } from "./machine.ts";

const mayFail = new Set(["write", "sync", "rename", "open", "read", "truncate", "syncDirectory"]);
const needsRoom = new Set(["write", "open"]);

/** See the top of this file. */
export class DiskFaults {
  readonly #machine: Machine;
  #fullUntil = -1;
  /** Something failed: the process may end with an error. */
  happened = false;

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** Nothing fails any more. */
  heal(): void {
    this.#fullUntil = -1;
  }

  /** Runs `between` before each call, then lets it fail or not. */
  hook(between: FileHook): FileHook {
    return (call) => {
      const { operation, length } = call;
      const { random, world } = this.#machine;
      try {
        between(call);
      } catch (error) {
        // Killed in the middle of a write: some of it is done.
        if (operation === "write" && error instanceof SimulatedCrash && random.chance(0.5)) {
          return { partial: random.integer(length + 1), error };
        }
        throw error;
      }
      if (!world.calm) return this.#fail(operation, call.path, length);
    };
  }

  #fail(operation: string, path: string, length: number): ReturnType<FileHook> {
    const { random, chaos, world } = this.#machine;
    const now = world.clock.elapsedMs;
    if (random.chance(chaos.full)) {
      this.#fullUntil = now + random.number() * random.pick([1000, 30_000, 120_000]);
      this.#machine.say("the disk is full");
    }
    const isFull = now < this.#fullUntil && operation === "write" && path !== databasePath;
    if (!isFull && !(mayFail.has(operation) && random.chance(chaos.io))) return;
    this.happened = true;
    const code = isFull || (needsRoom.has(operation) && random.chance(0.5)) ? "ENOSPC" : "EIO";
    this.#machine.say(`${operation} ${path} fails: ${code}`);
    const error = systemError(code, operation, path);
    if (operation === "write") return { partial: random.integer(length + 1), error };
    // A read may also come back short, where its caller is told how much there is to read.
    if (operation === "read" && /\.db(-wal)?$/.test(path) && random.chance(0.5)) {
      return { partial: random.integer(length + 1) };
    }
    throw error;
  }
}
