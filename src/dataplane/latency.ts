/**
 * How long requests took, as counts in buckets: a lane adds one to a number in shared memory, and
 * whoever is curious does the arithmetic.
 *
 * Buckets are of microseconds. The first four are 0 to 3; from there on each doubling is divided
 * into four, so that a bucket is at most a quarter wider than its floor. The last takes what is
 * longer still, beyond two minutes.
 */

const BUCKETS_PER_OCTAVE = 4;
const OCTAVE_BITS = 2;
/** Octaves above the first four buckets: 4 us to 2^27 us, which is 134 s. */
const OCTAVES = 25;

const LONGEST_US = 2 ** (OCTAVES + OCTAVE_BITS);

/** Buckets of one histogram. */
export const LATENCY_BUCKETS: number = BUCKETS_PER_OCTAVE * (OCTAVES + 1);

const MAX_INT32 = 2 ** 31 - 1;

/**
 * The microseconds between two looks at a clock of 32 bits that wraps. After more than 35 minutes,
 * which a back end that is away can take, it says 35 minutes; only beyond 71 it cannot tell.
 */
export function elapsedUs(nowUs: number, startedUs: number): number {
  const elapsed = (nowUs - startedUs) | 0;
  return elapsed < 0 ? MAX_INT32 : elapsed;
}

/** The bucket of a latency in microseconds. */
export function latencyBucket(us: number): number {
  if (us >= LONGEST_US) return LATENCY_BUCKETS - 1;
  const value = us > 0 ? us | 0 : 0;
  if (value < BUCKETS_PER_OCTAVE) return value;
  const shift = 29 - Math.clz32(value);
  return (shift + 1) * BUCKETS_PER_OCTAVE + ((value >>> shift) & (BUCKETS_PER_OCTAVE - 1));
}

/** The shortest latency of a bucket in microseconds; that of the next one is where it ends. */
export function latencyFloorUs(bucket: number): number {
  if (bucket < BUCKETS_PER_OCTAVE) return bucket;
  const octave = (bucket >>> OCTAVE_BITS) - 1;
  return (BUCKETS_PER_OCTAVE + (bucket & (BUCKETS_PER_OCTAVE - 1))) * 2 ** octave;
}

/**
 * The latency in microseconds that `part` (0 to 1) of the requests in a histogram stay below: the
 * end of the bucket in which that one lies. 0 for an empty histogram.
 */
export function latencyPercentileUs(histogram: ArrayLike<number>, part: number): number {
  let total = 0;
  for (let bucket = 0; bucket < LATENCY_BUCKETS; bucket++) total += histogram[bucket] ?? 0;
  if (total === 0) return 0;
  const wanted = Math.max(1, Math.ceil(total * part));
  let seen = 0;
  for (let bucket = 0; bucket < LATENCY_BUCKETS; bucket++) {
    seen += histogram[bucket] ?? 0;
    if (seen >= wanted) return latencyFloorUs(bucket + 1);
  }
  return latencyFloorUs(LATENCY_BUCKETS);
}
