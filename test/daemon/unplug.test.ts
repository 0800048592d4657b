// Goal: vbds that go away for good, for a while, or change their size, as their clients see it.
import t from 'tap';
import { eventually } from '../support/eventually.ts';
import { Errno } from '../support/nbd-wire.ts';
import { type InProcess, startInProcess } from './support/in-process.ts';

const MIB = 1024 * 1024;
const disks = [{ vbd: 'xvda', sizeBytes: 8 * MIB }];

/** How the first vbd ended. */
function firstEnd({ ends }: InProcess): Promise<InProcess['ends'][number]> {
  return eventually('the end of a vbd', 30_000, () => ends[0]);
}

/** Resolves when clients are told of that size. */
function hasSize({ vbds }: InProcess, sizeBytes: number): Promise<true> {
  return eventually(`a size of ${sizeBytes}`, 30_000, () =>
    vbds.devices[0]?.exportEntry.sizeBytes === sizeBytes ? true : undefined,
  );
}

void t.test('the patience of --reconnect-timeout', async (t) => {
  const served = await startInProcess(t, { disks }, { reconnectTimeoutMs: 300 });
  const client = await served.open();
  t.equal((await client.write(0, Buffer.alloc(4096, 1))).error, Errno.OK);
  await served.control.removeBackend('xvda');
  const answer = client.read(0, 4096);
  t.not((await answer).error, Errno.OK, 'an error, and not for ever nothing');
  t.match(await firstEnd(served), {
    vbd: 'xvda',
    end: { reason: 'failed', error: { code: 'TIMEOUT' } },
  });
});

void t.test('an unplugged vbd', async (t) => {
  const gone = await startInProcess(t, { disks });
  const client = await gone.open();
  t.equal((await client.write(0, Buffer.alloc(4096, 1))).error, Errno.OK);
  await gone.control.unplug('xvda');
  t.match(await firstEnd(gone), { end: { reason: 'unplugged', isBackendFinished: true } });
  await gone.close();
  t.match(gone.control.leaks(), { grantedPages: 0, openEventChannels: 0 });
});

void t.test('an unplugged vbd whose return is awaited', async (t) => {
  const served = await startInProcess(t, { disks }, { isReturnAwaited: true });
  const client = await served.open();
  await served.control.unplug('xvda');
  const answer = client.readOk(0, 4096);
  const late = await served.open();
  await served.control.plug({ vbd: 'xvda', sizeBytes: 16 * MIB });
  t.equal((await answer).length, 4096, 'who waited is answered');
  t.equal((await late.readOk(0, 4096)).length, 4096, 'and so is who came meanwhile');
  t.strictSame(served.ends, []);
  await hasSize(served, 16 * MIB);
});

void t.test('one of several vbds ends, the others go on', async (t) => {
  const served = await startInProcess(t, {
    disks: [
      { vbd: 'xvda', sizeBytes: MIB },
      { vbd: 'xvdb', sizeBytes: MIB },
    ],
  });
  const [gone, stays] = [await served.open('xvda'), await served.open('xvdb')];
  await served.control.unplug('xvda');
  await firstEnd(served);
  const [device] = served.vbds.devices;
  if (device !== undefined) served.vbds.remove(device);
  await gone.bytes.receiveEnd();
  t.equal((await stays.readOk(0, 512)).length, 512);
  await t.rejects(served.open('xvda'));
  await t.rejects(served.open(''), 'the empty name was the first vbd, and is no other');
  await stays.disconnect();
});

void t.test('a disk that changes its size', async (t) => {
  const served = await startInProcess(t, { disks });
  const before = await served.open();
  await served.control.resize('xvda', 12 * MIB);
  await hasSize(served, 12 * MIB);
  const after = await served.open();
  t.equal((await after.write(10 * MIB, Buffer.alloc(512, 1))).error, Errno.OK);
  t.equal((await before.read(10 * MIB, 512)).error, Errno.EINVAL, 'who knew the old size keeps it');
  await served.control.resize('xvda', 4 * MIB);
  await hasSize(served, 4 * MIB);
  t.equal((await before.read(0, 512)).error, Errno.OK);
  t.not((await before.read(6 * MIB, 512)).error, Errno.OK, 'what is gone cannot be read');
  const small = await served.open();
  t.equal((await small.read(4 * MIB, 512)).error, Errno.EINVAL);
});
