// Tries each device file and prints how that went, for a user who may not or may.
import { XenStoreClient } from 'xenstore-client';
import { HostError } from '../../../../src/host/index.ts';
import { createLinuxHost } from '../../../../src/xen/index.ts';

const host = createLinuxHost();

async function attempt(what: string, action: () => unknown): Promise<void> {
  try {
    await action();
    process.stdout.write(`${what}: ok\n`);
  } catch (error) {
    if (!(error instanceof HostError)) throw error;
    process.stdout.write(`${what}: ${error.code}: ${error.message}\n`);
  }
}

await attempt('gntalloc', () => host.grantPages(0, 1, 'read-write').revoke());
await attempt('evtchn', () => host.unbindEventChannel(host.bindEventChannel(0)));
await attempt('xenbus', async () => {
  const store = new XenStoreClient(await host.openXenStore());
  await store.read('domid');
  await store.close();
});
await host.close();
