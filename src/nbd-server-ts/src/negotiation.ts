// The handshake of one connection as a pure machine: bytes in, bytes out. Section "Newstyle
// negotiation". It cuts the stream into client flags and options, however the bytes were cut in
// transit, applies the limits, the TLS policy and the shutdown switch, and hands whole options to
// option-handlers.ts.
//
// What holds: it never keeps more than one option of at most `optionBytes`; it never throws on what
// a client sends; bytes after the option that ended the handshake are not touched.

import assert from 'node:assert/strict';
import {
  IHAVEOPT_HIGH,
  IHAVEOPT_LOW,
  NBD_MAX_STRING_BYTES,
  NbdClientFlag,
  NbdOpt,
  NbdRep,
  nbdOptName,
  OPTION_HEADER_BYTES,
} from './constants.ts';
import type { ExportCatalog, ExportEntry } from './export-catalog.ts';
import { HandshakeState, type NegotiationNext, type NegotiationResult } from './handshake-state.ts';
import { optionHandlers, refuseUnsupported } from './option-handlers.ts';
import { encodeGreeting, joinBytes } from './option-reply.ts';

const CLIENT_FLAGS_BYTES = 4;
const KNOWN_CLIENT_FLAGS = NbdClientFlag.C_FIXED_NEWSTYLE | NbdClientFlag.C_NO_ZEROES;

/** How much of the server's time and memory a handshake may take. */
export interface NegotiationLimits {
  /** Options per connection; the next one drops it. Default 32. */
  readonly optionCount: number;
  /** Bytes of data of one option that are looked at; a longer one is refused. Default 65536. */
  readonly optionBytes: number;
  /** Bytes of data of one option that are read away; a longer one drops. Default 1 MiB. */
  readonly skippedOptionBytes: number;
}

/** The limits used where none are given. */
export const DEFAULT_NEGOTIATION_LIMITS: NegotiationLimits = Object.freeze({
  optionCount: 32,
  optionBytes: 65536,
  skippedOptionBytes: 1024 * 1024,
});

/** How a handshake is to be led. Everything has a default. */
export interface NegotiationOptions {
  /** How much it may take; what is left out has its default. */
  readonly limits?: Partial<NegotiationLimits>;
  /** Whether TLS is refused, possible or demanded. Default 'off'. */
  readonly tls?: 'off' | 'allow' | 'require';
  /** Offer NBD_OPT_STRUCTURED_REPLY. Default false. */
  readonly structuredReplies?: boolean;
  /** Offer NBD_OPT_EXTENDED_HEADERS. Default false. */
  readonly extendedHeaders?: boolean;
}

/** What `receive` did, and what its caller has to do. */
export interface NegotiationStep {
  /** Bytes of the input that were used. Less than all only when `next` is 'transmission'. */
  readonly consumed: number;
  /** Bytes to send before doing anything else. */
  readonly send: Uint8Array | undefined;
  /**
   * 'more': call again when bytes arrive. 'transmission': `result` is there, and the rest of the
   * input is the first request. 'startTls': send, start TLS, call `tlsEstablished`, go on with the
   * decrypted bytes. 'close': send, then close the connection.
   */
  readonly next: NegotiationNext;
  /** What the client got wrong, as one line for the log. */
  readonly reason?: string;
}

/** Which piece of the stream is being collected. */
type Stage = 'clientFlags' | 'optionHeader' | 'optionData' | 'skippedData' | 'tlsHandshake' | 'end';

/** The server's side of one handshake. */
export class Negotiation<Entry extends ExportEntry = ExportEntry> {
  readonly #state: HandshakeState<Entry>;
  readonly #limits: NegotiationLimits;
  #stage: Stage = 'clientFlags';
  #piece: Uint8Array = new Uint8Array(CLIENT_FLAGS_BYTES);
  #pieceFilledBytes = 0;
  #skipLeftBytes = 0;
  #option = 0;
  #optionCount = 0;
  #isFixedNewstyle = false;
  #isShuttingDown = false;

  constructor(catalog: ExportCatalog<Entry>, options: NegotiationOptions = {}) {
    this.#limits = { ...DEFAULT_NEGOTIATION_LIMITS, ...options.limits };
    const offers = {
      structuredReplies: options.structuredReplies ?? false,
      extendedHeaders: options.extendedHeaders ?? false,
    };
    this.#state = new HandshakeState(catalog, offers, options.tls ?? 'off');
  }

  /** The bytes to send as soon as the connection stands. */
  greeting(): Uint8Array {
    return encodeGreeting();
  }

  /** What was agreed; there after `next` was 'transmission'. */
  get result(): NegotiationResult<Entry> | undefined {
    return this.#state.result;
  }

  /** From now on every option but ABORT is answered with ERR_SHUTDOWN. */
  shutDown(): void {
    this.#isShuttingDown = true;
  }

  /**
   * Tells that the TLS handshake succeeded. Whatever was agreed in the clear is forgotten: a third
   * party could have put it there (CVE-2021-3716).
   */
  tlsEstablished(): void {
    assert(this.#stage === 'tlsHandshake', 'TLS was established without a STARTTLS.');
    this.#state.forget();
    this.#state.isTls = true;
    this.#collect('optionHeader', OPTION_HEADER_BYTES);
  }

  /** Takes bytes from the client, cut in any way. Must not be called after the end. */
  receive(bytes: Uint8Array): NegotiationStep {
    assert(
      this.#stage !== 'end' && this.#stage !== 'tlsHandshake',
      'The handshake takes no bytes after its end or while TLS is being set up.',
    );
    let consumed = 0;
    let next: NegotiationNext = 'more';
    while (next === 'more') {
      consumed += this.#take(bytes, consumed);
      if (!this.#isPieceComplete()) break;
      next = this.#advance();
    }
    if (next === 'startTls' && consumed < bytes.length) {
      // These bytes were sent in the clear, before the client could know that TLS starts. Whoever
      // sent them, they must not be read as if they had come through TLS.
      this.#state.outgoing = [];
      next = this.#state.drop('bytes sent in the clear behind NBD_OPT_STARTTLS');
    }
    if (next === 'startTls') this.#stage = 'tlsHandshake';
    else if (next !== 'more') this.#stage = 'end';
    return this.#step(next, consumed);
  }

  #step(next: NegotiationNext, consumed: number): NegotiationStep {
    const state = this.#state;
    const send = state.outgoing.length === 0 ? undefined : joinBytes(state.outgoing);
    const reason = state.reasons.join('; ');
    state.outgoing = [];
    state.reasons = [];
    return reason === '' ? { consumed, send, next } : { consumed, send, next, reason };
  }

  #collect(stage: Stage, lengthBytes: number): void {
    this.#stage = stage;
    this.#piece = new Uint8Array(lengthBytes);
    this.#pieceFilledBytes = 0;
  }

  #take(bytes: Uint8Array, at: number): number {
    const availableBytes = bytes.length - at;
    if (this.#stage === 'skippedData') {
      const takenBytes = Math.min(availableBytes, this.#skipLeftBytes);
      this.#skipLeftBytes -= takenBytes;
      return takenBytes;
    }
    const takenBytes = Math.min(availableBytes, this.#piece.length - this.#pieceFilledBytes);
    this.#piece.set(bytes.subarray(at, at + takenBytes), this.#pieceFilledBytes);
    this.#pieceFilledBytes += takenBytes;
    return takenBytes;
  }

  #isPieceComplete(): boolean {
    if (this.#stage === 'skippedData') return this.#skipLeftBytes === 0;
    return this.#pieceFilledBytes === this.#piece.length;
  }

  #advance(): NegotiationNext {
    switch (this.#stage) {
      case 'clientFlags':
        return this.#acceptClientFlags();
      case 'optionHeader':
        return this.#acceptOptionHeader();
      case 'optionData': {
        const data = this.#piece;
        this.#collect('optionHeader', OPTION_HEADER_BYTES);
        return this.#handleOption(data);
      }
      case 'skippedData':
        this.#collect('optionHeader', OPTION_HEADER_BYTES);
        return this.#refuseTooBig();
      case 'tlsHandshake':
      case 'end':
        throw new assert.AssertionError({ message: 'The handshake has no piece to collect.' });
    }
  }

  #acceptClientFlags(): NegotiationNext {
    const flags = new DataView(this.#piece.buffer).getUint32(0);
    if ((flags & ~KNOWN_CLIENT_FLAGS) !== 0) {
      return this.#state.drop(`unknown client flags 0x${flags.toString(16)}`);
    }
    this.#isFixedNewstyle = (flags & NbdClientFlag.C_FIXED_NEWSTYLE) !== 0;
    this.#state.hasNoZeroes = (flags & NbdClientFlag.C_NO_ZEROES) !== 0;
    this.#collect('optionHeader', OPTION_HEADER_BYTES);
    return 'more';
  }

  #acceptOptionHeader(): NegotiationNext {
    const state = this.#state;
    const view = new DataView(this.#piece.buffer);
    if (view.getUint32(0) !== IHAVEOPT_HIGH || view.getUint32(4) !== IHAVEOPT_LOW) {
      return state.drop('an option with a wrong magic number');
    }
    const option = view.getUint32(8);
    const lengthBytes = view.getUint32(12);
    this.#option = option;
    this.#optionCount += 1;
    if (this.#optionCount > this.#limits.optionCount) {
      return state.drop(`more than ${this.#limits.optionCount} options`);
    }
    if (!this.#isFixedNewstyle && option !== NbdOpt.EXPORT_NAME) {
      // Such a client cannot parse an option reply, so there is nothing to say to it.
      return state.drop(`${nbdOptName(option)} without the fixed newstyle flag`);
    }
    if (option === NbdOpt.EXPORT_NAME && lengthBytes > NBD_MAX_STRING_BYTES) {
      return state.drop(`NBD_OPT_EXPORT_NAME with a name of ${lengthBytes} bytes`);
    }
    if (lengthBytes > this.#limits.skippedOptionBytes) {
      return state.drop(`${nbdOptName(option)} with ${lengthBytes} bytes of data`);
    }
    if (lengthBytes > this.#limits.optionBytes) {
      this.#stage = 'skippedData';
      this.#skipLeftBytes = lengthBytes;
      return 'more';
    }
    this.#collect('optionData', lengthBytes);
    return 'more';
  }

  #refuseTooBig(): NegotiationNext {
    const text = `The data of this option is longer than ${this.#limits.optionBytes} bytes.`;
    return this.#state.refuse(this.#option, NbdRep.ERR_TOO_BIG, text);
  }

  #handleOption(data: Uint8Array): NegotiationNext {
    const state = this.#state;
    const option = this.#option;
    if (this.#isShuttingDown && option !== NbdOpt.ABORT) {
      if (option === NbdOpt.EXPORT_NAME) {
        return state.drop('NBD_OPT_EXPORT_NAME while the server is shutting down');
      }
      return state.refuse(option, NbdRep.ERR_SHUTDOWN, 'The server is shutting down.');
    }
    const mayComeBeforeTls = option === NbdOpt.STARTTLS || option === NbdOpt.ABORT;
    if (state.tls === 'require' && !state.isTls && !mayComeBeforeTls) {
      if (option === NbdOpt.EXPORT_NAME) {
        return state.drop('NBD_OPT_EXPORT_NAME before TLS, which is required');
      }
      return state.refuse(option, NbdRep.ERR_TLS_REQD, 'This server needs TLS first.');
    }
    const handler = optionHandlers.get(option);
    return handler === undefined ? refuseUnsupported(state, option) : handler(state, data);
  }
}
