// Goal: each ring is served by a thread of its own, as far as there are processors; a thread that
// starts late knows what the others were told, and what is told later reaches all.
import { availableParallelism } from 'node:os';
import t from 'tap';
import { createSimulatedHost, NO_FAULTS, type SimulatedHost } from '../../src/sim/index.ts';
import { readThreadNames } from '../support/proc-stat.ts';
import { connectByHand, type HandFront } from './hand-front.ts';

const VBDS = [
  ['xvda', 51712],
  ['xvdb', 51728],
  ['xvdc', 51744],
  ['xvdd', 51760],
] as const;
const SIZE_BYTES = 1 << 20;
const disks = VBDS.map(([vbd]) => ({ vbd, sizeBytes: SIZE_BYTES }));

/** The status of a read of one sector. */
async function readSector(host: SimulatedHost, front: HandFront, sector: number): Promise<number> {
  const page = host.grantPages(0, 1, 'read-write');
  front.putDirect(0, 1, sector, [{ gref: page.grefs[0] ?? 0, first: 0, last: 0 }]);
  front.push();
  const [response] = await front.wait(1);
  return response?.status ?? 1;
}

function backendThreads(): string[] {
  return readThreadNames(process.pid).filter((name) => name.startsWith('sim-blkback-'));
}

void t.test('a thread for each ring, which stays', async (t) => {
  const host = await createSimulatedHost({ disks });
  const fronts: HandFront[] = [];
  for (const [, id] of VBDS) fronts.push((await connectByHand(host, id)).front);
  for (const front of fronts) t.equal(await readSector(host, front, 0), 0);
  const count = Math.min(VBDS.length, availableParallelism());
  const expected = Array.from({ length: count }, (_, index) => `sim-blkback-${index}`);
  t.strictSame(backendThreads().sort(), expected);
  for (let round = 0; round < 3; round++) {
    await host.control.killBackend('xvdb');
    await host.control.restartBackend('xvdb', { reattach: true });
  }
  t.strictSame(backendThreads().sort(), expected, 'no more for rings that come back');
  t.equal((await host.control.stats()).requests, VBDS.length, 'of all threads together');

  const last = SIZE_BYTES / 512;
  for (const [vbd] of VBDS) await host.control.resize(vbd, 2 * SIZE_BYTES);
  for (const front of fronts) t.equal(await readSector(host, front, last), 0, 'all know the size');
  await host.close();
  t.strictSame(backendThreads(), []);
});

void t.test('disks with a cache share a thread, which alone knows what is in it', async (t) => {
  const host = await createSimulatedHost({
    disks: disks.map((disk) => ({ ...disk, isVolatile: true })),
  });
  for (const [, id] of VBDS) {
    const { front } = await connectByHand(host, id);
    t.equal(await readSector(host, front, 0), 0);
  }
  t.strictSame(backendThreads(), ['sim-blkback-0']);
  await host.close();
});

void t.test('a late thread knows of the faults', async (t) => {
  const host = await createSimulatedHost({ disks, faults: { ...NO_FAULTS, errorRate: 1 } });
  for (const [, id] of VBDS) {
    const { front } = await connectByHand(host, id);
    t.equal(await readSector(host, front, 0), -1);
  }
  t.match(await host.control.stats(), { requests: VBDS.length, errors: VBDS.length });
  await host.close();
});
