/**
 * Headers of requests as an NBD client writes them, typed from doc/proto.md ("Request message") and
 * sharing no code with the server. They stand in memory that the lane can copy from.
 */

import { allocateMemory } from '../../src/sys/index.ts';
import { Cmd } from '../support/nbd-wire.ts';

const COMPACT_MAGIC = 0x2560_9513;
const EXTENDED_MAGIC = 0x21e4_1c71;
const PAYLOAD_LEN = 0x20;

/** Headers under way: as many as there can be at once, over and over. */
const HEADER_BYTES = 32;
const HEADERS = 8192;
const headerMemory = allocateMemory(HEADERS * HEADER_BYTES);
const headerView = new DataView(headerMemory.buffer);
let nextHeader = 0;

export interface RequestFields {
  readonly command: number;
  readonly flags: number;
  /** The halves of the cookie. */
  readonly owner: number;
  readonly cookie: number;
  readonly offset: number;
  readonly lengthBytes: number;
  readonly hasPayload: boolean;
}

/** Where the header stands until many more were written. */
export function encodeHeader(
  fields: RequestFields,
  isExtended: boolean,
): { readonly address: number; readonly lengthBytes: number } {
  const { command, flags, owner, cookie, offset, lengthBytes, hasPayload } = fields;
  const at = nextHeader * HEADER_BYTES;
  nextHeader = (nextHeader + 1) % HEADERS;
  headerView.setUint32(at, isExtended ? EXTENDED_MAGIC : COMPACT_MAGIC);
  headerView.setUint16(at + 4, flags | (isExtended && hasPayload ? PAYLOAD_LEN : 0));
  headerView.setUint16(at + 6, command);
  headerView.setUint32(at + 8, owner);
  headerView.setUint32(at + 12, cookie);
  headerView.setUint32(at + 16, 0);
  headerView.setUint32(at + 20, offset);
  if (isExtended) headerView.setUint32(at + 24, 0);
  headerView.setUint32(at + (isExtended ? 28 : 24), lengthBytes);
  return { address: headerMemory.address + at, lengthBytes: isExtended ? 32 : 28 };
}

/** The name of a command, for people. */
export function commandName(command: number): string {
  return Object.entries(Cmd).find(([, value]) => value === command)?.[0] ?? String(command);
}
