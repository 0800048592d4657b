/**
 * Goal: the handshake, from a fresh vbd and from every state a crash can leave, with clear errors
 * when it cannot succeed.
 * Method: the front end against a scripted XenStore and back end, on a virtual clock; what is
 * checked is what XenStore holds and in which order it was written.
 */

import t from 'tap';
import { FrontendError, type FrontendOptions } from '../../src/frontend/index.ts';
import { World } from './support/world.ts';

const FE = 'device/vbd/51728';

/** The error of an attach that must fail, with time moved on until it does. */
async function failure(
  world: World,
  changes: Partial<FrontendOptions> = {},
  afterMs = 60_000,
): Promise<FrontendError> {
  const frontend = await world.frontend(changes);
  const attempt = frontend.attach().then(
    () => new Error('it attached'),
    (error: unknown) => error,
  );
  await world.clock.advance(afterMs);
  const error = await attempt;
  if (!(error instanceof FrontendError)) {
    throw error;
  }
  return error;
}

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

void t.test('not even one page: an error of the host, and nothing left behind', async (t) => {
  const world = new World();
  world.back.plug();
  world.host.limitPages = 0;
  const error = await failure(world);
  t.match(error, { code: 'HOST', message: /No more than 0 pages/ });
  t.equal(world.states, '6/6');
  t.equal(world.host.channels.size, 0);
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
      const error = await failure(world);
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

void t.test('no vbd: a clear error after a bounded wait', async (t) => {
  const world = new World();
  const error = await failure(world, { timeouts: { appearMs: 2_000 } }, 2_000);
  t.match(error, {
    code: 'TIMEOUT',
    message: /xvdb: the back end did not appear in time; the vbd is/,
  });
  t.equal(world.store.nodes.size, 1, 'no ghost of a directory was made');
  t.equal(world.clock.timerCount, 0);
  t.end();
});

void t.test('a back end that never answers: the error says what was seen', async (t) => {
  const world = new World();
  world.back.isDeaf = true;
  world.back.plug();
  world.store.set('/local/domain/0/error/backend/vbd/1/51728/error', '2 reading physical-device');
  const error = await failure(world, { timeouts: { initWaitMs: 3_000 } }, 3_000);
  t.equal(error.code, 'TIMEOUT');
  t.match(error.message, /did not connect in time; our state is 1 \(Initialising\)/);
  t.match(error.message, /backend\/vbd\/1\/51728 is 1 \(Initialising\)/);
  t.match(error.message, /it reports "2 reading physical-device"/);
  t.equal(world.states, '6/1', 'left at Closed, so that a detach succeeds');
  t.end();
});

void t.test('a back end that takes the keys and is silent', async (t) => {
  const world = new World();
  world.back.plug();
  await world.clock.settle();
  world.back.isDeaf = true;
  const timeouts = { connectedMs: 3_000, closedMs: 1_000 };
  const error = await failure(world, { timeouts }, 4_000);
  t.match(error, {
    code: 'TIMEOUT',
    message: /our state is 3 \(Initialised\).* is 2 \(InitWait\)/,
  });
  t.equal(world.states, '6/2');
  t.equal(world.host.grantedPages, 1, 'kept, since the back end may have mapped it');
  t.ok(world.lines.some((line) => /^warn .*its pages stay granted/.test(line)));
  t.notOk('ring-ref' in world.store.below(FE));
  t.end();
});

void t.test('an earlier connection that never ends', async (t) => {
  const world = new World();
  world.back.isDeaf = true;
  world.back.plug();
  world.store.setAll({ [`${FE}/state`]: '4', [`${world.back.backendPath}/state`]: '4' });
  const error = await failure(world, { timeouts: { closingMs: 1_000, closedMs: 1_000 } }, 2_000);
  t.match(error, { code: 'TIMEOUT', message: /did not close in time; our state is 6/ });
  t.end();
});

void t.test('a back end that refuses: its own words are in the error', async (t) => {
  const world = new World();
  world.back.refusals = 1;
  world.back.plug();
  world.store.set('/local/domain/0/error/backend/vbd/1/51728/error', '22 bad\nprotocol\u0007');
  const error = await failure(world);
  t.match(error, { code: 'REFUSED', message: /it reports "22 bad\?protocol\?"/ });
  t.equal(world.states, '6/6');
  t.equal(world.host.grantedPages, 0);
  t.equal(world.host.channels.size, 0);
  t.notOk('ring-ref' in world.store.below(FE));
  t.same(world.owner.told, [], 'the owner hears of it by the rejection alone');
  t.end();
});

void t.test('a back end that closes again and again before it waits', async (t) => {
  const world = new World();
  world.back.plug();
  await world.clock.settle();
  world.store.onChange((path) => {
    if (path === `${world.back.backendPath}/state` && world.back.state === '2') {
      world.back.setState(5);
    }
  });
  world.back.setState(5);
  const error = await failure(world);
  t.equal(error.code, 'REFUSED');
  t.end();
});

void t.test('absurd values of the back end are refused, and the vbd is left clean', async (t) => {
  const rows: [Record<string, string>, RegExp][] = [
    [{ 'sector-size': '512' }, /The key sectors is missing/],
    [{ sectors: '0' }, /The key sectors is "0"/],
    [{ sectors: '-8' }, /The key sectors is "-8": a decimal number was expected/],
    [{ sectors: '8', 'sector-size': '1000' }, /The key sector-size is "1000"/],
  ];
  for (const [disk, message] of rows) {
    const world = new World({ disk });
    world.back.plug();
    const error = await failure(world);
    t.match(error, { code: 'BAD_BACKEND', message });
    t.equal(world.states, '6/6');
    t.equal(world.host.grantedPages, 0);
  }
  const world = new World({ limits: { 'max-ring-page-order': 'four' } });
  world.back.plug();
  t.match(await failure(world), { code: 'BAD_BACKEND', message: /max-ring-page-order is "four"/ });
  t.equal(world.states, '6/6');
  t.end();
});

void t.test(
  'large sectors: trusted of the kernel, refused elsewhere unless vouched for',
  async (t) => {
    const disk = { sectors: '80', 'sector-size': '4096' };
    const kernel = new World({ disk });
    kernel.back.plug();
    t.match((await kernel.attached()).attachment.disk, { sectorSize: 4096, sectors: 80 });

    const qdisk = (): World => {
      const world = new World({ disk });
      world.back.plug();
      const path = '/local/domain/0/backend/qdisk/1/51728';
      for (const [key, value] of Object.entries(world.store.below(world.back.backendPath))) {
        world.store.set(`${path}/${key}`, value);
      }
      world.store.set(`${FE}/backend`, path);
      Object.assign(world.back, { backendPath: path });
      return world;
    };
    t.match(await failure(qdisk()), {
      code: 'BAD_BACKEND',
      message: /qdisk differ.*--sector-unit 512/,
    });
    t.match((await qdisk().attached({ isSectorUnitTrusted: true })).attachment.disk, {
      sectorSize: 4096,
    });
    t.end();
  },
);

void t.test('a vbd that somebody drives is not touched', async (t) => {
  const world = new World();
  world.back.plug();
  await world.clock.settle();
  const error = await failure(world, { holderOf: () => "the kernel's driver vbd" });
  t.match(error, {
    code: 'HELD',
    message: /^xvdb is in use by the kernel's driver vbd; .*--take-over/,
  });
  t.same(world.store.writes, []);
  t.end();
});

void t.test('a driver that takes the vbd while the back end gets ready keeps it', async (t) => {
  const world = new World();
  world.back.plug();
  let asked = 0;
  const holderOf = (): string | undefined => (++asked > 1 ? 'blkfront' : undefined);
  const error = await failure(world, { holderOf });
  t.equal(error.code, 'HELD');
  t.equal(world.statesWritten, '1', 'nothing was written after it was seen');
  t.equal(world.host.grantedPages, 0);
  t.end();
});

void t.test('the signal ends the attempt at once, and the vbd is left clean', async (t) => {
  const world = new World();
  world.back.isDeaf = true;
  world.back.plug();
  const controller = new AbortController();
  const frontend = await world.frontend({ signal: controller.signal });
  const attempt = frontend.attach();
  await world.clock.settle();
  controller.abort(new Error('no longer wanted'));
  await t.rejects(attempt, { code: 'ABORTED', message: /xvdb was cancelled/ });
  t.match(await frontend.ended, { reason: 'failed', isBackendFinished: true });
  t.equal(world.states, '6/1');
  const late = await world.frontend({ signal: AbortSignal.abort() });
  await t.rejects(late.attach(), { code: 'ABORTED' });
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

void t.test('XenStore that refuses or vanishes', async (t) => {
  const refusing = new World();
  refusing.back.plug();
  await refusing.clock.settle();
  refusing.store.failures.push({ type: 11, name: 'ENOSPC' });
  const error = await failure(refusing);
  t.match(error, { code: 'STORE', message: /^xvdb: XenStore failed the front end/ });

  const vanishing = new World();
  vanishing.back.isDeaf = true;
  vanishing.back.plug();
  const frontend = await vanishing.frontend();
  const rejected = t.rejects(frontend.attach(), {
    code: 'STORE',
    message: /connection to XenStore/,
  });
  await vanishing.clock.settle();
  vanishing.store.disconnectAll();
  vanishing.store.set(`${FE}/state`, '1');
  await vanishing.clock.advance(60_000);
  await rejected;
  t.equal((await frontend.ended).reason, 'failed');
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
