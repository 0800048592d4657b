// Events for nothing: harmless ones cost no time, a storm is damped, and one answer ends it.
import t from 'tap';
import { SpuriousEvents } from '../../src/dataplane/spurious-events.ts';

void t.test('a few events without responses are taken at once', async (t) => {
  const spurious = new SpuriousEvents();
  for (let event = 0; event < 63; event++) {
    spurious.came(0);
    t.equal(spurious.delayMs, 0);
  }
  spurious.came(0);
  t.equal(spurious.delayMs, 1);
});

void t.test('the delay doubles up to its limit, and responses end it', async (t) => {
  const spurious = new SpuriousEvents();
  for (let event = 0; event < 63; event++) spurious.came(0);
  const delaysMs: number[] = [];
  for (let event = 0; event < 9; event++) {
    spurious.came(0);
    delaysMs.push(spurious.delayMs);
  }
  t.strictSame(delaysMs, [1, 2, 4, 8, 16, 32, 64, 128, 128]);
  for (let event = 0; event < 5000; event++) spurious.came(0);
  t.equal(spurious.delayMs, 128);
  spurious.came(1);
  t.equal(spurious.delayMs, 0);
});
