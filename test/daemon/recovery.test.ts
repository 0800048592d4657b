// Goal: whatever happens to the backend, clients of the daemon see a pause and no error, until the
// patience that was asked for is over.
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Counter } from '../../src/dataplane/index.ts';
import { eventually } from '../support/eventually.ts';
import type { NbdClient } from '../support/nbd-client.ts';
import { Errno } from '../support/nbd-wire.ts';
import { runSeed, SeededRandom } from '../support/random.ts';
import { type InProcess, startInProcess } from './support/in-process.ts';
import { ShadowDisk } from './support/shadow-disk.ts';
import { makeFolder } from './support/simulated.ts';

const MIB = 1024 * 1024;
const seed = runSeed();
t.comment(`SEED=${seed}`);

/** Four clients at work while `trouble` happens; then all they wrote must be there. */
async function workThrough(
  t: Test,
  served: InProcess,
  trouble: () => Promise<void>,
): Promise<void> {
  const clients = await Promise.all(Array.from({ length: 4 }, () => served.open()));
  const disks = clients.map(
    (client, index) => new ShadowDisk(client, new SeededRandom(seed + index), index * MIB, MIB),
  );
  let isOver = false;
  const working = Promise.all(disks.map((disk) => disk.work(() => isOver)));
  // A failure of the work is seen below, also when it comes during the trouble.
  working.catch(() => undefined);
  await trouble();
  isOver = true;
  await working;
  for (const disk of disks) await disk.verify();
  t.ok(disks.every(({ requestCount }) => requestCount >= 16));
  for (const client of clients) await client.disconnect();
}

function recoveries({ vbds }: InProcess): number {
  return vbds.devices[0]?.recoveryCount ?? -1;
}

/** Resolves when the vbd was connected anew `count` times. */
function recovered(served: InProcess, count: number): Promise<unknown> {
  return eventually(`${count} recoveries`, 20_000, () =>
    recoveries(served) >= count && served.vbds.devices[0]?.isWaiting === false ? true : undefined,
  );
}

const disks = [{ vbd: 'xvda', sizeBytes: 8 * MIB }];

void t.test('a backend that dies and returns, over and over', async (t) => {
  const served = await startInProcess(t, { disks });
  const { control } = served;
  await workThrough(t, served, async () => {
    for (let round = 1; round <= 4; round++) {
      await control.killBackend('xvda');
      await control.restartBackend('xvda');
      await recovered(served, round);
    }
    for (const state of ['5', '6']) {
      const before = recoveries(served);
      await control.writeBackendKey('xvda', 'state', state);
      await recovered(served, before + 1);
    }
  });
  t.strictSame([served.failures, served.ends], [[], []]);
  const [, , third] = served.logged('recovery-ended');
  t.equal(third?.details['recoveries'], 3, 'counted');
  await served.close();
  t.match(control.leaks(), { grantedPages: 0, openEventChannels: 0 });
});

void t.test('a directory that vanishes and is made anew', async (t) => {
  const served = await startInProcess(t, { disks });
  await workThrough(t, served, async () => {
    await served.control.removeBackend('xvda');
    await eventually('clients wait', 30_000, () => served.vbds.devices[0]?.isWaiting || undefined);
    await served.control.recreateBackend('xvda');
    await recovered(served, 1);
  });
  t.strictSame(served.ends, []);
});

void t.test('a guest that is saved and restored', async (t) => {
  // The simulated guest is not stopped while it is saved, and may see its vbd vanish first.
  const served = await startInProcess(t, { disks }, { queues: 2, isReturnAwaited: true });
  const { control } = served;
  await workThrough(t, served, async () => {
    for (let round = 1; round <= 2; round++) {
      await control.restoreGuest();
      await recovered(served, round);
    }
  });
  t.equal(control.leaks().kernelBugs, 0, 'no dead channel was closed');
  t.strictSame([served.failures, served.ends], [[], []]);
});

void t.test('losses that come while lanes are still being moved', async (t) => {
  const served = await startInProcess(t, { disks }, { queues: 2 });
  const { control } = served;
  await workThrough(t, served, async () => {
    for (let round = 0; round < 6; round++) {
      await control.restartBackend('xvda');
      await control.killBackend('xvda');
      if (round % 2 === 0) await control.writeBackendKey('xvda', 'state', '2');
    }
    await control.restartBackend('xvda');
    await recovered(served, 1);
  });
  t.strictSame([served.failures, served.ends], [[], []]);
});

void t.test('a backend that comes back with fewer queues, and with more', async (t) => {
  const folder = makeFolder(t);
  const file = join(folder, 'disk.img');
  writeFileSync(file, '');
  truncateSync(file, 8 * MIB);
  const served = await startInProcess(
    t,
    { disks: [{ vbd: 'xvda', file, features: { queues: 4 } }] },
    { queues: 4, isReturnAwaited: true },
  );
  const { control } = served;
  const clients: NbdClient[] = [];
  for (let count = 1; count <= 4; count++) {
    clients.push(await served.open());
    // Each goes to the lane that has the fewest, as far as that is known.
    await eventually('the lanes count their clients', 30_000, () => {
      const lanes = served.vbds.devices[0]?.lanes ?? [];
      const sum = lanes.reduce((sum, lane) => sum + lane.counters.get(Counter.CLIENTS_NOW), 0);
      return sum === count || undefined;
    });
  }
  for (const [index, client] of clients.entries()) {
    // Off the grid of sectors, so that each holds a range of the disk.
    const { error } = await client.write(index * 100, Buffer.alloc(100, index + 1));
    t.equal(error, Errno.OK);
  }
  await control.unplug('xvda');
  await eventually('clients wait', 30_000, () => served.vbds.devices[0]?.isWaiting || undefined);
  const underWay = clients.map((client, index) =>
    client.write(index * 100, Buffer.alloc(100, 0x11 * (index + 1))).then(
      ({ error }) => error,
      () => undefined,
    ),
  );
  await control.plug({ vbd: 'xvda', file, features: { queues: 2 } });
  await recovered(served, 1);
  const answers = await Promise.all(underWay);
  t.equal(answers.filter((error) => error === Errno.OK).length, 2, 'half of them have a lane');
  t.equal(answers.filter((error) => error === undefined).length, 2, 'half were disconnected');
  t.match(served.logged('queues-lost')[0]?.details, { queues: 2, clients: 2 });
  const late = await served.open();
  t.equal((await late.write(0, Buffer.alloc(400, 0x77))).error, Errno.OK, 'no range is held');
  await control.unplug('xvda');
  await eventually('clients wait', 30_000, () => served.vbds.devices[0]?.isWaiting || undefined);
  await control.plug({ vbd: 'xvda', file, features: { queues: 8 } });
  await recovered(served, 2);
  t.ok((await late.readOk(0, 400)).equals(Buffer.alloc(400, 0x77)));
  t.strictSame([served.failures, served.ends], [[], []]);
  await served.close();
  t.match(control.leaks(), { grantedPages: 0, openEventChannels: 0 });
});
