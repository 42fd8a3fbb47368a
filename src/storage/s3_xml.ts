import { parseXml, XmlElement, type XmlNode, XmlText } from "@rgrove/parse-xml";

/**
 * The few XML documents of S3, read strictly: nothing but elements and text, no document type (and so no entities),
 * bounded before parsing. The problem of a document is returned as text; the caller knows the request.
 */

/** Largest document that is parsed, bytes; a list page of 1,000 keys of 1,024 bytes has about 4 MB. */
export const xmlSizeMax: number = 16 * 1024 * 1024;

/** Why a document was not accepted. */
export class XmlProblem extends Error {}

/** A parsed element with the accessors S3 documents need. */
export class S3Element {
  readonly #element: XmlElement;

  constructor(element: XmlElement) {
    this.#element = element;
  }

  /** Name without a namespace prefix. */
  get name(): string {
    return this.#element.name.replace(/^.*:/, "");
  }

  /** Child elements with this name, in order. */
  all(name: string): S3Element[] {
    const found: S3Element[] = [];
    for (const child of this.#element.children) {
      if (child instanceof XmlElement) {
        const element = new S3Element(child);
        if (element.name === name) found.push(element);
      }
    }
    return found;
  }

  /** Text of the first child element with this name, or null. */
  text(name: string): string | null {
    return this.all(name)[0]?.content ?? null;
  }

  /** All text in this element. Without recursion: a hostile document is deeper than a stack. */
  get content(): string {
    let text = "";
    const open: XmlNode[] = [this.#element];
    for (let node = open.pop(); node !== undefined; node = open.pop()) {
      if (node instanceof XmlText) text += node.text;
      else if (node instanceof XmlElement) { for (const child of node.children.toReversed()) open.push(child); }
    }
    return text;
  }
}

/** Parses a document; throws {@linkcode XmlProblem}. */
export function parseDocument(bytes: Uint8Array): S3Element {
  if (bytes.length > xmlSizeMax) throw new XmlProblem(`XML of ${bytes.length} bytes`);
  let text: string;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(bytes);
  } catch {
    throw new XmlProblem("not UTF-8");
  }
  if (/<!DOCTYPE/i.test(text)) throw new XmlProblem("XML with a document type");
  try {
    // AWS keeps a slow answer alive with white space, which may stand before the declaration.
    // Line ends are made one kind here: the parser does it as the standard says, but in quadratic time.
    const root = parseXml(text.trimStart().replace(/\r\n?/g, "\n")).root;
    if (root === null) throw new XmlProblem("XML without a root element");
    return new S3Element(root);
  } catch (error) {
    if (error instanceof XmlProblem) throw error;
    throw new XmlProblem(`not XML: ${error instanceof Error ? error.message.split("\n")[0] : String(error)}`);
  }
}

/** Whether XML 1.0 can carry this text at all; most control characters it cannot. */
export function fitsXml(text: string): boolean {
  // deno-lint-ignore no-control-regex
  return !/[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]/.test(text) && text.isWellFormed();
}

/** Text for an element. White space is escaped too, since parsers may normalise line ends. */
export function escapeXml(text: string): string {
  return text.replace(/[&<>"'\t\r\n]/g, (character) => `&#${character.charCodeAt(0)};`);
}

/** Decodes `encoding-type=url`: percent escapes, and `+` for a space; null when malformed. */
export function decodeUrlText(text: string): string | null {
  try {
    return decodeURIComponent(text.replaceAll("+", " "));
  } catch {
    return null;
  }
}
