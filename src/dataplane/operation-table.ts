/**
 * All operations of a lane: made at the start, handed out, and taken back. So are the bytes that
 * may be in progress in all of them together.
 */

import { Operation } from './operation.ts';

export class OperationTable {
  readonly all: readonly Operation[];
  readonly #bytesMax: number;
  readonly #free: Operation[];
  #freeCount: number;
  #usedBytes = 0;

  constructor(operationCount: number, bytesMax: number = Number.POSITIVE_INFINITY) {
    this.all = Array.from({ length: operationCount }, (_, index) => new Operation(index));
    this.#bytesMax = bytesMax;
    this.#free = this.all.toReversed();
    this.#freeCount = operationCount;
  }

  /** Whether there is one for a request that counts as `lengthBytes`. */
  hasRoomFor(lengthBytes: number): boolean {
    if (this.#freeCount === 0) return false;
    // One that is larger than the limit goes when nothing else does, or it would wait for ever.
    const isAlone = lengthBytes === 0 || this.#usedBytes === 0;
    return isAlone || this.#usedBytes + lengthBytes <= this.#bytesMax;
  }

  /** Whether none is in progress. */
  get isIdle(): boolean {
    return this.#freeCount === this.all.length;
  }

  /** One to be filled in, which counts as `lengthBytes`; undefined when there is no room. */
  take(lengthBytes: number): Operation | undefined {
    if (!this.hasRoomFor(lengthBytes)) return undefined;
    this.#freeCount -= 1;
    this.#usedBytes += lengthBytes;
    const operation = this.#free[this.#freeCount] as Operation;
    operation.laneBytes = lengthBytes;
    return operation;
  }

  /** Takes one back, reset for its next use. */
  give(operation: Operation): void {
    this.#usedBytes -= operation.laneBytes;
    operation.reset();
    this.#free[this.#freeCount] = operation;
    this.#freeCount += 1;
  }
}
