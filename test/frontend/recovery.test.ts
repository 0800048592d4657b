/**
 * Goal: whatever happens to a live connection, the front end gets a new one, and never gives a ring
 * back, nor begins anew, while the back end or the owner may still use it.
 * Method: each row of the trouble that was seen on real Xen, played by a scripted back end under a
 * front end that is in use. The fake host notes every release that comes too early.
 */

import t from 'tap';
import { checkRecovered, connected } from './support/connected.ts';

const FE = 'device/vbd/51728';

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
  t.equal(world.statesWritten, '6', 'it may have seen our keys, and be about to use them');
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

void t.test('a back end that connects by the old keys after we have taken them back', async (t) => {
  const { world } = await connected();
  const keys = { ...world.store.below(world.back.backendPath), state: '2' };
  world.back.hasRing = false;
  world.back.isDeaf = true;
  world.store.remove(world.back.backendPath);
  await world.clock.settle();
  t.equal(world.statesWritten, '1');
  // It was made anew while we still said Connected, and has read our keys; it says so only when we
  // have long made new ones.
  for (const [key, value] of Object.entries(keys)) {
    world.store.set(`${world.back.backendPath}/${key}`, value);
  }
  await world.clock.settle();
  t.equal(world.statesWritten, '1 5 6', 'no new keys before it is known to be at rest');
  world.back.setState(4);
  await world.clock.settle();
  t.equal(world.back.frontendState, '6');
  t.same(world.owner.told, ['detached: backend-gone'], 'its Connected is not for us');
  world.back.isDeaf = false;
  world.back.setState(6);
  await world.clock.settle();
  checkRecovered(t, world);
  t.end();
});

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
  t.equal(world.statesWritten, '1 5 6', 'the new one may have seen the old keys');
  world.store.set(`${next}/state`, '6');
  await world.clock.settle();
  t.equal(world.back.frontendState, '1');
  world.store.set(`${next}/state`, '2');
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
  t.same(world.host.disowned, [15], 'the end of the host leaves them alone as well');
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

void t.test('a guest that migrated and got its old number: the watches tell', async (t) => {
  const { world } = await connected();
  // Nothing is frozen here, so the removal must not be seen before the new directories are there.
  world.back.unplug();
  world.back.plug();
  world.store.fireAll();
  await world.clock.settle();
  t.ok(world.owner.told.includes('orphaned'));
  t.same(world.owner.orphans, [15]);
  t.ok(world.host.channels.has(15), 'the dead channel was not unbound');
  t.match(world.owner.attachments[0], { areGrantsLost: true, generation: 2 });
  t.same(world.faults, []);
  t.end();
});

void t.test('a restore while the owner takes its time to let go', async (t) => {
  const { world } = await connected();
  world.owner.isPrompt = false;
  world.back.hasRing = false;
  world.back.setState(6);
  await world.clock.settle();
  t.same(world.owner.told, ['detached: backend-closed']);
  world.store.set('domid', '9');
  world.owner.isPrompt = true;
  world.owner.letGo();
  await world.clock.settle();
  t.same(world.owner.orphans, [15]);
  t.ok(world.host.channels.has(15), 'the dead channel was not unbound');
  t.match(world.owner.attachments[0], { areGrantsLost: true });
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
