// Sends the outcome of requests in the form the handshake agreed on: simple replies, structured
// chunks or extended chunks. Section "Transmission phase". Header and data go out by one writev:
// the stream is corked until the end of the turn, which also joins the replies of several requests.
//
// Without chunks a READ is answered by data right behind a good header, so nothing is sent before
// all data is here. With chunks errors carry a text; other commands that succeed use the shorter
// simple form, except with extended headers, where only extended chunks are allowed.

import type { Writable } from 'node:stream';
import {
  CHUNK_HEADER_BYTES,
  EXTENDED_CHUNK_HEADER_BYTES,
  NbdErrno,
  NbdReplyFlag,
  NbdReplyType,
  SIMPLE_REPLY_BYTES,
} from './constants.ts';
import type { Agreement } from './export-info.ts';
import { encodeString } from './option-reply.ts';
import {
  BLOCK_STATUS_EXT_PREFIX_BYTES,
  BLOCK_STATUS_PREFIX_BYTES,
  ERROR_OFFSET_SUFFIX_BYTES,
  ERROR_PREFIX_BYTES,
  EXTENT_BYTES,
  EXTENT_EXT_BYTES,
  encodeBlockStatusExtPrefix,
  encodeChunkHeader,
  encodeErrorOffsetSuffix,
  encodeErrorPrefix,
  encodeExtendedChunkHeader,
  encodeExtent,
  encodeExtentExt,
  encodeOffsetDataPrefix,
  encodeOffsetHolePayload,
  encodeSimpleReply,
  OFFSET_DATA_PREFIX_BYTES,
  OFFSET_HOLE_PAYLOAD_BYTES,
} from './reply.ts';
import type { NbdRequest } from './request.ts';
import type { ContextExtents, Outcome } from './request-execution.ts';
import type { ReadPiece } from './sparse-read.ts';

const { DONE } = NbdReplyFlag;

/** The sending half of a connection in transmission. */
export class ReplySender {
  readonly #stream: Writable;
  readonly #agreement: Agreement;
  readonly #headerBytes: number;
  #isCorked = false;

  constructor(stream: Writable, agreement: Agreement) {
    this.#stream = stream;
    this.#agreement = agreement;
    this.#headerBytes = agreement.isExtended ? EXTENDED_CHUNK_HEADER_BYTES : CHUNK_HEADER_BYTES;
  }

  /** Sends the reply to `request`; `sent` is called when the system took it, or the end came. */
  send(request: Readonly<NbdRequest>, outcome: Outcome, sent: () => void): void {
    this.#cork();
    switch (outcome.kind) {
      case 'done':
        this.#sendDone(request, sent);
        break;
      case 'data':
        this.#sendData(request, outcome.data, sent);
        break;
      case 'pieces':
        this.#sendPieces(request, outcome.pieces, sent);
        break;
      case 'extents':
        this.#sendExtents(request, outcome.contexts, sent);
        break;
      case 'failed':
        this.#sendError(request, outcome, sent);
        break;
    }
  }

  #cork(): void {
    if (this.#isCorked) return;
    this.#isCorked = true;
    this.#stream.cork();
    // setImmediate would let the replies of more requests join, but delays a lone one by a whole
    // turn of the event loop; promises that are already settled still get in before nextTick ends.
    process.nextTick(() => {
      this.#isCorked = false;
      this.#stream.uncork();
    });
  }

  #sendDone(request: Readonly<NbdRequest>, sent: () => void): void {
    if (this.#agreement.isExtended) {
      this.#stream.write(this.#chunk(request, DONE, NbdReplyType.NONE, 0, 0).bytes, sent);
    } else {
      this.#stream.write(simpleReply(request, NbdErrno.OK), sent);
    }
  }

  #sendData(request: Readonly<NbdRequest>, data: Uint8Array, sent: () => void): void {
    if (!this.#agreement.isStructured) {
      if (data.length === 0) {
        this.#stream.write(simpleReply(request, NbdErrno.OK), sent);
        return;
      }
      this.#stream.write(simpleReply(request, NbdErrno.OK));
      this.#stream.write(data, sent);
      return;
    }
    if (data.length === 0) {
      // A data chunk has at least one byte, so nothing is said by NONE.
      this.#stream.write(this.#chunk(request, DONE, NbdReplyType.NONE, 0, 0).bytes, sent);
      return;
    }
    // One chunk, whole: that is right with and without DF.
    this.#writeDataChunk(request, DONE, request.offset, data, sent);
  }

  #writeDataChunk(
    request: Readonly<NbdRequest>,
    flags: number,
    offset: number,
    data: Uint8Array,
    sent?: () => void,
  ): void {
    const prefixBytes = OFFSET_DATA_PREFIX_BYTES;
    const payloadBytes = prefixBytes + data.length;
    const type = NbdReplyType.OFFSET_DATA;
    const { bytes, view, at } = this.#chunk(request, flags, type, payloadBytes, prefixBytes);
    encodeOffsetDataPrefix(view, at, offset);
    this.#stream.write(bytes);
    this.#stream.write(data, sent);
  }

  /** Data and holes; the last chunk carries DONE, since all of it was read without an error. */
  #sendPieces(request: Readonly<NbdRequest>, pieces: readonly ReadPiece[], sent: () => void): void {
    pieces.forEach(({ offset, lengthBytes, data }, index) => {
      const isLast = index === pieces.length - 1;
      const flags = isLast ? DONE : 0;
      if (data !== undefined) {
        this.#writeDataChunk(request, flags, offset, data, isLast ? sent : undefined);
        return;
      }
      const payloadBytes = OFFSET_HOLE_PAYLOAD_BYTES;
      const type = NbdReplyType.OFFSET_HOLE;
      const { bytes, view, at } = this.#chunk(request, flags, type, payloadBytes, payloadBytes);
      encodeOffsetHolePayload(view, at, offset, lengthBytes);
      this.#stream.write(bytes, isLast ? sent : undefined);
    });
  }

  #sendError(
    request: Readonly<NbdRequest>,
    failure: Extract<Outcome, { kind: 'failed' }>,
    sent: () => void,
  ): void {
    if (!this.#agreement.isStructured) {
      this.#stream.write(simpleReply(request, failure.errno), sent);
      return;
    }
    const text = encodeString(failure.text);
    const hasOffset = failure.offset !== undefined;
    const type = hasOffset ? NbdReplyType.ERROR_OFFSET : NbdReplyType.ERROR;
    const payloadBytes =
      ERROR_PREFIX_BYTES + text.length + (hasOffset ? ERROR_OFFSET_SUFFIX_BYTES : 0);
    const { bytes, view, at } = this.#chunk(request, DONE, type, payloadBytes, payloadBytes);
    encodeErrorPrefix(view, at, failure.errno, text.length);
    bytes.set(text, at + ERROR_PREFIX_BYTES);
    if (failure.offset !== undefined) {
      encodeErrorOffsetSuffix(view, at + ERROR_PREFIX_BYTES + text.length, failure.offset);
    }
    this.#stream.write(bytes, sent);
  }

  /** One chunk per context; the last one carries DONE. */
  #sendExtents(
    request: Readonly<NbdRequest>,
    contexts: readonly ContextExtents[],
    sent: () => void,
  ): void {
    contexts.forEach(({ contextId, extents }, index) => {
      const isLast = index === contexts.length - 1;
      const flags = isLast ? DONE : 0;
      const bytes = this.#agreement.isExtended
        ? this.#extendedStatus(request, flags, contextId, extents)
        : this.#compactStatus(request, flags, contextId, extents);
      if (isLast) this.#stream.write(bytes, sent);
      else this.#stream.write(bytes);
    });
  }

  #compactStatus(
    request: Readonly<NbdRequest>,
    flags: number,
    contextId: number,
    extents: ContextExtents['extents'],
  ): Uint8Array {
    const payloadBytes = BLOCK_STATUS_PREFIX_BYTES + extents.length * EXTENT_BYTES;
    const type = NbdReplyType.BLOCK_STATUS;
    const { bytes, view, at } = this.#chunk(request, flags, type, payloadBytes, payloadBytes);
    view.setUint32(at, contextId);
    extents.forEach((extent, index) => {
      const extentAt = at + BLOCK_STATUS_PREFIX_BYTES + index * EXTENT_BYTES;
      encodeExtent(view, extentAt, extent.lengthBytes, extent.flags);
    });
    return bytes;
  }

  #extendedStatus(
    request: Readonly<NbdRequest>,
    flags: number,
    contextId: number,
    extents: ContextExtents['extents'],
  ): Uint8Array {
    const payloadBytes = BLOCK_STATUS_EXT_PREFIX_BYTES + extents.length * EXTENT_EXT_BYTES;
    const type = NbdReplyType.BLOCK_STATUS_EXT;
    const { bytes, view, at } = this.#chunk(request, flags, type, payloadBytes, payloadBytes);
    encodeBlockStatusExtPrefix(view, at, contextId, extents.length);
    extents.forEach((extent, index) => {
      const extentAt = at + BLOCK_STATUS_EXT_PREFIX_BYTES + index * EXTENT_EXT_BYTES;
      encodeExtentExt(view, extentAt, extent.lengthBytes, extent.flags);
    });
    return bytes;
  }

  /** A chunk header with room for `roomBytes` of its payload behind it, which begins at `at`. */
  #chunk(
    request: Readonly<NbdRequest>,
    flags: number,
    type: number,
    payloadBytes: number,
    roomBytes: number,
  ): { bytes: Uint8Array; view: DataView; at: number } {
    const bytes = new Uint8Array(this.#headerBytes + roomBytes);
    const view = new DataView(bytes.buffer);
    const { cookieHigh, cookieLow, offsetHigh, offsetLow } = request;
    if (this.#agreement.isExtended) {
      encodeExtendedChunkHeader(
        view,
        0,
        flags,
        type,
        cookieHigh,
        cookieLow,
        offsetHigh,
        offsetLow,
        payloadBytes,
      );
    } else {
      encodeChunkHeader(view, 0, flags, type, cookieHigh, cookieLow, payloadBytes);
    }
    return { bytes, view, at: this.#headerBytes };
  }
}

function simpleReply(request: Readonly<NbdRequest>, errno: number): Uint8Array {
  const bytes = new Uint8Array(SIMPLE_REPLY_BYTES);
  encodeSimpleReply(new DataView(bytes.buffer), 0, errno, request.cookieHigh, request.cookieLow);
  return bytes;
}
