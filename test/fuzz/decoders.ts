/** Every decoder of bytes that walrust did not write in this very process. */
import { changesetDecoder, indexedDecoder } from "./changeset_decoders.ts";
import {
  bucketUrlDecoder,
  databaseNameDecoder,
  documentDecoders,
  jsonDecoder,
  keyDecoder,
} from "./document_decoders.ts";
import type { Decoder } from "./fuzz.ts";
import { sqliteHeaderDecoder, walDecoder } from "./log_decoders.ts";
import { deleteDecoder, errorDecoder, listDecoder, multipartDecoder, xmlDecoder } from "./s3_decoders.ts";
import { journalDecoder, pageIndexDecoder, replicaStateDecoder, snapshotAnswerDecoder } from "./state_decoders.ts";

export const decoders: readonly Decoder[] = [
  changesetDecoder,
  indexedDecoder,
  walDecoder,
  sqliteHeaderDecoder,
  jsonDecoder,
  ...documentDecoders,
  keyDecoder,
  bucketUrlDecoder,
  databaseNameDecoder,
  xmlDecoder,
  listDecoder,
  deleteDecoder,
  errorDecoder,
  multipartDecoder,
  journalDecoder,
  replicaStateDecoder,
  pageIndexDecoder,
  snapshotAnswerDecoder,
];
