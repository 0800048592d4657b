// Goal: whatever happens to the backend, clients of the daemon see a pause and no error, until the
// patience that was asked for is over.
import t, { type Test } from 'tap';
import { eventually } from '../support/eventually.ts';
import { runSeed, SeededRandom } from '../support/random.ts';
import { type InProcess, startInProcess } from './support/in-process.ts';
import { ShadowDisk } from './support/shadow-disk.ts';

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
    await eventually('clients wait', 5000, () => served.vbds.devices[0]?.isWaiting || undefined);
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
