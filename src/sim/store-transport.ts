/**
 * Two ways to the simulated xenstored, as transports of xenstore-client: the socket of the
 * privileged domain, and the xenbus device of a guest with its habits
 * (drivers/xen/xenbus/xenbus_dev_frontend.c).
 */

import type { Transport, TransportHandlers } from 'xenstore-client';
import {
  decodePacket,
  encodePacket,
  encodeReply,
  encodeRequest,
  type Packet,
  parseRequest,
  type WatchRequest,
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
  readonly #server: Xenstored;
  #connection: XenstoredConnection;
  #handlers: TransportHandlers | undefined;
  #isClosed = false;

  constructor(server: Xenstored, domid: number) {
    this.#server = server;
    this.#connection = this.#connect(domid);
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

  /** Whether {@link close} was called, or the server ended the connection. */
  get isClosed(): boolean {
    return this.#isClosed;
  }

  protected receive(bytes: Uint8Array): void {
    if (!this.#isClosed) this.#handlers?.onData(bytes);
  }

  /** Goes on with a new connection of another domain; the old one is left to the server. */
  protected reconnect(domid: number): void {
    this.#connection.close();
    this.#connection = this.#connect(domid);
  }

  #connect(domid: number): XenstoredConnection {
    const connection = this.#server.connect(domid, {
      onData: (bytes) => {
        if (connection === this.#connection) this.receive(bytes);
      },
      onClose: (reason) => {
        if (connection !== this.#connection) return;
        this.#finish(new Error(`xenstored closed the connection: ${reason}`));
      },
    });
    return connection;
  }

  #finish(error: Error | undefined): void {
    if (this.#isClosed) return;
    this.#isClosed = true;
    // Not from within the caller's own call.
    queueMicrotask(() => this.#handlers?.onClose(error));
  }
}

/** Request ids of the device's own; a client counts up from small numbers. */
const OWN_REQUEST_IDS = 0xf000_0000;

/**
 * A connection as through /dev/xen/xenbus: one message per write, and no more of it than fits the
 * kernel's buffer; the ids of watch events are whatever the kernel's memory held. The kernel knows
 * the watches, and sets them again when the guest was restored under another domain id.
 */
export class StoreDevice extends StoreSocket {
  readonly #watches = new Map<string, WatchRequest>();
  /** Requests that were not answered yet, by id: a restored guest hears of them no more. */
  readonly #unanswered = new Map<number, Packet>();
  readonly #transactions = new Set<number>();
  /** Transactions from before the last restore. */
  #lostTransactions = new Set<number>();
  #garbage = 0x9e3779b9;
  #ownRequests = 0;

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
    const message = packet.slice(0, XENSTORE_HEADER_SIZE + payloadBytes);
    this.#note(decodePacket(message));
    super.send(message);
  }

  /**
   * The guest was restored as domain `domid`: watches are set again, and fire; transactions are
   * gone, and what was asked and not answered is asked again.
   */
  restore(domid: number): void {
    if (this.isClosed) return;
    this.reconnect(domid);
    this.#lostTransactions = new Set(this.#transactions);
    for (const watch of this.#watches.values()) {
      this.#ownRequests += 1;
      super.send(encodeRequest(watch, OWN_REQUEST_IDS + this.#ownRequests));
    }
    for (const packet of this.#unanswered.values()) super.send(encodePacket(packet));
  }

  protected override receive(bytes: Uint8Array): void {
    const packet = decodePacket(bytes);
    if (packet.type === XsType.WATCH_EVENT) {
      this.#garbage = Math.imul(this.#garbage, 0x01000193) >>> 0;
      const ids = { reqId: this.#garbage, txId: ~this.#garbage >>> 0 };
      super.receive(encodePacket({ ...packet, ...ids }));
      return;
    }
    if (packet.reqId >= OWN_REQUEST_IDS) return;
    const request = this.#unanswered.get(packet.reqId);
    this.#unanswered.delete(packet.reqId);
    if (packet.type === XsType.TRANSACTION_START) {
      this.#transactions.add(Number.parseInt(new TextDecoder().decode(packet.payload), 10));
    }
    if (request?.type === XsType.TRANSACTION_END) {
      this.#transactions.delete(request.txId);
      // The end of a transaction that a restore has cut off asks for it to be done again.
      if (this.#lostTransactions.delete(request.txId)) {
        super.receive(
          encodeReply({ type: XsType.ERROR, name: 'EAGAIN' }, packet.reqId, packet.txId),
        );
        return;
      }
    }
    super.receive(bytes);
  }

  #note(packet: Packet): void {
    if (packet.type !== XsType.WATCH && packet.type !== XsType.UNWATCH) {
      this.#unanswered.set(packet.reqId, packet);
      return;
    }
    try {
      const request = parseRequest(packet);
      if (request.type === XsType.WATCH) this.#watches.set(watchKey(request), request);
      if (request.type === XsType.UNWATCH) this.#watches.delete(watchKey(request));
    } catch {
      // The server will say what is wrong with it.
    }
  }
}

function watchKey({ path, token }: { readonly path: string; readonly token: string }): string {
  return `${path}\0${token}`;
}
