/**
 * Goal: closing leaves the vbd at Closed on both ends, clean and reusable, in bounded time,
 * whatever the front end was doing.
 * Method: close in each state, with back ends that answer and that do not.
 */

import t from 'tap';
import { systemClock } from '../../src/frontend/index.ts';
import { World } from './support/world.ts';

const FE = 'device/vbd/51728';

void t.test('close: 5, 6, keys gone, everything given back, and the next can attach', async (t) => {
  const world = new World();
  world.back.plug();
  const { frontend } = await world.attached();
  world.owner.isUsingRing = false;
  world.store.writes.length = 0;
  const end = await frontend.close();
  t.match(end, { reason: 'closed', error: undefined, isBackendFinished: true });
  t.equal(world.states, '6/6');
  t.match(world.statesWritten, /^5 6/);
  t.same(Object.keys(world.store.below(FE)).sort(), [
    'backend',
    'backend-id',
    'device-type',
    'feature-persistent',
    'protocol',
    'state',
    'virtual-device',
  ]);
  t.equal(world.host.grantedPages, 0);
  t.equal(world.host.channels.size, 0);
  t.same(world.faults, []);
  t.same(world.owner.told, ['ended: closed'], 'the one who closes is not told to let go');
  t.equal(world.clock.timerCount, 0);
  t.equal(await frontend.close(), end, 'closing again gives the same');

  const next = await world.frontend();
  t.match(await next.attach(), { generation: 1 });
  t.equal(world.states, '4/4');
  t.end();
});

void t.test('close before the first attach', async (t) => {
  const world = new World();
  const frontend = await world.frontend();
  t.match(await frontend.close(), { reason: 'closed', isBackendFinished: true });
  t.end();
});

void t.test('close while the back end gets ready', async (t) => {
  const world = new World();
  world.back.isDeaf = true;
  world.back.plug();
  const frontend = await world.frontend({ timeouts: { closedMs: 2_000 } });
  const rejected = t.rejects(frontend.attach(), { code: 'ABORTED' });
  await world.clock.settle();
  const closing = frontend.close();
  await world.clock.advance(2_000);
  t.match(await closing, { reason: 'closed', isBackendFinished: true });
  await rejected;
  t.equal(world.states, '6/1');
  t.end();
});

void t.test('a back end that does not answer: bounded, and the ring is kept', async (t) => {
  const world = new World();
  world.back.plug();
  const { frontend } = await world.attached({ timeouts: { closingMs: 1_000, closedMs: 2_000 } });
  world.owner.isUsingRing = false;
  world.back.isDeaf = true;
  const closing = frontend.close();
  await world.clock.advance(3_000);
  t.match(await closing, { reason: 'closed', isBackendFinished: false });
  t.equal(world.states, '6/4');
  t.equal(world.host.grantedPages, 1);
  t.equal(world.host.channels.size, 1);
  t.same(world.faults, []);
  t.notOk('ring-ref' in world.store.below(FE));
  t.ok(world.lines.some((line) => /^warn .*its pages stay granted until this process/.test(line)));
  t.end();
});

void t.test('close during a drain, a recovery and an absence', async (t) => {
  const disturb: ((world: World) => void)[] = [
    (world) => world.back.setState(5),
    (world) => {
      world.back.isDeaf = true;
      world.back.setState(2);
    },
    (world) => world.back.unplug(),
    (world) => {
      world.back.hasRing = false;
      world.store.remove(world.back.backendPath);
    },
    (world) => world.store.remove(world.back.frontendPath),
    (world) => {
      world.back.refusals = 100;
      world.back.hasRing = false;
      world.back.setState(6);
    },
  ];
  for (const [index, trouble] of disturb.entries()) {
    const world = new World();
    world.back.plug();
    const { frontend } = await world.attached();
    trouble(world);
    await world.clock.advance(500);
    world.owner.isUsingRing = false;
    const closing = frontend.close();
    await world.clock.advance(60_000);
    t.equal((await closing).reason, 'closed', `trouble ${index}`);
    t.same(world.faults, [], `trouble ${index}`);
    t.ok(['6', undefined].includes(world.back.frontendState), `trouble ${index}: our state`);
    t.equal(world.clock.timerCount, 0);
  }
  t.end();
});

void t.test('an unplugged vbd closes at once', async (t) => {
  const world = new World();
  world.back.plug();
  const { frontend } = await world.attached();
  world.owner.isUsingRing = false;
  world.back.unplug();
  t.match(await frontend.close(), { reason: 'closed', isBackendFinished: true });
  t.same(Object.keys(world.store.below('device')), [], 'no ghost of a directory');
  t.equal(world.host.grantedPages, 0);
  t.end();
});

void t.test('XenStore that hangs does not hold the close for ever', async (t) => {
  const world = new World();
  world.back.plug();
  const { frontend } = await world.attached({ timeouts: { closingMs: 1_000, closedMs: 1_000 } });
  world.owner.isUsingRing = false;
  world.store.isSilent = true;
  const closing = frontend.close();
  await world.clock.advance(10_000);
  t.match(await closing, { reason: 'closed', isBackendFinished: false });
  t.same(world.faults, []);
  t.end();
});

void t.test('the clock of the machine keeps a wait alive, and a cancelled one not', async (t) => {
  const fired: string[] = [];
  const cancel = systemClock.startTimer(1, () => fired.push('cancelled'));
  cancel();
  const before = systemClock.nowMs();
  await new Promise<void>((resolve) => {
    systemClock.startTimer(2, resolve);
  });
  t.ok(systemClock.nowMs() > before);
  t.same(fired, []);
  t.end();
});
