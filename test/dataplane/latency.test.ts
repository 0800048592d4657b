/**
 * Goal: a latency is counted in the bucket whose bounds it lies within, whatever it is, and what a
 * percentile says is within a bucket of the truth.
 * Method: bounds at n-1, n and n+1; random latencies against a sorted list. Prints its seed.
 */
import fc from 'fast-check';
import { createExportInfo, NbdCmd, NbdErrno } from 'nbd-server-ts/protocol';
import t from 'tap';
import { countReply } from '../../src/dataplane/counters.ts';
import { Counter, Counters, LATENCY_COMMANDS } from '../../src/dataplane/index.ts';
import {
  LATENCY_BUCKETS,
  latencyBucket,
  latencyFloorUs,
  latencyPercentileUs,
} from '../../src/dataplane/latency.ts';
import { NbdConnection } from '../../src/dataplane/nbd-connection.ts';
import { TraceField, TraceRing } from '../../src/dataplane/trace-ring.ts';
import { createCore, createEngine, createRing, SIMPLE } from '../sim-histories/quiet-ring.ts';

void t.test('the bounds of the buckets', async (t) => {
  for (let bucket = 0; bucket < LATENCY_BUCKETS; bucket++) {
    const floor = latencyFloorUs(bucket);
    const end = latencyFloorUs(bucket + 1);
    const found = [floor, floor + 0.5, end - 1, end - 0.001].map(latencyBucket);
    t.strictSame(found, Array(4).fill(bucket), `${floor} to ${end} us`);
    if (bucket >= 4) t.ok((end - floor) / floor <= 0.25, 'at most a quarter wider than its floor');
  }
  const last = LATENCY_BUCKETS - 1;
  t.equal(latencyFloorUs(LATENCY_BUCKETS), 2 ** 27);
  for (const us of [2 ** 27, 2 ** 31 - 1, 2 ** 31, 2 ** 32 + 5, 2 ** 53, Infinity]) {
    t.equal(latencyBucket(us), last, `${us} us`);
  }
  for (const us of [0, -1, -0.5, -(2 ** 31), -(2 ** 40), Number.NaN]) {
    t.equal(latencyBucket(us), 0, `${us} us`);
  }
});

void t.test('percentiles', async (t) => {
  const histogram = new Float64Array(LATENCY_BUCKETS);
  t.equal(latencyPercentileUs(histogram, 0.5), 0, 'of nothing');
  const seed = Number(process.env['SEED'] ?? Date.now() % 2 ** 31);
  t.comment(`SEED=${seed}`);
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 0, max: 2 ** 26 }), { minLength: 1, maxLength: 200 }),
      fc.constantFrom(0.01, 0.5, 0.95, 0.99, 1),
      (latencies, part) => {
        histogram.fill(0);
        for (const us of latencies) {
          const bucket = latencyBucket(us);
          histogram[bucket] = (histogram[bucket] ?? 0) + 1;
        }
        const sorted = [...latencies].sort((a, b) => a - b);
        const truth = sorted[Math.max(0, Math.ceil(sorted.length * part) - 1)] ?? 0;
        const said = latencyPercentileUs(histogram, part);
        return said > truth && said <= truth * 1.25 + 1;
      },
    ),
    { seed, numRuns: 500 },
  );
});

void t.test('a reply is counted by command and error', async (t) => {
  const counters = new Counters();
  countReply(counters, NbdCmd.READ, 0, 1000);
  countReply(counters, NbdCmd.READ, NbdErrno.EIO, 500);
  countReply(counters, NbdCmd.WRITE_ZEROES, NbdErrno.ENOSPC, 0);
  countReply(counters, NbdCmd.BLOCK_STATUS, NbdErrno.EINVAL, 1_000_000);
  const seen = LATENCY_COMMANDS.map((command) =>
    counters.latencyOf(command).reduce((a, b) => a + b),
  );
  t.strictSame(seen, [2, 0, 0, 0, 1, 1]);
  t.equal(counters.latencyOf('read')[latencyBucket(1000)], 1);
  t.equal(counters.latencySumUs('read'), 1500);
  t.equal(counters.get(Counter.ERRORS), 3);
  t.equal(counters.get(Counter.ERRORS_EIO), 1);
  t.equal(counters.get(Counter.ERRORS_ENOSPC), 1);
  t.equal(counters.get(Counter.ERRORS_EINVAL), 1);
  t.equal(new Counters(counters.shared).latencySumUs('other'), 1_000_000, 'seen by another thread');
});

void t.test('how long a reply took, by a clock of 32 bits that wraps', async (t) => {
  const { engine } = createEngine(createRing().config);
  const info = createExportInfo({ sizeBytes: 1 << 20 });
  /** The sum, the bucket and the trace of one reply that took so long. */
  const answer = (startedUs: number, tookUs: number): readonly number[] => {
    const operation = engine.take();
    if (operation === undefined) throw new Error('There is no operation left.');
    operation.command = NbdCmd.READ;
    operation.startedUs = startedUs;
    const counters = new Counters();
    const trace = new TraceRing();
    const core = createCore(engine, {
      takeOperation: () => undefined,
      nowUs: (startedUs + tookUs) | 0,
      counters,
      trace,
    });
    new NbdConnection(core, 1, -1, info, SIMPLE).replyReady(operation);
    engine.release(operation);
    const traced: number[] = [];
    trace.drain((record) => traced.push((record[TraceField.LATENCY_MS] ?? -1) * 1000));
    return [counters.latencySumUs('read'), counters.latencyOf('read').indexOf(1), ...traced];
  };
  const last = LATENCY_BUCKETS - 1;
  for (const startedUs of [0, 5, 2 ** 31 - 2, -(2 ** 31), -1]) {
    t.strictSame(answer(startedUs, 0), [0, 0, 0]);
    t.strictSame(answer(startedUs, 3), [3, 3, 3], 'also across the end of the clock');
    t.strictSame(answer(startedUs, 2 ** 31 - 1), [2 ** 31 - 1, last, 2 ** 31 - 1]);
    // The clock cannot tell it any more; it is certain that it was long.
    for (const tookUs of [2 ** 31, 2 ** 31 + 1, 2 ** 32 - 1]) {
      t.strictSame(answer(startedUs, tookUs), [2 ** 31 - 1, last, 2 ** 31 - 1], `${tookUs} us`);
    }
  }
});
