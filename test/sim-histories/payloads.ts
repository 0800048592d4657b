/**
 * Bytes to write: pieces of one table of random bytes, at random places. So two writes hold the
 * same bytes only by the rarest chance, a payload costs nothing to make, and it has an address that
 * the engine can copy from.
 */

import { allocateMemory } from '../../src/sys/index.ts';
import { SeededRandom } from '../support/random.ts';

const TABLE_BYTES = 1 << 20;
/** Longest payload. */
export const PAYLOAD_BYTES_MAX: number = 1 << 18;

const memory = allocateMemory(TABLE_BYTES);
const table = Buffer.from(memory.buffer);
new SeededRandom(1).bytes(TABLE_BYTES).copy(table);

export interface Payload {
  readonly address: number;
  readonly bytes: Buffer;
}

export function drawPayload(random: SeededRandom, lengthBytes: number): Payload {
  const start = random.below(TABLE_BYTES - lengthBytes);
  return { address: memory.address + start, bytes: table.subarray(start, start + lengthBytes) };
}

const constants = new Map<number, Buffer>();

/** `lengthBytes` times the same byte. */
export function constantBytes(byte: number, lengthBytes: number): Buffer {
  let bytes = constants.get(byte);
  if (bytes === undefined) {
    bytes = Buffer.alloc(TABLE_BYTES, byte);
    constants.set(byte, bytes);
  }
  return bytes.subarray(0, lengthBytes);
}
