/** Small reads and writes on byte arrays that every format shares, and the one way to refuse bytes. */

import { FormatError } from "../errors.ts";

/** A view of exactly these bytes; integers in our own formats and in SQLite's are big-endian. */
export function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Lower-case hexadecimal, two digits a byte. */
export function hexOf(bytes: Uint8Array): string {
  let text = "";
  for (const byte of bytes) text += byte.toString(16).padStart(2, "0");
  return text;
}

/** Bytes of an even number of hex digits. */
export function bytesOfHex(text: string): Uint8Array {
  return Uint8Array.from({ length: text.length / 2 }, (_, i) => Number.parseInt(text.slice(2 * i, 2 * i + 2), 16));
}

/** True when both hold the same bytes; not in constant time. */
export function equalBytes(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let index = 0; index < a.length; index++) {
    if (a[index] !== b[index]) return false;
  }
  return true;
}

/** True for a page size that SQLite can have: a power of two, 512 to 65536. */
export function isPageSize(size: number): boolean {
  return size >= 512 && size <= 65536 && (size & (size - 1)) === 0;
}

/** The error for bytes that are not what their format says. */
export function formatError(
  code: string,
  object: string,
  offset: number,
  expected: string,
  found: string,
): FormatError {
  return new FormatError(code, `${printable(object)}: at byte ${offset}: expected ${expected}, found ${found}`, {
    hint: "The object is damaged or was not written by walrust; another copy or an older point may be sound.",
    data: { object, offset, expected, found },
  });
}

// Controls, bidirectional and invisible marks, line separators and lone surrogates: what a terminal obeys or hides.
const unprintable =
  // deno-lint-ignore no-control-regex
  /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff]/gu;

/** Text from outside made safe to print: characters that steer a terminal are written as `\u{1b}`. */
export function printable(text: string): string {
  return text.replace(unprintable, (character) => `\\u{${character.codePointAt(0)!.toString(16)}}`);
}

/** One word of a command line that a person can paste into a shell. */
export function shellQuoted(text: string): string {
  return /^[\w./:=@%+-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}
