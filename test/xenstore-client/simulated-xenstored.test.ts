// Goal: the client and the simulated xenstored agree on everything that real servers were seen to
// do.
// Method: the conformance checks, over connections of the simulated guest.
import t from 'tap';
import { XenStoreClient } from 'xenstore-client';
import { createSimulatedHost } from '../../src/sim/index.ts';
import { conformanceChecks } from './conformance.ts';

void t.test('conformance', async (t) => {
  const host = await createSimulatedHost({ disks: [] });
  const first = new XenStoreClient(await host.openXenStore());
  const second = new XenStoreClient(await host.openXenStore());
  for (const check of conformanceChecks) {
    await t.resolves(check.run(first, second), check.name);
  }
  await first.close();
  await second.close();
  await host.close();
});
