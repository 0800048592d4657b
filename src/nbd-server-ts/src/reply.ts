// Encodes reply headers into a view that the caller owns. Sections "Simple reply message" and
// "Structured reply chunk message". Allocation-free: called once per reply by the data path, which
// is why parameters are plain numbers. Every field of a header is written, so a recycled buffer
// cannot leak what it held before.
//
//   simple (16)              chunk (20)               extended chunk (32)
//    0 u32 0x67446698         0 u32 0x668e33ef         0 u32 0x6e8a278c
//    4 u32 errno              4 u16 flags              4 u16 flags
//    8 u64 cookie             6 u16 type               6 u16 type
//                             8 u64 cookie             8 u64 cookie
//                            16 u32 length            16 u64 offset of the request
//                                                     24 u64 length

import {
  NBD_EXTENDED_REPLY_MAGIC,
  NBD_SIMPLE_REPLY_MAGIC,
  NBD_STRUCTURED_REPLY_MAGIC,
} from './constants.ts';

const TWO_32 = 0x1_0000_0000;

/** Bytes of payload before the data of an OFFSET_DATA chunk. */
export const OFFSET_DATA_PREFIX_BYTES = 8;
/** Bytes of payload of an OFFSET_HOLE chunk. */
export const OFFSET_HOLE_PAYLOAD_BYTES = 12;
/** Bytes of payload of an ERROR chunk before its text. */
export const ERROR_PREFIX_BYTES = 6;
/** Bytes of payload of an ERROR_OFFSET chunk after its text. */
export const ERROR_OFFSET_SUFFIX_BYTES = 8;

/** Writes a u64 that is at most 2^53 - 1 as two u32. */
export function encodeUint64(view: DataView, at: number, value: number): void {
  view.setUint32(at, Math.floor(value / TWO_32));
  view.setUint32(at + 4, value % TWO_32);
}

/** Writes the 16 bytes of a simple reply; the data of a good READ follows them. */
export function encodeSimpleReply(
  view: DataView,
  at: number,
  errno: number,
  cookieHigh: number,
  cookieLow: number,
): void {
  view.setUint32(at, NBD_SIMPLE_REPLY_MAGIC);
  view.setUint32(at + 4, errno);
  view.setUint32(at + 8, cookieHigh);
  view.setUint32(at + 12, cookieLow);
}

/** Writes the 20 bytes of a chunk header; `lengthBytes` of payload follow them. */
export function encodeChunkHeader(
  view: DataView,
  at: number,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  lengthBytes: number,
): void {
  view.setUint32(at, NBD_STRUCTURED_REPLY_MAGIC);
  view.setUint16(at + 4, flags);
  view.setUint16(at + 6, type);
  view.setUint32(at + 8, cookieHigh);
  view.setUint32(at + 12, cookieLow);
  view.setUint32(at + 16, lengthBytes);
}

/** Writes the 32 bytes of an extended chunk header, which repeats the offset of the request. */
export function encodeExtendedChunkHeader(
  view: DataView,
  at: number,
  flags: number,
  type: number,
  cookieHigh: number,
  cookieLow: number,
  offsetHigh: number,
  offsetLow: number,
  lengthBytes: number,
): void {
  view.setUint32(at, NBD_EXTENDED_REPLY_MAGIC);
  view.setUint16(at + 4, flags);
  view.setUint16(at + 6, type);
  view.setUint32(at + 8, cookieHigh);
  view.setUint32(at + 12, cookieLow);
  view.setUint32(at + 16, offsetHigh);
  view.setUint32(at + 20, offsetLow);
  encodeUint64(view, at + 24, lengthBytes);
}

/** Writes the 8 bytes that stand before the data of an OFFSET_DATA chunk. */
export function encodeOffsetDataPrefix(view: DataView, at: number, offset: number): void {
  encodeUint64(view, at, offset);
}

/** Writes the 12 bytes of payload of an OFFSET_HOLE chunk. */
export function encodeOffsetHolePayload(
  view: DataView,
  at: number,
  offset: number,
  lengthBytes: number,
): void {
  encodeUint64(view, at, offset);
  view.setUint32(at + 8, lengthBytes);
}

/** Writes the 6 bytes that stand before the text of an ERROR or ERROR_OFFSET chunk. */
export function encodeErrorPrefix(
  view: DataView,
  at: number,
  errno: number,
  textBytes: number,
): void {
  view.setUint32(at, errno);
  view.setUint16(at + 4, textBytes);
}

/** Writes the 8 bytes that stand after the text of an ERROR_OFFSET chunk. */
export function encodeErrorOffsetSuffix(view: DataView, at: number, offset: number): void {
  encodeUint64(view, at, offset);
}

/** Bytes of payload of a BLOCK_STATUS chunk before its extents. */
export const BLOCK_STATUS_PREFIX_BYTES = 4;
/** Bytes of one extent of a BLOCK_STATUS chunk. */
export const EXTENT_BYTES = 8;
/** Bytes of payload of a BLOCK_STATUS_EXT chunk before its extents. */
export const BLOCK_STATUS_EXT_PREFIX_BYTES = 8;
/** Bytes of one extent of a BLOCK_STATUS_EXT chunk. */
export const EXTENT_EXT_BYTES = 16;
/** More extents than this must not stand in one chunk. */
export const MAX_EXTENTS_PER_CHUNK: number = 2 ** 20;

/** Writes one extent of a BLOCK_STATUS chunk: u32 length, u32 flags. */
export function encodeExtent(view: DataView, at: number, lengthBytes: number, flags: number): void {
  view.setUint32(at, lengthBytes);
  view.setUint32(at + 4, flags);
}

/** Writes the 8 bytes before the extents of a BLOCK_STATUS_EXT chunk: u32 id, u32 count. */
export function encodeBlockStatusExtPrefix(
  view: DataView,
  at: number,
  contextId: number,
  extentCount: number,
): void {
  view.setUint32(at, contextId);
  view.setUint32(at + 4, extentCount);
}

/** Writes one extent of a BLOCK_STATUS_EXT chunk: u64 length, u64 flags. */
export function encodeExtentExt(
  view: DataView,
  at: number,
  lengthBytes: number,
  flags: number,
): void {
  encodeUint64(view, at, lengthBytes);
  encodeUint64(view, at + 8, flags);
}
