// Goal: when the back end goes away and returns, operations wait and are asked again, and nothing
// is lost or done twice in the wrong order; when it does not return, they end with Disconnected.
// Method: the simulated host's troubles under a load of transfers with granted and other buffers,
// compared with a model.
import t, { type Test } from 'tap';
import { connectThrough } from '../../src/block/connect.ts';
import type { BlockDevice, ConnectOptions } from '../../src/block/index.ts';
import {
  ALL_RING_LIES,
  createSimulatedHost,
  type SimulatedControl,
  type SimulatedDisk,
} from '../../src/sim/index.ts';
import { eventually } from '../support/eventually.ts';
import { runSeed, SeededRandom } from '../support/random.ts';

const SIZE_BYTES = 4 << 20;
const WORKERS = 4;
const STRIPE_BYTES = SIZE_BYTES / WORKERS;

async function open(
  t: Test,
  options: ConnectOptions = {},
  disk: Partial<SimulatedDisk> = {},
): Promise<{ device: BlockDevice; control: SimulatedControl }> {
  const disks = [{ vbd: 'xvda', sizeBytes: SIZE_BYTES, ...disk } as SimulatedDisk];
  const host = await createSimulatedHost({ disks, grantLimitPages: 400 });
  const device = await connectThrough(host, 'xvda', options);
  t.teardown(() => device.disconnect());
  return { device, control: host.control };
}

/** Writes and reads until it is told to stop; then what each worker wrote last is compared. */
class Load {
  readonly #device: BlockDevice;
  readonly #models = Array.from({ length: WORKERS }, () => Buffer.alloc(STRIPE_BYTES));
  readonly #work: Promise<void>;
  #isOver = false;
  rounds = 0;
  failures: unknown[] = [];

  constructor(device: BlockDevice, seed: number) {
    this.#device = device;
    const workers = this.#models.map((model, worker) =>
      this.#worker(new SeededRandom(seed + worker), model, worker),
    );
    this.#work = Promise.all(workers).then(() => undefined);
  }

  /** Resolves when so many more operations have ended. */
  async progress(rounds: number): Promise<void> {
    const goal = this.rounds + rounds;
    await eventually('progress', 20_000, () => {
      const isOver = this.rounds >= goal || this.failures.length > 0;
      return isOver ? true : undefined;
    });
  }

  async finish(t: Test): Promise<void> {
    this.#isOver = true;
    await this.#work;
    t.strictSame(this.failures, [], 'no operation failed');
    const disk = Buffer.alloc(SIZE_BYTES);
    t.strictSame(await this.#device.read(0, [disk]), { ok: true });
    t.ok(disk.equals(Buffer.concat(this.#models)), 'the disk holds what was written');
  }

  async #worker(random: SeededRandom, model: Buffer, worker: number): Promise<void> {
    const granted = this.#device.allocatePages(4);
    while (!this.#isOver && this.failures.length === 0) {
      const buffers = [granted.subarray(random.below(8) * 512), Buffer.alloc(32 * 512)];
      const lengthBytes = buffers.reduce((sum, { length }) => sum + length, 0);
      const at = random.below((STRIPE_BYTES - lengthBytes) / 512) * 512;
      const sectorStart = (worker * STRIPE_BYTES + at) / 512;
      const isWrite = random.chance(0.6);
      if (isWrite) for (const buffer of buffers) buffer.fill(random.below(256));
      const result = await (isWrite
        ? this.#device.write(sectorStart, buffers)
        : this.#device.read(sectorStart, buffers));
      const bytes = Buffer.concat(buffers);
      if (!result.ok) this.failures.push(result);
      else if (isWrite) bytes.copy(model, at);
      else if (!bytes.equals(model.subarray(at, at + lengthBytes))) this.failures.push(sectorStart);
      if (random.chance(0.1) && !(await this.#device.flush()).ok) this.failures.push('flush');
      this.rounds += 1;
    }
  }
}

void t.test('a back end that restarts under load', async (t) => {
  const seed = runSeed();
  t.comment(`SEED=${seed}`);
  const { device, control } = await open(t);
  const load = new Load(device, seed);
  for (let round = 0; round < 4; round++) {
    await load.progress(40);
    await control.killBackend('xvda');
    await control.restartBackend('xvda');
  }
  await load.progress(40);
  await load.finish(t);
});

void t.test('a guest that is restored', async (t) => {
  const seed = runSeed();
  t.comment(`SEED=${seed}`);
  const { device, control } = await open(t, { waitForReturn: true });
  const load = new Load(device, seed);
  for (let round = 0; round < 2; round++) {
    await load.progress(40);
    await control.restoreGuest();
  }
  await load.progress(40);
  await load.finish(t);
  const page = device.allocatePages(1).fill(5);
  t.strictSame(await device.write(0, [page]), { ok: true }, 'pages are granted to the new host');
});

void t.test('a disk that grows', async (t) => {
  const { device, control } = await open(t);
  await control.resize('xvda', SIZE_BYTES * 2);
  await eventually('the new size', 30_000, async () => {
    const { sizeSectors } = await device.getInfo();
    return sizeSectors === BigInt((SIZE_BYTES * 2) / 512) ? true : undefined;
  });
  t.strictSame(await device.write(SIZE_BYTES / 512, [Buffer.alloc(512)]), { ok: true });
});

const GONE = { ok: false, error: { code: 'Disconnected' } };

void t.test('a device that is unplugged', async (t) => {
  const { device, control } = await open(t);
  const reading = device.read(0, [Buffer.alloc(SIZE_BYTES)]);
  await control.unplug('xvda');
  const result = await reading;
  t.ok(result.ok || result.error.code === 'Disconnected', 'what was in progress ends');
  await eventually('the end', 30_000, async () => ((await device.flush()).ok ? undefined : true));
  t.strictSame(await device.read(0, [Buffer.alloc(512)]), GONE);
  await device.disconnect();
});

void t.test('a back end that does not return', async (t) => {
  const { device, control } = await open(t, { reconnectTimeoutMs: 200 });
  await control.killBackend('xvda');
  await control.writeBackendKey('xvda', 'state', '6');
  const page = device.allocatePages(1).fill(9);
  t.strictSame(await device.write(0, [page, Buffer.alloc(512)]), GONE);
  t.strictSame(await device.flush(), GONE);
  t.ok(page.every((byte) => byte === 9));
});

void t.test('a disconnect does not wait for a back end that is lost', async (t) => {
  const { device, control } = await open(t);
  await control.killBackend('xvda');
  await control.writeBackendKey('xvda', 'state', '6');
  const reading = device.read(0, [Buffer.alloc(512)]);
  const writing = device.write(0, [device.allocatePages(1)]);
  await device.disconnect();
  t.strictSame(await reading, GONE);
  t.strictSame(await writing, GONE);
});

void t.test('a back end that lies', async (t) => {
  for (const lie of ALL_RING_LIES) {
    const { device } = await open(t, {}, { hostility: { rate: 1, lies: [lie] } });
    const page = device.allocatePages(1);
    const results = await Promise.all([
      device.read(0, [page]),
      device.write(8, [Buffer.alloc(4096)]),
      device.flush(),
    ]);
    for (const result of results) {
      // A lie that looks like a truth is one to us, e.g. an error for a request that succeeded.
      if (result.ok) continue;
      t.match(result.error, { code: /Failed|Unimplemented/ }, lie);
    }
    await device.disconnect();
  }
});
