/**
 * Goal: recoveries that take long or cannot succeed, removals by the toolstack, and resizes.
 * Method: a scripted back end under a front end that is in use, on a virtual clock.
 */

import t from 'tap';
import { checkRecovered, connected } from './support/connected.ts';

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

void t.test('a back end that connects and closes again and again is given pauses', async (t) => {
  const { world } = await connected();
  world.store.onChange((path) => {
    if (path === world.back.frontendPath.concat('/state') && world.back.frontendState === '4') {
      queueMicrotask(() => world.back.setState(5));
    }
  });
  world.back.setState(5);
  await world.clock.advance(60_000);
  const { length } = world.owner.attachments;
  t.ok(length > 10 && length < 25, `${length} connections in a minute`);
  t.same(world.faults, []);
  t.end();
});
