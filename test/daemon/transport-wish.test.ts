// Goal: nobody has to choose the number of rings: it follows the cores and the pages.
import t from 'tap';
import { pageNeed } from '../../src/daemon/page-budget.ts';
import { deviceShare, goodQueues, transportWish } from '../../src/daemon/transport-wish.ts';

void t.test('as many rings as do good', (t) => {
  for (const [coreCount, poolPagesMax, queues] of [
    [1, 3072, 1],
    [2, 3072, 2],
    [3, 3072, 3],
    [4, 3072, 4],
    [64, 3072, 4],
    [64, 9000, 4],
    [8, 1535, 3],
    [8, 848, 2],
    [8, 767, 1],
    [8, 24, 1],
    [2.5, 3072, 2],
    [0.25, 3072, 1],
  ] as const) {
    t.equal(goodQueues({ coreCount, poolPagesMax }), queues, `${coreCount}, ${poolPagesMax}`);
  }
  t.end();
});

void t.test('what is good is never more than several lanes need to be fast', (t) => {
  // A pool for each or together, 16 pages of zeroes, 16 for segment lists, and a ring of four.
  for (const [laneCount, goodPages] of [
    [1, 768 + 36],
    [2, 768 + 72],
    [4, 1536 + 144],
  ] as const) {
    t.equal(pageNeed(laneCount, 2, true).goodPages, goodPages, `${laneCount} lanes`);
  }
  t.end();
});

void t.test('devices share', (t) => {
  const one = deviceShare(8192, 1);
  const eight = deviceShare(8192, 8);
  t.equal(one.poolPagesMax, 4 * 768, 'as many as four lanes can use');
  t.equal(eight.poolPagesMax, 848);
  t.equal(eight.coreCount * 8, one.coreCount);
  t.equal(deviceShare(1024, 1).poolPagesMax, 848, 'the limit of a guest where nobody raised it');
  t.end();
});

void t.test('who chooses is asked first', (t) => {
  const share = { poolPagesMax: 24, coreCount: 1 };
  const use = { queues: 7, ringPageOrder: 0 };
  t.match(transportWish(use, share), { queues: 7, ringPageOrder: 0, isPersistent: true });
  t.match(transportWish({ queues: undefined, ringPageOrder: undefined }, share), {
    queues: 1,
    ringPageOrder: 0,
  });
  const nobody = { queues: undefined, ringPageOrder: undefined };
  t.match(transportWish(nobody, { poolPagesMax: 25, coreCount: 1 }), { ringPageOrder: 2 });
  t.end();
});
