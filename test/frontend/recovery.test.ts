/**
 * Goal: whatever happens to a live connection, the front end gets a new one, or ends clearly; and
 * never gives a ring back, nor begins anew, while the back end or the owner may still use it.
 * Method: each row of the trouble that was seen on real Xen, played by a scripted back end under a
 * front end that is in use. The fake host notes every release that comes too early.
 */

import t, { type Test } from 'tap';
import type { Frontend } from '../../src/frontend/index.ts';
import { World } from './support/world.ts';

const FE = 'device/vbd/51728';

async function connected(
  changes: Parameters<World['attached']>[0] = {},
): Promise<{ world: World; frontend: Frontend }> {
  const world = new World();
  world.back.plug();
  const { frontend } = await world.attached(changes);
  world.store.writes.length = 0;
  return { world, frontend };
}

/** After a recovery: connected anew, all of the old connection given back, nothing too early. */
function checkRecovered(t: Test, world: World, generation = 2): void {
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

void t.test('the back end is forced to Closing: drain, close, connect', async (t) => {
  const { world, frontend } = await connected();
  world.owner.isPrompt = false;
  world.back.setState(5);
  await world.clock.settle();
  t.equal(frontend.state, 'draining');
  t.same(world.owner.told, ['closing']);
  t.equal(world.statesWritten, '', 'nothing is said to the back end while requests finish');
  world.owner.letGo();
  await world.clock.settle();
  t.same(world.owner.told, ['closing', 'detached: backend-closing']);
  t.equal(world.host.grantedPages, 1, 'the owner has not let go yet');
  world.owner.letGo();
  await world.clock.settle();
  t.equal(world.statesWritten, '5 6 1 3 4');
  t.equal(world.owner.attachments[0]?.areGrantsLost, false);
  checkRecovered(t, world);
  t.end();
});

void t.test('a drain that does not end is left after its time', async (t) => {
  const { world, frontend } = await connected({ timeouts: { drainMs: 2_000 } });
  world.owner.isPrompt = false;
  world.back.setState(5);
  await world.clock.advance(1_999);
  t.equal(frontend.state, 'draining');
  await world.clock.advance(1);
  t.same(world.owner.told, ['closing', 'detached: backend-closing']);
  world.owner.isPrompt = true;
  world.owner.letGo();
  await world.clock.settle();
  checkRecovered(t, world);
  t.end();
});

void t.test('the back end is forced to Closed', async (t) => {
  const { world } = await connected();
  world.back.hasRing = false;
  world.back.setState(6);
  await world.clock.settle();
  t.same(world.owner.told, ['detached: backend-closed', 'reattached']);
  t.equal(world.statesWritten, '6 1 3 4');
  checkRecovered(t, world);
  t.end();
});

void t.test('the driver of the back end is bound anew: InitWait under our Connected', async (t) => {
  const { world } = await connected();
  world.back.probe();
  // It reacts to nothing yet: the front end must not go on before it says Closed.
  world.back.isDeaf = true;
  await world.clock.settle();
  t.equal(world.statesWritten, '6');
  t.same(world.owner.told, ['detached: backend-restarted']);
  await world.clock.advance(59_000);
  t.match(world.statesWritten, /^6( 6)+$/, 'however long that takes, and it is said again');
  world.back.isDeaf = false;
  await world.clock.advance(2_000);
  checkRecovered(t, world);
  t.end();
});

void t.test('the directory of the back end vanishes, and ours stays', async (t) => {
  const { world, frontend } = await connected();
  world.back.unplugBackendOnly();
  await world.clock.settle();
  t.equal(frontend.state, 'absent');
  t.equal(world.back.frontendState, '1', 'at once, so that nobody maps the old ring');
  t.notOk('ring-ref' in world.store.below(FE));
  t.equal(world.host.grantedPages, 0);
  await world.clock.advance(3_600_000);
  t.equal(frontend.state, 'absent', 'it is waited for without end');
  world.back.plug();
  await world.clock.settle();
  t.same(world.owner.told, ['detached: backend-gone', 'reattached']);
  checkRecovered(t, world);
  t.end();
});

void t.test('the directory of the back end is made anew between two looks', async (t) => {
  const { world } = await connected();
  const keys = { ...world.store.below(world.back.backendPath), state: '1' };
  world.back.hasRing = false;
  world.back.isDeaf = true;
  world.store.remove(world.back.backendPath);
  for (const [key, value] of Object.entries(keys)) {
    world.store.set(`${world.back.backendPath}/${key}`, value);
  }
  await world.clock.settle();
  t.equal(world.statesWritten, '1');
  world.back.isDeaf = false;
  world.back.probe();
  await world.clock.settle();
  checkRecovered(t, world);
  t.end();
});

void t.test(
  'a back end that mapped the old keys in that moment is closed and tried again',
  async (t) => {
    const { world } = await connected();
    world.back.hasRing = false;
    world.store.remove(world.back.backendPath);
    await world.clock.settle();
    world.back.plug();
    world.back.setState(5);
    await world.clock.advance(10_000);
    checkRecovered(t, world);
    t.end();
  },
);

void t.test('both directories vanish, and come back', async (t) => {
  const { world, frontend } = await connected();
  world.back.unplug();
  await world.clock.settle();
  t.equal(frontend.state, 'absent');
  t.same(Object.keys(world.store.below('device')), [], 'no ghost of a directory');
  world.back.plug();
  await world.clock.settle();
  t.same(world.owner.told, ['detached: backend-gone', 'reattached']);
  checkRecovered(t, world);
  t.end();
});

void t.test(
  'our directory vanishes alone: the ring is kept until the back end is done',
  async (t) => {
    const { world, frontend } = await connected();
    world.store.remove(world.back.frontendPath);
    await world.clock.settle();
    t.equal(frontend.state, 'absent');
    t.equal(world.host.grantedPages, 1);
    world.back.unplug();
    world.back.plug();
    await world.clock.settle();
    checkRecovered(t, world);
    t.end();
  },
);

void t.test('our directory comes back under a back end that is still connected', async (t) => {
  const { world } = await connected();
  const keys = world.store.below(FE);
  world.back.isDeaf = true;
  world.store.remove(world.back.frontendPath);
  await world.clock.settle();
  for (const [key, value] of Object.entries({ ...keys, state: '1' })) {
    world.store.set(`${FE}/${key}`, value);
  }
  await world.clock.settle();
  t.equal(world.host.grantedPages, 1);
  world.back.isDeaf = false;
  await world.clock.advance(10_000);
  t.same(world.faults, []);
  t.match(world.statesWritten, /5 6 1 3 4$/);
  checkRecovered(t, world);
  t.end();
});

void t.test('both directories are made anew between two looks', async (t) => {
  const { world } = await connected();
  world.back.unplug();
  world.back.plug();
  await world.clock.settle();
  t.same(world.owner.told, ['detached: vbd-reset', 'reattached']);
  t.equal(world.statesWritten, '1 3 4');
  checkRecovered(t, world);
  t.end();
});

void t.test('somebody sets our state to 1 under a connected back end', async (t) => {
  const { world } = await connected();
  world.store.set(`${FE}/state`, '1');
  await world.clock.settle();
  t.same(world.owner.told, ['detached: vbd-reset', 'reattached']);
  t.equal(world.statesWritten, '5 6 1 3 4', 'a connection that stands is closed first');
  checkRecovered(t, world);
  t.end();
});

void t.test('another domain serves the disk from now on', async (t) => {
  const { world } = await connected();
  const old = world.back;
  old.hasRing = true;
  old.isDeaf = true;
  const next = '/local/domain/7/backend/vbd/1/51728';
  world.store.setAll({
    [`${next}/state`]: '2',
    [`${next}/online`]: '1',
    [`${next}/mode`]: 'w',
    [`${FE}/backend`]: next,
    [`${FE}/backend-id`]: '7',
  });
  await world.clock.advance(10_000);
  t.equal(world.statesWritten, '', 'the old one still has the ring');
  old.unplugBackendOnly();
  await world.clock.settle();
  t.equal(world.back.frontendState, '3');
  t.same(world.faults, []);
  t.same(
    [...world.host.grants.values()].map(({ domid }) => domid),
    [7],
  );
  t.same([...world.host.channels.values()], [7]);
  world.store.setAll({ [`${next}/sectors`]: '131072', [`${next}/state`]: '4' });
  await world.clock.settle();
  t.match(world.owner.attachments[0], { backendId: 7, backendPath: next, areGrantsLost: true });
  t.end();
});

void t.test('a restored guest: the old channels are kept, everything else is new', async (t) => {
  const { world } = await connected();
  const before = world.store.below(FE);
  world.back.isDeaf = true;
  // A new domain, with its own home and directories; the old back end cannot be seen any more.
  world.store.remove('/local/domain/1', world.back.backendPath);
  world.back.hasRing = false;
  world.store.home = '/local/domain/9';
  world.store.set('domid', '9');
  const next = '/local/domain/0/backend/vbd/9/51728';
  world.store.setAll({
    [`${next}/state`]: '2',
    [`${next}/online`]: '1',
    [`${next}/mode`]: 'w',
    ...Object.fromEntries(
      Object.entries({ ...before, backend: next, state: '1' }).map(([key, value]) => [
        `${FE}/${key}`,
        value,
      ]),
    ),
  });
  world.store.fireAll();
  await world.clock.settle();
  t.same(world.owner.told, ['detached: guest-restored', 'orphaned']);
  t.same(world.owner.orphans, [15]);
  t.ok(world.host.channels.has(15), 'the dead channel was not unbound');
  t.equal(world.store.get(`${FE}/state`), '3');
  t.equal(world.store.get(`${FE}/event-channel`), '16');
  world.store.setAll({ [`${next}/sectors`]: '131072', [`${next}/state`]: '4' });
  await world.clock.settle();
  t.match(world.owner.attachments[0], { backendPath: next, areGrantsLost: true, generation: 2 });
  t.equal(world.host.grantedPages, 1, 'the old pages were given back');
  t.same(world.faults, []);
  t.end();
});

void t.test('a checkpoint: watches fire, nothing changed, nothing is disturbed', async (t) => {
  const { world, frontend } = await connected();
  for (let round = 0; round < 5; round++) {
    world.store.fireAll();
    await world.clock.advance(1_000);
  }
  t.same(world.owner.told, []);
  t.same(world.store.writes, []);
  t.equal(frontend.state, 'connected');
  t.end();
});

void t.test('a back end that refuses during a recovery is asked again, with pauses', async (t) => {
  const { world, frontend } = await connected();
  world.back.refusals = 4;
  world.back.hasRing = false;
  world.back.setState(6);
  await world.clock.settle();
  t.equal(world.back.refusals, 3);
  t.equal(frontend.state, 'finishing');
  await world.clock.advance(99);
  t.equal(world.back.refusals, 3);
  await world.clock.advance(1);
  t.equal(world.back.refusals, 2, 'after 100 ms');
  await world.clock.advance(200);
  t.equal(world.back.refusals, 1, 'after 200 ms more');
  await world.clock.advance(10_000);
  checkRecovered(t, world);
  t.same(world.owner.told, ['detached: backend-closed', 'reattached']);
  t.end();
});

void t.test('the limit of grants during a recovery is waited out', async (t) => {
  const { world } = await connected();
  world.host.limitPages = 0;
  world.back.hasRing = false;
  world.back.setState(6);
  await world.clock.advance(3_000);
  t.equal(world.owner.attachments.length, 0);
  world.host.limitPages = 1024;
  await world.clock.advance(10_000);
  checkRecovered(t, world);
  t.end();
});

void t.test('the time for a recovery is bounded when asked for', async (t) => {
  const { world, frontend } = await connected({ timeouts: { reconnectMs: 30_000 } });
  world.back.isDeaf = true;
  world.back.unplug();
  await world.clock.advance(29_999);
  t.equal(frontend.state, 'absent');
  await world.clock.advance(1);
  t.match(world.owner.end, {
    reason: 'failed',
    error: {
      code: 'TIMEOUT',
      message: /did not connect again in time; the vbd is not in XenStore/,
    },
    isBackendFinished: true,
  });
  t.equal(world.host.grantedPages, 0);
  t.equal(world.clock.timerCount, 0);
  t.end();
});

void t.test('a recovered connection has its full time again', async (t) => {
  const { world, frontend } = await connected({ timeouts: { reconnectMs: 30_000 } });
  for (let round = 0; round < 3; round++) {
    world.back.unplug();
    await world.clock.advance(20_000);
    world.back.plug();
    await world.clock.advance(20_000);
    t.equal(frontend.state, 'connected');
  }
  checkRecovered(t, world, 4);
  t.end();
});

void t.test('values that turn absurd during a recovery end it with an error', async (t) => {
  const { world } = await connected();
  world.back.disk = { sectors: '0' };
  world.back.hasRing = false;
  world.back.setState(6);
  await world.clock.advance(60_000);
  t.match(world.owner.end, { reason: 'failed', error: { code: 'BAD_BACKEND' } });
  t.equal(world.states, '6/6');
  t.same(world.faults, []);
  t.end();
});

void t.test('a detach by the toolstack: drain, close, and wait for the vbd', async (t) => {
  const { world, frontend } = await connected();
  world.owner.isPrompt = false;
  world.back.detach();
  await world.clock.settle();
  t.same(world.owner.told, ['closing for removal']);
  world.owner.letGo();
  await world.clock.settle();
  world.owner.letGo();
  await world.clock.settle();
  t.same(world.owner.told, ['closing for removal', 'detached: unplugging']);
  t.equal(world.states, '6/6', 'both at Closed: now the toolstack removes them');
  t.equal(frontend.state, 'absent');
  t.equal(world.host.grantedPages, 0);
  world.back.unplug();
  await world.clock.settle();
  t.equal(frontend.state, 'absent');
  t.same(Object.keys(world.store.below('device')), []);
  world.owner.isPrompt = true;
  world.back.plug();
  await world.clock.settle();
  checkRecovered(t, world);
  t.end();
});

void t.test('a detach by the toolstack: the end, when that is wanted', async (t) => {
  for (const isGraceful of [true, false]) {
    const { world, frontend } = await connected({ isReturnAwaited: false });
    if (isGraceful) {
      world.back.detach();
    } else {
      world.back.unplug();
    }
    await world.clock.settle();
    t.match(world.owner.end, { reason: 'unplugged', error: undefined, isBackendFinished: true });
    t.equal(frontend.state, 'closed');
    t.equal(world.host.grantedPages, 0);
    t.equal(world.host.channels.size, 0);
    t.same(world.faults, []);
    t.equal(world.states, isGraceful ? '6/6' : '-/-');
  }
  t.end();
});

void t.test('a detach while a recovery is under way', async (t) => {
  const { world, frontend } = await connected();
  world.back.refusals = 1000;
  world.back.hasRing = false;
  world.back.setState(6);
  await world.clock.advance(3_000);
  world.back.detach();
  await world.clock.advance(10_000);
  t.equal(frontend.state, 'absent');
  world.back.unplug();
  world.back.refusals = 0;
  await world.clock.advance(10_000);
  world.back.plug();
  await world.clock.advance(10_000);
  checkRecovered(t, world);
  t.end();
});

void t.test('resize: growth, shrinking, and lies', async (t) => {
  const { world, frontend } = await connected();
  world.back.resize('262144');
  await world.clock.settle();
  world.back.resize('1024');
  await world.clock.settle();
  t.same(world.owner.told, ['resized: 262144', 'resized: 1024']);
  t.equal(frontend.attachment?.disk.sectors, 1024);
  t.equal(frontend.attachment?.generation, 1, 'the same connection');
  for (const lie of ['0', '-1', 'x', '99999999999999999999']) {
    world.back.resize(lie);
    await world.clock.settle();
  }
  world.back.resize('1024');
  await world.clock.settle();
  t.equal(world.owner.told.length, 2);
  t.equal(world.lines.filter((line) => /^warn .*The old size is kept/.test(line)).length, 4);
  t.same(world.store.writes, []);
  t.end();
});

void t.test('the kernel takes the vbd while it is away', async (t) => {
  let holder: string | undefined;
  const { world } = await connected({ holderOf: () => holder });
  world.back.unplug();
  await world.clock.settle();
  holder = "the kernel's driver vbd";
  world.back.plug();
  await world.clock.settle();
  t.match(world.owner.end, { reason: 'failed', error: { code: 'HELD' } });
  t.same(world.store.writes, [], 'it is left alone');
  t.end();
});

void t.test('XenStore vanishes under a connection', async (t) => {
  const { world } = await connected();
  world.store.disconnectAll();
  await world.clock.settle();
  world.owner.told.length = 0;
  await world.clock.advance(1_000);
  t.match(world.owner.end, {
    reason: 'failed',
    error: { code: 'STORE' },
    isBackendFinished: false,
  });
  t.equal(world.host.grantedPages, 1, 'the back end still has the ring');
  t.same(world.faults, []);
  t.end();
});
