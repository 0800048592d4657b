/**
 * Replies as an NBD client reads them, typed from doc/proto.md ("Simple reply message", "Structured
 * reply chunk message", "Extended reply chunk message") and sharing no code with the server.
 */

import type { Agreement } from 'nbd-server-ts/protocol';

const SIMPLE_MAGIC = 0x6744_6698;
const CHUNK_MAGIC = 0x668e_33ef;
const EXTENDED_CHUNK_MAGIC = 0x6e8a_278c;
const FLAG_DONE = 1;
const TYPE_NONE = 0;
const TYPE_OFFSET_DATA = 1;
const TYPE_BLOCK_STATUS = 5;
const TYPE_BLOCK_STATUS_EXT = 6;
const TYPE_ERROR = 0x8001;

export interface Reply {
  /** The halves of the cookie: the client's number, and its request's. */
  readonly owner: number;
  readonly cookie: number;
  readonly errno: number;
  /** Nothing more comes for this request. */
  readonly isLast: boolean;
  /** Where the data begins, as a chunk says. */
  readonly offset: number | undefined;
  /** Of a read; of a BLOCK_STATUS its chunk's payload. */
  readonly data: Buffer;
  readonly totalBytes: number;
}

const NO_DATA = Buffer.alloc(0);

/**
 * The first reply in `bytes`; undefined when it is not complete yet, or a sentence that says what
 * is
 * wrong with it. `dataBytesOf` tells how much data a good simple reply to a request has.
 */
export function parseReply(
  bytes: Buffer,
  agreement: Agreement,
  dataBytesOf: (cookie: number) => number,
): Reply | string | undefined {
  if (bytes.length < 16) return undefined;
  const magic = bytes.readUInt32BE(0);
  if (magic === SIMPLE_MAGIC && !agreement.isExtended) return parseSimple(bytes, dataBytesOf);
  if (magic === CHUNK_MAGIC && agreement.isStructured && !agreement.isExtended) {
    if (bytes.length < 20) return undefined;
    return parseChunk(bytes, 20, bytes.readUInt32BE(16));
  }
  if (magic === EXTENDED_CHUNK_MAGIC && agreement.isExtended) {
    if (bytes.length < 32) return undefined;
    return parseChunk(bytes, 32, Number(bytes.readBigUInt64BE(24)));
  }
  return `a reply with the magic ${magic.toString(16)}`;
}

function parseSimple(bytes: Buffer, dataBytesOf: (cookie: number) => number): Reply | undefined {
  const errno = bytes.readUInt32BE(4);
  const cookie = bytes.readUInt32BE(12);
  const dataBytes = errno === 0 ? dataBytesOf(cookie) : 0;
  if (bytes.length < 16 + dataBytes) return undefined;
  return {
    owner: bytes.readUInt32BE(8),
    cookie,
    errno,
    isLast: true,
    offset: undefined,
    data: bytes.subarray(16, 16 + dataBytes),
    totalBytes: 16 + dataBytes,
  };
}

function parseChunk(
  bytes: Buffer,
  headerBytes: number,
  payloadBytes: number,
): Reply | string | undefined {
  const totalBytes = headerBytes + payloadBytes;
  if (bytes.length < totalBytes) return undefined;
  const flags = bytes.readUInt16BE(4);
  const type = bytes.readUInt16BE(6);
  const ids = {
    owner: bytes.readUInt32BE(8),
    cookie: bytes.readUInt32BE(12),
    errno: 0,
    isLast: flags === FLAG_DONE,
    offset: undefined,
    data: NO_DATA,
    totalBytes,
  };
  if (type === TYPE_OFFSET_DATA && payloadBytes > 8 && (flags & ~FLAG_DONE) === 0) {
    const offset = Number(bytes.readBigUInt64BE(headerBytes));
    return { ...ids, offset, data: bytes.subarray(headerBytes + 8, totalBytes) };
  }
  if (flags !== FLAG_DONE) return `a chunk of type ${type} with flags ${flags}`;
  if (type === TYPE_NONE && payloadBytes === 0) return ids;
  if (type === (headerBytes === 32 ? TYPE_BLOCK_STATUS_EXT : TYPE_BLOCK_STATUS)) {
    return { ...ids, data: bytes.subarray(headerBytes, totalBytes) };
  }
  if (type === TYPE_ERROR) return { ...ids, errno: bytes.readUInt32BE(headerBytes) };
  return `a chunk of type ${type}`;
}
