/**
 * Goal: the front end never sleeps on news, and never spins on noise.
 * Method: pokes before, during and after a look, on a virtual clock.
 */

import t from 'tap';
import { WakeUp } from '../../src/frontend/wake-up.ts';
import { VirtualClock } from './support/virtual-clock.ts';

/** Whether a promise has settled once everything under way has. */
async function isDone(promise: Promise<void>, clock: VirtualClock): Promise<boolean> {
  let done = false;
  void promise.then(() => {
    done = true;
  });
  await clock.settle(1);
  return done;
}

void t.test('a poke during the look makes the sleep end at once', async (t) => {
  const clock = new VirtualClock();
  const wakeUp = new WakeUp(clock);
  wakeUp.beginLook();
  wakeUp.poke();
  t.equal(await isDone(wakeUp.sleep(Number.POSITIVE_INFINITY), clock), true);
  t.end();
});

void t.test('a poke before the look is covered by the look', async (t) => {
  const clock = new VirtualClock();
  const wakeUp = new WakeUp(clock);
  wakeUp.poke();
  wakeUp.beginLook();
  const sleep = wakeUp.sleep(Number.POSITIVE_INFINITY);
  t.equal(await isDone(sleep, clock), false);
  wakeUp.poke();
  t.equal(await isDone(sleep, clock), true);
  t.end();
});

void t.test('the deadline ends the sleep, and leaves no timer', async (t) => {
  const clock = new VirtualClock();
  const wakeUp = new WakeUp(clock);
  wakeUp.beginLook();
  const first = wakeUp.sleep(clock.nowMs() + 50);
  await clock.advance(49);
  t.equal(await isDone(first, clock), false);
  await clock.advance(1);
  t.equal(await isDone(first, clock), true);
  wakeUp.beginLook();
  const second = wakeUp.sleep(clock.nowMs() + 50);
  wakeUp.poke();
  t.equal(await isDone(second, clock), true);
  t.equal(clock.timerCount, 0, 'a poke takes the timer along');
  t.equal(await isDone(wakeUp.sleep(clock.nowMs()), clock), true, 'a deadline that has come');
  t.end();
});

void t.test('noise: at most 200 looks a second, and the next second is free', async (t) => {
  const clock = new VirtualClock();
  const wakeUp = new WakeUp(clock);
  let looks = 0;
  for (; looks < 1_000; looks++) {
    wakeUp.beginLook();
    wakeUp.poke();
    if (!(await isDone(wakeUp.sleep(Number.POSITIVE_INFINITY), clock))) {
      break;
    }
  }
  t.equal(looks, 200);
  await clock.advance(1_000);
  wakeUp.beginLook();
  wakeUp.poke();
  t.equal(await isDone(wakeUp.sleep(Number.POSITIVE_INFINITY), clock), true);
  t.end();
});
