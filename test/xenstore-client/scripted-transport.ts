/**
 * A transport whose server is the test: requests arrive parsed, and the test sends what it likes,
 * in whatever order. Nothing happens by itself and nothing takes time.
 */
import type { Transport, TransportHandlers } from 'xenstore-client';
import {
  decodePacket,
  encodePacket,
  encodeReply,
  encodeWatchEvent,
  type Packet,
  parseRequest,
  type XsReply,
  type XsRequest,
  XsType,
} from 'xenstore-client/wire';

/** A request as it came. */
export interface Received {
  readonly request: XsRequest;
  readonly reqId: number;
  readonly txId: number;
}

export class ScriptedTransport implements Transport {
  readonly received: Received[] = [];
  /** If set, sending throws it. */
  sendError: Error | undefined;
  isClosed = false;
  #handlers: TransportHandlers | undefined;
  readonly #arrivals: (() => void)[] = [];

  start(handlers: TransportHandlers): void {
    this.#handlers = handlers;
  }

  send(packet: Uint8Array): void {
    if (this.isClosed) return;
    if (this.sendError !== undefined) throw this.sendError;
    const { reqId, txId, ...rest } = decodePacket(packet);
    this.received.push({ request: parseRequest({ reqId, txId, ...rest }), reqId, txId });
    for (const arrived of this.#arrivals.splice(0)) arrived();
  }

  close(): void {
    this.end(undefined);
  }

  /** The next request that the test has not taken yet; waits for it if need be. */
  async take(): Promise<Received> {
    for (;;) {
      const first = this.received.shift();
      if (first !== undefined) return first;
      await new Promise<void>((resolve) => this.#arrivals.push(resolve));
    }
  }

  /** Takes the next request, which must be of this type, and answers it. */
  async answer(type: XsRequest['type'], reply: XsReply): Promise<Received> {
    const received = await this.take();
    if (received.request.type !== type) {
      throw new Error(`expected a request of type ${type}, got ${received.request.type}`);
    }
    this.reply(received, reply);
    return received;
  }

  /** Takes the next request and refuses it. */
  async refuse(name: string): Promise<Received> {
    const received = await this.take();
    this.reply(received, { type: XsType.ERROR, name });
    return received;
  }

  reply(to: Received, reply: XsReply): void {
    this.sendBytes(encodeReply(reply, to.reqId, to.txId));
  }

  fire(path: string, token: string): void {
    this.sendBytes(encodeWatchEvent({ path, token }));
  }

  sendPacket(packet: Packet): void {
    this.sendBytes(encodePacket(packet));
  }

  sendBytes(bytes: Uint8Array): void {
    this.#handlers?.onData(bytes);
  }

  /** The connection ends, from either side. */
  end(error: Error | undefined): void {
    if (this.isClosed) return;
    this.isClosed = true;
    this.#handlers?.onClose(error);
  }
}

/** Lets everything that waits for settled promises run. */
export function settle(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}
