/**
 * Goal: the simulation is worth something: each planted bug is found out by it.
 * Method: histories of the changed program, from seed 1 on, until one of them is judged wrong. The
 * same seeds of the program as it is are good, or the judge would be too severe.
 */

import t from 'tap';
import { MUTANTS } from './mutants.ts';
import { playHistory } from './play-history.ts';

/** The slowest to be found took half as many. */
const SEEDS_MAX = 120;

/** For a busy machine. */
t.setTimeout(240_000);

for (const mutant of MUTANTS) {
  void t.test(mutant.name, async (t) => {
    const { troubles, install } = mutant;
    const undo = install?.();
    let found: string | undefined;
    let seed = 0;
    try {
      while (found === undefined && seed < SEEDS_MAX) {
        seed += 1;
        found = (await playHistory({ seed, mutant, wish: { troubles } })).violation;
      }
    } finally {
      undo?.();
    }
    t.not(found, undefined, `it is found out within ${SEEDS_MAX} seeds`);
    t.comment(`seed ${seed}: ${found?.split('\n')[0]?.slice(0, 160)}`);
    const { violation } = await playHistory({ seed, wish: { troubles } });
    t.equal(violation, undefined, `seed ${seed} is good without the bug`);
  });
}
