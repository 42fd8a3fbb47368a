/** Bounds that hold whatever happens: deltas in flight, requests again and again, descriptors, connections, spool. */
import type { SimulatedFiles } from "./files.ts";
import { databasePath, type Machine } from "./machine.ts";

const spoolSizeMaxDefault = 1024 ** 3;
/** Headers and markers of the objects. */
const slackBytes = 2 ** 16;
/** The same request again, in a minute: backoff makes it rarer and rarer. */
const repeatsPerMinuteMax = 60;
const descriptorsMax = 10;
const connectionsMax = 10;

const isDelta = (operation: string, key: string): boolean => operation === "put" && key.includes("/0000/");

/** See the top of this file. */
export class Bounds {
  readonly #machine: Machine;
  #files: SimulatedFiles | null = null;
  /** Keys of deltas on their way. */
  readonly #deltas = new Set<string>();
  #minute = -1;
  #repeats = new Map<string, number>();
  /** The most of each that was seen. */
  readonly peaks: { repeats: number; descriptors: number; connections: number; spool: number } = {
    repeats: 0,
    descriptors: 0,
    connections: 0,
    spool: 0,
  };

  constructor(machine: Machine) {
    this.#machine = machine;
  }

  /** A process starts. */
  begin(files: SimulatedFiles): void {
    this.#files = files;
    this.#minute = -1;
    this.restarted();
  }

  /** The engine begins again from journal and bucket: what it sent before may arrive late, as after a crash. */
  restarted(): void {
    this.#deltas.clear();
  }

  /** A request is sent. */
  sent(operation: string, key: string): void {
    const { world } = this.#machine;
    const minute = Math.floor(world.clock.elapsedMs / 60_000);
    if (minute !== this.#minute) this.#repeats.clear();
    this.#minute = minute;
    const request = `${operation} ${key}`;
    const repeats = (this.#repeats.get(request) ?? 0) + 1;
    this.#repeats.set(request, repeats);
    this.#peak("repeats", repeats, repeatsPerMinuteMax);
    if (!isDelta(operation, key)) return;
    if (this.#deltas.size > 0) world.violate(`${this.#deltas.size + 1} deltas are in flight`);
    this.#deltas.add(key);
  }

  /** A request was answered. */
  ended(operation: string, key: string): void {
    if (isDelta(operation, key)) this.#deltas.delete(key);
  }

  #peak(name: keyof Bounds["peaks"], value: number, max: number): void {
    if (value <= this.peaks[name]) return;
    this.peaks[name] = value;
    if (value > max) this.#machine.world.violate(`${value} ${name}: at most ${max} are right`);
  }

  /** After each step. */
  check(): void {
    const { disk, directory, files, options } = this.#machine;
    let open = 0;
    for (const count of this.#files?.openCounts.values() ?? []) open += count;
    this.#peak("descriptors", open, descriptorsMax);
    this.#peak("connections", files.connectionsOf("walrust"), connectionsMax);
    let spool = 0;
    for (const { name } of disk.list(`${directory}/spool`)) spool += disk.lookup(`${directory}/spool/${name}`)!.size;
    this.peaks.spool = Math.max(this.peaks.spool, spool);
    // What was in the log when the limit was reached may still be added.
    const log = disk.lookup(`${databasePath}-wal`)?.size ?? 0;
    const most = (options.spoolSizeMax ?? spoolSizeMaxDefault) + log + slackBytes;
    if (spool > most) this.#machine.world.violate(`the spool has ${spool} bytes: at most ${most} are right`);
  }
}
