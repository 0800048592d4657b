/**
 * One packet of the wire protocol (struct xsd_sockmsg of xs_wire.h):
 *
 *   offset 0  u32 type     4  u32 req_id     8  u32 tx_id     12  u32 len     16  payload
 *
 * The header is in the machine's own byte order. Xen runs on little-endian machines only, so
 * this codec is little-endian.
 */
import { nameOfXsType, XENSTORE_HEADER_SIZE, XENSTORE_PAYLOAD_MAX } from './constants.ts';
import { XenStoreError, XenStoreProtocolError } from './errors.ts';

/** A packet in either direction. `type` is any u32: the peer may send numbers that have no name. */
export interface Packet {
  /** One of XsType, or a number that has no name. */
  readonly type: number;
  /** Chosen by the client, echoed in the reply. In watch events it means nothing. */
  readonly reqId: number;
  /** The transaction, 0 for none. In watch events it means nothing. */
  readonly txId: number;
  /** 4096 bytes at most. */
  readonly payload: Uint8Array;
}

/**
 * The bytes of a packet, in memory of their own.
 * @throws XenStoreError `E2BIG` if the payload is longer than 4096 bytes.
 */
export function encodePacket(packet: Packet): Uint8Array {
  const { payload } = packet;
  if (payload.length > XENSTORE_PAYLOAD_MAX) {
    throw new XenStoreError(
      'E2BIG',
      `A ${nameOfXsType(packet.type)} message of ${payload.length} bytes does not fit: ` +
        `XenStore carries ${XENSTORE_PAYLOAD_MAX} bytes at most.`,
    );
  }
  const bytes = new Uint8Array(XENSTORE_HEADER_SIZE + payload.length);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, packet.type, true);
  view.setUint32(4, packet.reqId, true);
  view.setUint32(8, packet.txId, true);
  view.setUint32(12, payload.length, true);
  bytes.set(payload, XENSTORE_HEADER_SIZE);
  return bytes;
}

/**
 * The packet in `bytes`, which holds exactly one. The payload is a view, not a copy. For a stream
 * use the framer.
 * @throws XenStoreProtocolError if the length field does not agree with the number of bytes.
 */
export function decodePacket(bytes: Uint8Array): Packet {
  if (bytes.length < XENSTORE_HEADER_SIZE) {
    throw new XenStoreProtocolError(`${bytes.length} bytes are too few for a XenStore header.`);
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const lengthBytes = view.getUint32(12, true);
  checkPayloadLength(view.getUint32(0, true), lengthBytes);
  if (lengthBytes !== bytes.length - XENSTORE_HEADER_SIZE) {
    throw new XenStoreProtocolError(
      `The header announces ${lengthBytes} bytes of payload, ` +
        `but ${bytes.length - XENSTORE_HEADER_SIZE} follow.`,
    );
  }
  return {
    type: view.getUint32(0, true),
    reqId: view.getUint32(4, true),
    txId: view.getUint32(8, true),
    payload: bytes.subarray(XENSTORE_HEADER_SIZE),
  };
}

/** @throws XenStoreProtocolError if a header announces more payload than the protocol allows. */
export function checkPayloadLength(type: number, lengthBytes: number): void {
  if (lengthBytes > XENSTORE_PAYLOAD_MAX) {
    throw new XenStoreProtocolError(
      `A ${nameOfXsType(type)} message announces ${lengthBytes} bytes of payload; ` +
        `the protocol allows ${XENSTORE_PAYLOAD_MAX}.`,
    );
  }
}
