// Goal: messages of generic netlink are what the kernel's headers say, and odd ones are left out.
// Bytes are typed from linux/netlink.h and linux/genetlink.h.
import t from 'tap';
import {
  decodeAttributes,
  decodeMessages,
  encodeCommand,
  numberOf,
  textOf,
} from '../../src/nbd-device/generic-netlink.ts';

function bytes(hex: string): Buffer {
  return Buffer.from(hex.replaceAll(/\s+/g, ''), 'hex');
}

void t.test('a command', async (t) => {
  const message = encodeCommand({
    family: 0x1c,
    command: 3,
    sequence: 7,
    attributes: [
      { type: 1, u32: 5 },
      { type: 2, u64: 0x1_0000_0200n },
      { type: 10, text: 'a:b' },
      { type: 7, nested: [{ type: 1, nested: [{ type: 1, u32: 9 }] }] },
    ],
  });
  const expected = bytes(`
    40000000 1c00 0500 07000000 00000000
    03 01 0000
    0800 0100 05000000
    0c00 0200 0002000001000000
    0800 0a00 613a6200
    1000 0780 0c00 0180 0800 0100 09000000
  `);
  t.equal(Buffer.from(message).toString('hex'), expected.toString('hex'));
});

void t.test('what the kernel says', async (t) => {
  const answer = bytes(`
    24000000 1c00 0000 07000000 00000000
    04 01 0000
    0800 0100 03000000
    0500 0200 61 000000
  `);
  const acknowledgement = bytes('24000000 0200 0000 07000000 00000000 f0ffffff').subarray(0);
  const end = Buffer.concat([acknowledgement, Buffer.alloc(16)]);
  const messages = decodeMessages(Buffer.concat([answer, end]));
  t.equal(messages.length, 2);
  const [event, last] = messages;
  t.equal(event?.kind, 'command');
  if (event?.kind !== 'command') return;
  t.equal(event.family, 0x1c);
  t.equal(event.command, 4);
  t.equal(numberOf(event.attributes.get(1)), 3);
  t.equal(textOf(event.attributes.get(2)), 'a');
  t.equal(numberOf(event.attributes.get(2)), undefined, 'one byte is no number');
  t.equal(textOf(event.attributes.get(9)), undefined);
  t.strictSame(last, { kind: 'end', sequence: 7, errno: 16 });
});

void t.test('what is cut off, or lies about its length', async (t) => {
  const whole = bytes('1c000000 1c00 0000 07000000 00000000 04 01 0000 0800 0100 03000000');
  for (let length = 0; length < whole.length; length++) {
    t.strictSame(decodeMessages(whole.subarray(0, length)), [], `${length} bytes`);
  }
  t.equal(decodeMessages(whole).length, 1);
  const zero = Buffer.from(whole);
  zero.writeUInt32LE(0, 0);
  t.strictSame(decodeMessages(zero), [], 'no length: no endless loop');
  t.equal(decodeAttributes(bytes('0300 0100 00000000')).size, 0, 'shorter than its own header');
  t.equal(decodeAttributes(bytes('ff00 0100 00000000')).size, 0, 'longer than there is');
});
