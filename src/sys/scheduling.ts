/** How the kernel shares the processors out among threads: sched(7). */

import { libc } from './libc.ts';
import { allocateMemory, type Memory, unmapMemory } from './memory.ts';

const SCHED_BATCH = 3;
const THIS_THREAD = 0;
/** A cpu_set_t of the C library: 1024 processors. */
const MASK_BYTES = 128;

/**
 * Puts the calling thread under SCHED_BATCH, which any user may: woken on a busy processor, it
 * waits for its turn instead of interrupting whoever runs there. On an idle one it starts as soon
 * as ever. For a thread that deals with everything that has come in whenever it runs, this makes
 * batches larger where processors are scarce, and costs nothing where they are not.
 *
 * Returns false when it is not allowed, as under some seccomp filters; then nothing has changed.
 */
export function scheduleInBatches(): boolean {
  // struct sched_param {int sched_priority}, which is 0 for all policies but the real-time ones.
  const parameter = allocateMemory(4);
  const isDone = libc.schedSetscheduler(THIS_THREAD, SCHED_BATCH, parameter.address) === 0;
  unmapMemory(parameter.address, parameter.lengthBytes);
  return isDone;
}

/** The processor that the calling thread runs on; -1 when the kernel does not tell. */
export function currentProcessor(): number {
  return libc.schedGetcpu();
}

/** Lets others run that wait for the processor of the calling thread; without any it goes on. */
export function yieldProcessor(): void {
  libc.schedYield();
}

/** Where the thread that makes one may run: wherever it was allowed to then, or one processor. */
export class ProcessorBinding {
  readonly #allowed: Memory = allocateMemory(MASK_BYTES);
  readonly #wanted: Memory = allocateMemory(MASK_BYTES);
  readonly #allowedBytes = new Uint8Array(this.#allowed.buffer);
  readonly #wantedBytes = new Uint8Array(this.#wanted.buffer);
  readonly #isKnown: boolean;

  constructor() {
    const { address } = this.#allowed;
    this.#isKnown = libc.schedGetaffinity(THIS_THREAD, MASK_BYTES, address) >= 0;
  }

  /** Runs on `processor` alone from now on. False when that is not allowed: nothing changes. */
  bind(processor: number): boolean {
    const byte = processor >>> 3;
    const bit = 1 << (processor & 7);
    if (!this.#isKnown || ((this.#allowedBytes[byte] ?? 0) & bit) === 0) return false;
    this.#wantedBytes.fill(0);
    this.#wantedBytes[byte] = bit;
    return libc.schedSetaffinity(THIS_THREAD, MASK_BYTES, this.#wanted.address) === 0;
  }

  /** Runs wherever it was allowed to run at first. */
  release(): void {
    if (this.#isKnown) libc.schedSetaffinity(THIS_THREAD, MASK_BYTES, this.#allowed.address);
  }
}
