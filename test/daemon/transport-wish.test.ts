// Goal: nobody has to choose the number of rings: it follows the cores and the pages.
import t from 'tap';
import { goodQueues, transportWish } from '../../src/daemon/transport-wish.ts';

void t.test('as many rings as do good', (t) => {
  for (const [cores, pages, queues] of [
    [1, 768, 1],
    [2, 768, 1],
    [3, 768, 1],
    [4, 768, 2],
    [8, 768, 4],
    [64, 768, 4],
    [8, 400, 2],
    [8, 383, 1],
    [8, 24, 1],
  ] as const) {
    t.equal(goodQueues(cores, pages), queues, `${cores} cores, ${pages} pages`);
  }
  t.end();
});

void t.test('who chooses is asked first', (t) => {
  const use = { queues: 7, ringPageOrder: 0 };
  t.match(transportWish(use, 24), { queues: 7, ringPageOrder: 0, isPersistent: true });
  t.match(transportWish({ queues: undefined, ringPageOrder: undefined }, 24), {
    queues: 1,
    ringPageOrder: 2,
  });
  t.end();
});
