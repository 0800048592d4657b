/**
 * Goal: whatever happens to the back end, the host and the guest, every request is answered once
 * and truly, and nothing is left behind.
 * Method: a few dozen random histories, each from a seed that is printed when it fails, and played
 * again by `npm run test:sim -- --seed N --trace`. `npm run test:sim -- --seeds N` plays many.
 */

import t from 'tap';
import { runSeed } from '../support/random.ts';
import { playHistory } from './play-history.ts';
import { TROUBLE_NAMES } from './trouble-names.ts';

const HISTORIES = 40;

/** For a busy machine. */
t.setTimeout(240_000);

void t.test('random histories', async (t) => {
  const first = runSeed();
  t.comment(`seeds from ${first}`);
  for (let index = 0; index < HISTORIES; index++) {
    const seed = (first + index) >>> 0;
    const { violation } = await playHistory({ seed });
    t.equal(violation, undefined, `seed ${seed}`);
  }
});

void t.test('each kind of trouble by itself', async (t) => {
  for (const name of TROUBLE_NAMES) {
    for (const seed of [1, 2]) {
      const { violation } = await playHistory({ seed, wish: { troubles: [name] } });
      t.equal(violation, undefined, `${name}, seed ${seed}`);
    }
  }
});

void t.test('a seed plays the same history each time', async (t) => {
  for (const seed of [3, 5, 8, 13]) {
    const traces: string[][] = [];
    for (let round = 0; round < 2; round++) {
      const lines: string[] = [];
      await playHistory({ seed, trace: (line) => lines.push(line) });
      traces.push(lines);
    }
    t.ok((traces[0]?.length ?? 0) > 10, `seed ${seed} has a trace`);
    t.same(traces[0], traces[1], `seed ${seed}, line by line`);
    const plain = await playHistory({ seed });
    const traced = await playHistory({ seed, trace: () => undefined });
    t.equal(plain.fingerprint, traced.fingerprint, `seed ${seed}: looking changes nothing`);
  }
});
