// The NBD server: listens on TCP and Unix sockets, keeps its connections within the limits, and
// shuts down without losing what it acknowledged.

import net from 'node:net';
import type { Duplex } from 'node:stream';
import { baseAllocation } from './base-allocation.ts';
import { type Clock, systemClock } from './clock.ts';
import { Connection, type ConnectionServices } from './connection.ts';
import { NbdServerError } from './errors.ts';
import { DEFAULT_SERVER_LIMITS, type ServerLimits } from './limits.ts';
import { type ListenAddress, listenOn, type NbdAddress } from './listen.ts';
import { MemoryBudget } from './memory-budget.ts';
import type { MetaContext } from './meta-context.ts';
import { type ExportConfig, ServedExports } from './served-exports.ts';
import { type LogSink, ServerLog } from './server-log.ts';
import { assertTlsConfig, type NbdTlsConfig } from './tls.ts';

/** What a server is made of. */
export interface NbdServerOptions {
  /** The exports; the first is the default export. More can be added later. */
  readonly exports?: readonly ExportConfig[];
  /** What clients may take; what is left out has its default. */
  readonly limits?: Partial<ServerLimits>;
  /** Without it there is no TLS. */
  readonly tls?: NbdTlsConfig;
  /** Let clients list the exports. Default true. */
  readonly canList?: boolean;
  /** Offer structured replies and, through them, block status. Default true. */
  readonly structuredReplies?: boolean;
  /** Offer extended headers. Default true. */
  readonly extendedHeaders?: boolean;
  /** Metadata contexts for BLOCK_STATUS. Default: base:allocation. */
  readonly metaContexts?: readonly MetaContext[];
  /** Receives lines about clients. */
  readonly log?: LogSink;
  /** Where time comes from; for tests. */
  readonly clock?: Clock;
}

/** How a server came to its end. */
export interface CloseReport {
  /** Connections that were still busy when the time was over, and were cut. */
  readonly cutConnections: number;
}

/** Serves block devices over NBD. */
export class NbdServer {
  readonly #services: ConnectionServices;
  readonly #exports: ServedExports;
  readonly #limits: ServerLimits;
  readonly #log: ServerLog;
  readonly #clock: Clock;
  readonly #connections = new Set<Connection>();
  readonly #listeners = new Set<net.Server>();
  #tls: NbdTlsConfig | undefined;
  #connectionCount = 0;
  #closing: Promise<CloseReport> | undefined;
  #cut: (() => void) | undefined;

  /** @throws NbdServerError ERR_NBD_TLS_CONFIG or ERR_NBD_EXPORT_EXISTS */
  constructor(options: NbdServerOptions = {}) {
    const { tls } = options;
    if (tls !== undefined) assertTlsConfig(tls);
    this.#tls = tls;
    this.#clock = options.clock ?? systemClock;
    this.#limits = { ...DEFAULT_SERVER_LIMITS, ...options.limits };
    this.#log = new ServerLog(options.log, this.#clock);
    this.#exports = new ServedExports(
      options.metaContexts ?? [baseAllocation],
      options.canList ?? true,
      (name, reason) =>
        this.#log.write({
          level: 'warn',
          peer: 'all',
          message: `The export ${JSON.stringify(name)} cannot be offered: ${reason}`,
        }),
    );
    for (const config of options.exports ?? []) this.#exports.add(config);
    this.#services = {
      exports: this.#exports,
      limits: this.#limits,
      clock: this.#clock,
      budget: new MemoryBudget(this.#limits.bytesTotal, this.#limits.stallMs, this.#clock),
      negotiation: {
        limits: this.#limits,
        tls: tls?.mode ?? 'off',
        structuredReplies: options.structuredReplies ?? true,
        extendedHeaders: (options.structuredReplies ?? true) && (options.extendedHeaders ?? true),
      },
      tls: () => this.#tls,
    };
  }

  /** Clients at the moment. */
  get connections(): number {
    return this.#connections.size;
  }

  /**
   * Serves one more export, to clients that ask for it from now on.
   * @throws NbdServerError ERR_NBD_EXPORT_EXISTS, or AssertionError for an impossible export.
   */
  addExport(config: ExportConfig): void {
    this.#exports.add(config);
  }

  /** Takes an export off the list. Clients that use it go on. */
  removeExport(name: string): boolean {
    return this.#exports.remove(name);
  }

  /**
   * Replaces certificates and keys, for clients that start TLS from now on. The mode stays.
   * @throws NbdServerError ERR_NBD_TLS_CONFIG, and the old ones stay in use
   */
  replaceTls(config: Omit<NbdTlsConfig, 'mode'>): void {
    if (this.#tls === undefined) {
      throw new NbdServerError('ERR_NBD_TLS_CONFIG', 'The server was made without TLS.');
    }
    const tls = { ...config, mode: this.#tls.mode };
    assertTlsConfig(tls);
    this.#tls = tls;
  }

  /**
   * Listens on an address. May be called several times.
   * @throws NbdServerError ERR_NBD_ADDRESS_IN_USE, ERR_NBD_NOT_A_SOCKET, ERR_NBD_LISTEN or
   *   ERR_NBD_CLOSED
   */
  async listen(address: ListenAddress = {}): Promise<NbdAddress> {
    this.#assertOpen();
    const listener = net.createServer({ allowHalfOpen: true, pauseOnConnect: false });
    listener.on('connection', (socket) => {
      socket.setNoDelay(true);
      socket.setKeepAlive(true, 60_000);
      void this.accept(socket, describePeer(socket, this.#connectionCount + 1));
    });
    const bound = await listenOn(listener, address);
    // An error of a single accept, such as no descriptors left, must not end the process.
    listener.on('error', (error) =>
      this.#log.write({
        level: 'warn',
        peer: 'all',
        message: `Accepting failed: ${error.message}.`,
      }),
    );
    if (this.#closing !== undefined) {
      listener.close();
      this.#assertOpen();
    }
    this.#listeners.add(listener);
    return bound;
  }

  /**
   * Serves one client on a stream that is connected already: a socket pair, standard input and
   * output, an inherited socket. Returns when the stream is closed. Sockets should be open for
   * half-closed use (`allowHalfOpen`).
   */
  accept(stream: Duplex, peer = 'stream'): Promise<void> {
    this.#connectionCount += 1;
    const log = this.#log.forPeer(peer);
    if (this.#closing !== undefined || this.#connections.size >= this.#limits.connections) {
      if (this.#closing === undefined) {
        log.warn('limit', `was refused: there are ${this.#limits.connections} connections.`);
      }
      // A stream without a listener for errors ends the process.
      stream.on('error', () => {});
      stream.destroy();
      return Promise.resolve();
    }
    const connection = new Connection(stream, this.#services, log);
    this.#connections.add(connection);
    return connection.closed.then(() => {
      this.#connections.delete(connection);
      if (this.#connections.size === 0) this.#cut?.();
    });
  }

  /**
   * Stops: listens no more, answers options with ERR_SHUTDOWN and requests with ESHUTDOWN, waits
   * for what was accepted, at most `drainMs`, then cuts, and flushes all backends. Backends stay
   * open. A second call with a shorter time does not wait longer than that.
   * @throws whatever a backend's last flush failed with
   */
  close(options: { readonly drainMs?: number } = {}): Promise<CloseReport> {
    const { drainMs = 5000 } = options;
    if (this.#closing === undefined) {
      this.#closing = this.#shutDown(drainMs);
    } else {
      this.#clock.after(drainMs, () => this.#cut?.());
    }
    return this.#closing;
  }

  async #shutDown(drainMs: number): Promise<CloseReport> {
    const listenersClosed = [...this.#listeners].map(
      (listener) => new Promise((resolve) => listener.close(resolve)),
    );
    for (const connection of this.#connections) connection.shutDown();
    const drained = new Promise<void>((resolve) => {
      this.#cut = resolve;
    });
    if (this.#connections.size > 0) {
      const cancel = this.#clock.after(drainMs, () => this.#cut?.());
      await drained;
      cancel();
    }
    const cut = [...this.#connections];
    for (const connection of cut) connection.destroy();
    // What a backend still does for a connection that was cut was never acknowledged to anybody.
    await Promise.all(listenersClosed);
    await this.#exports.flushAll();
    return { cutConnections: cut.length };
  }

  /** Closes it, as `close()` does: for `await using`. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #assertOpen(): void {
    if (this.#closing === undefined) return;
    throw new NbdServerError('ERR_NBD_CLOSED', 'The server is closed: make a new one.');
  }
}

function describePeer(socket: net.Socket, count: number): string {
  const { remoteAddress, remotePort } = socket;
  if (remoteAddress === undefined) return `unix #${count}`;
  return remoteAddress.includes(':')
    ? `[${remoteAddress}]:${remotePort}`
    : `${remoteAddress}:${remotePort}`;
}
