/**
 * What a lane counts. The numbers live in shared memory: the lane, their only writer, adds to them
 * in passing, and anyone may read them at any time without the lane noticing.
 */

import { NbdCmd } from 'nbd-server-ts/protocol';

/** Positions of the counters. A name ending in `_NOW` goes up and down; the others only grow. */
export const Counter = {
  READS: 0,
  WRITES: 1,
  FLUSHES: 2,
  TRIMS: 3,
  ZEROES: 4,
  OTHER_COMMANDS: 5,
  READ_BYTES: 6,
  WRITTEN_BYTES: 7,
  ERRORS: 8,
  RING_REQUESTS: 9,
  RING_NOTIFICATIONS: 10,
  RING_EVENTS: 11,
  PAGE_WAITS: 12,
  SLOT_WAITS: 13,
  CLIENTS_NOW: 14,
  TURNS: 15,
  RECOVERIES: 16,
} as const;
export type Counter = (typeof Counter)[keyof typeof Counter];

const COUNTER_COUNT = 32;

/** The counters of one lane, in shared memory. */
export class Counters {
  readonly shared: SharedArrayBuffer;
  /** For the lane's busiest places, which add in place: `values[Counter.READS] += 1`. */
  readonly values: Record<Counter, number> & Float64Array;

  constructor(shared?: SharedArrayBuffer) {
    this.shared = shared ?? new SharedArrayBuffer(COUNTER_COUNT * 8);
    this.values = new Float64Array(this.shared) as Record<Counter, number> & Float64Array;
  }

  add(counter: Counter, amount: number): void {
    this.values[counter] = (this.values[counter] as number) + amount;
  }

  get(counter: Counter): number {
    return this.values[counter] as number;
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
