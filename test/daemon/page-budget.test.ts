// Goal: pages that have to be granted anew, for another host or backend, are waited for where
// others hold them, all or none, and not longer than somebody wants them.
import { setTimeout } from 'node:timers/promises';
import t from 'tap';
import { grantAgain, grantLanePages } from '../../src/daemon/page-budget.ts';
import { FakeHost } from '../frontend/support/fake-host.ts';
import { ScriptedStore } from '../frontend/support/scripted-store.ts';

function lanesOf(host: FakeHost) {
  const features = { isIndirect: true, isPersistent: false, poolPagesMax: 100 };
  const lanes = grantLanePages(host, 0, 2, features);
  return { lanes, pageCount: host.grantedPages };
}

void t.test('the limit, at n - 1 and n', async (t) => {
  const host = new FakeHost(new ScriptedStore());
  const { lanes, pageCount } = lanesOf(host);
  host.limitPages = pageCount - 1;
  const waits: number[] = [];
  let isOver = false;
  const granting = grantAgain(host, 7, lanes, {
    access: 'read-write',
    isWanted: () => true,
    onWait: ({ limitPages }) => waits.push(limitPages),
  }).finally(() => {
    isOver = true;
  });
  await setTimeout(1500);
  t.notOk(isOver);
  t.equal(host.grantedPages, 0, 'nothing is held meanwhile');
  t.strictSame(waits, [pageCount - 1], 'told once');
  host.limitPages = pageCount;
  const granted = await granting;
  t.equal(host.grantedPages, pageCount);
  t.ok([...host.grants.values()].every(({ domid }) => domid === 7));
  t.strictSame(
    granted.map(({ pool, zeroes, indirect }) => [pool, zeroes, indirect].map((r) => r?.pageCount)),
    lanes.map(({ pool, zeroes, indirect }) => [pool, zeroes, indirect].map((r) => r?.pageCount)),
  );
  t.ok(granted.every(({ access }) => access === 'read-write'));
});

void t.test('nobody wants them any more', async (t) => {
  const host = new FakeHost(new ScriptedStore());
  const { lanes } = lanesOf(host);
  host.limitPages = 3;
  let isWanted = true;
  const onWait = (): void => {
    isWanted = false;
  };
  const granting = grantAgain(host, 0, lanes, {
    access: undefined,
    isWanted: () => isWanted,
    onWait,
  });
  await t.rejects(granting, /closed while it waited/);
  t.equal(host.grantedPages, 0);
});
