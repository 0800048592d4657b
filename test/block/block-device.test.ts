// Goal: the device means what MirageOS's Block module means: information, lists of buffers of any
// length, results and not exceptions for what a disk does, exceptions for what a program does
// wrong. Method: the simulated host and its thread, and a model of the disk that random transfers
// of granted buffers, parts of them, and ordinary ones are compared with.
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import t, { type Test } from 'tap';
import { connectThrough } from '../../src/block/connect.ts';
import {
  type BlockDevice,
  type ConnectOptions,
  connect,
  formatError,
  formatWriteError,
} from '../../src/block/index.ts';
import { createSimulatedHost, type SimulatedHostOptions } from '../../src/sim/index.ts';
import { eventually } from '../support/eventually.ts';
import { runSeed, SeededRandom } from '../support/random.ts';

const OK = { ok: true };

async function open(
  t: Test,
  host: Partial<SimulatedHostOptions> = {},
  options: ConnectOptions = {},
): Promise<BlockDevice> {
  const disks = [{ vbd: 'xvda', sizeBytes: 8 << 20 }];
  const device = await connectThrough(
    await createSimulatedHost({ disks, ...host }),
    'xvda',
    options,
  );
  t.teardown(() => device.disconnect());
  return device;
}

void t.test('what a device is', async (t) => {
  const device = await connect('xvdb', { simulate: '64M' });
  t.teardown(() => device.disconnect());
  t.strictSame(await device.getInfo(), {
    readWrite: true,
    sectorSize: 512,
    sizeSectors: 131_072n,
  });
  const large = await connect(undefined, {
    simulate: '64M',
    simulateFeatures: 'sector-size=4096,read-only',
  });
  t.teardown(() => large.disconnect());
  t.strictSame(await large.getInfo(), {
    readWrite: false,
    sectorSize: 4096,
    sizeSectors: 16_384n,
  });
});

void t.test('what was written is read, by any list of buffers', async (t) => {
  const device = await open(t);
  const bytes = Buffer.alloc(10 * 512).map((_, index) => index % 251);
  const [one, three, none, six] = [
    [0, 1],
    [1, 4],
    [4, 4],
    [4, 10],
  ].map(([from = 0, to = 0]) => bytes.subarray(from * 512, to * 512)) as [
    Buffer,
    Buffer,
    Buffer,
    Buffer,
  ];
  t.strictSame(await device.write(7n, [one, three, none, six]), OK);
  const whole = device.allocatePages(2).subarray(0, 10 * 512);
  t.strictSame(await device.read(7, [whole]), OK);
  t.ok(whole.equals(bytes));
  const sectors = Array.from({ length: 10 }, () => new Uint8Array(512));
  t.strictSame(await device.read(7n, sectors), OK);
  t.ok(Buffer.concat(sectors).equals(bytes));
  t.strictSame(await device.read(0n, []), OK, 'an empty list');
  t.strictSame(await device.flush(), OK);
  const last = Buffer.alloc(512, 0xab);
  t.strictSame(await device.write(16_383n, [last]), OK, 'the last sector');
  const long = Array.from({ length: 16_384 }, () => Buffer.alloc(512));
  t.strictSame(await device.read(0n, long), OK, 'a list as long as the disk');
  t.ok(long.at(-1)?.equals(last));
});

void t.test('wrong arguments', async (t) => {
  const device = await open(t);
  const sector = new Uint8Array(512);
  const wrong: readonly (readonly [what: string, sectorStart: unknown, buffers: unknown])[] = [
    ['no list', 0n, sector],
    ['no buffer', 0n, [sector, 'text']],
    ['another kind of array', 0n, [new Uint16Array(256)]],
    ['no sector', '0', [sector]],
    ['no sector at all', undefined, [sector]],
  ];
  const outside: typeof wrong = [
    ['half a sector', 0n, [sector, sector.subarray(0, 256)]],
    ['before the start', -1n, [sector]],
    ['a fraction', 0.5, [sector]],
    ['not exact', 2 ** 60, [sector]],
    ['past the end', 16_384n, [sector]],
    ['past the end by one', 16_383n, [sector, sector]],
    ['far past the end', 2n ** 70n, []],
  ];
  for (const [error, cases] of [[TypeError, wrong] as const, [RangeError, outside] as const]) {
    for (const [what, sectorStart, buffers] of cases) {
      const at = sectorStart as bigint;
      await t.rejects(device.read(at, buffers as Uint8Array[]), error, `read: ${what}`);
      await t.rejects(device.write(at, buffers as Uint8Array[]), error, `write: ${what}`);
    }
  }
  t.throws(() => device.allocatePages(0), RangeError);
  t.throws(() => device.allocatePages(1.5), RangeError);
  t.throws(() => device.releasePages(sector), RangeError);
  await t.rejects(connect('xvda', { simulate: '64M', ringPageOrder: 5 }), RangeError);
  await t.rejects(connect('xvda', { simulate: '64M', reconnectTimeoutMs: -1 }), RangeError);
  await t.rejects(connect('xvda', { simulateFeatures: 'flush' }), TypeError);
  await t.rejects(connect('xvda', { simulate: '1000' }), { name: 'SimulationOptionError' });
  await t.rejects(connect('sd', { simulate: '64M' }), { name: 'DeviceNameError' });
  await t.rejects(connect('xvda', { simulate: '/no/such/file' }), { name: 'HostError' });
});

void t.test('a device that may only be read', async (t) => {
  for (const device of [
    await open(t, { disks: [{ vbd: 'xvda', sizeBytes: 1 << 20, readOnly: true }] }),
    await open(t, {}, { readOnly: true }),
  ]) {
    t.equal((await device.getInfo()).readWrite, false);
    const sector = new Uint8Array(512);
    const refused = { ok: false as const, error: { code: 'IsReadOnly' as const } };
    const result = await device.write(0n, [sector]);
    t.strictSame(result, refused);
    t.match(result.ok ? '' : formatWriteError(result.error), /read-only/);
    t.strictSame(await device.read(0n, [sector]), OK);
    t.strictSame(await device.flush(), OK, 'nothing is to be made stable');
  }
});

void t.test('back ends that can do less', async (t) => {
  const plain = { ringPageOrder: 0, queues: 1, indirect: 0, persistent: false, flush: false };
  const features = { ...plain, barrier: false, discard: false, sectorSize: 512, readOnly: false };
  const device = await open(t, { features });
  const bytes = new SeededRandom(1).bytes(1 << 20);
  t.strictSame(await device.write(3n, [bytes]), OK);
  t.strictSame(await device.flush(), OK, 'it writes through');
  const read = Buffer.alloc(bytes.length);
  t.strictSame(await device.read(3n, [read]), OK);
  t.ok(read.equals(bytes));

  const announced = { 'feature-flush-cache': '1' };
  const without = await open(t, {
    features: { ...features, barrier: false },
    disks: [{ vbd: 'xvda', sizeBytes: 1 << 20, keyOverrides: announced }],
  });
  const refused = await without.flush();
  t.strictSame(refused, { ok: false, error: { code: 'Unimplemented' } });
  t.match(refused.ok ? '' : formatError(refused.error), /not implemented/);
  const barrier = await open(t, {
    features: { ...features, barrier: true },
    disks: [{ vbd: 'xvda', sizeBytes: 1 << 20, keyOverrides: announced }],
  });
  t.strictSame(await barrier.flush(), OK, 'an empty barrier takes its place');
});

void t.test('a disk that fails', async (t) => {
  const faults = 'seed=1,error=1';
  const device = await connect('xvda', { simulate: '1M', simulateFaults: faults });
  t.teardown(() => device.disconnect());
  const failed = await device.read(0n, [new Uint8Array(512)]);
  t.match(failed, { ok: false, error: { code: 'Failed', message: /I\/O error/ } });
  t.match(await device.write(0n, [Buffer.alloc(1 << 19)]), { error: { code: 'Failed' } });
  t.match(await device.flush(), { error: { code: 'Failed' } });
});

void t.test('the end', async (t) => {
  const device = await open(t);
  const sector = device.allocatePages(1).subarray(0, 512).fill(7);
  t.strictSame(await device.write(0n, [sector]), OK);
  const last = device.read(0n, [Buffer.alloc(4 << 20)]);
  const ends = [device.disconnect(), device.disconnect()];
  t.strictSame(await last, OK, 'what was in progress');
  await Promise.all(ends);
  const gone = { ok: false as const, error: { code: 'Disconnected' as const } };
  t.strictSame(await device.read(0n, [sector]), gone);
  t.strictSame(await device.write(0n, [sector]), gone);
  t.strictSame(await device.write(0n, []), gone);
  t.strictSame(await device.flush(), gone);
  t.match(formatWriteError(gone.error), /disconnected/);
  t.match(await device.getInfo(), { sectorSize: 512 });
  t.ok(
    sector.every((byte) => byte === 7),
    'a granted buffer keeps its bytes',
  );
  sector.fill(8);
  t.throws(() => device.allocatePages(1), /disconnected/);
});

void t.test('pages', async (t) => {
  const device = await open(t, { grantLimitPages: 64 });
  const buffers = [device.allocatePages(2), device.allocatePages(2)];
  t.ok(buffers.every((buffer) => buffer.length === 8192 && !buffer.some((byte) => byte !== 0)));
  t.throws(() => device.allocatePages(64), { name: 'HostError', code: 'LIMIT' });
  const [first = Buffer.alloc(0)] = buffers;
  const writing = device.write(0n, [first.fill(3)]);
  await new Promise((resolve) => setImmediate(resolve));
  t.strictSame(await writing, OK);
  device.releasePages(first);
  t.ok(first.every((byte) => byte === 3));
  t.strictSame(await device.read(0n, [first.fill(0)]), OK, 'it is one like any other');
  t.ok(first.every((byte) => byte === 3));
});

void t.test('buffers that nobody has any more', async (t) => {
  setFlagsFromString('--expose-gc');
  const collectGarbage = runInNewContext('gc') as () => void;
  const device = await open(t, { grantLimitPages: 64 });
  const kept = device.allocatePages(1).fill(7);
  let allocated = 0;
  // Each of these is garbage at once; together they are more than may be granted.
  const allocate = (): true | undefined => {
    collectGarbage();
    device.allocatePages(8);
    allocated += 1;
    return allocated === 20 ? true : undefined;
  };
  await eventually('pages that were given back', 20_000, allocate);
  t.strictSame(await device.write(0n, [kept]), OK);
  t.ok(kept.every((byte) => byte === 7));
});

void t.test('random transfers keep to the model', async (t) => {
  const seed = runSeed();
  t.comment(`SEED=${seed}`);
  for (const [sectorSize, grantLimitPages] of [
    [512, 1024],
    [4096, 1024],
    [512, 50],
  ] as const) {
    const sizeBytes = 4 << 20;
    const features = {
      ringPageOrder: 1,
      queues: 1,
      indirect: 32,
      persistent: true,
      flush: true,
      barrier: false,
      discard: false,
      sectorSize,
      readOnly: false,
    };
    const disks = [{ vbd: 'xvda', sizeBytes }];
    const device = await open(t, { disks, features, grantLimitPages });
    const pagesMax = grantLimitPages < 100 ? 1 : 3;
    await churn(t, device, { seed, sectorSize, sizeBytes, pagesMax });
    await device.disconnect();
  }
});

/** Workers with a stripe of the disk each, since what overlaps has no order. */
async function churn(
  t: Test,
  device: BlockDevice,
  disk: {
    readonly seed: number;
    readonly sectorSize: number;
    readonly sizeBytes: number;
    /** Pages of the granted buffer of each worker. */
    readonly pagesMax: number;
  },
): Promise<void> {
  const { seed, sectorSize, sizeBytes, pagesMax } = disk;
  const workers = 8;
  const stripeBytes = sizeBytes / workers;
  let wrong = 0;
  const work = async (worker: number): Promise<void> => {
    const random = new SeededRandom(seed + worker);
    const model = Buffer.alloc(stripeBytes);
    const granted = device.allocatePages(1 + random.below(pagesMax));
    for (let round = 0; round < 40; round++) {
      const buffers = Array.from({ length: 1 + random.below(12) }, () =>
        bufferFrom(random, granted, sectorSize),
      );
      const lengthBytes = buffers.reduce((sum, { length }) => sum + length, 0);
      if (lengthBytes > stripeBytes) continue;
      const sectors = (stripeBytes - lengthBytes) / sectorSize;
      const at = random.below(sectors + 1) * sectorSize;
      const sectorStart = (worker * stripeBytes + at) / sectorSize;
      const isWrite = random.chance(0.5);
      if (isWrite) for (const buffer of buffers) buffer.fill(random.below(256));
      const result = await (isWrite
        ? device.write(sectorStart, buffers)
        : device.read(BigInt(sectorStart), buffers));
      if (!result.ok) wrong += 1;
      // Buffers may share the granted page: in a read the model is the last word on each byte.
      const bytes = Buffer.concat(buffers);
      if (isWrite) bytes.copy(model, at);
      else if (!isOverlapping(buffers) && !bytes.equals(model.subarray(at, at + lengthBytes))) {
        wrong += 1;
      }
    }
  };
  await Promise.all(Array.from({ length: workers }, (_, worker) => work(worker)));
  t.equal(wrong, 0, `sectors of ${sectorSize} bytes`);
}

/** An ordinary buffer, or sectors anywhere in the granted one. */
function bufferFrom(random: SeededRandom, granted: Buffer, sectorSize: number): Buffer {
  if (random.chance(0.5)) return Buffer.alloc(random.below(20) * sectorSize);
  const sectors = granted.length / sectorSize;
  const first = random.below(sectors);
  const count = 1 + random.below(sectors - first);
  return granted.subarray(first * sectorSize, (first + count) * sectorSize);
}

/** Whether two of the buffers are, or may be, the same memory. */
function isOverlapping(buffers: readonly Buffer[]): boolean {
  const memory = buffers.map(({ buffer }) => buffer);
  return new Set(memory).size < memory.length;
}
