/**
 * The handshake of one client, on the main thread: lanes never see a client that has not said which
 * export it wants. Its stream may change on the way, when TLS starts.
 */

import type { Duplex } from 'node:stream';
import {
  type ExportCatalog,
  Negotiation,
  type NegotiationOptions,
  type NegotiationResult,
} from 'nbd-server-ts/protocol';

/** A client that has chosen an export. */
export interface NegotiatedClient {
  readonly result: NegotiationResult;
  /** Its stream; the caller's from now on. */
  readonly stream: Duplex;
  /** What it sent behind the handshake, before what the stream has yet to give. */
  readonly rest: Uint8Array;
}

export interface HandshakeOutcome {
  readonly client?: NegotiatedClient;
  /** What the client got wrong, or why it is not served. */
  readonly reason?: string;
}

export interface HandshakeOptions {
  readonly timeoutMs: number;
  readonly negotiation: NegotiationOptions;
  /** Makes a stream secure; rejects with what is to be said of the client. */
  readonly startTls?: (stream: Duplex) => Promise<Duplex>;
}

const LEFT = 'the client left during the handshake';

export class Handshake {
  /** Never rejects, and the time limit guarantees that it comes. */
  readonly outcome: Promise<HandshakeOutcome>;
  readonly #negotiation: Negotiation;
  readonly #options: HandshakeOptions;
  readonly #timer: NodeJS.Timeout;
  readonly #reasons: string[] = [];
  /** What the client is read from: the connection, or TLS on top of it. */
  #stream: Duplex;
  #resolve: (outcome: HandshakeOutcome) => void = () => undefined;
  /** Nothing more is read here: a last word is being sent, or TLS set up. */
  #isPaused = false;
  /** TLS is being set up: it tells how that ends. */
  #isSecuring = false;
  #isOver = false;

  constructor(stream: Duplex, catalog: ExportCatalog, options: HandshakeOptions) {
    this.#stream = stream;
    this.#options = options;
    this.#negotiation = new Negotiation(catalog, options.negotiation);
    this.outcome = new Promise((resolve) => {
      this.#resolve = resolve;
    });
    this.#timer = setTimeout(() => this.#late(), options.timeoutMs);
    this.#follow(stream);
    stream.write(this.#negotiation.greeting());
  }

  /** Answers every option from now on with ERR_SHUTDOWN. */
  shutDown(): void {
    this.#negotiation.shutDown();
  }

  /** Ends it at once. */
  destroy(): void {
    this.#fail(undefined);
  }

  /** Listens to a stream. */
  #follow(stream: Duplex): void {
    this.#stream = stream;
    this.#isPaused = false;
    // A stream without an 'error' listener would end the process, so this one stays for good.
    stream.on('error', () => {
      if (this.#stream === stream && !this.#isSecuring) this.#fail(undefined);
    });
    stream.on('close', () => {
      if (this.#stream === stream && !this.#isSecuring) this.#fail(LEFT);
    });
    stream.on('end', () => {
      if (this.#stream === stream && !this.#isPaused) this.#fail(LEFT);
    });
    stream.on('readable', () => this.#read(stream));
    this.#read(stream);
  }

  #read(stream: Duplex): void {
    while (!this.#isOver && !this.#isPaused && this.#stream === stream) {
      const chunk = stream.read() as Buffer | null;
      if (chunk === null) return;
      const step = this.#negotiation.receive(chunk);
      if (step.reason !== undefined) this.#reasons.push(step.reason);
      switch (step.next) {
        case 'more':
          if (step.send !== undefined) stream.write(step.send);
          break;
        case 'transmission':
          this.#pause(stream);
          this.#sendThen(step.send, () => this.#succeed(chunk.subarray(step.consumed)));
          return;
        case 'startTls':
          this.#pause(stream);
          this.#sendThen(step.send, () => this.#startTls(stream));
          return;
        case 'close':
          this.#close(step.send);
          return;
      }
    }
  }

  #pause(stream: Duplex): void {
    this.#isPaused = true;
    stream.removeAllListeners('readable');
  }

  /** Goes on once `bytes` are the system's to send. */
  #sendThen(bytes: Uint8Array | undefined, next: () => void): void {
    if (bytes === undefined) next();
    else this.#stream.write(bytes, () => next());
  }

  #succeed(rest: Uint8Array): void {
    const { result } = this.#negotiation;
    if (this.#isOver || result === undefined) return;
    const stream = this.#stream;
    if (stream.destroyed) this.#fail(LEFT);
    else this.#end({ client: { result, stream, rest } });
  }

  #startTls(stream: Duplex): void {
    const { startTls } = this.#options;
    if (this.#isOver || startTls === undefined) return;
    if (stream.readableLength > 0) {
      // Sent before the client could know that TLS starts; see CVE-2021-3716.
      this.#fail('bytes sent in the clear behind NBD_OPT_STARTTLS');
      return;
    }
    this.#isSecuring = true;
    startTls(stream).then(
      (secure) => {
        this.#isSecuring = false;
        if (this.#isOver) {
          secure.destroy();
          return;
        }
        this.#negotiation.tlsEstablished();
        this.#follow(secure);
      },
      (error: Error) => {
        this.#isSecuring = false;
        this.#fail(error.message);
      },
    );
  }

  /** Says a last word, and closes. The client is given the time that is left to take it. */
  #close(bytes: Uint8Array | undefined): void {
    const stream = this.#stream;
    this.#pause(stream);
    this.#isOver = true;
    const timer = this.#timer;
    stream.once('close', () => clearTimeout(timer));
    stream.end(bytes ?? new Uint8Array(0), () => stream.destroy());
    this.#resolve(this.#withReasons(undefined));
  }

  #late(): void {
    if (this.#isOver) this.#stream.destroy();
    else this.#fail(`the handshake took longer than ${this.#options.timeoutMs} ms`);
  }

  #fail(reason: string | undefined): void {
    if (this.#isOver) return;
    this.#stream.destroy();
    this.#end(this.#withReasons(reason));
  }

  #withReasons(last: string | undefined): HandshakeOutcome {
    const reasons = last === undefined ? this.#reasons : [...this.#reasons, last];
    return reasons.length === 0 ? {} : { reason: reasons.join('; ') };
  }

  #end(outcome: HandshakeOutcome): void {
    this.#isOver = true;
    clearTimeout(this.#timer);
    this.#pause(this.#stream);
    const reason = this.#withReasons(undefined);
    this.#resolve({ ...reason, ...outcome });
  }
}
