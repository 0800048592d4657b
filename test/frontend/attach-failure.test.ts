/**
 * Goal: an attach that cannot succeed ends in bounded time with an error that says what was seen
 * and what to do, and leaves the vbd clean.
 * Method: a back end that is silent, refuses or lies, a host without pages, a XenStore that fails.
 */

import t from 'tap';
import { attachFailure as failure } from './support/attach-failure.ts';
import { World } from './support/world.ts';

const FE = 'device/vbd/51728';

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

void t.test('a vbd that another process has claimed is not touched', async (t) => {
  const world = new World();
  world.back.plug();
  await world.attached();
  world.host.claimant = 'another xenblk-nbd (process 12)';
  world.store.writes.length = 0;
  t.match(await failure(world), {
    code: 'HELD',
    message:
      'xvdb is driven by another xenblk-nbd (process 12); stop that first, or choose another vbd.',
  });
  t.same(world.store.writes, []);
  t.equal(world.states, '4/4');
  t.end();
});

void t.test('a claim lasts as long as the front end', async (t) => {
  const world = new World();
  world.back.plug();
  const { frontend } = await world.attached();
  t.equal(world.host.claimCount, 1);
  const closed = frontend.close();
  world.owner.isUsingRing = false;
  await world.clock.advance(1_000);
  await closed;
  t.equal(world.host.claimCount, 0);
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

void t.test('a failure is left where operators look, and taken back when it works', async (t) => {
  const world = new World({ disk: { sectors: 'many' } });
  world.back.plug();
  await failure(world);
  t.match(
    world.store.get('error/device/vbd/51728/error'),
    /^5 The back end .* The key sectors is "many"/,
  );
  world.back.disk = { sectors: '8' };
  await world.attached();
  t.same(Object.keys(world.store.below('error')), []);
  t.end();
});

void t.test('a signal that aborted before leaves the vbd untouched', async (t) => {
  const world = new World();
  world.back.plug();
  await failure(world, { signal: AbortSignal.abort() });
  t.same(world.store.writes, []);
  t.end();
});
