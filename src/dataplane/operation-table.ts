/**
 * All operations of a lane: made at the start, handed out, and taken back. So are the bytes that
 * may be in progress in all of them together.
 *
 * There are as many as connections and lanes may have together. A connection may always have one
 * of its own in progress, whatever the others do; those beyond that are shared.
 */

import { Operation } from './operation.ts';

export class OperationTable {
  readonly all: readonly Operation[];
  readonly #bytesMax: number;
  readonly #sharedMax: number;
  readonly #free: Operation[];
  #freeCount: number;
  #sharedCount = 0;
  #usedBytes = 0;

  constructor(
    operationCount: number,
    sharedMax: number = operationCount,
    bytesMax: number = Number.POSITIVE_INFINITY,
  ) {
    this.#sharedMax = sharedMax;
    this.all = Array.from({ length: operationCount }, (_, index) => new Operation(index));
    this.#bytesMax = bytesMax;
    this.#free = this.all.toReversed();
    this.#freeCount = operationCount;
  }

  /** Whether there is one for a request that counts as `lengthBytes`. */
  hasRoomFor(lengthBytes: number, isOwn: boolean): boolean {
    if (this.#freeCount === 0 || (!isOwn && this.#sharedCount >= this.#sharedMax)) return false;
    // One that is larger than the limit goes when nothing else does, or it would wait for ever.
    const isAlone = lengthBytes === 0 || this.#usedBytes === 0;
    return isAlone || this.#usedBytes + lengthBytes <= this.#bytesMax;
  }

  /** Whether none is in progress. */
  get isIdle(): boolean {
    return this.#freeCount === this.all.length;
  }

  /**
   * One to be filled in, which counts as `lengthBytes`; undefined when there is no room. `isOwn`:
   * its client has no other in progress.
   */
  take(lengthBytes: number, isOwn: boolean): Operation | undefined {
    if (!this.hasRoomFor(lengthBytes, isOwn)) return undefined;
    this.#freeCount -= 1;
    if (!isOwn) this.#sharedCount += 1;
    this.#usedBytes += lengthBytes;
    const operation = this.#free[this.#freeCount] as Operation;
    operation.laneBytes = lengthBytes;
    operation.isShared = !isOwn;
    return operation;
  }

  /** Takes one back, reset for its next use. */
  give(operation: Operation): void {
    this.#usedBytes -= operation.laneBytes;
    if (operation.isShared) this.#sharedCount -= 1;
    operation.reset();
    this.#free[this.#freeCount] = operation;
    this.#freeCount += 1;
  }
}
