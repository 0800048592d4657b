/**
 * Goal: the front end lives through everything the simulated host can do to it, and leaves nothing
 * behind; the host speaks the real wire formats and follows Linux's state machine.
 * Method: attach, trouble, wait for the next connection, close, then the host's own count of what
 * is still held.
 */

import t, { type Test } from 'tap';
import { XenStoreClient } from 'xenstore-client';
import {
  type Attachment,
  Frontend,
  type FrontendEnd,
  type FrontendOptions,
  listVbds,
  prepareHandBack,
  selectVbd,
} from '../../src/frontend/index.ts';
import {
  createSimulatedHost,
  type SimulatedHost,
  type SimulatedHostOptions,
} from '../../src/sim/index.ts';
import { viewMemory } from '../../src/sys/index.ts';

const MIB = 1024 * 1024;

/** A front end on a simulated host, with what it tells. */
interface Guest {
  readonly host: SimulatedHost;
  readonly store: XenStoreClient;
  readonly frontend: Frontend;
  readonly first: Attachment;
  readonly told: string[];
  /** The next connection after the last one that was asked for. */
  nextAttachment(): Promise<Attachment>;
  readonly ended: Promise<FrontendEnd>;
}

async function startGuest(
  t: Test,
  options: Partial<SimulatedHostOptions> = {},
  changes: Partial<FrontendOptions> = {},
): Promise<Guest> {
  const host = await createSimulatedHost({
    disks: [{ vbd: 'xvdb', sizeBytes: 16 * MIB }],
    ...options,
  });
  t.teardown(() => host.close());
  const store = new XenStoreClient(await host.openXenStore());
  t.teardown(() => store.close());
  const told: string[] = [];
  const arrived: Attachment[] = [];
  let wake = (): void => undefined;
  const frontend = new Frontend({
    host,
    store,
    vbd: selectVbd(await listVbds(store)),
    want: { queues: 2, ringPageOrder: 1, maxIndirectSegments: 32, isPersistent: true },
    abi: 'x86_64-abi',
    viewMemory,
    events: {
      backendClosing: (isUnplug) => {
        told.push(isUnplug ? 'closing for removal' : 'closing');
      },
      detached: (reason) => {
        told.push(reason);
      },
      reattached: (attachment) => {
        arrived.push(attachment);
        wake();
      },
      resized: (sectors) => {
        told.push(`resized: ${sectors}`);
        wake();
      },
      orphaned: (channels) => {
        told.push(`orphaned: ${channels.length}`);
      },
    },
    ...changes,
  });
  const first = await frontend.attach();
  return {
    host,
    store,
    frontend,
    first,
    told,
    ended: frontend.ended,
    nextAttachment: async () => {
      while (arrived.length === 0) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      const [attachment] = arrived.splice(0, 1);
      if (attachment === undefined) {
        throw new Error('There is no attachment.');
      }
      return attachment;
    },
  };
}

async function checkCleanClose(t: Test, { frontend, host, store }: Guest): Promise<void> {
  t.match(await frontend.close(), { reason: 'closed', isBackendFinished: true });
  t.match(host.control.leaks(), {
    grantedPages: 0,
    deferredPages: 0,
    mappings: 0,
    openEventChannels: 0,
    kernelBugs: 0,
  });
  const [vbd] = await listVbds(store);
  t.match(vbd, { state: 6, backendState: 6 });
}

void t.test('attach, close, and attach again', async (t) => {
  const guest = await startGuest(t);
  t.match(guest.first, { generation: 1, isPersistent: true, maxIndirectSegments: 32 });
  t.equal(guest.first.disk.sectors, (16 * MIB) / 512);
  t.equal(guest.first.queues.length, 2);
  t.equal(guest.first.queues[0]?.slotCount, 64);
  await checkCleanClose(t, guest);
  await prepareHandBack(guest.store, guest.first.vbd, 5_000);
  const [vbd] = await listVbds(guest.store);
  t.match(vbd, { state: 1, backendState: 2 });
});

void t.test('the back end is restarted', async (t) => {
  const guest = await startGuest(t);
  const { control } = guest.host;
  for (let generation = 2; generation < 5; generation++) {
    await control.killBackend('xvdb');
    await control.restartBackend('xvdb');
    t.match(await guest.nextAttachment(), { generation, areGrantsLost: false });
  }
  t.same(new Set(guest.told), new Set(['backend-restarted']));
  await checkCleanClose(t, guest);
});

void t.test('the back end is forced to Closing and to Closed', async (t) => {
  const guest = await startGuest(t);
  await guest.host.control.writeBackendKey('xvdb', 'state', '5');
  t.match(await guest.nextAttachment(), { generation: 2 });
  await guest.host.control.writeBackendKey('xvdb', 'state', '6');
  t.match(await guest.nextAttachment(), { generation: 3 });
  t.same(guest.told, ['closing', 'backend-closing', 'backend-closed']);
  await checkCleanClose(t, guest);
});

void t.test("the back end's directory vanishes and is made anew", async (t) => {
  const guest = await startGuest(t);
  await guest.host.control.removeBackend('xvdb');
  await guest.host.control.recreateBackend('xvdb');
  t.match(await guest.nextAttachment(), { generation: 2 });
  await checkCleanClose(t, guest);
});

void t.test('resize', async (t) => {
  const guest = await startGuest(t);
  await guest.host.control.resize('xvdb', 32 * MIB);
  while (guest.told.length === 0) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  t.same(guest.told, [`resized: ${(32 * MIB) / 512}`]);
  await checkCleanClose(t, guest);
});

void t.test('unplugged and plugged in again, gently and by force', async (t) => {
  const guest = await startGuest(t);
  const { control } = guest.host;
  const disk = { vbd: 'xvdb', sizeBytes: 8 * MIB };
  await control.unplug('xvdb');
  await control.plug(disk);
  t.match(await guest.nextAttachment(), { generation: 2, disk: { sectors: (8 * MIB) / 512 } });
  await control.unplugForced('xvdb');
  await control.plug(disk);
  t.match(await guest.nextAttachment(), { generation: 3 });
  t.equal(guest.told[0], 'closing for removal');
  await checkCleanClose(t, guest);
});

void t.test('unplugged for good', async (t) => {
  const guest = await startGuest(t, {}, { isReturnAwaited: false });
  await guest.host.control.unplug('xvdb');
  t.match(await guest.ended, { reason: 'unplugged', isBackendFinished: true });
  t.match(guest.host.control.leaks(), { grantedPages: 0, openEventChannels: 0 });
});

void t.test('the guest is saved and restored', async (t) => {
  const guest = await startGuest(t);
  for (let generation = 2; generation < 5; generation++) {
    await guest.host.control.restoreGuest();
    t.match(await guest.nextAttachment(), { generation, areGrantsLost: true });
  }
  await checkCleanClose(t, guest);
});

void t.test('a process that died: its connection is finished by the next', async (t) => {
  const guest = await startGuest(t);
  const { host, store } = guest;
  // The first front end never hears of anything any more, as if it had been killed.
  await store.close();
  const nextStore = new XenStoreClient(await host.openXenStore());
  t.teardown(() => nextStore.close());
  const next = new Frontend({
    host,
    store: nextStore,
    vbd: selectVbd(await listVbds(nextStore)),
    want: { queues: 1, ringPageOrder: 0, maxIndirectSegments: 0, isPersistent: false },
    abi: 'x86_32-abi',
    viewMemory,
  });
  t.match(await next.attach(), { generation: 1, isPersistent: false });
  t.match(await next.close(), { reason: 'closed', isBackendFinished: true });
});
