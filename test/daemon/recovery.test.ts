// Goal: whatever happens to the backend, clients of the daemon see a pause and no error, until the
// patience that was asked for is over.
import { truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import t, { type Test } from 'tap';
import { Counter } from '../../src/dataplane/index.ts';
import { eventually } from '../support/eventually.ts';
import type { NbdClient } from '../support/nbd-client.ts';
import { countDescriptors } from '../support/proc-stat.ts';
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
  given?: readonly NbdClient[],
): Promise<void> {
  const clients = given ?? (await Promise.all(Array.from({ length: 4 }, () => served.open())));
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

/** Four clients, each in a lane of its own, although they come together. */
async function openSpread(served: InProcess): Promise<NbdClient[]> {
  return await Promise.all([served.open(), served.open(), served.open(), served.open()]);
}

function relayed({ vbds }: InProcess): number {
  const lanes = vbds.devices[0]?.lanes ?? [];
  return lanes.reduce((sum, { counters }) => sum + counters.get(Counter.RELAYED_REQUESTS), 0);
}

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
  let recoveryCount = 0;
  const comeBack = async (queues: number, persistent = true): Promise<void> => {
    await control.unplug('xvda');
    await eventually('clients wait', 30_000, () => served.vbds.devices[0]?.isWaiting || undefined);
    await control.plug({ vbd: 'xvda', file, features: { queues, persistent } });
    recoveryCount += 1;
    await recovered(served, recoveryCount);
  };
  const more = (count: () => number): Promise<unknown> => {
    const before = count();
    return eventually('more requests', 30_000, () => count() > before + 50 || undefined);
  };
  const lastLane = () => served.vbds.devices[0]?.lanes[3]?.counters.get(Counter.RING_REQUESTS) ?? 0;
  const areRelayed = (): Promise<unknown> => more(() => relayed(served));
  const clients = await openSpread(served);
  const trouble = async (): Promise<void> => {
    await comeBack(2);
    await areRelayed();
    await comeBack(1, false);
    await areRelayed();
    // A client that comes now goes where there is a queue.
    const late = await served.open();
    const [first] = served.vbds.devices[0]?.lanes ?? [];
    await eventually('it is counted', 30_000, () => first?.clientCount === 2 || undefined);
    await late.disconnect();
    await control.killBackend('xvda');
    await control.restartBackend('xvda');
    recoveryCount += 1;
    await recovered(served, recoveryCount);
    await areRelayed();
    await control.writeBackendKey('xvda', 'state', '5');
    recoveryCount += 1;
    await recovered(served, recoveryCount);
    await areRelayed();
    await comeBack(3);
    await areRelayed();
    await comeBack(8);
    const before = relayed(served);
    await more(lastLane);
    t.equal(relayed(served), before, 'each lane has a ring of its own again');
  };
  await workThrough(t, served, trouble, clients);
  const losses = served.logged('queues-lost');
  t.strictSame(
    losses.map(({ details }) => details['queues']),
    [2, 1, 1, 1, 3],
  );
  t.match(losses[0]?.message, /2 of 4 lanes share the rings of the others/);
  t.strictSame([served.failures, served.ends], [[], []]);
  await served.close();
  t.match(control.leaks(), { grantedPages: 0, openEventChannels: 0 });
});

void t.test('shared rings end with the daemon', async (t) => {
  const features = { queues: 4 };
  const served = await startInProcess(
    t,
    { disks: [{ vbd: 'xvda', sizeBytes: MIB, features }] },
    { queues: 4, isReturnAwaited: true },
  );
  const descriptors = countDescriptors(process.pid);
  const clients = await openSpread(served);
  await served.control.unplug('xvda');
  await served.control.plug({ vbd: 'xvda', sizeBytes: MIB, features: { queues: 1 } });
  await recovered(served, 1);
  const last = clients.map((client, index) => client.write(index * 4096, Buffer.alloc(4096, 1)));
  await served.close();
  const answers = await Promise.allSettled(last);
  t.ok(
    answers.every(({ status }) => status === 'fulfilled'),
    'what was asked is answered',
  );
  t.match(served.control.leaks(), { grantedPages: 0, openEventChannels: 0 });
  t.ok(countDescriptors(process.pid) < descriptors, 'nothing is left open');
});
