// Goal: clients are spread evenly over the lanes, also those that come in the same moment, before
// any lane has heard of its first.
import { SIMPLE_AGREEMENT } from 'nbd-server-ts/protocol';
import t from 'tap';
import { Counter } from '../../src/dataplane/index.ts';
import { closeFd, createSocketPair } from '../../src/sys/index.ts';
import { eventually } from '../support/eventually.ts';
import { startInProcess } from './support/in-process.ts';

const MIB = 1024 * 1024;
const disks = [{ vbd: 'xvda', sizeBytes: 8 * MIB, features: { queues: 4 } }];
const agreement = { ...SIMPLE_AGREEMENT, contexts: [] };

void t.test('clients that come in one moment go to as many lanes', async (t) => {
  const served = await startInProcess(t, { disks }, { queues: 4 });
  const [device] = served.vbds.devices;
  if (device === undefined) throw new Error('no disk is served');
  const ends: number[] = [];
  // All in one turn of this thread, which hears nothing of the lanes meanwhile.
  const come = (clientCount: number): void => {
    for (let client = 0; client < clientCount; client++) {
      const [fd, end] = createSocketPair();
      const connectionId = 100 + ends.push(end);
      const bytes = new Uint8Array(0);
      t.ok(device.adopt({ connectionId, fd, bytes, info: device.exportEntry, agreement }));
    }
  };
  const spread = (clientCount: number): Promise<number[]> =>
    eventually(`${clientCount} clients are served`, 30_000, () => {
      const counts = device.lanes.map(({ counters }) => counters.get(Counter.CLIENTS_NOW));
      return counts.reduce((sum, count) => sum + count, 0) === clientCount ? counts : undefined;
    });

  come(8);
  t.strictSame(await spread(8), [2, 2, 2, 2]);

  for (const end of ends.splice(0, 7)) closeFd(end);
  await spread(1);
  await eventually('it is known who has left', 30_000, () => {
    const known = device.lanes.reduce((sum, { clientCount }) => sum + clientCount, 0);
    return known === 1 || undefined;
  });
  come(3);
  t.strictSame(await spread(4), [1, 1, 1, 1], 'who has left has made room');
  for (const end of ends) closeFd(end);
  await served.close();
});
