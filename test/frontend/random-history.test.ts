/**
 * Goal: no order of troubles makes the front end give a ring back too early, hang, or fail: once
 * the trouble is over it is connected, with nothing of the past held, and closes cleanly.
 * Method: random histories of a scripted back end, toolstack and owner, with random pauses; the
 * fake host notes every release that comes too early. A failing history is shrunk and printed.
 */

import fc from 'fast-check';
import t from 'tap';
import { checkEndsWell } from './support/ends-well.ts';
import { TROUBLES, type Trouble } from './support/troubles.ts';
import { World } from './support/world.ts';

const history = fc.array(
  fc.record({
    trouble: fc.constantFrom(...(Object.keys(TROUBLES) as Trouble[])),
    /** Microtask rounds, then milliseconds, until the next. */
    rounds: fc.integer({ min: 0, max: 12 }),
    pauseMs: fc.oneof(fc.constant(0), fc.constant(0), fc.integer({ min: 0, max: 3_000 })),
  }),
  { minLength: 1, maxLength: 12 },
);

async function play(steps: { trouble: Trouble; rounds: number; pauseMs: number }[]): Promise<void> {
  const world = new World();
  world.back.plug();
  const { frontend } = await world.attached();
  for (const { trouble, rounds, pauseMs } of steps) {
    TROUBLES[trouble](world);
    for (let round = 0; round < rounds; round++) {
      await Promise.resolve();
    }
    if (pauseMs > 0) {
      await world.clock.advance(pauseMs);
    }
  }
  await checkEndsWell(world, frontend);
}

void t.test('random histories end well', async (t) => {
  const numRuns = Number(process.env['FRONTEND_HISTORIES'] ?? 25);
  const seed = Number(process.env['FRONTEND_SEED'] ?? Date.now() % 2 ** 31);
  t.comment(`seed ${seed}`);
  await fc.assert(fc.asyncProperty(history, play), { numRuns, seed });
  t.pass(`${numRuns} histories`);
  t.end();
});
