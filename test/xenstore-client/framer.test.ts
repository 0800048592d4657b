// Goal: the framer gives the same packets however the stream is cut, holds to the limit of 4096
// bytes exactly, and stays dead after a breach. Method: one stream of hand-made packets, fed whole,
// byte by byte, and in random pieces from a printed seed.
import t from 'tap';
import {
  decodePacket,
  encodePacket,
  type Packet,
  PacketFramer,
  XENSTORE_PAYLOAD_MAX,
  XenStoreError,
  XenStoreProtocolError,
} from 'xenstore-client/wire';
import { chooseSeed, seededRandom } from './seeded-random.ts';

const packets: readonly Packet[] = [
  { type: 2, reqId: 1, txId: 0, payload: bytes(0) },
  { type: 15, reqId: 0xdeadbeef, txId: 0xffffffff, payload: bytes(1) },
  { type: 1, reqId: 3, txId: 7, payload: bytes(XENSTORE_PAYLOAD_MAX) },
  { type: 0xffff, reqId: 0, txId: 0, payload: bytes(17) },
  { type: 2, reqId: 5, txId: 0, payload: bytes(0) },
];

const good: Packet = { type: 13, reqId: 9, txId: 0, payload: bytes(3) };

function bytes(length: number): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 7 + length) & 0xff);
}

function header(type: number, lengthBytes: number): Uint8Array {
  const result = Buffer.alloc(16);
  result.writeUInt32LE(type, 0);
  result.writeUInt32LE(lengthBytes, 12);
  return new Uint8Array(result);
}

const stream = Buffer.concat(packets.map(encodePacket));

/** Feeds the stream in pieces of the given sizes; the chunk is overwritten after each piece. */
function parseInPieces(nextSize: () => number): Packet[] {
  const framer = new PacketFramer();
  const result: Packet[] = [];
  for (let offset = 0; offset < stream.length; ) {
    const chunk = new Uint8Array(stream.subarray(offset, offset + nextSize()));
    offset += chunk.length;
    framer.push(chunk);
    for (let packet = framer.next(); packet !== undefined; packet = framer.next()) {
      result.push(packet);
    }
    chunk.fill(0xee);
  }
  if (!framer.isBetweenPackets) throw new Error('the stream did not end between packets');
  return result;
}

void t.test('a stream cut in any way gives the same packets', (t) => {
  const want = packets.map((packet) => ({ ...packet }));
  t.strictSame(
    parseInPieces(() => stream.length),
    want,
    'whole',
  );
  t.strictSame(
    parseInPieces(() => 1),
    want,
    'byte by byte',
  );
  const seed = chooseSeed();
  const random = seededRandom(seed);
  for (let round = 0; round < 50; round += 1) {
    const sizeMax = 1 + Math.floor(random() * 200);
    const got = parseInPieces(() => 1 + Math.floor(random() * sizeMax));
    t.strictSame(got, want, `SEED=${seed} round ${round}`);
  }
  t.end();
});

void t.test('chunks may be pushed before the packets are taken', (t) => {
  const framer = new PacketFramer();
  for (let offset = 0; offset < stream.length; offset += 100) {
    framer.push(stream.subarray(offset, offset + 100));
  }
  framer.push(new Uint8Array(0));
  for (const want of packets) t.strictSame(framer.next(), want);
  t.equal(framer.next(), undefined);
  t.end();
});

void t.test('says how many bytes it needs', (t) => {
  const framer = new PacketFramer();
  t.equal(framer.neededBytes, 16);
  t.ok(framer.isBetweenPackets);
  framer.push(header(2, 5).subarray(0, 10));
  framer.next();
  t.equal(framer.neededBytes, 6);
  t.notOk(framer.isBetweenPackets);
  framer.push(header(2, 5).subarray(10));
  framer.next();
  t.equal(framer.neededBytes, 5);
  framer.push(Uint8Array.of(1, 2, 3));
  framer.next();
  t.equal(framer.neededBytes, 2);
  t.notOk(framer.isBetweenPackets);
  framer.push(Uint8Array.of(4, 5));
  t.strictSame(framer.next()?.payload, Uint8Array.of(1, 2, 3, 4, 5));
  t.equal(framer.neededBytes, 16);
  t.end();
});

void t.test(
  'a length over the limit is refused at the header, packets before it are not lost',
  (t) => {
    for (const lengthBytes of [XENSTORE_PAYLOAD_MAX + 1, 0x7fffffff, 0x80000000, 0xffffffff]) {
      const framer = new PacketFramer();
      framer.push(Buffer.concat([encodePacket(good), header(2, lengthBytes)]));
      t.equal(framer.next()?.type, good.type, 'the good packet first');
      t.throws(() => framer.next(), XenStoreProtocolError, `length ${lengthBytes}`);
      framer.push(encodePacket(good));
      t.throws(() => framer.next(), XenStoreProtocolError, 'and from then on');
    }
    t.end();
  },
);

void t.test('the limit is exactly 4096 bytes when encoding', (t) => {
  t.equal(encodePacket({ ...good, payload: bytes(4096) }).length, 4112);
  t.throws(() => encodePacket({ ...good, payload: bytes(4097) }), { code: 'E2BIG' });
  t.throws(() => encodePacket({ ...good, payload: bytes(4097) }), XenStoreError);
  t.end();
});

void t.test('decodePacket wants exactly one packet', (t) => {
  const whole = encodePacket(good);
  t.strictSame(decodePacket(whole), good);
  t.throws(() => decodePacket(whole.subarray(0, 15)), XenStoreProtocolError);
  t.throws(() => decodePacket(whole.subarray(0, 18)), XenStoreProtocolError);
  t.throws(() => decodePacket(Buffer.concat([whole, whole])), XenStoreProtocolError);
  t.throws(() => decodePacket(header(2, 0xffffffff)), XenStoreProtocolError);
  t.end();
});
