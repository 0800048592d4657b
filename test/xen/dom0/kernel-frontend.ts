// The kernel's own frontend, xen-blkfront. It takes every vbd in state 1, so only scenarios about
// it
// load it.
import { readdirSync } from 'node:fs';
import { run } from './commands.ts';
import type { Lab } from './scenario.ts';

const driverFolder = '/sys/bus/xen/drivers/vbd';

/** Loads xen-blkfront until the end of the scenario. */
export async function loadKernelFrontend(lab: Lab): Promise<void> {
  await run('modprobe', 'xen-blkfront');
  lab.cleanUp(async () => {
    // Each device that it drives holds the module.
    for (const name of readdirSync(driverFolder).filter((entry) => entry.startsWith('vbd-'))) {
      await run('sh', '-c', `echo ${name} > ${driverFolder}/unbind`);
    }
    await run('rmmod', 'xen-blkfront');
  });
}
