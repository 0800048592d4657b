/**
 * Clients from the moment they connect until a lane has them: how many there may be, the
 * handshake, and the way to the lane of the export they chose.
 */

import net from 'node:net';
import type { Duplex } from 'node:stream';
import type { NegotiationLimits } from 'nbd-server-ts/protocol';
import { FAULTS_OF_CLIENTS, type LaneEvent } from '../dataplane/index.ts';
import { closeFd, endReading } from '../sys/index.ts';
import { type Bridge, bridgeStream, detachSocket, isPlainSocket } from './handover.ts';
import { Handshake, type NegotiatedClient } from './handshake.ts';
import type { Logger } from './log.ts';
import { RefusalLog } from './refusal-log.ts';
import type { ServedVbds } from './served-vbds.ts';
import type { TlsCredentials } from './tls-credentials.ts';

/** A client that a lane has. */
export interface ServedClient {
  readonly id: number;
  readonly peer: string;
  /** The name of its vbd. */
  readonly vbd: string;
  readonly exportName: string;
  readonly isTls: boolean;
  /** Unix time in ms. */
  readonly sinceMs: number;
}

export interface ReceptionOptions {
  readonly connectionsMax: number;
  readonly handshakeMs: number;
  readonly negotiationLimits: Partial<NegotiationLimits>;
  readonly tlsMode: 'off' | 'allow' | 'require';
  readonly tls: TlsCredentials | undefined;
  readonly log: Logger;
  /** The number of clients has changed. */
  readonly onChange: () => void;
  /** A client is gone, also one whose handshake failed. */
  readonly onGone: () => void;
}

interface Arrival {
  readonly stream: Duplex;
  readonly peer: string;
}

export class Reception {
  readonly #options: ReceptionOptions;
  readonly #refusals: RefusalLog;
  /** Clients that came before there was anything to serve. */
  readonly #early: Arrival[] = [];
  readonly #handshakes = new Set<Handshake>();
  readonly #bridges = new Set<Bridge>();
  #vbds: ServedVbds | undefined;
  #isStopping = false;
  readonly #clients = new Map<number, ServedClient>();
  /** The socket of each, which its lane has; by client. */
  readonly #sockets = new Map<number, number>();
  /** Set while somebody waits for the last client to go. */
  #onEmpty: (() => void) | undefined;
  #tooManyCount = 0;
  #failedHandshakeCount = 0;
  #nextConnectionId = 1;

  constructor(options: ReceptionOptions) {
    this.#options = options;
    this.#refusals = new RefusalLog(options.log);
  }

  /** Clients that are served now. */
  get clientCount(): number {
    return this.#clients.size;
  }

  get clients(): ServedClient[] {
    return [...this.#clients.values()];
  }

  /** Clients turned away because there were too many, and handshakes that failed. */
  get refusals(): { readonly tooMany: number; readonly handshake: number } {
    return { tooMany: this.#tooManyCount, handshake: this.#failedHandshakeCount };
  }

  /** Begins to serve, first those who wait. */
  open(vbds: ServedVbds): void {
    this.#vbds = vbds;
    for (const { stream, peer } of this.#early.splice(0)) this.#greet(stream, peer);
  }

  /** A client has connected. */
  arrived(stream: Duplex, peer: string): void {
    if (this.#isStopping) {
      stream.destroy();
    } else if (this.#vbds === undefined) {
      stream.on('error', () => stream.destroy());
      if (this.#early.length < this.#options.connectionsMax) this.#early.push({ stream, peer });
      else stream.destroy();
    } else {
      this.#greet(stream, peer);
    }
  }

  /** A lane has said that a client is gone. */
  left({ connectionId, reason, requestCount }: Extract<LaneEvent, { type: 'closed' }>): void {
    const client = this.#clients.get(connectionId);
    this.#clients.delete(connectionId);
    this.#sockets.delete(connectionId);
    if (this.#clients.size === 0) this.#onEmpty?.();
    const { log, onChange, onGone } = this.#options;
    const details = {
      client: connectionId,
      peer: client?.peer,
      vbd: client?.vbd,
      export: client?.exportName,
      reason,
      requests: requestCount,
    };
    if (FAULTS_OF_CLIENTS.has(reason)) {
      const who = `client ${connectionId} (${client?.peer ?? 'unknown'})`;
      this.#refusals.warn('client-dropped', details, `${who} was dropped: ${reason}`);
    } else {
      const why = this.#isStopping ? 'server stops' : reason;
      log.info('client-left', { ...details, reason: why }, `client ${connectionId} left: ${why}`);
    }
    onChange();
    onGone();
  }

  /** Takes no one in any more; handshakes that are under way are told that it is too late. */
  shutDown(): void {
    this.#isStopping = true;
    for (const { stream } of this.#early.splice(0)) stream.destroy();
    for (const handshake of this.#handshakes) handshake.shutDown();
  }

  /**
   * Hears no more of the clients, and waits until each has the answers to what it had asked and
   * is gone, for at most `boundMs`. A client then finds that the connection is gone, and can ask
   * the next server; the kernel's, and QEMU's, do. ESHUTDOWN would be an error to their users.
   */
  async endInput(boundMs: number): Promise<void> {
    for (const fd of this.#sockets.values()) endReading(fd);
    if (this.#clients.size === 0) return;
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, boundMs);
      this.#onEmpty = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  /** Waits until what the lanes said last has reached their clients, for at most `boundMs`. */
  async close(boundMs: number): Promise<void> {
    this.#isStopping = true;
    for (const handshake of this.#handshakes) handshake.destroy();
    const timer = setTimeout(() => {
      for (const bridge of this.#bridges) bridge.destroy();
    }, boundMs);
    await Promise.all([...this.#bridges].map(({ closed }) => closed));
    clearTimeout(timer);
    this.#refusals.close();
  }

  #greet(stream: Duplex, peer: string): void {
    this.#serve(stream, peer).catch((error: Error) => {
      this.#options.log.error(
        'client-failed',
        {},
        `a client could not be served: ${error.message}`,
      );
      stream.destroy();
    });
  }

  async #serve(stream: Duplex, peer: string): Promise<void> {
    const { connectionsMax, log } = this.#options;
    const client = this.#nextConnectionId;
    this.#nextConnectionId += 1;
    if (this.#clients.size + this.#handshakes.size >= connectionsMax) {
      this.#tooManyCount += 1;
      const message = `client ${client} (${peer}) refused: there are ${connectionsMax} already`;
      this.#refusals.warn('client-refused', { client, peer, connectionsMax }, message);
      stream.destroy();
      this.#options.onGone();
      return;
    }
    const negotiated = await this.#negotiate(stream, client, peer);
    if (negotiated === undefined || !this.#adopt(negotiated, client, peer)) {
      this.#options.onGone();
      return;
    }
    const { export: chosen, isTls } = negotiated.result;
    const vbd = this.#clients.get(client)?.vbd;
    const details = { client, peer, vbd, export: chosen.name, tls: isTls };
    const how = isTls ? ' over TLS' : '';
    log.info('client-came', details, `client ${client} (${peer}) came to ${chosen.name}${how}`);
    this.#options.onChange();
  }

  async #negotiate(
    stream: Duplex,
    client: number,
    peer: string,
  ): Promise<NegotiatedClient | undefined> {
    const { handshakeMs, negotiationLimits, tls, tlsMode } = this.#options;
    const catalog = this.#vbds?.catalog;
    if (catalog === undefined) return undefined;
    const handshake = new Handshake(stream, catalog, {
      timeoutMs: handshakeMs,
      negotiation: {
        limits: negotiationLimits,
        tls: tlsMode,
        structuredReplies: true,
        extendedHeaders: true,
      },
      ...(tls !== undefined && { startTls: (plain: Duplex) => tls.accept(plain) }),
    });
    this.#handshakes.add(handshake);
    const { client: negotiated, reason } = await handshake.outcome;
    this.#handshakes.delete(handshake);
    if (reason !== undefined && !this.#isStopping) {
      this.#failedHandshakeCount += 1;
      const message = `client ${client} (${peer}): ${reason}`;
      this.#refusals.warn('client-handshake', { client, peer, reason }, message);
    }
    return negotiated;
  }

  /** Hands a client to a lane. Returns whether it was still there, and so was its export. */
  #adopt({ stream, rest, result }: NegotiatedClient, client: number, peer: string): boolean {
    const device = this.#vbds?.deviceOf(result.export.name);
    if (this.#isStopping || device === undefined) {
      stream.destroy();
      return false;
    }
    const socket = isPlainSocket(stream) ? detachSocket(stream, rest) : this.#bridge(stream, rest);
    if (socket === undefined) return false;
    const { export: chosen, isTls } = result;
    this.#clients.set(client, {
      id: client,
      peer,
      vbd: device.vbd.name,
      exportName: chosen.name,
      isTls,
      sinceMs: Date.now(),
    });
    const isTaken = device.adopt({
      connectionId: client,
      fd: socket.fd,
      bytes: socket.bytes,
      info: result.export,
      agreement: { ...result.agreement, contexts: result.metaContexts },
    });
    if (!isTaken) {
      this.#clients.delete(client);
      closeFd(socket.fd);
    } else {
      this.#sockets.set(client, socket.fd);
    }
    return isTaken;
  }

  #bridge(stream: Duplex, rest: Uint8Array): { fd: number; bytes: Uint8Array } {
    const bridge = bridgeStream(stream);
    this.#bridges.add(bridge);
    void bridge.closed.then(() => this.#bridges.delete(bridge));
    return { fd: bridge.fd, bytes: Uint8Array.from(rest) };
  }
}

/** Who is at the other end of a socket, for the log. */
export function peerOf(socket: net.Socket): string {
  const { remoteAddress, remotePort } = socket;
  if (remoteAddress === undefined) return 'unix';
  return `${net.isIPv6(remoteAddress) ? `[${remoteAddress}]` : remoteAddress}:${remotePort}`;
}
