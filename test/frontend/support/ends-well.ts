/** What must hold once all trouble is over. */

import type { Frontend } from '../../../src/frontend/index.ts';
import { TROUBLES } from './troubles.ts';
import type { World } from './world.ts';

/**
 * Ends the trouble, waits for the connection, and closes it.
 *
 * @throws Error when the front end does not recover, or holds or gave back what it should not have.
 */
export async function checkEndsWell(world: World, frontend: Frontend): Promise<void> {
  // The trouble ends: a working host and owner, and the disk attached anew.
  TROUBLES.pages(world);
  TROUBLES.hearing(world);
  TROUBLES.promptOwner(world);
  world.back.refusals = 0;
  await world.clock.advance(10_000);
  TROUBLES.plugAnew(world);
  await world.clock.advance(60_000);
  const end = world.owner.end;
  if (frontend.state !== 'connected' || world.states !== '4/4') {
    throw new Error(`${frontend.state} at ${world.states}: ${end?.error?.message ?? 'no error'}`);
  }
  if (world.faults.length > 0) {
    throw new Error(world.faults.join(', '));
  }
  // Channels from before a possible restore are kept open on purpose.
  const portsHeld = (): number => world.host.channels.size - world.owner.orphans.length;
  const holdings = (): string => `${world.host.grantedPages} pages, ${portsHeld()} ports`;
  if (holdings() !== '1 pages, 1 ports') {
    throw new Error(`${holdings()} are held`);
  }
  world.owner.isUsingRing = false;
  const closed = frontend.close();
  await world.clock.advance(1_000);
  const { reason, isBackendFinished } = await closed;
  if (reason !== 'closed' || !isBackendFinished || holdings() !== '0 pages, 0 ports') {
    throw new Error(`closed as ${reason}, ${holdings()} are held`);
  }
  if (world.faults.length > 0 || world.clock.timerCount !== 0) {
    throw new Error(`${world.faults.join(', ')}; ${world.clock.timerCount} timers`);
  }
}
