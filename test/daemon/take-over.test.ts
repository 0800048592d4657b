// Goal: the kernel's driver is detached from all disks or from none, never from one in use, and is
// given back what it can take.
import t from 'tap';
import { XenStoreClient } from 'xenstore-client';
import { XenbusState } from '../../src/blkif/index.ts';
import { type KernelDriver, TakeOver } from '../../src/daemon/take-over.ts';
import type { VbdDescription } from '../../src/frontend/index.ts';
import { HostError } from '../../src/host/index.ts';
import { createSimulatedHost } from '../../src/sim/index.ts';

class FakeKernel implements KernelDriver {
  readonly driven = new Map<number, string>();
  readonly held = new Map<number, string>();
  readonly connectable = new Set<number>();
  readonly calls: string[] = [];

  driverOf(id: number): string | undefined {
    return this.driven.get(id);
  }

  diskHolder(id: number): string | undefined {
    return this.held.get(id);
  }

  detach(id: number): void {
    if (this.held.has(id)) throw new HostError('FAILED', `vbd ${id} is in use`);
    this.calls.push(`detach ${id}`);
    this.driven.delete(id);
  }

  wouldConnect(id: number): boolean {
    return this.connectable.has(id);
  }

  attach(id: number): void {
    this.calls.push(`attach ${id}`);
  }
}

const lines: string[] = [];
const record = (event: string): void => {
  lines.push(event);
};
const log = { debug: record, info: record, warn: record, error: record };

function vbd(id: number, name: string): VbdDescription {
  return {
    id,
    name,
    path: `device/vbd/${id}`,
    backendPath: undefined,
    backendId: undefined,
    backendType: undefined,
    state: XenbusState.Connected,
    backendState: XenbusState.Connected,
    deviceType: 'disk',
    mode: undefined,
    sizeBytes: undefined,
    params: undefined,
    holder: undefined,
  };
}

const xvdb = vbd(51728, 'xvdb');
const xvdc = vbd(51744, 'xvdc');

void t.test('who drives a vbd', async (t) => {
  const kernel = new FakeKernel();
  const { holderOf } = new TakeOver(kernel, log);
  t.equal(holderOf(xvdb.id), undefined);
  kernel.driven.set(xvdb.id, 'vbd');
  t.equal(holderOf(xvdb.id), "the kernel's driver vbd");
  t.strictSame(kernel.calls, [], 'and asking changes nothing');
});

void t.test('all or none', async (t) => {
  const kernel = new FakeKernel();
  const takeOver = new TakeOver(kernel, log);
  for (const { id } of [xvdb, xvdc]) kernel.driven.set(id, 'vbd');
  kernel.held.set(xvdc.id, 'xvdc1 is mounted on /srv');
  t.throws(() => takeOver.take([xvdb, xvdc]), {
    name: 'DaemonError',
    message: /^xvdc cannot be taken over, since it is in use: xvdc1 is mounted on \/srv; unmount/,
  });
  t.strictSame(kernel.calls, []);
  kernel.held.clear();
  takeOver.take([xvdb, xvdc]);
  t.strictSame(kernel.calls.splice(0), ['detach 51728', 'detach 51744']);
  takeOver.take([xvdb]);
  t.strictSame(kernel.calls, [], 'what nobody drives is not touched');
});

void t.test('a vbd that came back, and the kernel was quicker', async (t) => {
  const kernel = new FakeKernel();
  const takeOver = new TakeOver(kernel, log);
  kernel.driven.set(xvdb.id, 'vbd');
  takeOver.take([xvdb]);
  kernel.calls.length = 0;
  kernel.driven.set(xvdb.id, 'vbd');
  t.equal(takeOver.holderOf(xvdb.id), undefined);
  t.strictSame(kernel.calls, ['detach 51728']);
  kernel.driven.set(xvdb.id, 'vbd');
  kernel.held.set(xvdb.id, 'xvdb is used as swap');
  t.equal(takeOver.holderOf(xvdb.id), "the kernel's driver vbd", 'never from one in use');
});

void t.test('given back, or said that it cannot be', async (t) => {
  const host = await createSimulatedHost({ disks: [{ vbd: 'xvdb', sizeBytes: 2 ** 20 }] });
  const store = new XenStoreClient(await host.openXenStore());
  const kernel = new FakeKernel();
  const takeOver = new TakeOver(kernel, log);
  lines.length = 0;
  await takeOver.handBack(store, xvdb);
  t.strictSame([lines, kernel.calls], [[], []], 'what was not taken is not given');
  for (const { id } of [xvdb, xvdc]) kernel.driven.set(id, 'vbd');
  takeOver.take([xvdb, xvdc]);
  kernel.calls.length = 0;
  await takeOver.handBack(store, xvdc);
  kernel.connectable.add(xvdb.id);
  await takeOver.handBack(store, xvdb);
  t.strictSame(kernel.calls, ['attach 51728']);
  t.strictSame(lines.slice(-2), ['not-handed-back', 'handed-back']);
  t.equal(await store.read('device/vbd/51728/state'), '1', 'ready for the driver');
  await takeOver.handBack(store, xvdb);
  t.strictSame(kernel.calls, ['attach 51728'], 'once');
  await store.close();
  await host.close();
});
