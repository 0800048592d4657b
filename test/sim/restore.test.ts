/**
 * Goal: a guest that was saved and restored meets what a real one does: another domain id, watches
 * that fire, and grants and event channels that lead nowhere. Method: by hand, before and after.
 */

import t from 'tap';
import { XenStoreClient } from 'xenstore-client';
import { createSimulatedHost } from '../../src/sim/index.ts';
import { connectByHand } from './hand-front.ts';
import { read } from './stepped-host.ts';

void t.test('a restored guest has another id, and nothing of before works', async (t) => {
  const host = await createSimulatedHost({ disks: [{ vbd: 'xvda', sizeBytes: 1 << 20 }] });
  const { store, front, backend } = await connectByHand(host, 51712);
  const page = host.grantPages(0, 1, 'read-write');
  const events: string[] = [];
  await store.watch('domid', (path) => events.push(path));
  await store.watch('device/vbd/51712/state', (path) => events.push(path));
  events.length = 0;
  await host.control.restoreGuest();
  for (let turn = 0; turn < 200 && events.length < 2; turn++) {
    await new Promise((resolve) => setTimeout(resolve, 2));
  }
  t.ok(events.includes('domid') && events.includes('device/vbd/51712/state'), 'watches fire again');
  t.equal(await store.read('domid'), '2');
  t.equal(await store.read('device/vbd/51712/state'), '1');
  const newBackend = await store.read('device/vbd/51712/backend');
  t.equal(newBackend, '/local/domain/0/backend/vbd/2/51712');
  await t.rejects(store.read(`${backend}/state`), { code: 'EACCES' });
  front.channel?.notify();
  t.equal(front.words[0], 0, 'the old ring can still be read');
  t.throws(() => host.unbindEventChannel(front.handle), /kernel BUG/);
  t.equal(host.control.leaks().kernelBugs, 1);
  front.pages.revoke();
  page.revoke();
  t.equal(host.control.leaks().grantedPages, 0);

  const again = await connectByHand(host, 51712);
  const fresh = host.grantPages(0, 1, 'read-write').grefs[0] ?? 0;
  read(again.front, 5, fresh);
  again.front.push();
  t.same(await again.front.wait(1), [{ id: 5, operation: 0, status: 0 }]);
  await store.close();
  await again.store.close();
  await host.close();
});

void t.test('a transaction that a restore cuts off is done again', async (t) => {
  const host = await createSimulatedHost({ disks: [] });
  const store = new XenStoreClient(await host.openXenStore());
  let runs = 0;
  await store.transaction(async (transaction) => {
    runs += 1;
    if (runs === 1) await host.control.restoreGuest();
    else await transaction.write('data/x', String(runs));
  });
  t.equal(runs, 2);
  t.equal(await store.read('data/x'), '2');
  await store.close();
  await host.close();
});
