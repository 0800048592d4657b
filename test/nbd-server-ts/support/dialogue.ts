// Plays a handshake dialogue of hex against the negotiation: whole, byte by byte and cut at random,
// always with the same answers. Shared by the tests of the handshake.

import {
  createExportInfo,
  type ExportCatalog,
  type ExportEntry,
  Negotiation,
  type NegotiationOptions,
  type NegotiationStep,
} from 'nbd-server-ts/protocol';
import type { Test } from 'tap';
import { hex, hexNumber, hexText, toHex } from './hex.ts';
import { cutRandomly, freshSeed, Random } from './random.ts';

export const GIB: number = 1024 ** 3;

export const disk: ExportEntry = {
  ...createExportInfo({
    sizeBytes: GIB,
    canFlush: true,
    canFua: true,
    canTrim: true,
    canWriteZeroes: true,
  }),
  name: 'disk',
  description: 'a disk',
};
export const plain: ExportEntry = {
  ...createExportInfo({ sizeBytes: 512 }),
  name: 'plain',
  description: '',
};
export const secret: ExportEntry = { ...plain, name: 'secret', isTlsRequired: true };

export function catalogOf(...entries: ExportEntry[]): ExportCatalog {
  return {
    find: (name) => (name === '' ? entries[0] : entries.find((entry) => entry.name === name)),
    list: () => entries,
  };
}

export interface Outcome {
  readonly sent: string;
  readonly next: string;
  readonly reason: string;
  readonly leftBytes: number;
  readonly negotiation: Negotiation;
}

/** Feeds pieces until the handshake ends or the pieces are used up. */
export function feed(negotiation: Negotiation, pieces: readonly Uint8Array[]): Outcome {
  let sent = '';
  let last: NegotiationStep | undefined;
  const reasons: string[] = [];
  let leftBytes = 0;
  for (const piece of pieces) {
    if (last !== undefined && last.next !== 'more') {
      leftBytes += piece.length;
      continue;
    }
    last = negotiation.receive(piece);
    if (last.send !== undefined) sent += toHex(last.send);
    if (last.reason !== undefined) reasons.push(last.reason);
    leftBytes += piece.length - last.consumed;
  }
  return { sent, next: last?.next ?? 'more', reason: reasons.join('; '), leftBytes, negotiation };
}

export interface Dialogue {
  readonly client: string;
  readonly server: string;
  readonly next?: string;
  readonly reason?: RegExp;
  readonly leftBytes?: number;
  readonly catalog?: ExportCatalog;
  readonly options?: NegotiationOptions;
}

export function play(t: Test, title: string, dialogue: Dialogue): Outcome {
  const bytes = hex(dialogue.client);
  const start = () => new Negotiation(dialogue.catalog ?? catalogOf(disk, plain), dialogue.options);
  const seed = freshSeed();
  const runs: readonly [string, Uint8Array[]][] = [
    ['whole', [bytes]],
    ['byte by byte', Array.from(bytes, (byte) => Uint8Array.of(byte))],
    [`cut by seed ${seed}`, cutRandomly(bytes, new Random(seed))],
  ];
  let first: Outcome | undefined;
  for (const [how, pieces] of runs) {
    const outcome = feed(start(), pieces);
    first ??= outcome;
    t.equal(outcome.sent, toHex(hex(dialogue.server)), `${title}, ${how}: what is sent`);
    t.equal(outcome.next, dialogue.next ?? 'more', `${title}, ${how}: what is next`);
    t.equal(outcome.leftBytes, dialogue.leftBytes ?? 0, `${title}, ${how}: what is left over`);
    if (dialogue.reason === undefined) t.equal(outcome.reason, '', `${title}, ${how}: no reason`);
    else t.match(outcome.reason, dialogue.reason, `${title}, ${how}: the reason`);
  }
  if (first === undefined) throw new Error('A dialogue is played three times.');
  return first;
}

export const FLAGS: string = '00000003';
export const OPT: string = '49484156454f5054';
export const REP: string = '0003e889045565a9';
/** GO for the default export, no information asked for. */
export const GO: string = `${OPT} 00000007 00000006 00000000 0000`;
export const GO_EXPORT: string = `${REP} 00000007 00000003 0000000c 0000 0000000040000000 006d`;
export const GO_ACK: string = `${REP} 00000007 00000001 00000000`;

/** An error reply with its text. */
export function refusal(option: number, type: string, text: string): string {
  return `${REP} ${hexNumber(option, 4)} ${type} ${hexNumber(text.length, 4)} ${hexText(text)}`;
}
export const ERR_UNSUP: string = '80000001';
export const ERR_POLICY: string = '80000002';
export const ERR_INVALID: string = '80000003';
export const ERR_TLS_REQD: string = '80000005';
export const ERR_UNKNOWN: string = '80000006';
export const ERR_SHUTDOWN: string = '80000007';
export const ERR_TOO_BIG: string = '80000009';
export const MALFORMED: string = 'The lengths or the name are malformed.';
export const NO_DATA: string = 'This option takes no data.';
