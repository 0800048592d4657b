// How many descriptors a daemon has that serves nobody, to be compared with later.
import { eventually } from './eventually.ts';
import { NbdClient } from './nbd-client.ts';
import { countDescriptors } from './proc-stat.ts';

/** At least as many as there are lanes, over which clients are spread. */
const CLIENTS = 4;

/**
 * Asks each lane for something first: a thread of the simulated backend, which has descriptors of
 * its own, may start a little later than the daemon says that it is ready.
 */
export async function idleDescriptors(
  pid: number,
  address: Parameters<typeof NbdClient.open>[0],
): Promise<number> {
  const opened = await Promise.all(Array.from({ length: CLIENTS }, () => NbdClient.open(address)));
  await Promise.all(opened.map(({ client }) => client.readOk(0, 512)));
  const busyCount = countDescriptors(pid);
  await Promise.all(opened.map(({ client }) => client.disconnect()));
  return await eventually('the descriptors of clients are closed', 30_000, () => {
    const count = countDescriptors(pid);
    return count <= busyCount - CLIENTS ? count : undefined;
  });
}
