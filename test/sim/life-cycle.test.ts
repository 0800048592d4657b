/**
 * Goal: disks that are plugged out, resized or lose their back end look as they do on a real host.
 * Method: a front end by hand watches the keys and the ring.
 */

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import t from 'tap';
import { createSimulatedHost } from '../../src/sim/index.ts';
import { connectByHand } from './hand-front.ts';

const directory = mkdtempSync(join(tmpdir(), 'sim-life-'));
t.teardown(() => rmSync(directory, { recursive: true }));

void t.test('unplug waits for the front end and removes both directories', async (t) => {
  const host = await createSimulatedHost({ disks: [{ vbd: 'xvda', sizeBytes: 1 << 20 }] });
  const { store, backend } = await connectByHand(host, 51712);
  const unplugged = host.control.unplug('xvda');
  await store.waitFor(`${backend}/state`, (state) => state === '5', { timeoutMs: 30_000 });
  t.equal(await store.read(`${backend}/online`), '0');
  await store.write('device/vbd/51712/state', '6');
  await unplugged;
  t.same(await store.directory('device/vbd'), []);
  // The guest may not see that something is missing where it may not look.
  await t.rejects(store.read(`${backend}/state`), { code: 'EACCES' });
  await host.control.plug({ vbd: 'xvda', sizeBytes: 1 << 20 });
  t.same(await store.directory('device/vbd'), ['51712']);
  await store.close();
  await host.close();
});

void t.test('resize writes sectors and the state again', async (t) => {
  const file = join(directory, 'grow.img');
  writeFileSync(file, new Uint8Array(1 << 20));
  const host = await createSimulatedHost({ disks: [{ vbd: 'xvda', file }] });
  const { store, front, backend } = await connectByHand(host, 51712);
  const page = host.grantPages(0, 1, 'read-write');
  const segment = [{ gref: page.grefs[0] ?? 0, first: 0, last: 0 }];
  front.putDirect(0, 1, 2048, segment);
  front.push();
  t.same(await front.wait(1), [{ id: 1, operation: 0, status: -1 }]);
  let events = 0;
  const watch = await store.watch(`${backend}/state`, () => {
    events += 1;
  });
  await host.control.resize('xvda', 2 << 20);
  await store.waitFor(`${backend}/sectors`, (value) => value === '4096', { timeoutMs: 30_000 });
  t.equal(await store.read(`${backend}/state`), '4');
  t.equal(events, 2, 'the first event of the watch, and that of the resize');
  front.putDirect(0, 2, 2048, segment);
  front.push();
  t.same(await front.wait(1), [{ id: 2, operation: 0, status: 0 }]);
  t.equal(readFileSync(file).length, 2 << 20);
  await watch.close();
  await store.close();
  await host.close();
});

void t.test('a killed back end is silent; started again it goes to InitWait', async (t) => {
  const host = await createSimulatedHost({ disks: [{ vbd: 'xvda', sizeBytes: 1 << 20 }] });
  const { store, front, backend } = await connectByHand(host, 51712);
  await host.control.killBackend('xvda');
  t.equal(host.control.leaks().mappings, 0);
  const page = host.grantPages(0, 1, 'read-write');
  front.putDirect(0, 1, 0, [{ gref: page.grefs[0] ?? 0, first: 0, last: 0 }]);
  front.push();
  t.equal(await store.read(`${backend}/state`), '4');
  t.same(front.take(), []);
  await host.control.restartBackend('xvda');
  await store.waitFor(`${backend}/state`, (state) => state === '2', { timeoutMs: 30_000 });
  t.same(front.take(), [], 'the old ring is not touched');
  // The way back: 6, wait for 6, 1, wait for 2.
  await store.write('device/vbd/51712/state', '6');
  await store.waitFor(`${backend}/state`, (state) => state === '6', { timeoutMs: 30_000 });
  await store.write('device/vbd/51712/state', '1');
  await store.waitFor(`${backend}/state`, (state) => state === '2', { timeoutMs: 30_000 });
  await store.close();
  await host.close();
});

void t.test('a back end that is told to reattach serves the old ring from rsp_prod', async (t) => {
  const host = await createSimulatedHost({ disks: [{ vbd: 'xvda', sizeBytes: 1 << 20 }] });
  const { store, front, backend } = await connectByHand(host, 51712);
  await host.control.killBackend('xvda');
  const page = host.grantPages(0, 1, 'read-write');
  front.putDirect(0, 1, 0, [{ gref: page.grefs[0] ?? 0, first: 0, last: 0 }]);
  front.push();
  await host.control.restartBackend('xvda', { reattach: true });
  t.same(await front.wait(1), [{ id: 1, operation: 0, status: 0 }]);
  t.equal(await store.read(`${backend}/state`), '4');
  await store.close();
  await host.close();
});
