/**
 * Responses to and from bytes (struct blkif_response of xen/include/public/io/blkif.h):
 *
 *   id u64 @0, operation u8 @8, pad @9, status s16 @10, and for the aligned ABIs pad @12..15
 */

import { type BlkifLayout, RESPONSE_ID, RESPONSE_OPERATION, RESPONSE_STATUS } from './layout.ts';
import { isBlkifStatus } from './protocol.ts';
import { readU64, writeU64 } from './u64.ts';

/** A decoded response, made to be reused. */
export interface BlkifResponse {
  /** The full u64, or INVALID_U64 when a Number cannot hold it (so it is not an id of ours). */
  id: number;
  /** That of the request; for an indirect request the operation inside it. */
  operation: number;
  /** As sent: any s16. */
  status: number;
}

/** A record for {@link decodeResponse}. */
export function createResponse(): BlkifResponse {
  return { id: 0, operation: 0, status: 0 };
}

/** Writes a response, pads included. */
export function encodeResponse(
  view: DataView<ArrayBufferLike>,
  at: number,
  layout: BlkifLayout,
  id: number,
  operation: number,
  status: number,
): void {
  writeU64(view, at + RESPONSE_ID, id);
  view.setUint16(at + RESPONSE_OPERATION, operation & 0xff, true);
  view.setInt16(at + RESPONSE_STATUS, status, true);
  for (let pad = 12; pad < layout.responseBytes; pad += 4) {
    view.setUint32(at + pad, 0, true);
  }
}

/**
 * Copies the response at `at` into `into`, reading each field of the shared slot once. Judges
 * nothing: see {@link responseFault}.
 */
export function decodeResponse(
  view: DataView<ArrayBufferLike>,
  at: number,
  into: BlkifResponse,
): void {
  into.id = readU64(view, at + RESPONSE_ID);
  into.operation = view.getUint8(at + RESPONSE_OPERATION);
  into.status = view.getInt16(at + RESPONSE_STATUS, true);
}

/**
 * What is wrong with a response, by the rules of Linux's blkif_interrupt; undefined when it can be
 * an answer. `askedOperation` is that of the request in flight with this id, undefined when there
 * is none. Whoever gets a fault must not use the ring any more.
 */
export function responseFault(
  response: BlkifResponse,
  askedOperation: number | undefined,
): string | undefined {
  const { id, operation, status } = response;
  if (askedOperation === undefined) return `it answered request ${id}, which is not in flight`;
  if (operation !== askedOperation) {
    return `it answered operation ${operation} to a request for ${askedOperation}`;
  }
  if (!isBlkifStatus(status)) return `it answered with the unknown status ${status}`;
  return undefined;
}
