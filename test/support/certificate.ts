/** A TLS certificate that nobody trusts, made by hand: the runtimes sign, but write no certificates. */
import { Buffer } from "node:buffer";
import { generateKeyPairSync, sign } from "node:crypto";

/** One DER element: tag, length, contents. */
function der(tag: number, ...contents: Uint8Array[]): Uint8Array {
  const body = Buffer.concat(contents);
  const { length: size } = body;
  const length = size < 128 ? [size] : size < 256 ? [0x81, size] : [0x82, size >> 8, size & 0xff];
  return Buffer.concat([Uint8Array.of(tag, ...length), body]);
}

const sequence = (...contents: Uint8Array[]): Uint8Array => der(0x30, ...contents);
const bytes = (hex: string): Uint8Array => Buffer.from(hex, "hex");
const text = (tag: number, value: string): Uint8Array => der(tag, Buffer.from(value));
const bits = (value: Uint8Array): Uint8Array => der(0x03, Uint8Array.of(0), value);

const ecdsaWithSha256 = sequence(bytes("06082a8648ce3d040302"));
const commonName = bytes("0603550403");
const subjectAltName = bytes("0603551d11");

/** Key and certificate (PEM) of a server at 127.0.0.1, signed by itself, good until 2100. */
export function selfSignedCertificate(): { key: string; cert: string } {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "prime256v1" });
  const name = sequence(der(0x31, sequence(commonName, text(0x0c, "walrust test"))));
  const address = sequence(der(0x87, Uint8Array.of(127, 0, 0, 1)));
  const signed = sequence(
    der(0xa0, der(0x02, Uint8Array.of(2))), // Version 3.
    der(0x02, Uint8Array.of(1)),
    ecdsaWithSha256,
    name,
    sequence(text(0x17, "200101000000Z"), text(0x18, "21000101000000Z")),
    name,
    publicKey.export({ type: "spki", format: "der" }),
    der(0xa3, sequence(sequence(subjectAltName, der(0x04, address)))),
  );
  const certificate = sequence(signed, ecdsaWithSha256, bits(sign("sha256", signed, privateKey)));
  const lines = Buffer.from(certificate).toString("base64").replace(/.{64}/g, "$&\n");
  return {
    key: String(privateKey.export({ type: "pkcs8", format: "pem" })),
    cert: `-----BEGIN CERTIFICATE-----\n${lines}\n-----END CERTIFICATE-----\n`,
  };
}
