/**
 * Goal: the doorbell rings whenever the other end may sleep: no wake-up is ever lost.
 * Method: every interleaving of one publication with one final check, step by atomic step, with
 * each of the two cut open by the other.
 */

import t from 'tap';
import { expect, freshPair, type Pair, STARTS } from './support/ring-pair.ts';

/**
 * Runs `action` and, before its `step`-th atomic access (from 0), `intruder`: what a thread of the
 * other end could do at exactly that moment. Returns whether that step was reached; if not, the
 * intruder comes after the action.
 */
function interleave(step: number, action: () => void, intruder: () => void): boolean {
  const { load, store } = Atomics;
  let reached = 0;
  let isInside = false;
  const intrude = (): void => {
    if (!isInside && reached++ === step) {
      isInside = true;
      intruder();
      isInside = false;
    }
  };
  const hooked = {
    load: (array: Uint32Array, index: number): number => {
      intrude();
      return load(array, index);
    },
    store: (array: Uint32Array, index: number, value: number): number => {
      intrude();
      return store(array, index, value);
    },
  };
  Object.assign(Atomics, hooked);
  try {
    action();
  } finally {
    Object.assign(Atomics, { load, store });
  }
  if (reached <= step) {
    intruder();
    return false;
  }
  return true;
}

/**
 * A pair in the middle of its work: both ends were rung once and did not ask again, so that the
 * next publication rings only if the other end asks in time. Two requests are filled, one of them
 * published and consumed by the back end.
 */
function busyPair(startIndex: number): Pair {
  const pair = freshPair(startIndex);
  const { front, back } = pair;
  front.reserveSlot();
  front.publish();
  back.consume(1);
  back.reserveSlot();
  back.publish();
  front.consume(1);
  front.reserveSlot();
  expect(front.publish(), false, 'the back end is awake');
  back.consume(1);
  return pair;
}

/** What one end does when it makes up its mind to sleep; true when it stays awake. */
type Sleep = (pair: Pair) => boolean;
/** What the other end does to give it work; true when it rings. */
type Wake = (pair: Pair) => boolean;

const SCENES: readonly { name: string; sleep: Sleep; wake: Wake }[] = [
  {
    name: 'the front end sleeps while a response is published',
    sleep: ({ front }) => front.finalCheck(),
    wake: ({ back }) => {
      back.reserveSlot();
      return back.publish();
    },
  },
  {
    name: 'the back end sleeps while a request is published',
    sleep: ({ back }) => back.finalCheck(),
    wake: ({ front }) => {
      front.reserveSlot();
      return front.publish();
    },
  },
];

for (const { name, sleep, wake } of SCENES) {
  void t.test(`no wake-up is lost at any step: ${name}`, (t) => {
    for (const start of STARTS) {
      for (const isSleeperCut of [true, false]) {
        let steps = 0;
        for (let isReached = true; isReached; steps++) {
          const pair = busyPair(start);
          let isWork = false;
          let isRung = false;
          const toSleep = (): void => {
            isWork = sleep(pair);
          };
          const toWake = (): void => {
            isRung = wake(pair);
          };
          const [action, intruder] = isSleeperCut ? [toSleep, toWake] : [toWake, toSleep];
          isReached = interleave(steps, action, intruder);
          t.ok(
            isWork || isRung,
            `start ${start}, ${isSleeperCut ? 'sleeper' : 'waker'} cut at step ${steps}`,
          );
        }
        t.ok(steps > 2, 'there were steps to cut at');
      }
    }
    t.end();
  });
}
