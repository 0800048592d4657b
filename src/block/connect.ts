/** `connect`: from a name to a block device, on this guest's Xen or on a simulated host. */

import { XenStoreClient } from 'xenstore-client';
import { formatDeviceNumber, parseDeviceNumber } from '../blkif/index.ts';
import { type HolderOf, listVbds, selectVbd } from '../frontend/index.ts';
import type { XenHost } from '../host/index.ts';
import {
  createSimulatedHost,
  parseSimulatedFaults,
  parseSimulatedFeatures,
  parseSizeBytes,
} from '../sim/index.ts';
import { createLinuxHost, kernelDriverOf, startChannelHolder } from '../xen/index.ts';
import type { BlockDevice } from './block-device.ts';
import { type ConnectOptions, checkOptions } from './options.ts';
import { VbdBlockDevice, type VbdPlace } from './vbd-block-device.ts';

const SIMULATED_VBD = 'xvda';

/** The devices of this guest that this process is connected to, by number. */
const connected = new Map<number, Promise<VbdBlockDevice>>();

/**
 * Connects to a virtual block device of this guest.
 *
 * `vbd` names it: `xvdb`, `/dev/xvdb`, its number `51728`, or the back end's `params`. Without it,
 * the only free one is taken. A device that this process is connected to already is given again,
 * with the options of the first time; `disconnect` is then for all who have it. A device that the
 * kernel's driver has is never touched.
 *
 * @throws FrontendError when the device cannot be found or does not connect, HostError when this is
 *   no Xen guest or its devices may not be used, TypeError and RangeError for wrong options.
 */
export async function connect(vbd?: string, options: ConnectOptions = {}): Promise<BlockDevice> {
  if (vbd !== undefined && typeof vbd !== 'string') {
    throw new TypeError('the name of a block device must be a string, such as xvdb');
  }
  checkOptions(options);
  if (options.simulate !== undefined) return await connectSimulated(vbd, options.simulate, options);
  const holderOf: HolderOf = (vbdId) => {
    const driver = kernelDriverOf(vbdId);
    return driver === undefined ? undefined : `the kernel's driver ${driver}`;
  };
  const host = createLinuxHost();
  return await connectOnce(host, vbd, options, holderOf);
}

/** Connects to a vbd of `host`, which is the device's from then on, also when this fails. */
export async function connectThrough(
  host: XenHost,
  vbd: string | undefined,
  options: ConnectOptions,
): Promise<VbdBlockDevice> {
  const place = await findPlace(host, vbd, () => undefined, undefined);
  return await VbdBlockDevice.open(place, options);
}

async function connectSimulated(
  vbd: string | undefined,
  simulate: string,
  options: ConnectOptions,
): Promise<BlockDevice> {
  const { simulateFeatures, simulateFaults, log } = options;
  const name = vbd === undefined ? SIMULATED_VBD : formatDeviceNumber(parseDeviceNumber(vbd));
  const isSize = /^\d+([KMGTP]?)(?:i?B)?$/i.test(simulate);
  const source = isSize ? { sizeBytes: parseSizeBytes(simulate) } : { file: simulate };
  const host = await createSimulatedHost({
    disks: [{ vbd: name, ...source }],
    log: (line) => log?.debug(line),
    features: simulateFeatures === undefined ? undefined : parseSimulatedFeatures(simulateFeatures),
    faults: simulateFaults === undefined ? undefined : parseSimulatedFaults(simulateFaults),
  });
  return await connectThrough(host, name, options);
}

async function connectOnce(
  host: XenHost,
  wanted: string | undefined,
  options: ConnectOptions,
  holderOf: HolderOf,
): Promise<BlockDevice> {
  const place = await findPlace(host, wanted, holderOf, async (fds) => {
    await startChannelHolder(fds);
  });
  const { id } = place.vbd;
  for (;;) {
    const earlier = connected.get(id);
    if (earlier === undefined) break;
    const device = await earlier.catch(() => undefined);
    if (device === undefined) continue;
    if (!device.isDisconnected) {
      await leave(place);
      return device;
    }
    await device.disconnect();
  }
  const opening = VbdBlockDevice.open(place, options);
  connected.set(id, opening);
  const forget = (): boolean => connected.delete(id);
  // Its end is not the caller's to wait for.
  opening.then((device) => void device.closed.then(forget), forget);
  return await opening;
}

async function findPlace(
  host: XenHost,
  wanted: string | undefined,
  holderOf: HolderOf,
  keepChannels: VbdPlace['keepChannels'],
): Promise<VbdPlace> {
  let store: XenStoreClient | undefined;
  try {
    store = new XenStoreClient(await host.openXenStore());
    const vbd = selectVbd(await listVbds(store, holderOf), wanted);
    return { host, store, vbd, holderOf, keepChannels };
  } catch (error) {
    await store?.close();
    await host.close();
    throw error;
  }
}

async function leave({ host, store }: VbdPlace): Promise<void> {
  await store.close();
  await host.close();
}
