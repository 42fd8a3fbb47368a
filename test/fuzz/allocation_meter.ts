/** Counts the bytes that code asks for by `new Uint8Array(n)` and its like, and refuses before too many are taken. */

/** Thrown in place of an allocation beyond the limit. */
export class AllocationRefused extends Error {}

const kinds = ["ArrayBuffer", "Uint8Array", "Uint32Array", "Int32Array", "BigUint64Array", "Float64Array"] as const;

/** Begins with nothing counted and no limit. */
export class AllocationMeter {
  /** Bytes asked for since `reset`. */
  bytes = 0;
  #limit = Infinity;
  /** Kept, as whoever asks may catch what is thrown at it. */
  #refusal: AllocationRefused | null = null;

  reset(limit: number): void {
    this.bytes = 0;
    this.#limit = limit;
    this.#refusal = null;
  }

  /** Throws when an allocation was refused since `reset`. */
  check(): void {
    if (this.#refusal !== null) throw this.#refusal;
  }

  /** Stands in for the constructors until the function returned is called. */
  install(): () => void {
    const world = globalThis as unknown as Record<string, new (...args: unknown[]) => object>;
    const originals = kinds.map((name) => [name, world[name]] as const);
    for (const [name, original] of originals) {
      const size = (original as unknown as { BYTES_PER_ELEMENT?: number }).BYTES_PER_ELEMENT ?? 1;
      const counting: ProxyHandler<typeof original> = {
        construct: (target, args, asked) => {
          if (typeof args[0] === "number") this.#count(args[0] * size);
          return Reflect.construct(target, args, asked === world[name] ? target : asked);
        },
      };
      world[name] = new Proxy(original, counting);
    }
    return () => {
      for (const [name, original] of originals) world[name] = original;
    };
  }

  #count(bytes: number): void {
    this.bytes += bytes;
    if (this.bytes <= this.#limit) return;
    this.#refusal ??= new AllocationRefused(`${this.bytes} bytes asked for, at most ${this.#limit} make sense`);
    throw this.#refusal;
  }
}
