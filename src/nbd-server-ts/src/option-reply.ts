// Builds option replies. Section "Option reply types". Used during the handshake only, so it may
// allocate; every buffer is made to measure and filled completely.

import {
  GREETING_BYTES,
  IHAVEOPT_HIGH,
  IHAVEOPT_LOW,
  NBD_MAX_STRING_BYTES,
  NBDMAGIC_HIGH,
  NBDMAGIC_LOW,
  NbdHandshakeFlag,
  NbdInfo,
  NbdRep,
  OPTION_REPLY_HEADER_BYTES,
  OPTION_REPLY_MAGIC_HIGH,
  OPTION_REPLY_MAGIC_LOW,
} from './constants.ts';
import type { ExportInfo } from './export-info.ts';
import { encodeUint64 } from './reply.ts';

const NO_DATA = new Uint8Array(0);
/** Zero bytes at the end of the answer to EXPORT_NAME, unless NO_ZEROES was agreed. */
const EXPORT_NAME_PADDING_BYTES = 124;

function viewOf(bytes: Uint8Array): DataView {
  return new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
}

/** Joins pieces into one buffer. */
export function joinBytes(pieces: readonly Uint8Array[]): Uint8Array {
  let lengthBytes = 0;
  for (const piece of pieces) lengthBytes += piece.length;
  const joined = new Uint8Array(lengthBytes);
  let at = 0;
  for (const piece of pieces) {
    joined.set(piece, at);
    at += piece.length;
  }
  return joined;
}

/** Encodes a text as UTF-8 of at most 4096 bytes, cut between two characters. */
export function encodeString(text: string): Uint8Array {
  const bytes = new Uint8Array(NBD_MAX_STRING_BYTES);
  const { written } = new TextEncoder().encodeInto(text, bytes);
  return bytes.slice(0, written);
}

/** The 18 bytes the server sends first. */
export function encodeGreeting(): Uint8Array {
  const bytes = new Uint8Array(GREETING_BYTES);
  const view = viewOf(bytes);
  view.setUint32(0, NBDMAGIC_HIGH);
  view.setUint32(4, NBDMAGIC_LOW);
  view.setUint32(8, IHAVEOPT_HIGH);
  view.setUint32(12, IHAVEOPT_LOW);
  view.setUint16(16, NbdHandshakeFlag.FIXED_NEWSTYLE | NbdHandshakeFlag.NO_ZEROES);
  return bytes;
}

/** One option reply: header and data. */
export function encodeOptionReply(
  option: number,
  type: number,
  data: Uint8Array = NO_DATA,
): Uint8Array {
  const bytes = new Uint8Array(OPTION_REPLY_HEADER_BYTES + data.length);
  const view = viewOf(bytes);
  view.setUint32(0, OPTION_REPLY_MAGIC_HIGH);
  view.setUint32(4, OPTION_REPLY_MAGIC_LOW);
  view.setUint32(8, option);
  view.setUint32(12, type);
  view.setUint32(16, data.length);
  bytes.set(data, OPTION_REPLY_HEADER_BYTES);
  return bytes;
}

/** NBD_REP_META_CONTEXT: u32 id, name. */
export function encodeMetaContextReply(option: number, id: number, name: string): Uint8Array {
  const idBytes = new Uint8Array(4);
  viewOf(idBytes).setUint32(0, id);
  const data = joinBytes([idBytes, encodeString(name)]);
  return encodeOptionReply(option, NbdRep.META_CONTEXT, data);
}

/**
 * One error reply with a text for people. The text is never empty and ends with a full stop:
 * nbd-client overwrites the last byte of it.
 */
export function encodeOptionError(option: number, type: number, text: string): Uint8Array {
  return encodeOptionReply(option, type, encodeString(text));
}

/** NBD_REP_SERVER: u32 name length, name, description. */
export function encodeServerReply(option: number, name: string, description: string): Uint8Array {
  const nameBytes = encodeString(name);
  const length = new Uint8Array(4);
  viewOf(length).setUint32(0, nameBytes.length);
  const data = joinBytes([length, nameBytes, encodeString(description)]);
  return encodeOptionReply(option, NbdRep.SERVER, data);
}

/** NBD_INFO_EXPORT: u16 0, u64 size, u16 transmission flags. */
export function encodeInfoExport(option: number, sizeBytes: number, flags: number): Uint8Array {
  const data = new Uint8Array(12);
  const view = viewOf(data);
  view.setUint16(0, NbdInfo.EXPORT);
  encodeUint64(view, 2, sizeBytes);
  view.setUint16(10, flags);
  return encodeOptionReply(option, NbdRep.INFO, data);
}

/** NBD_INFO_NAME or NBD_INFO_DESCRIPTION: u16 kind, text. */
export function encodeInfoText(option: number, kind: NbdInfo, text: string): Uint8Array {
  const kindBytes = new Uint8Array(2);
  viewOf(kindBytes).setUint16(0, kind);
  return encodeOptionReply(option, NbdRep.INFO, joinBytes([kindBytes, encodeString(text)]));
}

/** NBD_INFO_BLOCK_SIZE: u16 3, u32 minimum, u32 preferred, u32 maximum payload. */
export function encodeInfoBlockSize(option: number, info: ExportInfo): Uint8Array {
  const data = new Uint8Array(14);
  const view = viewOf(data);
  view.setUint16(0, NbdInfo.BLOCK_SIZE);
  view.setUint32(2, info.minimumBlockBytes);
  view.setUint32(6, info.preferredBlockBytes);
  view.setUint32(10, info.maxPayloadBytes);
  return encodeOptionReply(option, NbdRep.INFO, data);
}

/** The headerless answer to NBD_OPT_EXPORT_NAME: u64 size, u16 flags, maybe 124 zeroes. */
export function encodeExportNameAnswer(
  sizeBytes: number,
  flags: number,
  hasNoZeroes: boolean,
): Uint8Array {
  const bytes = new Uint8Array(hasNoZeroes ? 10 : 10 + EXPORT_NAME_PADDING_BYTES);
  const view = viewOf(bytes);
  encodeUint64(view, 0, sizeBytes);
  view.setUint16(8, flags);
  return bytes;
}
