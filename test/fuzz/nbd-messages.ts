// Makes byte streams of hostile NBD clients from a seed: lists of messages that are mostly right,
// then with lies in their lengths, then with bytes changed, lost, doubled or added.

import type { Random } from '../nbd-server-ts/support/random.ts';

const IHAVEOPT = Buffer.from('49484156454f5054', 'hex');
const OPTIONS = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 99, 0xffffffff];
const COMMANDS = [0, 1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0xffff];
const INTERESTING = [0, 1, 2, 3, 4, 7, 8, 27, 28, 255, 256, 4095, 4096, 4097, 65535, 65536, 65537];
const LARGE = [0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff];
const NAMES = ['', 'disk', 'locked', 'other', 'disk\0', 'x'.repeat(4096), 'x'.repeat(4097), '\xff'];
const QUERIES = ['base:allocation', 'base:', 'x-test:', '', ':', 'base', 'q'.repeat(4096)];

function u16(value: number): Buffer {
  const bytes = Buffer.alloc(2);
  bytes.writeUInt16BE(value & 0xffff);
  return bytes;
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32BE(value >>> 0);
  return bytes;
}

function number(random: Random): number {
  if (random.oneIn(3)) return random.pick(LARGE);
  return random.oneIn(2) ? random.pick(INTERESTING) : random.below(0x10000);
}

/** A length field that usually tells the truth. */
function lengthField(random: Random, truth: number): Buffer {
  return u32(random.oneIn(15) ? number(random) : truth);
}

function counted(random: Random, text: string): Buffer {
  const bytes = Buffer.from(text, 'latin1');
  return Buffer.concat([lengthField(random, bytes.length), bytes]);
}

function infoData(random: Random): Buffer {
  const kinds = Array.from({ length: random.below(5) }, () => u16(random.below(5)));
  const count = random.oneIn(15) ? number(random) : kinds.length;
  return Buffer.concat([counted(random, random.pick(NAMES)), u16(count), ...kinds]);
}

function contextData(random: Random): Buffer {
  const queries = Array.from({ length: random.below(4) }, () =>
    counted(random, random.pick(QUERIES)),
  );
  const name = counted(random, random.pick(NAMES));
  return Buffer.concat([name, lengthField(random, queries.length), ...queries]);
}

function optionData(random: Random, option: number): Buffer {
  if (random.oneIn(8)) return Buffer.from(random.bytes(random.below(200)));
  if (option === 6 || option === 7) return infoData(random);
  if (option === 9 || option === 10) return contextData(random);
  if (option === 1) return Buffer.from(random.pick(NAMES), 'latin1');
  return Buffer.alloc(0);
}

function optionMessage(random: Random, option: number): Buffer {
  const data = optionData(random, option);
  return Buffer.concat([IHAVEOPT, u32(option), lengthField(random, data.length), data]);
}

/** What comes before transmission: flags, some options, and usually a way in. */
export function handshakeMessages(random: Random): Buffer[] {
  const messages = [u32(random.oneIn(20) ? number(random) : random.pick([3, 3, 3, 1, 0]))];
  const count = random.below(random.oneIn(10) ? 40 : 5);
  for (let index = 0; index < count; index += 1) {
    messages.push(optionMessage(random, random.pick(OPTIONS)));
  }
  return messages;
}

/** GO for the default export, as a well-behaved client sends it. */
export function goMessage(): Buffer {
  return Buffer.concat([IHAVEOPT, u32(7), u32(6), u32(0), u16(0)]);
}

/** An option without data that a well-behaved client sends: 8 or 11. */
export function plainOption(option: number): Buffer {
  return Buffer.concat([IHAVEOPT, u32(option), u32(0)]);
}

/** Chooses base:allocation, as a well-behaved client does after 8 or 11. */
export function contextOption(): Buffer {
  const query = Buffer.from('base:allocation', 'latin1');
  const data = Buffer.concat([u32(0), u32(1), u32(query.length), query]);
  return Buffer.concat([IHAVEOPT, u32(10), u32(data.length), data]);
}

function u64(random: Random, sizeBytes: number): Buffer {
  if (random.oneIn(6)) return Buffer.concat([u32(number(random)), u32(number(random))]);
  const near = random.oneIn(4) ? sizeBytes - random.below(4) : random.below(sizeBytes);
  return Buffer.concat([u32(0), u32(near)]);
}

function requestMessage(random: Random, isExtended: boolean, sizeBytes: number): Buffer {
  const command = random.pick(COMMANDS);
  const length = random.oneIn(20) ? number(random) : random.below(5000);
  const flags = random.oneIn(3) ? random.below(0x80) : 0;
  const isWrite = command === 1 && length < 0x20000;
  const parts = [
    u32(isExtended ? 0x21e41c71 : 0x25609513),
    u16(isExtended && isWrite ? flags | 0x20 : flags),
    u16(command),
    Buffer.from(random.bytes(8)),
    command === 3 && !random.oneIn(5) ? Buffer.alloc(8) : u64(random, sizeBytes),
  ];
  if (isExtended) parts.push(u32(random.oneIn(30) ? number(random) : 0));
  parts.push(u32(command === 3 && !random.oneIn(5) ? 0 : length));
  if (isWrite) parts.push(Buffer.alloc(length, random.below(256)));
  return Buffer.concat(parts);
}

/** Requests, good and bad. */
export function requestMessages(random: Random, isExtended: boolean, sizeBytes: number): Buffer[] {
  return Array.from({ length: random.below(20) }, () =>
    requestMessage(random, isExtended, sizeBytes),
  );
}

/** Changes a stream in a few places. */
export function mutate(random: Random, stream: Buffer): Buffer {
  let bytes = stream;
  for (let change = random.below(4); change >= 0 && bytes.length > 0; change -= 1) {
    const at = random.below(bytes.length);
    const count = 1 + random.below(Math.min(16, bytes.length - at));
    const head = bytes.subarray(0, at);
    const rest = bytes.subarray(at + count);
    const piece = bytes.subarray(at, at + count);
    const kind = random.below(5);
    if (kind === 0) bytes = Buffer.concat([head, rest]);
    else if (kind === 1) bytes = Buffer.concat([head, piece, piece, rest]);
    else if (kind === 2) bytes = Buffer.concat([head, Buffer.from(random.bytes(count)), rest]);
    else if (kind === 3) bytes = Buffer.concat([head, Buffer.from(random.bytes(8)), piece, rest]);
    else
      bytes = Buffer.from(
        bytes.map((byte, index) => (index === at ? byte ^ (1 << random.below(8)) : byte)),
      );
  }
  return bytes;
}
