// Hostile clients against the whole daemon, in a process of its own: `npm run test:fuzz`.
//
//   --seconds N   how long (default 60)
//   --cases N     how many, whatever the time
//   --seed N      an earlier run; case K has the seed (seed + K)
//
// Fails when the daemon ends, reports a fault of its own, does not answer a good client, has grown
// by more than a tenth since it settled, or has descriptors open that it had not.

import { parseArgs } from 'node:util';
import { median } from '../bench/results.ts';
import { freshSeed } from '../nbd-server-ts/support/random.ts';
import { Daemon } from '../support/daemon.ts';
import { eventually } from '../support/eventually.ts';
import { idleDescriptors } from '../support/idle-descriptors.ts';
import { countDescriptors, readResidentMemory } from '../support/proc-stat.ts';
import { assertAlive, foreignServer, fuzzServerCase, type Reach } from './nbd-fuzz.ts';

const HOSTS = 16;
const MIB = 2 ** 20;
/** After this part of a run, and so many cases, the daemon must have found its size. */
const SETTLED_PART = 1 / 3;
const SETTLED_CASES = 30_000;
const GROWTH_MAX = 1.1;
/** A good client comes this often. */
const ALIVE_CASES = 2000;
/** The memory is looked at this often: one look may come right before or behind a collection. */
const LOOK_CASES = 500;

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '60' },
    cases: { type: 'string' },
    seed: { type: 'string' },
  },
});
const seed = values.seed === undefined ? freshSeed() : Number(values.seed);
const caseCount = values.cases === undefined ? Number.POSITIVE_INFINITY : Number(values.cases);
const seconds = values.cases === undefined ? Number(values.seconds) : Number.POSITIVE_INFINITY;
const startMs = performance.now();
let nextCase = 0;
const looks: number[] = [];

/** What part of the run is over, from 0 to 1. */
function partDone(): number {
  return Math.max(nextCase / caseCount, (performance.now() - startMs) / 1000 / seconds);
}

/** Plays one case after the other while others do the same. */
async function play(reach: Reach, until: () => boolean): Promise<void> {
  while (!until()) {
    const index = nextCase;
    nextCase += 1;
    try {
      await fuzzServerCase(seed + index, reach);
      if (index % ALIVE_CASES === 0) await assertAlive(reach);
      if (index % LOOK_CASES === 0) looks.push(readResidentMemory(daemon.pid).nowBytes / MIB);
    } catch (error) {
      throw new Error(`The case of seed ${seed + index} failed.`, { cause: error });
    }
  }
}

async function playTogether(reach: Reach, until: () => boolean): Promise<void> {
  await Promise.all(Array.from({ length: HOSTS }, () => play(reach, until)));
}

/** Waits until the daemon has no more descriptors than when nobody had come. */
async function waitForDescriptors(fdCount: number): Promise<void> {
  await eventually('the descriptors of clients are closed', 30_000, () =>
    countDescriptors(daemon.pid) <= fdCount ? true : undefined,
  );
}

/** The typical memory over a part of the looks, in MiB. */
function typical(from: number, to: number): number {
  return median(looks.slice(Math.floor(looks.length * from), Math.ceil(looks.length * to))) ?? 0;
}

console.log(`seed ${seed}`);
const socket = `/tmp/xenblk-fuzz-${process.pid}.sock`;
const args = ['--simulate', '64K', '--unix', socket, '--export', 'disk', '--log-level', 'error'];
// A small nursery, or the memory goes up and down by more than what is looked for.
const daemon = await Daemon.start(args, ['env', 'NODE_OPTIONS=--max-semi-space-size=1']);
try {
  const reach = foreignServer(socket);
  const fdCount = await idleDescriptors(daemon.pid, { path: socket });
  await playTogether(reach, () => partDone() >= SETTLED_PART && nextCase >= SETTLED_CASES);
  await waitForDescriptors(fdCount);
  looks.length = 0;
  await playTogether(reach, () => partDone() >= 1);
  await assertAlive(reach);
  await waitForDescriptors(fdCount);
  const thirds = [typical(0, 1 / 3), typical(1 / 3, 2 / 3), typical(2 / 3, 1)];
  const shown = thirds.map((mib) => mib.toFixed(1)).join(', ');
  console.log(`${fdCount} descriptors before and after; memory since it settled: ${shown} MiB`);
  const [first = 0, , last = 0] = thirds;
  if (last > first * GROWTH_MAX) throw new Error('The daemon has grown.');
  await daemon.stop();
  // Everything that it logs at this level is a fault.
  if (/^\{/m.test(daemon.log)) throw new Error(`The daemon reports faults:\n${daemon.log}`);
} catch (error) {
  console.log(`seed ${seed}, ${nextCase} cases, the daemon says:\n${daemon.output}`);
  throw error;
} finally {
  daemon.kill('SIGKILL');
}
const tookSeconds = ((performance.now() - startMs) / 1000).toFixed(0);
console.log(`${nextCase} cases in ${tookSeconds} s`);
