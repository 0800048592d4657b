/**
 * Goal: the lists of --simulate-features and --simulate-faults are read as documented, and refused
 * with one sentence otherwise. Method: tables of texts and results.
 */

import t from 'tap';
import {
  NO_FAULTS,
  NO_FEATURES,
  parseSimulatedFaults,
  parseSimulatedFeatures,
  parseSizeBytes,
  SeededRandom,
} from '../../src/sim/index.ts';

void t.test('features', async (t) => {
  t.same(
    parseSimulatedFeatures(
      'ring-page-order=3,queues=4,indirect=256,persistent,flush,barrier,discard,sector-size=4096,read-only',
    ),
    {
      ringPageOrder: 3,
      queues: 4,
      indirect: 256,
      persistent: true,
      flush: true,
      barrier: true,
      discard: true,
      sectorSize: 4096,
      readOnly: true,
    },
  );
  t.same(
    parseSimulatedFeatures(' flush , queues=2 '),
    { ...NO_FEATURES, flush: true, queues: 2 },
    'what is not named is not offered',
  );
  const refused: [string, RegExp][] = [
    ['', /empty item/],
    ['flush,,discard', /empty item/],
    ['flush,flush', /names flush twice/],
    ['flush=1', /flush takes no value/],
    ['queues', /queues= cannot be used; give a number from 1 to 64/],
    ['queues=0', /from 1 to 64/],
    ['queues=2x', /from 1 to 64/],
    ['ring-page-order=5', /from 0 to 4/],
    ['indirect=4097', /from 0 to 4096/],
    ['sector-size=1000', /sector-size=1000 cannot be simulated; give 512, 1024, 2048 or 4096/],
    ['Flush', /"Flush" is not a simulated feature; known are ring-page-order=N/],
  ];
  for (const [text, message] of refused) {
    t.throws(() => parseSimulatedFeatures(text), { name: 'SimulationOptionError', message }, text);
  }
});

void t.test('faults', async (t) => {
  t.same(
    parseSimulatedFaults('seed=42,error=0.01,delay=5,restart=2,resize=2G@10,unplug=1.5,hostile'),
    {
      seed: 42,
      errorRate: 0.01,
      delayMs: 5,
      restartSeconds: 2,
      resize: { sizeBytes: 2 ** 31, afterSeconds: 10 },
      unplugSeconds: 1.5,
      hostile: true,
    },
  );
  t.same(parseSimulatedFaults('seed=0'), { ...NO_FAULTS, seed: 0 });
  const refused: [string, RegExp][] = [
    ['error=1.1', /error=1.1 cannot be used; give a number above 0 and up to 1/],
    ['error=0', /above 0/],
    ['error=-1', /above 0/],
    ['error=1e-3', /above 0/],
    ['delay', /delay= cannot be used/],
    ['restart=0', /above 0/],
    ['resize=2G', /write the new size and when, such as resize=2G@10/],
    ['resize=2G@1@2', /write the new size/],
    ['resize=2Q@1', /"2Q" is not a size/],
    ['hostile=yes', /hostile takes no value/],
    ['crash', /"crash" is not a simulated fault; known are seed=N/],
  ];
  for (const [text, message] of refused) {
    t.throws(() => parseSimulatedFaults(text), { name: 'SimulationOptionError', message }, text);
  }
});

void t.test('sizes', async (t) => {
  const good: [string, number][] = [
    ['512', 512],
    ['64M', 64 * 2 ** 20],
    ['64m', 64 * 2 ** 20],
    ['2G', 2 * 2 ** 30],
    ['1TiB', 2 ** 40],
    ['4KB', 4096],
    ['7P', 7 * 2 ** 50],
  ];
  for (const [text, bytes] of good) t.equal(parseSizeBytes(text), bytes, text);
  for (const text of ['', '0', '-1', '1.5G', '8P', '9999999999999999', 'G', '64 M', '0x10']) {
    t.throws(() => parseSizeBytes(text), /is not a size/, text);
  }
  t.throws(() => parseSizeBytes('1000'), /not a multiple of 512/);
});

void t.test('random numbers are those of their seed', async (t) => {
  const first = new SeededRandom(7);
  const again = new SeededRandom(7);
  const other = new SeededRandom(8);
  const numbers = Array.from({ length: 1000 }, () => first.next());
  t.same(
    numbers,
    Array.from({ length: 1000 }, () => again.next()),
  );
  t.notSame(
    numbers,
    Array.from({ length: 1000 }, () => other.next()),
  );
  t.ok(numbers.every((number) => number >= 0 && number < 1));
  const mean = numbers.reduce((sum, number) => sum + number, 0) / numbers.length;
  t.ok(mean > 0.45 && mean < 0.55, `mean ${mean}`);
});
