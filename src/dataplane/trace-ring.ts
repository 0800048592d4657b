/**
 * What a lane tells of each request that it answers, for `--trace`: records in shared memory, which
 * the lane fills and the main thread empties. A lane never waits: what does not fit is counted.
 *
 * Indices run freely and are turned into places by a remainder; the lane alone writes `head`, the
 * main thread alone `tail`. A record is seven numbers, in the order of {@link TraceField}.
 */

import type { Operation } from './operation.ts';

/** Positions within a record. */
export const TraceField = {
  /** When the reply was ready, as Unix time in ms. */
  AT_MS: 0,
  CLIENT: 1,
  COMMAND: 2,
  ERRNO: 3,
  OFFSET: 4,
  LENGTH_BYTES: 5,
  LATENCY_MS: 6,
} as const;

/** Numbers of a record. */
export const TRACE_FIELDS = 7;

/** A second of records at the highest rate; the main thread comes by more often. */
const RECORDS = 65_536;
const HEAD = 0;
const TAIL = 1;
const DROPPED = 2;
const INDEX_BYTES = 16;

/** The records of one lane, in memory that both threads have. */
export class TraceRing {
  readonly shared: SharedArrayBuffer;
  readonly #indices: Int32Array;
  readonly #numbers: Float64Array;

  constructor(shared?: SharedArrayBuffer) {
    this.shared = shared ?? new SharedArrayBuffer(INDEX_BYTES + RECORDS * TRACE_FIELDS * 8);
    this.#indices = new Int32Array(this.shared, 0, INDEX_BYTES / 4);
    this.#numbers = new Float64Array(this.shared, INDEX_BYTES);
  }

  /** The lane's: `operation` of `client` was answered when its clock showed `clockMs`. */
  record(operation: Operation, client: number, clockMs: number, latencyUs: number): void {
    const head = Atomics.load(this.#indices, HEAD);
    if (((head - Atomics.load(this.#indices, TAIL)) | 0) >= RECORDS) {
      Atomics.add(this.#indices, DROPPED, 1);
      return;
    }
    const at = ((head >>> 0) % RECORDS) * TRACE_FIELDS;
    const numbers = this.#numbers;
    numbers[at + TraceField.AT_MS] = performance.timeOrigin + clockMs;
    numbers[at + TraceField.CLIENT] = client;
    numbers[at + TraceField.COMMAND] = operation.command;
    numbers[at + TraceField.ERRNO] = operation.errno;
    // A read that was answered in pieces has moved on to its last.
    const { isFragmented } = operation;
    numbers[at + TraceField.OFFSET] = isFragmented ? offsetAsked(operation) : operation.offset;
    numbers[at + TraceField.LENGTH_BYTES] = isFragmented
      ? operation.clientBytes
      : operation.lengthBytes;
    numbers[at + TraceField.LATENCY_MS] = latencyUs / 1000;
    // The store is a release of the record.
    Atomics.store(this.#indices, HEAD, (head + 1) | 0);
  }

  /** The main thread's: hands each new record to `take`, which must not keep it. */
  drain(take: (record: Float64Array) => void): void {
    const head = Atomics.load(this.#indices, HEAD);
    let tail = Atomics.load(this.#indices, TAIL);
    while (tail !== head) {
      const at = ((tail >>> 0) % RECORDS) * TRACE_FIELDS;
      take(this.#numbers.subarray(at, at + TRACE_FIELDS));
      tail = (tail + 1) | 0;
    }
    Atomics.store(this.#indices, TAIL, tail);
  }

  /** Records that did not fit since the last call. */
  takeDropped(): number {
    return Atomics.exchange(this.#indices, DROPPED, 0);
  }
}

function offsetAsked({ offsetHigh, offsetLow }: Operation): number {
  return (offsetHigh >>> 0) * 2 ** 32 + (offsetLow >>> 0);
}
