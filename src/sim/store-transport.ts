/**
 * Two ways to the simulated xenstored, as transports of xenstore-client: the socket of the
 * privileged domain, and the xenbus device of a guest with its habits
 * (drivers/xen/xenbus/xenbus_dev_frontend.c).
 */

import type { Transport, TransportHandlers } from 'xenstore-client';
import {
  decodePacket,
  encodePacket,
  XENSTORE_HEADER_SIZE,
  XENSTORE_PAYLOAD_MAX,
  XenStoreError,
  XsType,
} from 'xenstore-client/wire';
import type { Xenstored, XenstoredConnection } from './xenstored.ts';

/** The device's buffer of 4096 bytes holds the header as well. */
const DEVICE_PAYLOAD_MAX = XENSTORE_PAYLOAD_MAX - XENSTORE_HEADER_SIZE;

/** A connection as over xenstored's Unix socket: bytes there and back, nothing changed. */
export class StoreSocket implements Transport {
  readonly #connection: XenstoredConnection;
  #handlers: TransportHandlers | undefined;
  #isClosed = false;

  constructor(server: Xenstored, domid: number) {
    this.#connection = server.connect(domid, {
      onData: (bytes) => this.receive(bytes),
      onClose: (reason) => this.#finish(new Error(`xenstored closed the connection: ${reason}`)),
    });
  }

  start(handlers: TransportHandlers): void {
    this.#handlers = handlers;
  }

  send(packet: Uint8Array): void {
    if (!this.#isClosed) this.#connection.push(packet);
  }

  close(): void {
    this.#connection.close();
    this.#finish(undefined);
  }

  protected receive(bytes: Uint8Array): void {
    if (!this.#isClosed) this.#handlers?.onData(bytes);
  }

  #finish(error: Error | undefined): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    // Not from within the caller's own call.
    queueMicrotask(() => this.#handlers?.onClose(error));
  }
}

/**
 * A connection as through /dev/xen/xenbus: one message per write, and no more of it than fits the
 * kernel's buffer; the ids of watch events are whatever the kernel's memory held.
 */
export class StoreDevice extends StoreSocket {
  #garbage = 0x9e3779b9;

  override send(packet: Uint8Array): void {
    const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
    const payloadBytes = view.getUint32(12, true);
    if (payloadBytes > DEVICE_PAYLOAD_MAX) {
      throw new XenStoreError(
        'E2BIG',
        `its ${payloadBytes} bytes are more than the ${DEVICE_PAYLOAD_MAX} that the xenbus device ` +
          'takes in one message.',
      );
    }
    // A second message in the same write is lost without a word.
    super.send(packet.subarray(0, XENSTORE_HEADER_SIZE + payloadBytes));
  }

  protected override receive(bytes: Uint8Array): void {
    const packet = decodePacket(bytes);
    if (packet.type !== XsType.WATCH_EVENT) {
      super.receive(bytes);
      return;
    }
    this.#garbage = Math.imul(this.#garbage, 0x01000193) >>> 0;
    super.receive(encodePacket({ ...packet, reqId: this.#garbage, txId: ~this.#garbage >>> 0 }));
  }
}
