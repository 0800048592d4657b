// When a thread with nothing to do looks for work, and when it sleeps.
import t from 'tap';
import { BusyPoll } from '../../src/sys/index.ts';

const LONGEST_US = 100;
const CROWDED_US = 1000;

void t.test('a thread that was quiet sleeps at once', async (t) => {
  const poll = new BusyPoll(LONGEST_US);
  t.equal(poll.begin(0), false, 'nothing is known yet');
  poll.woken(5000);
  t.equal(poll.begin(5000), false);
  t.equal(poll.pays, false);
});

void t.test('after a short sleep it looks, for as long as it was told', async (t) => {
  const poll = new BusyPoll(LONGEST_US);
  poll.begin(1000);
  poll.woken(1000 + LONGEST_US - 1);
  t.equal(poll.pays, true);
  t.equal(poll.begin(2000), true);
  t.equal(poll.goesOn(2000), true);
  t.equal(poll.goesOn(2000 + LONGEST_US - 1), true);
  t.equal(poll.goesOn(2000 + LONGEST_US), false);
});

void t.test('it looks in vain once, and sleeps the next time', async (t) => {
  const poll = new BusyPoll(LONGEST_US);
  poll.begin(0);
  poll.woken(1);
  poll.begin(10);
  t.equal(poll.goesOn(10 + LONGEST_US), false);
  poll.woken(10 + LONGEST_US);
  t.equal(poll.begin(5000), false);
});

/** A poll that looks, whose others have kept the processor for long. */
function crowd(poll: BusyPoll, nowUs: number): void {
  poll.begin(nowUs);
  poll.woken(nowUs + 1);
  while (!poll.begin(nowUs)) poll.woken(nowUs + 1);
  t.equal(poll.goesOn(nowUs + CROWDED_US), false);
  poll.woken(nowUs + CROWDED_US);
}

/** Short waits until it looks again. */
function shortWaits(poll: BusyPoll): number {
  let count = 0;
  for (; !poll.begin(0); count++) poll.woken(1);
  return count;
}

void t.test('where others want the processor it sleeps, longer each time', async (t) => {
  const poll = new BusyPoll(LONGEST_US);
  const pauses: number[] = [];
  for (let round = 0; round < 6; round++) {
    crowd(poll, round * 10_000);
    t.equal(poll.pays, false);
    pauses.push(shortWaits(poll));
  }
  t.same(pauses, [1024, 2048, 4096, 8192, 16_384, 16_384]);
});

void t.test('when looking is good again for long, the crowd is forgotten', async (t) => {
  const poll = new BusyPoll(LONGEST_US);
  for (let round = 0; round < 3; round++) {
    crowd(poll, 0);
    shortWaits(poll);
  }
  for (let round = 0; round <= 16_384; round++) {
    if (!poll.begin(0)) throw new Error('it does not look');
    poll.found();
  }
  crowd(poll, 0);
  t.equal(shortWaits(poll), 1024);
});

void t.test('without any time for it, it never looks', async (t) => {
  const poll = new BusyPoll(0);
  poll.begin(7);
  poll.woken(7);
  t.equal(poll.begin(7), false);
});

void t.test('a client that runs for a little longer is no crowd', async (t) => {
  const poll = new BusyPoll(LONGEST_US);
  poll.begin(0);
  poll.woken(1);
  poll.begin(10);
  t.equal(poll.goesOn(10 + CROWDED_US - 1), false);
  poll.woken(2000);
  poll.begin(3000);
  poll.woken(3001);
  t.equal(poll.begin(4000), true);
});

void t.test('its clock may wrap', async (t) => {
  const poll = new BusyPoll(LONGEST_US);
  const beforeWrap = 0x7fff_fff0;
  const afterWrap = (beforeWrap + 50) | 0;
  poll.begin(beforeWrap);
  poll.woken(afterWrap);
  t.equal(poll.begin(beforeWrap), true);
  t.equal(poll.goesOn(afterWrap), true);
  t.equal(poll.goesOn((beforeWrap + LONGEST_US) | 0), false);
});
