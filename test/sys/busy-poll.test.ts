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

/** Others keep the processor for long while it looks. Returns when that was over. */
function crowd(poll: BusyPoll, nowUs: number): number {
  poll.begin(nowUs);
  poll.woken(nowUs + 1);
  if (!poll.begin(nowUs + 1)) throw new Error('it does not look');
  const laterUs = nowUs + 1 + CROWDED_US;
  t.equal(poll.goesOn(laterUs), false);
  poll.woken(laterUs);
  return laterUs;
}

/** Short waits from then on, until it looks again. Returns how long that took. */
function pauseUs(poll: BusyPoll, fromUs: number): number {
  let nowUs = fromUs;
  for (; !poll.begin(nowUs); nowUs += 10) poll.woken(nowUs + 10);
  return nowUs - fromUs;
}

void t.test('where others want the processor it sleeps, longer each time', async (t) => {
  const poll = new BusyPoll(LONGEST_US);
  const pauses: number[] = [];
  let nowUs = 10_000_000;
  for (let round = 0; round < 7; round++) {
    nowUs = crowd(poll, nowUs);
    t.equal(poll.pays, false);
    pauses.push(pauseUs(poll, nowUs));
    nowUs += pauses[round] ?? 0;
  }
  t.same(pauses, [10_000, 20_000, 40_000, 80_000, 160_000, 160_000, 160_000]);
});

void t.test('a crowd of a while ago is forgotten', async (t) => {
  const poll = new BusyPoll(LONGEST_US);
  let nowUs = 10_000_000;
  for (let round = 0; round < 4; round++) {
    nowUs = crowd(poll, nowUs);
    nowUs += pauseUs(poll, nowUs);
  }
  nowUs = crowd(poll, nowUs + 1_000_000);
  t.equal(pauseUs(poll, nowUs), 10_000);
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
