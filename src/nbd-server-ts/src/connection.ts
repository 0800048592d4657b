// One client, from its first byte to its last: handshake, TLS, transmission, end. It owns the
// stream and the time limits; the handshake is led by Negotiation, requests are served by
// Transmission. A client that breaks the protocol loses its own connection and nothing else.

import type { Duplex } from 'node:stream';
import type { NegotiationResult } from './handshake-state.ts';
import { Negotiation, type NegotiationOptions, type NegotiationStep } from './negotiation.ts';
import type { ServedExport, ServedExports } from './served-exports.ts';
import type { PeerLog } from './server-log.ts';
import { type NbdTlsConfig, upgradeToTls } from './tls.ts';
import { Transmission, type TransmissionOwner, type TransmissionServices } from './transmission.ts';

/** What a connection needs of its server. */
export interface ConnectionServices extends TransmissionServices {
  readonly exports: ServedExports;
  readonly negotiation: NegotiationOptions;
  /** The TLS settings of the moment, for a client that starts TLS now. */
  readonly tls: () => NbdTlsConfig | undefined;
}

type Phase = 'handshake' | 'tls' | 'transmission' | 'ending' | 'closed';

/** One client of a server. */
export class Connection implements TransmissionOwner {
  readonly #services: ConnectionServices;
  readonly #log: PeerLog;
  readonly #negotiation: Negotiation<ServedExport>;
  readonly #cancelHandshakeTimer: () => void;
  readonly #closed: Promise<void>;
  #resolveClosed: () => void = () => {};
  #cancelLingerTimer: (() => void) | undefined;
  #stream: Duplex;
  #phase: Phase = 'handshake';
  #transmission: Transmission | undefined;

  constructor(stream: Duplex, services: ConnectionServices, log: PeerLog) {
    this.#stream = stream;
    this.#services = services;
    this.#log = log;
    this.#closed = new Promise((resolve) => {
      this.#resolveClosed = resolve;
    });
    this.#negotiation = new Negotiation(services.exports, services.negotiation);
    const { handshakeMs } = services.limits;
    this.#cancelHandshakeTimer = services.clock.after(handshakeMs, () =>
      this.drop(`did not finish the handshake within ${handshakeMs} ms`),
    );
    this.#attach();
    stream.write(this.#negotiation.greeting());
  }

  /** Resolves when the stream is closed and nothing it asked for is in the works. Never rejects. */
  get closed(): Promise<void> {
    return this.#closed;
  }

  /** Ends the connection as soon as what it asked for was answered. */
  shutDown(): void {
    this.#negotiation.shutDown();
    if (this.#transmission !== undefined) {
      this.#transmission.shutDown();
      return;
    }
    // A client in its handshake is told ERR_SHUTDOWN, if it asks soon.
    this.#cancelLingerTimer ??= this.#services.clock.after(this.#services.limits.lingerMs, () =>
      this.destroy(),
    );
  }

  /** Closes now; what was not sent is lost. */
  destroy(): void {
    this.#stream.destroy();
  }

  /** Closes after what is queued was sent. */
  finish(): void {
    if (this.#phase === 'ending' || this.#phase === 'closed') return;
    this.#phase = 'ending';
    this.#cancelHandshakeTimer();
    this.#stream.end();
    // Closing while unread bytes of the client are in the socket would reset the connection and
    // could destroy replies on their way, so they are read and ignored until the client closes.
    this.#stream.resume();
    this.#cancelLingerTimer ??= this.#services.clock.after(this.#services.limits.lingerMs, () =>
      this.destroy(),
    );
  }

  /** Closes now, for a reason the log is told. */
  drop(reason: string): void {
    if (this.#phase === 'closed') return;
    this.#log.warn('protocol', `was dropped: ${reason}.`);
    this.destroy();
  }

  readonly #onData = (chunk: Uint8Array): void => {
    try {
      if (this.#phase === 'transmission') this.#transmission?.receive(chunk);
      else if (this.#phase === 'handshake') this.#negotiate(chunk);
    } catch (error) {
      // A mistake of this server or of a catalog. Whatever bytes found it, they cost the client
      // that sent them its connection and nobody else anything.
      const text = error instanceof Error ? error.message : String(error);
      this.#log.error('internal', `met a mistake of the server and was dropped: ${text}`);
      this.destroy();
    }
  };

  readonly #onEnd = (): void => {
    if (this.#phase === 'transmission') {
      this.#transmission?.endOfInput();
    } else if (this.#phase === 'handshake') {
      this.#log.info('closed', 'left during the handshake.');
      this.finish();
    }
  };

  readonly #onError = (error: Error): void => {
    // 'close' follows. A reset by the client is everyday life, so this is no warning.
    this.#log.info('socket', `connection failed: ${error.message}.`);
  };

  readonly #onClose = (): void => {
    if (this.#phase === 'closed') return;
    this.#phase = 'closed';
    this.#cancelHandshakeTimer();
    this.#cancelLingerTimer?.();
    const transmission = this.#transmission;
    transmission?.streamClosed();
    if (transmission === undefined || transmission.inFlightRequests === 0) this.#resolveClosed();
    else transmission.onIdle = () => this.#resolveClosed();
  };

  #attach(): void {
    this.#stream.on('data', this.#onData);
    this.#stream.on('end', this.#onEnd);
    this.#stream.on('error', this.#onError);
    this.#stream.on('close', this.#onClose);
  }

  #negotiate(chunk: Uint8Array): void {
    const step = this.#negotiation.receive(chunk);
    if (step.reason !== undefined) this.#log.warn('option', `${step.reason}.`);
    if (step.next === 'startTls') {
      this.#startTls(step);
      return;
    }
    if (step.send !== undefined) this.#stream.write(step.send);
    if (step.next === 'close') this.#closeAfterHandshake(step);
    const { result } = this.#negotiation;
    if (step.next === 'transmission' && result !== undefined) {
      this.#transmit(result, chunk.subarray(step.consumed));
    }
  }

  #closeAfterHandshake(step: NegotiationStep): void {
    if (step.reason === undefined) {
      this.finish();
    } else {
      // It broke the rules: nothing it still sends is looked at.
      this.#phase = 'ending';
      this.#stream.end(() => this.destroy());
    }
  }

  #transmit(result: NegotiationResult<ServedExport>, rest: Uint8Array): void {
    this.#cancelHandshakeTimer();
    this.#phase = 'transmission';
    const name = JSON.stringify(result.export.name);
    this.#log.info('opened', `uses the export ${name}.`);
    this.#transmission = new Transmission(this.#stream, result, this.#services, this, this.#log);
    if (rest.length > 0) this.#transmission.receive(rest);
  }

  #startTls(step: NegotiationStep): void {
    const config = this.#services.tls();
    if (config === undefined) {
      this.drop('started TLS when it was just switched off');
      return;
    }
    const plain = this.#stream;
    this.#phase = 'tls';
    // From here on nobody reads the stream until TLS does: every byte behind the option is part of
    // the TLS handshake, or of an attack that fails as one.
    plain.pause();
    plain.off('data', this.#onData);
    plain.off('end', this.#onEnd);
    plain.write(step.send ?? new Uint8Array(0), () => {
      if (this.#phase !== 'tls') return;
      upgradeToTls(plain, config, (upgraded) => {
        if (this.#phase !== 'tls') return;
        if (upgraded instanceof Error) {
          this.#log.warn('tls', `failed to start TLS: ${upgraded.message}.`);
          return;
        }
        this.#log.info('tls', `uses ${upgraded.description}.`);
        this.#phase = 'handshake';
        this.#stream = upgraded.socket;
        this.#attach();
        this.#negotiation.tlsEstablished();
      });
    });
  }
}
