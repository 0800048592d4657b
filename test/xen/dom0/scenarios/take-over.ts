// The kernel's xen-blkfront has the vbd: taking it, refusing to, and what can be given to it.
import { match, ok, strictEqual, throws } from 'node:assert/strict';
import { closeSync, constants, existsSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { XenStoreClient } from 'xenstore-client';
import { HostError } from '../../../../src/host/index.ts';
import {
  attachKernelDriver,
  createLinuxHost,
  detachKernelDriver,
  kernelDiskHolder,
  kernelDriverOf,
  kernelWouldConnect,
} from '../../../../src/xen/index.ts';
import { BareFrontend } from '../bare-frontend.ts';
import { eventually, run } from '../commands.ts';
import { loadKernelFrontend } from '../kernel-frontend.ts';
import type { Lab, Scenario } from '../scenario.ts';
import { createVbd, plugVbd, removeVbd, states, type Vbd } from '../vbd-fixture.ts';

export const takeOver: readonly Scenario[] = [
  { name: "a vbd is taken from the kernel's driver when nothing uses it", run: take },
  { name: "a vbd that the kernel's driver never had is given to it", run: give },
];

async function take(lab: Lab): Promise<void> {
  const vbd = await createVbd(lab, { sizeBytes: 16 << 20 });
  await loadKernelFrontend(lab);
  const device = `/dev/${vbd.name}`;
  await waitForDisk(vbd);
  strictEqual(kernelDriverOf(vbd.id), 'vbd');
  strictEqual(await states(vbd), '4/4');
  lab.step(`xen-blkfront has it: ${device}, 4/4`);

  await run('mkfs.ext4', '-q', '-F', device);
  await run('mount', device, '/mnt');
  refusesToDetach(lab, vbd, /mounted on \/mnt/);
  await run('umount', '/mnt');
  await run('mkswap', device);
  await run('swapon', device);
  refusesToDetach(lab, vbd, /used as swap/);
  await run('swapoff', device);
  const claim = openSync(device, constants.O_RDONLY | constants.O_EXCL);
  refusesToDetach(lab, vbd, /another program has .* open exclusively/);
  closeSync(claim);
  strictEqual(await states(vbd), '4/4', 'the refusals changed nothing');

  writeFileSync(device, Buffer.alloc(4096, 0x11), { flag: 'r+' });
  await run('sync');
  detachKernelDriver(vbd.id);
  strictEqual(kernelDriverOf(vbd.id), undefined);
  await eventually(`${device} is gone`, 5000, () => (existsSync(device) ? undefined : true));
  strictEqual(await states(vbd), '6/6');
  lab.step(`detached: no driver, no ${device}, 6/6`);
  detachKernelDriver(vbd.id);

  const host = createLinuxHost();
  lab.cleanUp(() => host.close());
  const store = new XenStoreClient(await host.openXenStore());
  await reopen(store, vbd);
  const front = await BareFrontend.connect(host, vbd);
  strictEqual(kernelDriverOf(vbd.id), undefined, 'state 1 did not bring the kernel back');
  strictEqual(front.read(0, 1), 0);
  ok(
    front.data.subarray(0, 4096).every((byte) => byte === 0x11),
    'what the kernel wrote',
  );
  front.data.fill(0x22, 0, 4096);
  strictEqual(front.write(0, 1), 0);
  strictEqual(front.flush(), 0);
  await front.close();
  lab.step('our own frontend read what the kernel wrote, and wrote');

  // The kernel remembers that it has closed this device, whatever XenStore says.
  await reopen(store, vbd);
  strictEqual(kernelWouldConnect(vbd.id), false);
  throws(
    () => attachKernelDriver(vbd.id),
    (error: unknown) => {
      lab.step(`refused: ${error instanceof Error ? error.message : ''}`);
      return error instanceof HostError && /xl block-detach/.test(error.message);
    },
  );
  await run('sh', '-c', `echo vbd-${vbd.id} > /sys/bus/xen/drivers/vbd/bind`);
  await sleep(2000);
  strictEqual(await states(vbd), '1/2');
  ok(!existsSync(device));
  lab.step('bound by hand all the same: still 1/2 after 2 s and no disk, so the refusal is right');

  // A new device object, as the toolstack makes it, is taken by the kernel by itself.
  // The kernel's driver has it, and answers nothing any more.
  await removeVbd(vbd);
  await eventually('the bus device is gone', 5000, () =>
    existsSync(`/sys/bus/xen/devices/vbd-${vbd.id}`) ? undefined : true,
  );
  await plugVbd(vbd, 'w');
  await waitForDisk(vbd);
  ok(
    readFileSync(device)
      .subarray(0, 4096)
      .every((byte) => byte === 0x22),
  );
  lab.step(`detached and attached by the toolstack: ${device} reads what we wrote`);
  await store.close();
}

async function give(lab: Lab): Promise<void> {
  const vbd = await createVbd(lab, { sizeBytes: 16 << 20 });
  const host = createLinuxHost();
  lab.cleanUp(() => host.close());
  const store = new XenStoreClient(await host.openXenStore());
  const front = await BareFrontend.connect(host, vbd);
  front.data.fill(0x33, 0, 4096);
  strictEqual(front.write(0, 1), 0);
  await front.close();
  strictEqual(await states(vbd), '6/6');
  throws(() => attachKernelDriver(vbd.id), { code: 'NO_DEVICE', message: /modprobe xen-blkfront/ });

  const autoprobe = '/sys/bus/xen/drivers_autoprobe';
  writeFileSync(autoprobe, '0');
  lab.cleanUp(() => writeFileSync(autoprobe, '1'));
  await loadKernelFrontend(lab);
  strictEqual(kernelDriverOf(vbd.id), undefined, 'drivers_autoprobe is off');
  await reopen(store, vbd);
  attachKernelDriver(vbd.id);
  await waitForDisk(vbd);
  strictEqual(await states(vbd), '4/4');
  strictEqual(kernelDiskHolder(vbd.id), undefined);
  const content = readFileSync(`/dev/${vbd.name}`).subarray(0, 4096);
  ok(content.every((byte) => byte === 0x33));
  lab.step(`given: /dev/${vbd.name} reads what we wrote`);
  detachKernelDriver(vbd.id);
  await store.close();
}

function refusesToDetach(lab: Lab, vbd: Vbd, words: RegExp): void {
  try {
    detachKernelDriver(vbd.id);
  } catch (error) {
    ok(error instanceof HostError);
    lab.step(`refused: ${error.message}`);
    match(error.message, words);
    return;
  }
  throw new Error('the disk was taken while it was in use');
}

/** From 6/6 to 1/2, with the keys of the last connection gone. */
async function reopen(store: XenStoreClient, vbd: Vbd): Promise<void> {
  for (const name of await store.directory(vbd.frontendPath)) {
    if (/^(ring-|event-channel|queue-|multi-queue|feature-|protocol)/.test(name)) {
      await store.rm(`${vbd.frontendPath}/${name}`);
    }
  }
  await store.write(`${vbd.frontendPath}/state`, '1');
  await store.waitFor(`${vbd.backendPath}/state`, (value) => value === '2', { timeoutMs: 10_000 });
}

function waitForDisk(vbd: Vbd): Promise<true> {
  const size = `/sys/block/${vbd.name}/size`;
  return eventually(`${vbd.name} appears`, 15_000, () => {
    const isThere = existsSync(size) && Number(readFileSync(size, 'utf8')) > 0;
    return isThere && existsSync(`/dev/${vbd.name}`) ? true : undefined;
  });
}
