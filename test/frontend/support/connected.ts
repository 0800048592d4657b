/** A front end that is connected and in use, and what must hold after it recovered. */

import type { Test } from 'tap';
import type { Frontend, FrontendOptions } from '../../../src/frontend/index.ts';
import { World } from './world.ts';

/** A connected front end; what was written until then is forgotten. */
export async function connected(
  changes: Partial<FrontendOptions> = {},
): Promise<{ world: World; frontend: Frontend }> {
  const world = new World();
  world.back.plug();
  const { frontend } = await world.attached(changes);
  world.store.writes.length = 0;
  return { world, frontend };
}

/** After a recovery: connected anew, all of the old connection given back, nothing too early. */
export function checkRecovered(t: Test, world: World, generation = 2): void {
  t.equal(world.states, '4/4');
  t.same(world.faults, []);
  t.equal(world.host.grantedPages, 1, 'only the new ring is granted');
  t.equal(world.host.channels.size, 1);
  t.equal(world.owner.attachments.at(-1)?.generation, generation);
  t.equal(world.back.connections.length, generation);
  t.not(
    world.back.connections.at(-1)?.['ring-ref'],
    world.back.connections.at(-2)?.['ring-ref'],
    'another ring',
  );
}
