/** All operations of a lane: made at the start, handed out, and taken back. */

import { Operation } from './operation.ts';

export class OperationTable {
  readonly all: readonly Operation[];
  readonly #free: Operation[];
  #freeCount: number;

  constructor(operationCount: number) {
    this.all = Array.from({ length: operationCount }, (_, index) => new Operation(index));
    this.#free = this.all.toReversed();
    this.#freeCount = operationCount;
  }

  get hasFree(): boolean {
    return this.#freeCount > 0;
  }

  /** Whether none is in progress. */
  get isIdle(): boolean {
    return this.#freeCount === this.all.length;
  }

  /** One to be filled in; undefined when all are in progress. */
  take(): Operation | undefined {
    if (this.#freeCount === 0) return undefined;
    this.#freeCount -= 1;
    return this.#free[this.#freeCount];
  }

  /** Takes one back, reset for its next use. */
  give(operation: Operation): void {
    operation.reset();
    this.#free[this.#freeCount] = operation;
    this.#freeCount += 1;
  }
}
