/**
 * Goal: the clock of the lanes shows what CLOCK_MONOTONIC does, in both of its scales, and its
 * differences are right across the end of 32 bits.
 * Method: the real clock between two looks at Node's own; then any uptime, put in the place of the
 * system call, against whole-number arithmetic. Prints its seed.
 */
import t, { type Test } from 'tap';
import { libc, MonotonicClock, viewMemory } from '../../src/sys/index.ts';
import { runSeed, SeededRandom } from '../support/random.ts';

/** What CLOCK_MONOTONIC shows, in whole microseconds. */
function monotonicUs(): bigint {
  return process.hrtime.bigint() / 1000n;
}

function toInt32(value: bigint): number {
  return Number(BigInt.asIntN(32, value));
}

void t.test('microseconds of CLOCK_MONOTONIC', async (t) => {
  const clock = new MonotonicClock();
  for (let round = 0; round < 1000; round++) {
    const before = monotonicUs();
    clock.read();
    const after = monotonicUs();
    const since = (clock.us - toInt32(before)) | 0;
    if (since >= 0 && since <= Number(after - before)) continue;
    t.fail(`${clock.us} is not between ${before} and ${after}, modulo 2^32`);
    return;
  }
});

void t.test('it stands still between two looks', async (t) => {
  const clock = new MonotonicClock();
  const target = new Float64Array(2);
  const seen = clock.us;
  clock.storeMs(target, 0);
  const start = monotonicUs();
  while (monotonicUs() - start < 50n);
  t.equal(clock.us, seen);
  clock.storeMs(target, 1);
  t.equal(target[1], target[0]);
  clock.read();
  t.ok(((clock.us - seen) | 0) >= 50);
});

void t.test('milliseconds of performance.now()', async (t) => {
  const beforeNew = performance.now();
  const clock = new MonotonicClock();
  // The constructor looks at both clocks, one after the other: it cannot be more wrong than that.
  const slackMs = performance.now() - beforeNew + 0.001;
  const target = new Float64Array(3).fill(-1);
  for (let round = 0; round < 1000; round++) {
    const before = performance.now();
    clock.read();
    const after = performance.now();
    clock.storeMs(target, 1);
    const [, ms = 0] = target;
    if (ms >= before - slackMs && ms <= after + slackMs) continue;
    t.fail(`${ms} is not between ${before} and ${after}, give or take ${slackMs}`);
    return;
  }
  t.strictSame([target[0], target[2]], [-1, -1], 'only its own place is written');
});

/** A clock whose system call shows what `set` was told last. */
function settableClock(t: Test): { clock: MonotonicClock; set: (ns: bigint) => void } {
  const real = libc.clockGettime;
  t.teardown(() => {
    libc.clockGettime = real;
  });
  let nanoseconds = 0n;
  libc.clockGettime = (_clock, timespec) => {
    const words = new BigInt64Array(viewMemory(timespec, 16));
    words[0] = nanoseconds / 1_000_000_000n;
    words[1] = nanoseconds % 1_000_000_000n;
    return 0;
  };
  const clock = new MonotonicClock();
  const set = (ns: bigint): void => {
    nanoseconds = ns;
    clock.read();
  };
  return { clock, set };
}

void t.test('any uptime', async (t) => {
  const { clock, set } = settableClock(t);
  const seed = runSeed();
  t.comment(`SEED=${seed}`);
  const random = new SeededRandom(seed);
  // Around each end of 32 bits, of microseconds and of seconds' products.
  const edges = [0n, 2n ** 31n, 2n ** 32n, 3n * 2n ** 31n, 2n ** 40n, 2n ** 50n].flatMap((us) =>
    [-1n, 0n, 1n].map((by) => (us + by) * 1000n).filter((ns) => ns >= 0n),
  );
  const years = 10 * 366 * 86400;
  const any = Array.from(
    { length: 2000 },
    () => BigInt(random.below(years)) * 1_000_000_000n + BigInt(random.below(1_000_000_000)),
  );
  const start = new Float64Array(1);
  set(0n);
  clock.storeMs(start, 0);
  let lastNs = 0n;
  let lastUs = 0;
  const ms = new Float64Array(1);
  for (const ns of [...edges, ...any].sort((a, b) => (a < b ? -1 : 1))) {
    set(ns);
    const expected = toInt32(ns / 1000n);
    if (clock.us !== expected) t.equal(clock.us, expected, `microseconds at ${ns} ns`);
    const passedUs = ns / 1000n - lastNs / 1000n;
    const difference = (clock.us - lastUs) | 0;
    if (passedUs < 2n ** 31n && BigInt(difference) !== passedUs) t.fail(`since ${lastNs} ns`);
    clock.storeMs(ms, 0);
    const passedMs = (ms[0] ?? 0) - (start[0] ?? 0);
    // A double has a microsecond to spare for centuries.
    if (Math.abs(passedMs - Number(ns) / 1e6) > 0.001) t.fail(`${passedMs} ms at ${ns} ns`);
    lastNs = ns;
    lastUs = clock.us;
  }
});
