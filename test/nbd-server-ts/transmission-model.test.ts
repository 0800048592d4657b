// Goal: any stream of requests, cut anywhere, is answered as a plain array would answer it: right
// errno, right data, each request once. Method: random requests from a seed, good and bad, in all
// three reply forms, sent cut at random over a pair of streams and compared with a model.

import { duplexPair } from 'node:stream';
import { BufferBackend, NbdServer } from 'nbd-server-ts';
import t from 'tap';
import { hexNumber, toHex } from './support/hex.ts';
import { cutRandomly, freshSeed, Random } from './support/random.ts';
import { RawClient } from './support/raw-client.ts';

const READ = 0;
const WRITE = 1;
const FLUSH = 3;
const TRIM = 4;
const WRITE_ZEROES = 6;
const SIZE = 16 * 1024;

interface Expected {
  readonly cookie: string;
  readonly errno: number;
  readonly data: Buffer | undefined;
}

interface Exchange {
  readonly bytes: Uint8Array;
  readonly expected: Expected[];
}

/** One batch: requests that do not depend on each other's order, and what they must give. */
function makeBatch(random: Random, model: Uint8Array, isExtended: boolean): Exchange {
  const parts: Buffer[] = [];
  const expected: Expected[] = [];
  const slot = SIZE / 8;
  // Each request of a batch has an eighth of the disk for itself, so any order gives one result.
  for (let index = 0; index < 8; index += 1) {
    const command = random.pick([READ, WRITE, WRITE, FLUSH, TRIM, WRITE_ZEROES, 9]);
    const isPastEnd = random.oneIn(10);
    const flags = random.oneIn(12) ? 0x80 : 0;
    const length = command === FLUSH ? 0 : random.below(slot);
    const start = command === FLUSH ? 0 : index * slot + random.below(slot - length + 1);
    const offset = isPastEnd && command !== FLUSH ? SIZE - length + 1 : start;
    const cookie = random.bytes(8);
    const data = command === WRITE ? random.bytes(length) : new Uint8Array(0);
    const hasPayload = isExtended && command === WRITE ? 0x20 : 0;
    parts.push(
      Buffer.from(
        (isExtended ? '21e41c71' : '25609513') +
          hexNumber(flags | hasPayload, 2) +
          hexNumber(command, 2) +
          toHex(cookie) +
          hexNumber(offset, 8) +
          hexNumber(length, isExtended ? 8 : 4),
        'hex',
      ),
      Buffer.from(data),
    );
    let errno = 0;
    if (flags !== 0 || command === 9) errno = 22;
    else if (offset + length > SIZE)
      errno = command === WRITE || command === WRITE_ZEROES ? 28 : 22;
    if (errno === 0 && command === WRITE) model.set(data, offset);
    if (errno === 0 && command === WRITE_ZEROES) model.fill(0, offset, offset + length);
    const read =
      errno === 0 && command === READ
        ? Buffer.from(model.slice(offset, offset + length))
        : undefined;
    expected.push({ cookie: toHex(cookie), errno, data: read });
  }
  return { bytes: Buffer.concat(parts), expected };
}

async function collect(client: RawClient, expected: Expected[], hint: string): Promise<void> {
  const open = new Map(expected.map((item) => [item.cookie, item]));
  while (open.size > 0) {
    // A simple reply does not say how much data follows, so its cookie is looked at first.
    const head = await client.peek(16);
    const cookie = toHex(head.subarray(8, 16));
    const item = open.get(cookie);
    if (item === undefined) throw new Error(`${hint}: a reply to the unknown cookie ${cookie}`);
    open.delete(cookie);
    const chunks = await client.chunks(item.data?.length ?? 0);
    const errno = Math.max(...chunks.map((chunk) => chunk.errno));
    if (errno !== item.errno) throw new Error(`${hint}: errno ${errno}, not ${item.errno}`);
    if (item.data === undefined || item.data.length === 0) continue;
    const [first] = chunks;
    const data = first?.form === 'simple' ? first.payload : first?.payload.subarray(8);
    if (data === undefined || !item.data.equals(data)) throw new Error(`${hint}: wrong data`);
  }
}

for (const form of ['simple', 'structured', 'extended'] as const) {
  void t.test(`random requests, ${form} replies`, async (t) => {
    const seed = freshSeed();
    const random = new Random(seed);
    const disk = new Uint8Array(SIZE);
    const model = new Uint8Array(SIZE);
    const server = new NbdServer({ exports: [{ name: '', backend: new BufferBackend(disk) }] });
    const [near, far] = duplexPair();
    const served = server.accept(far);
    const client = RawClient.on(near);
    await client.greet();
    if (form !== 'simple') {
      client.option(form === 'structured' ? 8 : 11);
      await client.optionReplies();
    }
    await client.go();
    for (let batch = 0; batch < 60; batch += 1) {
      const hint = `seed ${seed}, batch ${batch}`;
      const { bytes, expected } = makeBatch(random, model, form === 'extended');
      for (const piece of cutRandomly(bytes, random)) client.send(piece);
      await collect(client, expected, hint);
      if (!Buffer.from(model).equals(disk)) t.fail(`${hint}: the disk differs from the model`);
    }
    t.pass(`60 batches of seed ${seed}`);
    client.end();
    await served;
    await server.close();
  });
}
