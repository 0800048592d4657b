/**
 * What a lane counts. The numbers live in shared memory: the lane, their only writer, adds to them
 * in passing, and anyone may read them at any time without the lane noticing.
 */

import { NbdCmd, NbdErrno } from 'nbd-server-ts/protocol';
import { LATENCY_BUCKETS, latencyBucket } from './latency.ts';

/**
 * Positions of the counters. A name ending in `_NOW` goes up and down; the others only grow, but
 * for FAILED_BYTE, which is a place.
 */
export const Counter = {
  READS: 0,
  WRITES: 1,
  FLUSHES: 2,
  TRIMS: 3,
  ZEROES: 4,
  OTHER_COMMANDS: 5,
  READ_BYTES: 6,
  WRITTEN_BYTES: 7,
  /** Replies with an error number; below they are told apart. */
  ERRORS: 8,
  /** Requests on the ring, those that were asked again not counted twice. */
  RING_REQUESTS: 9,
  RING_NOTIFICATIONS: 10,
  RING_EVENTS: 11,
  PAGE_WAITS: 12,
  SLOT_WAITS: 13,
  CLIENTS_NOW: 14,
  TURNS: 15,
  RECOVERIES: 16,
  /** When the current turn began, in ms as of performance.now(): the clock of all latencies. */
  CLOCK_MS_NOW: 17,
  SLOTS_USED_NOW: 18,
  PAGES_USED_NOW: 19,
  /** Times that a client had to wait, because the requests in progress were too many. */
  OPERATION_WAITS: 20,
  ERRORS_EPERM: 21,
  ERRORS_EIO: 22,
  ERRORS_ENOMEM: 23,
  ERRORS_EINVAL: 24,
  ERRORS_ENOSPC: 25,
  ERRORS_EOVERFLOW: 26,
  ERRORS_ENOTSUP: 27,
  ERRORS_ESHUTDOWN: 28,
  /** Requests of lanes without a ring of their own that went through the ring of this one. */
  RELAYED_REQUESTS: 29,
  /** Reads and writes that went along in the request before theirs. */
  JOINED_REQUESTS: 30,
  /** 1 while trims are not asked for, since the backend has said that it takes none. */
  TRIMS_REFUSED_NOW: 31,
  /** What the backend has answered with an error, each asked alone; see backend-failures.ts. */
  FAILED_READS: 32,
  FAILED_WRITES: 33,
  FAILED_FLUSHES: 34,
  FAILED_TRIMS: 35,
  /** The place of the last of them on the disk; -1 for a flush, which has none. */
  FAILED_BYTE: 36,
  /** When that was, on the clock of CLOCK_MS_NOW. */
  FAILED_MS: 37,
} as const;
export type Counter = (typeof Counter)[keyof typeof Counter];

const COUNTER_COUNT = 64;

/** The commands whose latencies are told apart, in the order of their histograms. */
export const LATENCY_COMMANDS = ['read', 'write', 'flush', 'trim', 'zeroes', 'other'] as const;
/** One of {@link LATENCY_COMMANDS}. */
export type LatencyCommand = (typeof LATENCY_COMMANDS)[number];

const LATENCY_COUNT = LATENCY_COMMANDS.length * LATENCY_BUCKETS;
const LATENCIES_AT_BYTES = COUNTER_COUNT * 8;
const SUMS_AT_BYTES = LATENCIES_AT_BYTES + LATENCY_COUNT * 8;

/** The counters of one lane, in shared memory. */
export class Counters {
  readonly shared: SharedArrayBuffer;
  /** For the lane's busiest places, which add in place: `values[Counter.READS] += 1`. */
  readonly values: Record<Counter, number> & Float64Array;
  /** A histogram for each of {@link LATENCY_COMMANDS}, one behind the other. */
  readonly latencies: Float64Array;
  /** For each of them, the sum of its latencies in microseconds. */
  readonly latencySumsUs: Float64Array;

  constructor(shared?: SharedArrayBuffer) {
    this.shared = shared ?? new SharedArrayBuffer(SUMS_AT_BYTES + LATENCY_COMMANDS.length * 8);
    this.values = new Float64Array(this.shared, 0, COUNTER_COUNT) as Record<Counter, number> &
      Float64Array;
    this.latencies = new Float64Array(this.shared, LATENCIES_AT_BYTES, LATENCY_COUNT);
    this.latencySumsUs = new Float64Array(this.shared, SUMS_AT_BYTES, LATENCY_COMMANDS.length);
  }

  add(counter: Counter, amount: number): void {
    this.values[counter] = (this.values[counter] as number) + amount;
  }

  get(counter: Counter): number {
    return this.values[counter] as number;
  }

  /** The histogram of one command: {@link LATENCY_BUCKETS} counts. */
  latencyOf(command: LatencyCommand): Float64Array {
    const at = LATENCY_COMMANDS.indexOf(command) * LATENCY_BUCKETS;
    return this.latencies.subarray(at, at + LATENCY_BUCKETS);
  }

  /** The sum of all latencies of one command, in microseconds. */
  latencySumUs(command: LatencyCommand): number {
    return this.latencySumsUs[LATENCY_COMMANDS.indexOf(command)] as number;
  }
}

/** Counts one request of a client, refused or not. */
export function countRequest(counters: Counters, command: number, lengthBytes: number): void {
  const { values } = counters;
  switch (command) {
    case NbdCmd.READ:
      values[Counter.READS] += 1;
      values[Counter.READ_BYTES] += lengthBytes;
      return;
    case NbdCmd.WRITE:
      values[Counter.WRITES] += 1;
      values[Counter.WRITTEN_BYTES] += lengthBytes;
      return;
    case NbdCmd.FLUSH:
      values[Counter.FLUSHES] += 1;
      return;
    case NbdCmd.TRIM:
      values[Counter.TRIMS] += 1;
      return;
    case NbdCmd.WRITE_ZEROES:
      values[Counter.ZEROES] += 1;
      return;
    default:
      values[Counter.OTHER_COMMANDS] += 1;
  }
}

/** Counts the reply to a request that took `latencyUs`, a whole number. */
export function countReply(
  counters: Counters,
  command: number,
  errno: number,
  latencyUs: number,
): void {
  const row = latencyRow(command);
  const at = row * LATENCY_BUCKETS + latencyBucket(latencyUs);
  counters.latencies[at] = (counters.latencies[at] as number) + 1;
  counters.latencySumsUs[row] = (counters.latencySumsUs[row] as number) + latencyUs;
  if (errno !== 0) countError(counters, errno);
}

function latencyRow(command: number): number {
  switch (command) {
    case NbdCmd.READ:
      return 0;
    case NbdCmd.WRITE:
      return 1;
    case NbdCmd.FLUSH:
      return 2;
    case NbdCmd.TRIM:
      return 3;
    case NbdCmd.WRITE_ZEROES:
      return 4;
    default:
      return 5;
  }
}

/** The counter of each error number that a reply can have. */
const ERROR_COUNTERS: ReadonlyMap<number, Counter> = new Map<number, Counter>([
  [NbdErrno.EPERM, Counter.ERRORS_EPERM],
  [NbdErrno.EIO, Counter.ERRORS_EIO],
  [NbdErrno.ENOMEM, Counter.ERRORS_ENOMEM],
  [NbdErrno.EINVAL, Counter.ERRORS_EINVAL],
  [NbdErrno.ENOSPC, Counter.ERRORS_ENOSPC],
  [NbdErrno.EOVERFLOW, Counter.ERRORS_EOVERFLOW],
  [NbdErrno.ENOTSUP, Counter.ERRORS_ENOTSUP],
  [NbdErrno.ESHUTDOWN, Counter.ERRORS_ESHUTDOWN],
]);

function countError(counters: Counters, errno: number): void {
  counters.add(Counter.ERRORS, 1);
  const counter = ERROR_COUNTERS.get(errno);
  if (counter !== undefined) counters.add(counter, 1);
}
