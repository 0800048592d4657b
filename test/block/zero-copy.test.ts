// Goal: buffers from allocatePages are used where they lie, others are copied, and a page that is
// in a request already is copied as well. Method: the rings are served when the test says so.
// Between the call and that moment the buffers are changed, which a program must not do: what
// reaches the disk tells whether the back end read them in place.
import t, { type Test } from 'tap';
import { connectThrough } from '../../src/block/connect.ts';
import type { BlockDevice } from '../../src/block/index.ts';
import { createSimulatedHost, SteppedRings } from '../../src/sim/index.ts';

class SteppedDevice {
  readonly device: BlockDevice;
  readonly #rings: SteppedRings;

  private constructor(device: BlockDevice, rings: SteppedRings) {
    this.device = device;
    this.#rings = rings;
  }

  static async open(t: Test): Promise<SteppedDevice> {
    const rings = new SteppedRings(() => performance.now());
    const disks = [{ vbd: 'xvda', sizeBytes: 1 << 20 }];
    const host = await createSimulatedHost({ disks, rings });
    const device = await stepUntil(rings, connectThrough(host, 'xvda', {}));
    t.teardown(() => stepUntil(rings, device.disconnect()));
    return new SteppedDevice(device, rings);
  }

  /** Writes, and changes the buffers after the request was made and before it is served. */
  async writeAndSpoil(sectorStart: number, buffers: readonly Uint8Array[]): Promise<void> {
    const writing = this.device.write(sectorStart, buffers);
    await new Promise((resolve) => setImmediate(resolve));
    for (const buffer of buffers) buffer.fill(0xff);
    await stepUntil(this.#rings, writing);
  }

  async read(sectorStart: number, lengthBytes: number): Promise<Buffer> {
    const buffer = Buffer.alloc(lengthBytes);
    await stepUntil(this.#rings, this.device.read(sectorStart, [buffer]));
    return buffer;
  }
}

async function stepUntil<Result>(rings: SteppedRings, promise: Promise<Result>): Promise<Result> {
  let isDone = false;
  const mark = (): void => {
    isDone = true;
  };
  promise.then(mark, mark);
  while (!isDone) {
    rings.step();
    await new Promise((resolve) => setImmediate(resolve));
  }
  return await promise;
}

function isAll(bytes: Buffer, value: number): boolean {
  return bytes.every((byte) => byte === value);
}

void t.test('granted buffers are not copied', async (t) => {
  const stepped = await SteppedDevice.open(t);
  await stepped.writeAndSpoil(0, [stepped.device.allocatePages(30).fill(1)]);
  t.ok(isAll(await stepped.read(0, 30 * 4096), 0xff), 'whole pages');
  const page = stepped.device.allocatePages(1);
  await stepped.writeAndSpoil(0, [page.subarray(1024, 2048).fill(1)]);
  t.ok(isAll(await stepped.read(0, 1024), 0xff), 'sectors of a page');
});

void t.test('other buffers are copied', async (t) => {
  const stepped = await SteppedDevice.open(t);
  await stepped.writeAndSpoil(0, [Buffer.alloc(30 * 4096, 1)]);
  t.ok(isAll(await stepped.read(0, 30 * 4096), 1), 'ordinary memory');
  const pages = stepped.device.allocatePages(2);
  await stepped.writeAndSpoil(0, [pages.subarray(100, 100 + 4096).fill(2)]);
  t.ok(isAll(await stepped.read(0, 4096), 2), 'what lies across the sectors of a page');
  stepped.device.releasePages(pages);
  await stepped.writeAndSpoil(0, [pages.fill(3)]);
  t.ok(isAll(await stepped.read(0, 8192), 3), 'pages that were released');
});

void t.test('a page is in one request at a time', async (t) => {
  const stepped = await SteppedDevice.open(t);
  const page = stepped.device.allocatePages(1).fill(1);
  await stepped.writeAndSpoil(0, [page, page, Buffer.alloc(512, 2)]);
  t.ok(isAll(await stepped.read(0, 4096), 0xff), 'the first time in place');
  t.ok(isAll(await stepped.read(8, 4096), 1), 'the second time as a copy');
  t.ok(isAll(await stepped.read(16, 512), 2));
  const writing = stepped.device.write(0, [page]);
  await new Promise((resolve) => setImmediate(resolve));
  t.throws(() => stepped.device.releasePages(page), /has not ended/);
  await stepped.writeAndSpoil(8, [Buffer.alloc(512)]);
  t.strictSame(await writing, { ok: true });
});

void t.test('a buffer that is taken away', async (t) => {
  const stepped = await SteppedDevice.open(t);
  const { device } = stepped;
  const buffer = new Uint8Array(new ArrayBuffer(512));
  const reading = device.read(0, [buffer]);
  await new Promise((resolve) => setImmediate(resolve));
  structuredClone(buffer.buffer, { transfer: [buffer.buffer] });
  await stepped.read(0, 512);
  t.match(await reading, { ok: false, error: { code: 'Failed', message: /transferred/ } });
});
