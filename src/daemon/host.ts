/** The Xen host that the options ask for: the real one, or a simulated one with its disks. */

import { formatDeviceNumber, parseDeviceNumber } from '../blkif/index.ts';
import type { XenHost } from '../host/index.ts';
import { createLinuxHost } from '../xen/index.ts';
import { UsageError } from './errors.ts';
import type { Logger } from './log.ts';
import { checkDiskFile, type ServeOptions } from './serve-options.ts';

const SIMULATED_VBD = 'xvda';

/** What of a command line says which host it means. */
export type HostChoice = Pick<
  ServeOptions,
  'simulate' | 'simulateFeatures' | 'simulateFaults' | 'vbds'
>;

/**
 * Opens the host. `busyPollUs` is how long a simulated backend looks for requests before it sleeps.
 *
 * @throws DaemonError, UsageError, HostError
 */
export async function openHost(
  options: HostChoice,
  log: Pick<Logger, 'debug'>,
  busyPollUs: number = 0,
): Promise<XenHost> {
  const { simulate, simulateFeatures, simulateFaults, vbds } = options;
  if (simulate === undefined) return createLinuxHost();
  if (simulate.kind === 'file') checkDiskFile(simulate.path);
  const names = vbds.length === 0 ? [SIMULATED_VBD] : vbds.map(simulatedVbd);
  const source =
    simulate.kind === 'file' ? { file: simulate.path } : { sizeBytes: simulate.sizeBytes };
  // A real guest has no use for it.
  const sim = await import('../sim/index.ts');
  try {
    return await sim.createSimulatedHost({
      // One that is named twice is plugged in once, and refused later as any vbd is.
      disks: [...new Set(names)].map((vbd) => ({ vbd, ...source })),
      log: (line) => log.debug('simulated', {}, line),
      busyPollUs,
      ...(simulateFeatures && { features: sim.parseSimulatedFeatures(simulateFeatures) }),
      ...(simulateFaults && { faults: sim.parseSimulatedFaults(simulateFaults) }),
    });
  } catch (error) {
    if (!(error instanceof sim.SimulationOptionError)) throw error;
    throw new UsageError(error.message, { cause: error });
  }
}

/** The name of a simulated vbd: what the command line asks for, so that it is found. */
function simulatedVbd(wanted: string): string {
  try {
    return formatDeviceNumber(parseDeviceNumber(wanted));
  } catch {
    throw new UsageError(`${wanted}: a simulated vbd needs a name such as xvdb, or a number`);
  }
}
