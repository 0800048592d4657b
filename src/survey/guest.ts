/** A guest that is looked at: its host, XenStore and vbds, real or simulated. */

import { XenStoreClient } from 'xenstore-client';
import { forPeople, type HostChoice, openHost } from '../daemon/index.ts';
import { listVbds, type VbdDescription } from '../frontend/index.ts';
import { HostError, type XenHost } from '../host/index.ts';
import { createLinuxHost } from '../xen/index.ts';
import { describeDriver, type VbdDriver, VbdDrivers } from './drivers.ts';
import { type Machine, thisMachine } from './machine.ts';

/** Which guest a survey is about. */
export interface GuestChoice extends Pick<HostChoice, 'simulate' | 'simulateFeatures'> {
  /** Of a simulated guest, the vbds that it has; empty for one. */
  readonly vbds: readonly string[];
}

/** What a survey may look at. */
export interface Guest {
  readonly host: XenHost;
  readonly store: XenStoreClient;
  readonly isSimulated: boolean;
  /** All vbds, by number; the holder of each is told in words. */
  vbds(): Promise<VbdDescription[]>;
  driverOf(vbd: VbdDescription): VbdDriver;
}

/**
 * Opens the guest, lets `look` have it, and closes it.
 *
 * @throws DaemonError or UsageError for what people can mend
 */
export async function withGuest<T>(
  choice: GuestChoice,
  look: (guest: Guest) => Promise<T>,
  machine: Machine = thisMachine,
): Promise<T> {
  const isSimulated = choice.simulate !== undefined;
  let host: XenHost | undefined;
  let store: XenStoreClient | undefined;
  try {
    host = isSimulated
      ? await openHost({ ...choice, simulateFaults: undefined }, { debug: () => undefined })
      : createLinuxHost(machine);
    store = new XenStoreClient(await host.openXenStore());
    return await look(openedGuest(host, store, isSimulated, machine));
  } catch (error) {
    throw forPeople(error);
  } finally {
    await store?.close();
    await host?.close();
  }
}

function openedGuest(
  host: XenHost,
  store: XenStoreClient,
  isSimulated: boolean,
  machine: Machine,
): Guest {
  const drivers = new VbdDrivers(machine, (vbdId) => {
    try {
      return host.vbdClaimant(vbdId);
    } catch (error) {
      // Without the device file nobody has claimed anything, as far as can be seen.
      if (error instanceof HostError) return undefined;
      throw error;
    }
  });
  // The machine's kernel knows nothing of simulated vbds, of which nobody else does either.
  const driverOf = (vbd: Pick<VbdDescription, 'id' | 'state'>): VbdDriver =>
    isSimulated ? { kind: 'free' } : drivers.of(vbd);
  const withHolder = (vbd: VbdDescription): VbdDescription => {
    const driver = driverOf(vbd);
    const isFree = driver.kind === 'free' || driver.kind === 'left';
    return isFree ? vbd : { ...vbd, holder: describeDriver(driver) };
  };
  return {
    host,
    store,
    isSimulated,
    vbds: async () => (await listVbds(store)).map(withHolder),
    driverOf,
  };
}
