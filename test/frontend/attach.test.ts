/**
 * Goal: the handshake, from a fresh vbd and from every state a crash can leave.
 * Method: the front end against a scripted XenStore and back end, on a virtual clock; what is
 * checked is what XenStore holds and in which order it was written.
 */

import t from 'tap';
import { attachFailure } from './support/attach-failure.ts';
import { World } from './support/world.ts';

const FE = 'device/vbd/51728';

void t.test('a fresh vbd: one page, one queue', async (t) => {
  const world = new World();
  world.back.plug();
  const { attachment, frontend } = await world.attached();
  t.equal(world.states, '4/4');
  t.equal(world.statesWritten, '1 3 4', 'Initialising again, Initialised, Connected');
  t.same(world.back.connections, [
    {
      backend: '/local/domain/0/backend/vbd/1/51728',
      'backend-id': '0',
      'virtual-device': '51728',
      'device-type': 'disk',
      'ring-ref': '8',
      'event-channel': '15',
      protocol: 'x86_64-abi',
      'feature-persistent': '0',
      state: '3',
    },
  ]);
  t.match(attachment, {
    backendId: 0,
    backendPath: '/local/domain/0/backend/vbd/1/51728',
    maxIndirectSegments: 0,
    isPersistent: false,
    generation: 1,
    areGrantsLost: false,
    disk: { sectors: 131072, sectorSize: 512, physicalSectorSize: 4096, canFlush: true },
  });
  t.equal(attachment.queues.length, 1);
  t.match(attachment.queues[0], { ringPageOrder: 0, slotCount: 32, eventChannel: { port: 15 } });
  t.equal(frontend.state, 'connected');
  t.equal(frontend.attachment, attachment);
  t.end();
});

void t.test('the header of the ring is initialised before its reference is told', async (t) => {
  const world = new World();
  world.back.plug();
  let header: string | undefined;
  world.store.onChange((path) => {
    if (path.endsWith('/ring-ref')) {
      const [grant] = world.host.grants.values();
      header = Buffer.from(grant?.memory ?? new ArrayBuffer(0), 0, 20).toString('hex');
    }
  });
  await world.attached();
  t.equal(header, '0000000001000000000000000100000000000000');
  t.end();
});

void t.test('keys and state are written in one transaction', async (t) => {
  const world = new World();
  world.back.plug({ 'ring-ref': '99', 'event-channel': '98' });
  const seen = new Set<string>();
  world.store.onChange(() => {
    const { state, protocol, 'ring-ref': ring } = world.store.below(FE);
    seen.add(`${state} ${protocol ?? '-'} ${ring ?? '-'}`);
  });
  await world.attached();
  t.same(
    [...seen].filter((line) => line.startsWith('1')),
    ['1 - -'],
    'stale keys go together with the state, too',
  );
  t.ok(seen.has('3 x86_64-abi 8'));
  t.notOk(seen.has('1 x86_64-abi 8'), 'never the keys without the state');
  t.end();
});

void t.test('many pages, queues, indirect segments and persistent grants', async (t) => {
  const limits = {
    'max-ring-page-order': '4',
    'multi-queue-max-queues': '2',
    'feature-max-indirect-segments': '256',
  };
  const world = new World({ limits });
  world.back.plug();
  const want = { queues: 4, ringPageOrder: 1, maxIndirectSegments: 64, isPersistent: true };
  const { attachment } = await world.attached({ want });
  t.equal(attachment.queues.length, 2);
  t.same(
    attachment.queues.map(({ slotCount }) => slotCount),
    [64, 64],
  );
  t.equal(attachment.maxIndirectSegments, 64);
  t.equal(attachment.isPersistent, true);
  const keys = world.back.connections[0] ?? {};
  t.match(keys, {
    'multi-queue-num-queues': '2',
    'ring-page-order': '1',
    'queue-0/ring-ref0': '8',
    'queue-0/ring-ref1': '9',
    'queue-1/ring-ref1': '11',
    'queue-1/event-channel': '16',
    'feature-persistent': '1',
  });
  t.notOk('ring-ref' in keys || 'event-channel' in keys);
  t.ok(world.lines.some((line) => /info xvdb: Queues cut from 4 to 2/.test(line)));
  t.end();
});

void t.test('persistent grants are in force only when both ends say so', async (t) => {
  const world = new World({ disk: { sectors: '8' } });
  world.back.plug();
  const want = { queues: 1, ringPageOrder: 0, maxIndirectSegments: 0, isPersistent: true };
  const { attachment } = await world.attached({ want });
  t.equal(attachment.isPersistent, false);
  t.end();
});

void t.test('the limit of grants makes the rings smaller, not the attach fail', async (t) => {
  const limits = { 'max-ring-page-order': '4', 'multi-queue-max-queues': '4' };
  const world = new World({ limits });
  world.back.plug();
  world.host.limitPages = 3;
  const want = { queues: 4, ringPageOrder: 4, maxIndirectSegments: 0, isPersistent: false };
  const { attachment } = await world.attached({ want });
  t.equal(attachment.queues.length, 2);
  t.equal(attachment.queues[0]?.ringPageOrder, 0);
  t.equal(world.host.grantedPages, 2, 'nothing of the attempts is left');
  t.equal(world.host.channels.size, 2);
  t.ok(world.lines.some((line) => /^warn .*only 3 pages may be granted/.test(line)));
  t.end();
});

void t.test('stale states are finished first', async (t) => {
  const rows: [frontend: string, backend: string, writes: string][] = [
    ['1', '2', '1 3 4'],
    ['1', '6', '1 3 4'],
    ['6', '6', '1 3 4'],
    ['6', '2', '1 3 4'],
    ['4', '4', '5 6 1 3 4'],
    ['3', '4', '5 6 1 3 4'],
    ['1', '4', '5 6 1 3 4'],
    ['5', '5', '5 6 1 3 4'],
    ['5', '4', '5 6 1 3 4'],
    ['6', '5', '5 6 1 3 4'],
    ['4', '2', '5 6 1 3 4'],
    ['4', '6', '5 6 1 3 4'],
    ['2', '2', '5 6 1 3 4'],
    ['0', '2', '1 3 4'],
  ];
  for (const [frontendState, backendState, writes] of rows) {
    const world = new World();
    world.back.isDeaf = true;
    world.back.plug({
      'ring-ref0': '1',
      'ring-page-order': '1',
      'num-ring-pages': '2',
      'multi-queue-num-queues': '2',
      'queue-0/ring-ref': '1',
      'queue-1/event-channel': '1',
    });
    world.store.setAll({
      [`${FE}/state`]: frontendState,
      [`${world.back.backendPath}/state`]: backendState,
    });
    await world.clock.settle();
    world.back.isDeaf = false;
    if (frontendState === '0') {
      // Not a state of xenbus, but a directory is there: not the same as a missing one.
      const error = await attachFailure(world);
      t.match(error, { code: 'TIMEOUT', message: /the vbd is not in XenStore/ });
      continue;
    }
    await world.attached();
    t.equal(world.statesWritten, writes, `${frontendState}/${backendState}`);
    t.equal(world.states, '4/4');
    t.same(
      Object.keys(world.back.connections.at(-1) ?? {}).filter((key) => /ring|queue/.test(key)),
      ['ring-ref'],
      'no stale key is left',
    );
  }
  t.end();
});

void t.test('a back end at Initialised gets the plainest transport', async (t) => {
  const world = new World({ limits: { 'max-ring-page-order': '4' } });
  world.back.plug();
  await world.clock.settle();
  world.back.setState(3);
  const want = { queues: 1, ringPageOrder: 4, maxIndirectSegments: 0, isPersistent: false };
  const { attachment } = await world.attached({ want });
  t.equal(attachment.queues[0]?.ringPageOrder, 0);
  t.end();
});

void t.test('a vbd that is plugged in a moment later is waited for', async (t) => {
  const world = new World();
  const frontend = await world.frontend();
  const attempt = frontend.attach();
  await world.clock.advance(1_000);
  t.equal(frontend.state, 'absent');
  world.back.plug();
  t.match(await attempt, { generation: 1 });
  t.end();
});

void t.test('a Closed that somebody wrote over a back end that missed ours', async (t) => {
  const world = new World();
  world.back.plug();
  world.back.setState(6);
  world.back.hasRing = true;
  // The driver remembers that it is connected, and hears nothing but Closing and Closed.
  world.back.isDeaf = true;
  world.store.onChange((path) => {
    if (path.endsWith(`${FE}/state`) && world.back.frontendState === '6') {
      world.back.isDeaf = false;
    }
  });
  const frontend = await world.frontend();
  const attempt = frontend.attach();
  await world.clock.advance(5_000);
  t.match(await attempt, { generation: 1 });
  t.equal(world.statesWritten, '1 6 1 3 4');
  t.end();
});

void t.test('conflicts with other clients are borne', async (t) => {
  const world = new World();
  world.back.plug();
  let conflicts = 5;
  world.store.onChange((path) => {
    // Somebody else writes in between, again and again.
    if (path.startsWith('/other') || conflicts-- <= 0) {
      return;
    }
    queueMicrotask(() => world.store.set(`/other/${conflicts}`, 'x'));
  });
  await world.attached();
  t.equal(world.states, '4/4');
  t.end();
});

void t.test('a storm of watch events costs bounded work', async (t) => {
  const world = new World();
  world.back.plug();
  const { frontend } = await world.attached();
  world.store.requestCount = 0;
  for (let round = 0; round < 500; round++) {
    world.store.set(`${world.back.backendPath}/noise`, String(round));
    await new Promise((resolve) => setImmediate(resolve));
  }
  const { requestCount } = world.store;
  t.ok(requestCount < 250 * 8, `${requestCount} requests within one second of the clock`);
  t.ok(requestCount > 200, 'the storm was heard');
  t.equal(frontend.state, 'connected');
  await world.clock.advance(1_000);
  world.back.resize('262144');
  await world.clock.advance(1_000);
  t.same(world.owner.told, ['resized: 262144'], 'and it still listens');
  t.end();
});
