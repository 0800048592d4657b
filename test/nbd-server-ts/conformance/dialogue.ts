// The vocabulary of the conformance table: what a row sends and what it demands, and the player
// that holds a row against a listening server. Nothing here knows who wrote that server.

import { setTimeout as sleep } from 'node:timers/promises';
import { hex, toHex } from '../support/hex.ts';
import { type Address, RawClient, type ReplyChunk } from '../support/raw-client.ts';

/** What is known about the server and the export a table is run against. */
export interface Target {
  readonly address: Address;
  /** The export to use; empty for the default one. It is written to. */
  readonly exportName: string;
  readonly sizeBytes: number;
  /** A name that no export has; undefined for a server that takes any name. */
  readonly unknownName: string | undefined;
  /** A read-only export beside it, if there is one. */
  readonly readOnlyName?: string;
  /** How long an answer may take; servers that leave out some answers are not waited for long. */
  readonly patienceMs?: number;
  /** Starts the server again when a row brought it down. */
  revive?(): Promise<void>;
}

/** One step of a row. */
export type Step =
  /** Bytes to send, as hex. */
  | { readonly send: string }
  /** Exactly these bytes, as hex; `..` stands for any byte. */
  | { readonly expect: string }
  /**
   * All replies to an option. The last one, ACK or error, has one of the types; `among` are replies
   * before it, in any order and beside others, as hex with `..`.
   */
  | {
      readonly option: number;
      readonly ends: readonly number[];
      readonly among?: readonly string[];
    }
  /** A whole reply, in any form that was agreed on. */
  | {
      readonly reply: string;
      readonly errno: readonly number[];
      readonly data?: string;
      readonly dataBytes?: number;
      readonly form?: ReplyChunk['form'];
    }
  /** The server closes; nothing, or only what `optional` allows, came before. */
  | { readonly closes: true; readonly ignoring?: true }
  /** The client closes its sending side. */
  | { readonly end: true };

/** Whether the document demands something or advises it. */
export type Level = 'MUST' | 'SHOULD' | 'unspecified';

/** One rule for servers. */
export interface Row {
  /** The section of the protocol document. */
  readonly section: string;
  readonly level: Level;
  /** What the server has to do, in one line. */
  readonly rule: string;
  /** Options to agree on first; a server that does not have one skips the row. */
  readonly needs?: readonly Need[];
  /** Begins behind GO, with these options agreed on, rather than at the greeting. */
  readonly in?: 'handshake' | 'transmission';
  readonly steps: readonly Step[];
}

/** What a server may not have. */
export type Need =
  | 'structured'
  | 'extended'
  | 'contexts'
  | 'unknownName'
  | 'readOnly'
  | 'flush'
  | 'fua'
  | 'trim'
  | 'zeroes'
  | 'fastZero';

/** How a row ended. */
export interface RowResult {
  readonly row: Row;
  readonly outcome: 'kept' | 'broken' | 'skipped';
  /** What was different, or why it was skipped. */
  readonly detail: string;
}

const FLAG_OF: Partial<Record<Need, number>> = {
  flush: 0x04,
  fua: 0x08,
  trim: 0x20,
  zeroes: 0x40,
  fastZero: 0x800,
};

function matches(bytes: Uint8Array, pattern: string): boolean {
  const wanted = pattern.replaceAll(/\s/g, '');
  const got = toHex(bytes);
  if (got.length !== wanted.length) return false;
  for (let index = 0; index < got.length; index += 1) {
    if (wanted[index] !== '.' && wanted[index] !== got[index]) return false;
  }
  return true;
}

/** Turns 'quoted text' into hex and leaves the `..` of a pattern alone. */
export function pattern(text: string): string {
  return text
    .replaceAll(/'([^']*)'/g, (_match, ascii: string) => toHex(Buffer.from(ascii, 'latin1')))
    .replaceAll(/\s+/g, '');
}

class Missing extends Error {}

async function agree(client: RawClient, option: number, data: string, what: string): Promise<void> {
  client.option(option, data);
  const replies = await client.optionReplies();
  if (replies.at(-1)?.type !== 1) throw new Missing(`the server does not offer ${what}`);
}

async function enterTransmission(client: RawClient, row: Row, target: Target): Promise<void> {
  const needs = row.needs ?? [];
  if (needs.includes('structured')) await agree(client, 8, '', 'structured replies');
  if (needs.includes('extended')) await agree(client, 11, '', 'extended headers');
  const name = needs.includes('readOnly') ? (target.readOnlyName ?? '') : target.exportName;
  const encodedName = Buffer.from(name);
  const prefix = `${encodedName.length.toString(16).padStart(8, '0')}${toHex(encodedName)}`;
  if (needs.includes('contexts')) {
    await agree(client, 10, `${prefix} 00000001 0000000f 'base:allocation'`, 'contexts');
  }
  const replies = await client.go(name);
  if (replies.at(-1)?.type !== 1) throw new Missing(`GO was refused with ${replies.at(-1)?.type}`);
  const info = replies.find((reply) => reply.type === 3 && reply.data.readUInt16BE(0) === 0);
  const flags = info?.data.readUInt16BE(10) ?? 0;
  for (const need of needs) {
    const flag = FLAG_OF[need];
    if (flag !== undefined && (flags & flag) === 0) throw new Missing(`no ${need} on this export`);
  }
}

function notAvailable(row: Row, target: Target): string | undefined {
  const needs = row.needs ?? [];
  if (needs.includes('unknownName') && target.unknownName === undefined) return 'takes any name';
  if (needs.includes('readOnly') && target.readOnlyName === undefined) return 'no such export';
  return undefined;
}

/** Holds one row against a server, over a connection of its own. */
export async function playRow(row: Row, target: Target): Promise<RowResult> {
  const reason = notAvailable(row, target);
  if (reason !== undefined) return { row, outcome: 'skipped', detail: reason };
  let client: RawClient;
  try {
    client = await RawClient.connect(target.address, target.patienceMs);
  } catch (error) {
    return {
      row,
      outcome: 'broken',
      detail: error instanceof Error ? error.message : String(error),
    };
  }
  try {
    if (row.in === 'transmission') {
      await client.greet();
      await enterTransmission(client, row, target);
    } else if (row.needs?.some((need) => need === 'structured' || need === 'extended') === true) {
      await client.greet();
      for (const [need, option] of [
        ['structured', 8],
        ['extended', 11],
      ] as const) {
        if (row.needs.includes(need)) await agree(client, option, '', need);
      }
    }
    for (const step of row.steps) await playStep(step, client);
    return { row, outcome: 'kept', detail: '' };
  } catch (error) {
    const detail = error instanceof Error ? error.message : String(error);
    return { row, outcome: error instanceof Missing ? 'skipped' : 'broken', detail };
  } finally {
    client.destroy();
  }
}

async function playStep(step: Step, client: RawClient): Promise<void> {
  if ('send' in step) {
    client.send(hex(step.send));
  } else if ('expect' in step) {
    const wanted = pattern(step.expect);
    const bytes = await client.receive(wanted.length / 2);
    if (!matches(bytes, wanted)) throw new Error(`${toHex(bytes)} came, not ${wanted}`);
  } else if ('option' in step) {
    await playOption(step, client);
  } else if ('reply' in step) {
    await playReply(step, client);
  } else if ('closes' in step) {
    const rest = await client.closed();
    if (rest.length > 0 && step.ignoring !== true)
      throw new Error(`${toHex(rest)} came before the end`);
  } else {
    client.end();
  }
}

async function playOption(
  step: Extract<Step, { option: number }>,
  client: RawClient,
): Promise<void> {
  const replies = await client.optionReplies();
  for (const reply of replies) {
    if (reply.option !== step.option) throw new Error(`a reply to option ${reply.option} came`);
  }
  const last = replies.at(-1);
  if (last === undefined || !step.ends.includes(last.type)) {
    throw new Error(`the reply type was 0x${last?.type.toString(16)}`);
  }
  for (const wanted of step.among ?? []) {
    const isThere = replies.some((reply) => {
      const type = reply.type.toString(16).padStart(8, '0');
      return matches(Buffer.concat([Buffer.from(type, 'hex'), reply.data]), pattern(wanted));
    });
    if (!isThere) {
      const came = replies.map((reply) => `${reply.type} ${toHex(reply.data)}`).join(', ');
      throw new Error(`no reply was ${wanted}; there were ${came}`);
    }
  }
}

async function playReply(step: Extract<Step, { reply: string }>, client: RawClient): Promise<void> {
  const dataBytes = step.dataBytes ?? (step.data === undefined ? 0 : pattern(step.data).length / 2);
  const chunks = await client.chunks(dataBytes);
  for (const chunk of chunks) {
    if (chunk.cookie !== pattern(step.reply)) throw new Error(`the cookie was ${chunk.cookie}`);
    if (step.form !== undefined && chunk.form !== step.form)
      throw new Error(`a ${chunk.form} reply`);
  }
  const errno = Math.max(...chunks.map((chunk) => chunk.errno));
  if (!step.errno.includes(errno)) throw new Error(`the errno was ${errno}`);
  if (step.data !== undefined && errno === 0) {
    const data = Buffer.concat(
      chunks.map((chunk) => (chunk.type === 1 ? chunk.payload.subarray(8) : chunk.payload)),
    );
    const first = chunks[0]?.form === 'simple' ? chunks[0].payload : data;
    if (!matches(first, pattern(step.data))) throw new Error(`the data was ${toHex(first)}`);
  }
}

/** A server that goes down may still take a connection or two while it does. */
async function hasDied(target: Target): Promise<boolean> {
  if (target.revive === undefined) return false;
  await sleep(200);
  return RawClient.connect(target.address).then(
    (client) => {
      client.destroy();
      return false;
    },
    () => true,
  );
}

/** Holds a table against a server, row after row. */
export async function runConformance(rows: readonly Row[], target: Target): Promise<RowResult[]> {
  const results: RowResult[] = [];
  for (const row of rows) {
    const result = await playRow(row, target);
    const isDead = result.outcome === 'broken' && (await hasDied(target));
    results.push(isDead ? { ...result, detail: 'the server died' } : result);
    if (isDead) await target.revive?.();
  }
  return results;
}
