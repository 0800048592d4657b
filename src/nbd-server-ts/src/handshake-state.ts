// The state that option handlers read and change, and the outcome they return. Internal: owned by
// one Negotiation, wiped when TLS starts.

import { type NbdOpt, type NbdRep, nbdOptName } from './constants.ts';
import type { ExportCatalog, ExportEntry } from './export-catalog.ts';
import type { Agreement } from './export-info.ts';
import { encodeOptionError, encodeOptionReply } from './option-reply.ts';

/** What happens after an option: go on, enter transmission, start TLS, or close. */
export type NegotiationNext = 'more' | 'transmission' | 'startTls' | 'close';

/** Which of the optional parts of the protocol are offered. */
export interface NegotiationOffers {
  readonly structuredReplies: boolean;
  readonly extendedHeaders: boolean;
}

/** A metadata context the client chose, and the id that stands for it in replies. */
export interface MetaContextChoice {
  /** A u32 of the server's choice, the same in all replies of the connection. */
  readonly id: number;
  /** Namespace, colon, leaf name: `base:allocation`. */
  readonly name: string;
}

/** What was agreed when the handshake ended in transmission. */
export interface NegotiationResult<Entry extends ExportEntry = ExportEntry> {
  /** The export that was chosen, as the catalog has it. */
  readonly export: Entry;
  /** The flags that were sent to the client. */
  readonly transmissionFlags: number;
  /** What decides the form of requests and replies. */
  readonly agreement: Agreement;
  /** The metadata contexts to report in BLOCK_STATUS. */
  readonly metaContexts: readonly MetaContextChoice[];
  /** Whether the connection is inside TLS. */
  readonly isTls: boolean;
}

/** Shows what a client sent, in a log line: quoted, escaped and cut. */
export function quoteForLog(text: string): string {
  const shown = text.length > 64 ? `${text.slice(0, 64)}...` : text;
  return JSON.stringify(shown);
}

/** The state of one handshake. */
export class HandshakeState<Entry extends ExportEntry> {
  readonly catalog: ExportCatalog<Entry>;
  readonly offers: NegotiationOffers;
  readonly tls: 'off' | 'allow' | 'require';
  /** The client agreed to leave out the 124 zeroes after EXPORT_NAME. */
  hasNoZeroes = false;
  isTls = false;
  isStructured = false;
  isExtended = false;
  /** The last choice of contexts, and the canonical name of the export it was made for. */
  metaContexts: { exportName: string; choices: readonly MetaContextChoice[] } | undefined;
  result: NegotiationResult<Entry> | undefined;
  /** Replies not yet handed out. */
  outgoing: Uint8Array[] = [];
  /** What the client got wrong, for the log. */
  reasons: string[] = [];

  constructor(
    catalog: ExportCatalog<Entry>,
    offers: NegotiationOffers,
    tls: 'off' | 'allow' | 'require',
  ) {
    this.catalog = catalog;
    this.offers = offers;
    this.tls = tls;
  }

  /** The choice of contexts as far as it holds for `entry`: one for another export is void. */
  metaContextsOf(entry: Entry): readonly MetaContextChoice[] {
    if (this.metaContexts?.exportName !== entry.name) return [];
    return this.metaContexts.choices;
  }

  agreementFor(entry: Entry): Agreement {
    return {
      isStructured: this.isStructured,
      isExtended: this.isExtended,
      hasMetaContexts: this.metaContextsOf(entry).length > 0,
    };
  }

  /** Forgets everything that options agreed on. */
  forget(): void {
    this.isStructured = false;
    this.isExtended = false;
    this.metaContexts = undefined;
  }

  /** Finds an export that this client may see. */
  findExport(name: string): Entry | 'unknown' | 'needsTls' {
    const entry = this.catalog.find(name);
    if (entry === undefined) return 'unknown';
    return entry.isTlsRequired === true && !this.isTls ? 'needsTls' : entry;
  }

  /** Sends a reply and goes on. */
  reply(option: NbdOpt, type: NbdRep): NegotiationNext {
    this.outgoing.push(encodeOptionReply(option, type));
    return 'more';
  }

  /** Answers an option with an error, notes it for the log, and goes on. */
  refuse(option: number, type: NbdRep, text: string): NegotiationNext {
    this.outgoing.push(encodeOptionError(option, type, text));
    this.reasons.push(`${nbdOptName(option)} refused: ${text}`);
    return 'more';
  }

  /** Notes what is wrong and closes without a reply. */
  drop(reason: string): NegotiationNext {
    this.reasons.push(reason);
    return 'close';
  }
}
