/** Makes inputs for decoders: noise, sound samples, and samples damaged in the ways that formats get damaged. */
import type { SeededRandom } from "../simulation/random.ts";

/** A number inside a sample, big-endian. */
export interface Field {
  /** Bytes from the beginning. */
  readonly offset: number;
  readonly size: 1 | 2 | 4 | 8;
}

/** A sound input in bytes. */
export interface BinarySample {
  readonly bytes: Uint8Array;
  readonly fields: readonly Field[];
}

/** A sound input in text, cut into the pieces that a change takes, doubles or exchanges. */
export type TextSample = readonly string[];

/** What a text format is made of. */
export interface Vocabulary {
  /** Pieces that its readers know, or are surprised by. */
  readonly words: readonly string[];
  /** What nests. */
  readonly brackets: readonly (readonly [open: string, close: string])[];
}

/** Numbers at which formats break: ends of types, page sizes, what a double or a date cannot hold. */
const boundaries: readonly bigint[] = [
  ...[-1n, 0n, 1n, 2n, 3n, 0x7fn, 0x80n, 0xffn, 0x100n, 511n, 512n, 513n, 1024n, 4096n],
  ...[0xffffn, 0x1_0000n, 0x1_0001n, 0x2_0000n, 0x7fff_ffffn, 0x8000_0000n, 0xffff_fffen, 0xffff_ffffn],
  ...[2n ** 32n, 2n ** 40n, 2n ** 53n - 1n, 2n ** 53n, 2n ** 53n + 1n, 8_640_000_000_000_000n, 8_640_000_000_000_001n],
  ...[2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n, 2n ** 64n, 10n ** 39n, 10n ** 40n],
];

/** One in so many text inputs repeats a piece, or lies so deep in brackets. */
const repetitionOneIn = 500;
/** Powers of two: recursion ends at some thousands. */
const repetitions = { least: 8, most: 13 };

const encoder = new TextEncoder();

/** Draws changes from one source of randomness, so that a seed is an input. */
export class Mutator {
  readonly random: SeededRandom;

  constructor(random: SeededRandom) {
    this.random = random;
  }

  /** Random bytes, mostly few. */
  noise(sizeMax: number): Uint8Array {
    return this.random.bytes(this.random.integer(this.random.chance(0.5) ? 65 : sizeMax));
  }

  /** A sample as it is, a damaged one, or noise; `others` give parts to a splice. */
  binary(sample: BinarySample, others: readonly BinarySample[]): Uint8Array<ArrayBuffer> {
    const kind = this.random.integer(16);
    if (kind === 0) return this.noise(2 * sample.bytes.length).slice();
    let bytes = sample.bytes.slice();
    if (kind === 1) return bytes;
    for (let changes = 1 + this.random.integer(3); changes > 0; changes--) bytes = this.#change(bytes, sample, others);
    return bytes;
  }

  #change(
    bytes: Uint8Array<ArrayBuffer>,
    sample: BinarySample,
    others: readonly BinarySample[],
  ): Uint8Array<ArrayBuffer> {
    const { random } = this;
    if (bytes.length === 0) return random.bytes(8).slice();
    const at = random.integer(bytes.length);
    switch (random.integer(12)) {
      case 0:
        bytes[at] ^= 1 << random.integer(8);
        return bytes;
      case 1:
        bytes[at] = random.pick([0, 1, 0x7f, 0x80, 0xff]);
        return bytes;
      case 2:
        return bytes.slice(0, at);
      case 3:
        return joined(bytes, random.chance(0.5) ? random.bytes(random.integer(40)) : new Uint8Array(8));
      case 4:
        return joined(bytes.subarray(0, at), bytes.subarray(at + 1 + random.integer(40)));
      case 5: {
        const end = at + 1 + random.integer(600);
        return joined(bytes.subarray(0, end), bytes.subarray(at));
      }
      case 6: {
        const other = random.pick(others).bytes;
        const same = random.chance(0.5) ? at : random.integer(other.length);
        return joined(bytes.subarray(0, at), other.subarray(same));
      }
      case 7:
        bytes.copyWithin(at, random.integer(bytes.length), random.integer(bytes.length));
        return bytes;
      default:
        this.#setField(bytes, sample.fields);
        return bytes;
    }
  }

  /** A number becomes a boundary, its neighbour, or that of another field. */
  #setField(bytes: Uint8Array, fields: readonly Field[]): void {
    const { random } = this;
    if (fields.length === 0) return;
    const { offset, size } = random.pick(fields);
    if (offset + size > bytes.length) return;
    let value = random.pick(boundaries);
    const kind = random.integer(4);
    if (kind === 0) value = readNumber(bytes, offset, size) + (random.chance(0.5) ? 1n : -1n);
    if (kind === 1) {
      const other = random.pick(fields);
      if (other.offset + other.size <= bytes.length) value = readNumber(bytes, other.offset, other.size);
    }
    for (let index = size - 1; index >= 0; index--) {
      bytes[offset + index] = Number(value & 0xffn);
      value >>= 8n;
    }
  }

  /** A sample's text as it is or damaged. */
  text(sample: TextSample, others: readonly TextSample[], vocabulary: Vocabulary): string {
    const { random } = this;
    const pieces = sample.slice();
    if (random.integer(16) === 0) return pieces.join("");
    if (random.integer(repetitionOneIn) === 0) {
      this.#repeat(pieces, vocabulary);
      return pieces.join("");
    }
    for (let changes = 1 + random.integer(3); changes > 0; changes--) {
      this.#changePieces(pieces, others, vocabulary.words);
    }
    return pieces.join("");
  }

  /** As `text`, in UTF-8 that is now and then broken, or noise. */
  utf8(sample: TextSample, others: readonly TextSample[], vocabulary: Vocabulary): Uint8Array {
    const kind = this.random.integer(32);
    if (kind === 0) return this.noise(200);
    const bytes = encoder.encode(this.text(sample, others, vocabulary));
    if (kind < 3 && bytes.length > 0) bytes[this.random.integer(bytes.length)] ^= 1 << this.random.integer(8);
    return bytes;
  }

  #repeat(pieces: string[], { words, brackets }: Vocabulary): void {
    const { random } = this;
    const at = random.integer(pieces.length);
    const times = Math.floor(2 ** (repetitions.least + random.number() * (repetitions.most - repetitions.least)));
    if (brackets.length === 0 || random.chance(0.5)) {
      pieces[at] = (random.chance(0.5) ? random.pick(words) : pieces[at]).repeat(times);
    } else {
      const [open, close] = random.pick(brackets);
      pieces[at] = `${open.repeat(times)}${pieces[at]}${close.repeat(times)}`;
    }
  }

  #changePieces(pieces: string[], others: readonly TextSample[], words: readonly string[]): void {
    const { random } = this;
    if (pieces.length === 0) {
      pieces.push(random.pick(words));
      return;
    }
    const at = random.integer(pieces.length);
    switch (random.integer(12)) {
      case 0:
        pieces.splice(at, 1 + random.integer(4));
        return;
      case 1:
        pieces.splice(random.integer(pieces.length + 1), 0, ...pieces.slice(at, at + 1 + random.integer(8)));
        return;
      case 2: {
        const other = random.integer(pieces.length);
        [pieces[at], pieces[other]] = [pieces[other], pieces[at]];
        return;
      }
      case 3:
        pieces.length = at;
        return;
      case 4: {
        const other = random.pick(others);
        pieces.splice(at, pieces.length, ...other.slice(random.chance(0.5) ? at : random.integer(other.length)));
        return;
      }
      case 5:
        pieces.splice(at, 0, random.pick(words));
        return;
      case 6:
      case 7:
        pieces[at] = random.pick(words);
        return;
      case 8: {
        const text = pieces[at];
        const cut = random.integer(text.length + 1);
        pieces[at] = text.slice(0, cut) + this.#character() + text.slice(cut + random.integer(2));
        return;
      }
      default:
        this.#setNumber(pieces);
    }
  }

  #character(): string {
    const { random } = this;
    const code = random.pick([0x20 + random.integer(95), random.integer(32), random.integer(0x1_0000)]);
    return String.fromCharCode(code);
  }

  /** One number among the pieces becomes a boundary. */
  #setNumber(pieces: string[]): void {
    const { random } = this;
    const start = random.integer(pieces.length);
    for (let step = 0; step < pieces.length; step++) {
      const at = (start + step) % pieces.length;
      if (!/[0-9]/.test(pieces[at])) continue;
      pieces[at] = pieces[at].replace(/[0-9]+/, random.pick(boundaries).toString(random.chance(0.2) ? 16 : 10));
      return;
    }
  }
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(a.length + b.length);
  bytes.set(a);
  bytes.set(b, a.length);
  return bytes;
}

function readNumber(bytes: Uint8Array, offset: number, size: number): bigint {
  let value = 0n;
  for (let index = 0; index < size; index++) value = value << 8n | BigInt(bytes[offset + index]);
  return value;
}

/** Pieces of a JSON text: strings, words, numbers and punctuation. */
export function jsonPieces(text: string): TextSample {
  return text.match(/"(?:[^"\\]|\\.)*"|-?[0-9][0-9.eE+-]*|[a-z]+|\s+|[^]/g) ?? [];
}

/** Pieces of an XML text: tags and what is between them. */
export function xmlPieces(text: string): TextSample {
  return text.match(/<[^>]*>|[^<]+/g) ?? [];
}

/** Pieces of an XML text that leave elements of mere text whole, so that a change often leaves a document. */
export function xmlElements(text: string): TextSample {
  return text.match(/<(\w+)>[^<]*<\/\1>|<[^>]*>|[^<]+/g) ?? [];
}

/** Pieces of a key, path or URL: words and what separates them. */
export function pathPieces(text: string): TextSample {
  return text.match(/[0-9A-Za-z]+|[^0-9A-Za-z]/g) ?? [];
}
