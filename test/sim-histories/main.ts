/**
 * `npm run test:sim`: plays many random histories of the program against its simulated world.
 *
 *   --seeds N    how many, from a random first seed or the one given (default 200)
 *   --seed N     the first seed; with --seeds 1, or --trace, the only one
 *   --trace      print what happens
 *   --trouble T  only this kind of trouble
 */

import { parseArgs } from 'node:util';
import { playHistory } from './play-history.ts';
import { TROUBLE_NAMES, type TroubleName } from './trouble-names.ts';

const { values } = parseArgs({
  options: {
    seeds: { type: 'string' },
    seed: { type: 'string' },
    trace: { type: 'boolean', default: false },
    trouble: { type: 'string', multiple: true },
  },
});

const isSingle = values.seed !== undefined && values.seeds === undefined;
const count = isSingle ? 1 : Number(values.seeds ?? 200);
const first = Number(values.seed ?? Date.now() % 2 ** 31);
const unknown = values.trouble?.find((name) => !isTroubleName(name));
if (unknown !== undefined || !Number.isInteger(count) || !Number.isInteger(first)) {
  console.error(
    unknown === undefined
      ? '--seed and --seeds take whole numbers.'
      : `There is no trouble "${unknown}"; there are ${TROUBLE_NAMES.join(', ')}.`,
  );
  process.exit(2);
}
const troubles = values.trouble?.filter(isTroubleName);
const startedMs = performance.now();
const sums = { answers: 0, errors: 0, recoveries: 0, events: 0, failed: 0 };
for (let index = 0; index < count; index++) {
  const seed = (first + index) % 2 ** 32;
  const trace = values.trace ? (line: string) => console.log(line) : undefined;
  const result = await playHistory({ seed, trace, wish: { troubles } });
  sums.answers += result.answers;
  sums.errors += result.errors;
  sums.recoveries += result.recoveries;
  sums.events += result.events;
  if (result.violation === undefined) continue;
  sums.failed += 1;
  console.log(`seed ${seed}: ${result.violation}`);
  if (!values.trace) console.log(`  to see it: npm run test:sim -- --seed ${seed} --trace`);
}
const seconds = (performance.now() - startedMs) / 1000;
console.log(
  `${count} histories from seed ${first}: ${sums.failed} wrong; ${sums.answers} answers, ` +
    `${sums.errors} errors, ${sums.recoveries} recoveries, ${sums.events} events ` +
    `in ${seconds.toFixed(1)} s`,
);
process.exitCode = sums.failed === 0 ? 0 : 1;

function isTroubleName(name: string): name is TroubleName {
  return TROUBLE_NAMES.some((known) => known === name);
}
