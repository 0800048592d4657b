/**
 * Goal: trouble at any step of a recovery or a close, in the middle of any sequence of requests to
 * XenStore, leads to another recovery, or still to the close, and never to a failure, a hang, a
 * ghost or a ring given back too early.
 * Method: one run is counted in requests; then for each kind of trouble it is replayed with the
 * trouble right before the n-th request, for n at random (for all with FRONTEND_ALL_STEPS=1).
 */

import t from 'tap';
import type { Frontend } from '../../src/frontend/index.ts';
import { checkEndsWell } from './support/ends-well.ts';
import { TROUBLES, type Trouble } from './support/troubles.ts';
import { World } from './support/world.ts';

const KINDS: readonly Trouble[] = [
  'backendGone',
  'unplug',
  'plugAnew',
  'bindAnew',
  'forceClosing',
  'forceClosed',
  'detach',
  'frontendGone',
  'resetState',
  'fireAll',
  'conflict',
];
/** Steps to try of each kind, unless all are asked for. */
const SAMPLES = 4;

/** A connected world with `trouble` planned before the `step`-th request from now on. */
async function planned(
  trouble: Trouble | undefined,
  step: number,
): Promise<{ world: World; frontend: Frontend }> {
  const world = new World();
  world.back.plug();
  const { frontend } = await world.attached();
  world.store.requestCount = 0;
  world.store.onRequest = (count) => {
    if (count === step && trouble !== undefined) {
      TROUBLES[trouble](world);
    }
  };
  return { world, frontend };
}

/** A recovery with `trouble` in it; returns how many requests it took. */
async function recover(trouble: Trouble | undefined, step: number): Promise<number> {
  const { world, frontend } = await planned(trouble, step);
  TROUBLES.forceClosed(world);
  await world.clock.settle();
  const requests = world.store.requestCount;
  await world.clock.advance(10_000);
  world.store.onRequest = undefined;
  await checkEndsWell(world, frontend);
  return requests;
}

/** A close with `trouble` in it; returns how many requests it took. */
async function close(trouble: Trouble | undefined, step: number): Promise<number> {
  const { world, frontend } = await planned(trouble, step);
  world.owner.isUsingRing = false;
  const closing = frontend.close();
  await world.clock.advance(60_000);
  const { reason, isBackendFinished } = await closing;
  const ports = world.host.channels.size - world.owner.orphans.length;
  if (reason !== 'closed' || world.faults.length > 0) {
    throw new Error(`closed as ${reason}; ${world.faults.join(', ')}`);
  }
  if (isBackendFinished && (world.host.grantedPages > 0 || ports > 0)) {
    throw new Error(`${world.host.grantedPages} pages and ${ports} ports are held`);
  }
  // What comes after our last word is the next one's.
  const isAnew = trouble === 'plugAnew' || trouble === 'resetState';
  if (!['6', undefined, isAnew ? '1' : '6'].includes(world.back.frontendState)) {
    throw new Error(`our state is left at ${world.back.frontendState}`);
  }
  const keys = Object.keys(world.store.below('device/vbd/51728'));
  if (keys.length > 0 && (keys.includes('ring-ref') || !keys.includes('backend'))) {
    throw new Error(`left behind: ${keys.join(', ')}`);
  }
  return world.store.requestCount;
}

for (const [name, replay] of Object.entries({ recover, close })) {
  void t.test(`trouble at any step: ${name}`, async (t) => {
    const requests = await replay(undefined, 0);
    t.ok(requests > 20, `${requests} requests without trouble`);
    for (const kind of KINDS) {
      const all = Array.from({ length: requests }, (_, index) => index + 1);
      const isAll = process.env['FRONTEND_ALL_STEPS'] === '1';
      const steps = isAll
        ? all
        : Array.from({ length: SAMPLES }, () => 1 + Math.floor(Math.random() * requests));
      const failures: string[] = [];
      for (const step of steps) {
        try {
          await replay(kind, step);
        } catch (error) {
          failures.push(`before request ${step}: ${String(error)}`);
        }
      }
      t.same(failures, [], `${kind}, before requests ${isAll ? 'all' : steps.join(', ')}`);
    }
    t.end();
  });
}
