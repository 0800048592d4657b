/**
 * One connection: request ids, the table of pending requests, and what happens when it ends.
 *
 * What holds: every request is settled exactly once, by its reply, by an error reply, or by the
 * end of the connection. Replies are matched by id and may come in any order. Watch events are told
 * by their type alone, because /dev/xen/xenbus leaves garbage in their ids. Anything else the
 * server should not send ends the connection: after one lie, no later reply could be believed.
 */
import { nameOfXsType, XsType } from './constants.ts';
import { XenStoreClosedError, XenStoreError, XenStoreProtocolError } from './errors.ts';
import { errorForAnswer, errorForUnsent } from './failure.ts';
import { PacketFramer } from './framer.ts';
import type { Packet } from './packet.ts';
import {
  type ErrorReply,
  parseReply,
  parseWatchEvent,
  type WatchEvent,
  type XsReply,
} from './reply.ts';
import { encodeRequest, type XsRequest } from './request.ts';
import type { Transport } from './transport.ts';

/** A reply that is not an error. */
export type XsAnswer = Exclude<XsReply, ErrorReply>;

interface PendingRequest {
  readonly request: XsRequest;
  resolve(answer: XsAnswer): void;
  reject(error: XenStoreError): void;
}

/** Who hears of what no request asked for. */
export interface ConnectionHandlers {
  onWatchEvent(event: WatchEvent): void;
  /** Called once; all pending requests are rejected by then. Undefined: we closed it. */
  onEnd(error: XenStoreClosedError | undefined): void;
}

export class XenStoreConnection {
  readonly #transport: Transport;
  readonly #handlers: ConnectionHandlers;
  readonly #framer = new PacketFramer();
  readonly #pending = new Map<number, PendingRequest>();
  #lastReqId = 0;
  /** What to tell those who come too late; set when the connection ends. */
  #endError: XenStoreClosedError | undefined;

  constructor(transport: Transport, handlers: ConnectionHandlers) {
    this.#transport = transport;
    this.#handlers = handlers;
    transport.start({
      onData: (chunk) => this.#receive(chunk),
      onClose: (error) => this.#transportClosed(error),
    });
  }

  /**
   * Sends a request. The answer has the request's type.
   * @throws (rejects) XenStoreError with XenStore's name; XenStoreClosedError when the connection
   *   ends first or has ended.
   */
  request(request: XsRequest, txId: number): Promise<XsAnswer> {
    return new Promise<XsAnswer>((resolve, reject) => {
      if (this.#endError !== undefined) throw this.#endError;
      const reqId = this.#takeReqId();
      const packet = encodeRequest(request, reqId, txId);
      this.#pending.set(reqId, { request, resolve, reject });
      try {
        this.#transport.send(packet);
      } catch (error) {
        this.#pending.delete(reqId);
        throw error instanceof XenStoreError ? errorForUnsent(request, error) : error;
      }
    });
  }

  /** Ends the connection from our side: what is pending is rejected at once. */
  close(): void {
    const reason = 'The connection to XenStore was closed by this program.';
    this.#end(new XenStoreClosedError(reason), undefined);
  }

  /** The next id that no pending request has, so that even 2^32 requests later none is confused. */
  #takeReqId(): number {
    do {
      this.#lastReqId = (this.#lastReqId + 1) >>> 0;
    } while (this.#pending.has(this.#lastReqId));
    return this.#lastReqId;
  }

  #receive(chunk: Uint8Array): void {
    if (this.#endError !== undefined) return;
    try {
      this.#framer.push(chunk);
      // Receivers may close the connection: then the rest must not reach them.
      while (this.#endError === undefined) {
        const packet = this.#framer.next();
        if (packet === undefined) return;
        this.#dispatch(packet);
      }
    } catch (error) {
      if (!(error instanceof XenStoreProtocolError)) throw error;
      this.#fail(`The XenStore server broke the protocol: ${error.message}`, error);
    }
  }

  #dispatch(packet: Packet): void {
    // The type comes first: the ids of watch events mean nothing, and may look like a request's.
    if (packet.type === XsType.WATCH_EVENT) {
      this.#handlers.onWatchEvent(parseWatchEvent(packet));
      return;
    }
    const pending = this.#pending.get(packet.reqId);
    if (pending === undefined) {
      throw new XenStoreProtocolError(
        `A ${nameOfXsType(packet.type)} reply names request ${packet.reqId}, which is not open.`,
      );
    }
    const { request } = pending;
    if (packet.type !== XsType.ERROR && packet.type !== request.type) {
      throw new XenStoreProtocolError(
        `A ${nameOfXsType(request.type)} request was answered with ${nameOfXsType(packet.type)}.`,
      );
    }
    const reply = parseReply(packet);
    this.#pending.delete(packet.reqId);
    if (reply.type === XsType.ERROR) pending.reject(errorForAnswer(request, reply.name));
    else pending.resolve(reply);
  }

  #transportClosed(error: Error | undefined): void {
    if (this.#endError !== undefined) return;
    const where = this.#framer.isBetweenPackets ? '' : ' in the middle of a message';
    const why = error === undefined ? '.' : `: ${error.message}`;
    this.#fail(`The connection to XenStore ended${where}${why}`, error);
  }

  #fail(message: string, cause: Error | undefined): void {
    const error = new XenStoreClosedError(message, cause === undefined ? {} : { cause });
    this.#end(error, error);
  }

  #end(endError: XenStoreClosedError, reported: XenStoreClosedError | undefined): void {
    if (this.#endError !== undefined) return;
    this.#endError = endError;
    this.#transport.close();
    for (const pending of this.#pending.values()) pending.reject(endError);
    this.#pending.clear();
    this.#handlers.onEnd(reported);
  }
}
