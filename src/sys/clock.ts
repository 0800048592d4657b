/** The time since some moment in the past (clock_gettime(2), CLOCK_MONOTONIC). */

import { libc } from './libc.ts';
import { allocateMemory } from './memory.ts';

const CLOCK_MONOTONIC = 1;
// struct timespec of a 64-bit Linux: seconds, and nanoseconds below 10^9; both fit 32 bits for
// decades of uptime.
const TIMESPEC_BYTES = 16;
const NANOSECONDS_WORD = 2;

/** Reading it makes no objects, as `performance.now()` does with each call. */
export class MonotonicClock {
  readonly #address: number;
  readonly #words: Int32Array;
  /** From this clock to `performance.now()`. */
  readonly #offsetMs: number;

  constructor() {
    const { address, buffer } = allocateMemory(TIMESPEC_BYTES);
    this.#address = address;
    this.#words = new Int32Array(buffer, 0, TIMESPEC_BYTES / 4);
    this.read();
    const [seconds = 0] = this.#words;
    this.#offsetMs = performance.now() - seconds * 1000 - this.#nanoseconds / 1e6;
  }

  /** Looks at the clock; the other methods tell what it showed. */
  read(): void {
    libc.clockGettime(CLOCK_MONOTONIC, this.#address);
  }

  /**
   * Microseconds as a signed 32-bit number that wraps: differences, taken with `| 0`, are right up
   * to 35 minutes.
   */
  get us(): number {
    const seconds = this.#words[0] ?? 0;
    return (Math.imul(seconds, 1_000_000) + ((this.#nanoseconds / 1000) | 0)) | 0;
  }

  /** Puts milliseconds into `target`, on the scale of `performance.now()`. */
  storeMs(target: Float64Array, index: number): void {
    const seconds = this.#words[0] ?? 0;
    target[index] = seconds * 1000 + this.#nanoseconds / 1e6 + this.#offsetMs;
  }

  get #nanoseconds(): number {
    return this.#words[NANOSECONDS_WORD] ?? 0;
  }
}
