// Goal: hostile clients find nothing. Method: a short run of the fuzzer; cases it found before are
// kept here by their seeds.

import t from 'tap';
import { fuzzHandshake, fuzzHandshakeCase, fuzzServer } from '../fuzz/nbd-fuzz.ts';
import { freshSeed } from './support/random.ts';

/** Seeds that once failed, with what they showed. */
const found: readonly (readonly [number, string])[] = [];

void t.test('the handshake alone', async (t) => {
  for (const [seed, what] of found) {
    fuzzHandshakeCase(seed);
    t.pass(what);
  }
  const seed = freshSeed();
  const report = fuzzHandshake(seed, { seconds: 1 });
  t.pass(`${report.cases} cases from seed ${seed}`);
});

void t.test('a whole server', async (t) => {
  const seed = freshSeed();
  const report = await fuzzServer(seed, { seconds: 2 });
  t.pass(`${report.cases} cases from seed ${seed}`);
});
