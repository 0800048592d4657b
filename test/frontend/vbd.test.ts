/**
 * Goal: the list of vbds tells what XenStore holds and survives what it should not hold; the choice
 * of one is the one that was meant, or an error that lists the candidates; hot-plug is seen.
 * Method: XenStore trees in memory, and hand-made descriptions for the choice.
 */

import t from 'tap';
import { XenStoreClient } from 'xenstore-client';
import {
  describeVbd,
  inspectVbd,
  listVbds,
  prepareHandBack,
  selectVbd,
  type VbdDescription,
  watchVbds,
} from '../../src/frontend/index.ts';
import { ScriptedBackend } from './support/scripted-backend.ts';
import { ScriptedStore } from './support/scripted-store.ts';
import { World } from './support/world.ts';

function vbd(name: string, id: number, changes: Partial<VbdDescription> = {}): VbdDescription {
  return {
    id,
    name,
    path: `device/vbd/${id}`,
    backendPath: `/local/domain/0/backend/vbd/1/${id}`,
    backendId: 0,
    backendType: 'vbd',
    state: 1,
    backendState: 2,
    deviceType: 'disk',
    mode: 'w',
    sizeBytes: 1024,
    params: undefined,
    holder: undefined,
    ...changes,
  };
}

void t.test('the list: all keys, and keys that are missing or cannot be true', async (t) => {
  const store = new ScriptedStore();
  new ScriptedBackend(store, { id: 51728 }).plug();
  new ScriptedBackend(store, { id: 51712, backendId: 3 }).plug();
  store.setAll({
    '/local/domain/0/backend/vbd/1/51728/sectors': '2097152',
    '/local/domain/3/backend/vbd/1/51712/sectors': '999999999999999999',
    'device/vbd/768/state': '4',
    'device/vbd/768/backend': 'not/absolute',
    'device/vbd/768/backend-id': '0',
    'device/vbd/832/state': 'x',
    'device/vbd/832/backend': '/local/domain/0/backend/qdisk/1/832',
    'device/vbd/832/backend-id': '99999',
    'device/vbd/5632/state': '1',
    'device/vbd/5632/backend': '/local/domain/0/backend/qdisk/1/5632',
    'device/vbd/5632/backend-id': '0',
    'device/vbd/5632/device-type': 'cdrom',
    'device/vbd/junk/state': '1',
    'device/vbd/00051728/state': '1',
  });
  const client = new XenStoreClient(store.connect());
  const holderOf = (id: number): string | undefined => (id === 51712 ? 'somebody' : undefined);
  const vbds = await listVbds(client, holderOf);
  t.same(
    vbds.map(({ id, name, backendType, holder }) => [id, name, backendType, holder]),
    [
      [768, 'hda', undefined, undefined],
      [832, 'hdb', undefined, undefined],
      [5632, 'hdc', 'qdisk', undefined],
      [51712, 'xvda', 'vbd', 'somebody'],
      [51728, 'xvdb', 'vbd', undefined],
    ],
  );
  t.match(vbds[4], {
    path: 'device/vbd/51728',
    backendPath: '/local/domain/0/backend/vbd/1/51728',
    backendId: 0,
    state: 1,
    backendState: 2,
    deviceType: 'disk',
    mode: 'w',
    sizeBytes: 1073741824,
    params: '/images/disk.img',
  });
  t.match(vbds[0], { state: 4, backendState: 0, backendPath: undefined, sizeBytes: undefined });
  t.match(vbds[1], { state: 0, backendId: undefined });
  t.match(vbds[2], { deviceType: 'cdrom', params: undefined, mode: undefined });
  t.equal(vbds[3]?.sizeBytes, undefined);
  t.end();
});

void t.test('no vbds at all', async (t) => {
  const client = new XenStoreClient(new ScriptedStore().connect());
  t.same(await listVbds(client), []);
  t.throws(() => selectVbd([]), { code: 'NO_VBD', message: /has no virtual block device; attach/ });
  t.end();
});

const XVDA = vbd('xvda', 51712, { holder: "the kernel's driver vbd", params: '/dev/vg/root' });
const XVDB = vbd('xvdb', 51728, { params: 'aio:/images/data.img' });
const XVDC = vbd('xvdc', 51744, { params: 'tap2:aio:/images/more.img' });
const HDC = vbd('hdc', 5632, { deviceType: 'cdrom', params: '/images/cd.iso' });

void t.test('the choice: by name, path, number and params', (t) => {
  const all = [XVDA, XVDB, XVDC, HDC];
  for (const [wanted, expected] of [
    ['xvdb', XVDB],
    ['/dev/xvdb', XVDB],
    ['51728', XVDB],
    ['d1', XVDB],
    ['aio:/images/data.img', XVDB],
    ['/images/data.img', XVDB],
    ['file:/images/data.img', XVDB],
    ['/images/more.img', XVDC],
    ['hdc', HDC],
  ] as const) {
    t.equal(selectVbd(all, wanted), expected, wanted);
  }
  t.end();
});

void t.test('the choice: the only free one, and a disk before a CD-ROM', (t) => {
  t.equal(selectVbd([XVDA, XVDB]), XVDB);
  t.equal(selectVbd([XVDA, XVDB, HDC]), XVDB);
  t.equal(selectVbd([XVDA, HDC]), HDC);
  t.throws(() => selectVbd([XVDA, XVDB, XVDC]), {
    code: 'AMBIGUOUS',
    message:
      'Several virtual block devices are free: xvdb (51728, aio:/images/data.img), ' +
      'xvdc (51744, tap2:aio:/images/more.img); name one.',
  });
  t.throws(() => selectVbd([XVDA]), {
    code: 'HELD',
    message: /No virtual block device is free: xvda \(51712, \/dev\/vg\/root, in use by the kernel/,
  });
  t.end();
});

void t.test('the choice: what is not there, is held, or is ambiguous', (t) => {
  t.throws(() => selectVbd([XVDA, XVDB], 'xvdz'), {
    code: 'NO_VBD',
    message: /no virtual block device "xvdz"; this guest has xvda \(51712, .*, xvdb \(51728,/,
  });
  t.throws(() => selectVbd([XVDB], 'data.img'), { code: 'NO_VBD' }, 'params match as a whole');
  t.throws(() => selectVbd([XVDB], ''), { code: 'NO_VBD' });
  t.throws(() => selectVbd([XVDA, XVDB], 'xvda'), {
    code: 'HELD',
    message: /^xvda is in use by the kernel's driver vbd; .* --take-over/,
  });
  const twin = { ...XVDC, params: 'phy:/images/data.img' };
  t.throws(() => selectVbd([XVDB, twin], '/images/data.img'), {
    code: 'AMBIGUOUS',
    message: /backed by "\/images\/data.img": xvdb .*, xvdc/,
  });
  t.end();
});

void t.test('hot-plug: each change is told, and none after the end', async (t) => {
  const world = new World();
  const lists: string[] = [];
  const stop = await watchVbds(world.client, (vbds) => {
    lists.push(vbds.map(({ name, state }) => `${name}:${state}`).join(' '));
  });
  await world.clock.settle();
  world.back.plug();
  await world.clock.settle();
  const second = new ScriptedBackend(world.store, { id: 51744 });
  second.plug();
  await world.clock.settle();
  world.back.unplug();
  await world.clock.settle();
  t.same(
    lists.filter((list, index) => list !== lists[index - 1]),
    ['', 'xvdb:1', 'xvdb:1 xvdc:1', 'xvdc:1'],
  );
  await stop();
  lists.length = 0;
  second.unplug();
  await world.clock.settle();
  t.same(lists, []);
  t.end();
});

void t.test('handing back: our keys gone, state 1, and the back end ready', async (t) => {
  const world = new World();
  world.back.plug();
  const { frontend, attachment } = await world.attached();
  world.owner.isUsingRing = false;
  await frontend.close();
  await prepareHandBack(world.client, attachment.vbd, 1_000);
  t.equal(world.states, '1/2');
  t.notOk('ring-ref' in world.store.below('device/vbd/51728'));

  world.back.isDeaf = true;
  world.store.set('device/vbd/51728/state', '6');
  world.back.setState(6);
  await t.rejects(prepareHandBack(world.client, attachment.vbd, 10), {
    code: 'TIMEOUT',
    message: /xvdb cannot be handed back: .* is 6 \(Closed\) instead of 2 \(InitWait\)/,
  });
  world.back.unplug();
  await t.rejects(prepareHandBack(world.client, attachment.vbd, 10), { code: 'NO_VBD' });
  t.same(Object.keys(world.store.below('device')), []);
  t.end();
});

void t.test('inspecting: the offer, the disk, what is wrong, and nothing is written', async (t) => {
  const wish = { queues: 2, ringPageOrder: 4, maxIndirectSegments: 64, isPersistent: false };
  const limits = { 'max-ring-page-order': '2', 'feature-max-indirect-segments': '256' };
  const world = new World({ limits });
  world.back.plug();
  const inspect = async (): Promise<Awaited<ReturnType<typeof inspectVbd>>> =>
    await inspectVbd(world.client, await describeVbd(world.client, 51728), wish);
  t.match(await inspect(), {
    limits: { maxRingPageOrder: 2, maxQueues: 1, maxIndirectSegments: 256 },
    choice: { queueCount: 1, ringPageOrder: 2, maxIndirectSegments: 64 },
    disk: undefined,
    backendError: undefined,
    faults: [],
  });
  await world.attached();
  world.store.writes.length = 0;
  t.match(await inspect(), { disk: { sectors: 131072 }, faults: [] });
  world.store.setAll({
    [`${world.back.backendPath}/sector-size`]: '5',
    [`${world.back.backendPath}/max-ring-page-order`]: 'x',
    '/local/domain/0/error/backend/vbd/1/51728/error': '1 no',
  });
  const broken = await inspect();
  t.match(broken, { limits: undefined, choice: undefined, disk: undefined, backendError: '1 no' });
  t.equal(broken.faults.length, 2);
  t.same(world.store.writes, []);
  world.store.set('device/vbd/51728/backend', 'nowhere');
  t.match(await inspect(), { faults: [/name no back end/] });
  t.end();
});
