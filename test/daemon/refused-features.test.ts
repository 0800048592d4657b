// Goal: what a backend announces and then refuses is not offered to clients that come later, until
// it is connected anew. Method: a simulated backend whose keys say more than it can do.
import t from 'tap';
import { eventually } from '../support/eventually.ts';
import { Errno } from '../support/nbd-wire.ts';
import { startInProcess } from './support/in-process.ts';

void t.test('trims', async (t) => {
  const features = {
    ringPageOrder: 0,
    queues: 2,
    indirect: 0,
    persistent: false,
    flush: true,
    barrier: false,
    discard: false,
    sectorSize: 512,
    readOnly: false,
  };
  const keyOverrides = { 'feature-discard': '1', 'discard-granularity': '4096' };
  const disks = [{ vbd: 'xvda', sizeBytes: 1 << 20, features, keyOverrides }];
  const served = await startInProcess(t, { disks }, { queues: 2 });
  const isOffered = (): boolean | undefined => served.vbds.devices[0]?.exportEntry.canTrim;
  const client = await served.open();
  t.equal(isOffered(), true);
  t.equal((await client.trim(0, 65_536)).error, Errno.OK, 'a hint that was not taken');
  t.equal(isOffered(), false);
  t.equal((await client.trim(0, 65_536)).error, Errno.OK, 'who was told of it may go on');
  t.equal((await client.write(0, Buffer.alloc(512, 1))).error, Errno.OK);
  await served.control.killBackend('xvda');
  await served.control.restartBackend('xvda');
  await eventually('it is offered again', 30_000, () => isOffered() || undefined);
  t.equal((await client.readOk(0, 1))[0], 1);
  await client.disconnect();
});
