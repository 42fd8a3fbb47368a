/** HADBP, the physical changeset: its format is in hadbp_header.ts, writing and reading in the two beside it. */

export {
  type ChangesetEnd,
  type ChangesetHeader,
  changesetSize,
  checksumHex,
  checksumOfDigest,
  compactedFlag,
  decodeHeader,
  deltaMarkerFlag,
  type Entry,
  hasMarker,
  headerSize,
  isBridge,
} from "./hadbp_header.ts";
export { ChangesetEncoder, encodeChangeset } from "./hadbp_encoder.ts";
export { ChangesetDecoder, type ChangesetExpectation, decodeChangeset, type DecodeOptions } from "./hadbp_decoder.ts";
