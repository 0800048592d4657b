/**
 * The bytes in front of a reply's data, in the form that the client has agreed to. Written into the
 * operation's own place in the lane's header area, from where they are sent together with the data.
 */

import {
  type Agreement,
  CHUNK_HEADER_BYTES,
  ERROR_PREFIX_BYTES,
  EXTENDED_CHUNK_HEADER_BYTES,
  encodeChunkHeader,
  encodeErrorPrefix,
  encodeExtendedChunkHeader,
  encodeSimpleReply,
  NbdCmd,
  NbdErrno,
  NbdReplyFlag,
  NbdReplyType,
  OFFSET_DATA_PREFIX_BYTES,
  SIMPLE_REPLY_BYTES,
} from 'nbd-server-ts/protocol';
import type { Operation } from './operation.ts';

/** Bytes of the header area that belong to each operation. */
export const HEADER_SLOT_BYTES = 128;

const TEXT_BYTES_MAX = HEADER_SLOT_BYTES - EXTENDED_CHUNK_HEADER_BYTES - ERROR_PREFIX_BYTES;

/** What a chunk tells people about an error; the number is for programs. */
const errorTexts = new Map<number, Uint8Array>(
  (
    [
      [NbdErrno.EPERM, 'the disk is read-only'],
      [NbdErrno.EIO, 'the backend reported an error, or is gone'],
      [NbdErrno.EINVAL, 'the request is not valid for this export'],
      [NbdErrno.ENOSPC, 'the request goes past the end of the disk'],
      [NbdErrno.ENOTSUP, 'this cannot be done fast'],
      [NbdErrno.ESHUTDOWN, 'the server is stopping'],
    ] as const
  ).map(([errno, text]) => [errno, new TextEncoder().encode(text).subarray(0, TEXT_BYTES_MAX)]),
);
const NO_TEXT = new Uint8Array(0);

/** What a client and its server have agreed on, as far as it shapes replies. */
export interface ReplyForm extends Agreement {
  /** The metadata contexts that the client chose, and the ids by which it knows them. */
  readonly contexts: readonly { readonly id: number; readonly name: string }[];
}

/**
 * Writes the header of the reply of `operation` at `at`, and sets `headerBytes` and `dataBytes`.
 * A BLOCK_STATUS that is granted has no place here: see status-reply.ts.
 */
export function encodeReplyHeader(
  view: DataView,
  at: number,
  operation: Operation,
  agreement: ReplyForm,
): void {
  const isRead = operation.command === NbdCmd.READ;
  operation.dataBytes = isRead && operation.errno === 0 ? dataBytesOf(operation) : 0;
  // Once chunks are agreed on, a read must be answered with them; other commands need not be,
  // unless the headers are extended.
  const isStatus = operation.command === NbdCmd.BLOCK_STATUS;
  const isChunk = agreement.isExtended || (agreement.isStructured && (isRead || isStatus));
  if (!isChunk) {
    const { errno, cookieHigh, cookieLow } = operation;
    encodeSimpleReply(view, at, errno, cookieHigh, cookieLow);
    operation.headerBytes = SIMPLE_REPLY_BYTES;
  } else if (operation.errno !== 0) {
    encodeErrorChunk(view, at, operation, agreement);
  } else if (operation.dataBytes > 0) {
    const payloadBytes = OFFSET_DATA_PREFIX_BYTES + operation.dataBytes;
    const type = NbdReplyType.OFFSET_DATA;
    const header = encodeHeader(view, at, operation, agreement, type, payloadBytes);
    encodeOffset(view, at + header, operation);
    operation.headerBytes = header + OFFSET_DATA_PREFIX_BYTES;
  } else {
    operation.headerBytes = encodeHeader(view, at, operation, agreement, NbdReplyType.NONE, 0);
  }
}

/** What of the data this reply has. */
function dataBytesOf(operation: Operation): number {
  return operation.isMore
    ? (operation.issuedBytes - operation.skewBytes) | 0
    : operation.lengthBytes | 0;
}

/** Where the data of this reply begins. */
function encodeOffset(view: DataView, at: number, operation: Operation): void {
  if (operation.isFragmented) {
    const { offset } = operation;
    view.setUint32(at, Math.floor(offset / 2 ** 32));
    view.setUint32(at + 4, offset % 2 ** 32);
  } else {
    // The halves as they came: the whole number would be an object on its way to another function.
    view.setInt32(at, operation.offsetHigh);
    view.setInt32(at + 4, operation.offsetLow);
  }
}

function encodeErrorChunk(
  view: DataView,
  at: number,
  operation: Operation,
  agreement: Agreement,
): void {
  const text = errorTexts.get(operation.errno) ?? NO_TEXT;
  const payloadBytes = ERROR_PREFIX_BYTES + text.length;
  const header = encodeHeader(view, at, operation, agreement, NbdReplyType.ERROR, payloadBytes);
  encodeErrorPrefix(view, at + header, operation.errno, text.length);
  for (let i = 0; i < text.length; i++) {
    view.setUint8(at + header + ERROR_PREFIX_BYTES + i, text[i] as number);
  }
  operation.headerBytes = header + payloadBytes;
}

/** The header of a reply's only chunk, or of a piece of a read. Returns its length. */
function encodeHeader(
  view: DataView,
  at: number,
  operation: Operation,
  agreement: Agreement,
  type: number,
  payloadBytes: number,
): number {
  const flags = operation.isMore ? 0 : NbdReplyFlag.DONE;
  return encodeChunk(view, at, operation, agreement, type, flags, payloadBytes);
}

/** Writes the header of a chunk with these flags. Returns its length. */
export function encodeChunk(
  view: DataView,
  at: number,
  operation: Operation,
  agreement: Agreement,
  type: number,
  flags: number,
  payloadBytes: number,
): number {
  const { cookieHigh, cookieLow, offsetHigh, offsetLow } = operation;
  if (!agreement.isExtended) {
    encodeChunkHeader(view, at, flags, type, cookieHigh, cookieLow, payloadBytes);
    return CHUNK_HEADER_BYTES;
  }
  encodeExtendedChunkHeader(
    view,
    at,
    flags,
    type,
    cookieHigh,
    cookieLow,
    offsetHigh,
    offsetLow,
    payloadBytes,
  );
  return EXTENDED_CHUNK_HEADER_BYTES;
}
