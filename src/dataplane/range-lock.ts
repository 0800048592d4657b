/**
 * Who may write where. Writes that cover whole sectors need no order among themselves: a client
 * that cares waits for replies, as NBD asks. A *ragged* write reads a sector, patches it and writes
 * it back, and whatever another write put there in between would be lost. So a ragged write waits
 * for every earlier write that overlaps it, and later writes that overlap it wait for it.
 *
 * An operation only ever waits for earlier ones, so no circle can form. While no ragged write is
 * about, taking and leaving the lock is two comparisons.
 */

import { type Operation, OperationQueue, Queue } from './operation.ts';

export class RangeLock {
  readonly #operations: readonly Operation[];
  /** Ragged writes at work at once: each may hold two pages while it waits for others. */
  readonly #raggedMax: number;
  readonly #waiting = new OperationQueue(Queue.RANGE);
  #raggedHolders = 0;
  #raggedWaiting = 0;

  constructor(operations: readonly Operation[], raggedMax: number) {
    this.#operations = operations;
    this.#raggedMax = raggedMax;
  }

  /** Whether `operation` may go on now. Otherwise it waits here until {@link next} returns it. */
  acquire(operation: Operation): boolean {
    const isUncontended =
      this.#raggedHolders === 0 && this.#raggedWaiting === 0 && !operation.isRagged;
    if (isUncontended || this.#mayHold(operation)) {
      this.#hold(operation);
      return true;
    }
    if (operation.isRagged) this.#raggedWaiting += 1;
    this.#waiting.push(operation);
    return false;
  }

  /** Ends the hold of a finished operation. */
  release(operation: Operation): void {
    if (!operation.holdsRange) return;
    operation.holdsRange = false;
    if (operation.isRagged) this.#raggedHolders -= 1;
  }

  /** Takes out an operation that waits and will never write. */
  forget(operation: Operation): void {
    this.#waiting.remove(operation);
    if (operation.isRagged) this.#raggedWaiting -= 1;
  }

  /** The next waiting operation that may go on, now holding its range. */
  next(): Operation | undefined {
    for (let at = this.#waiting.head; at !== undefined; at = at.next) {
      if (!this.#mayHold(at)) continue;
      this.forget(at);
      this.#hold(at);
      return at;
    }
    return undefined;
  }

  get hasWaiting(): boolean {
    return !this.#waiting.isEmpty;
  }

  #hold(operation: Operation): void {
    operation.holdsRange = true;
    if (operation.isRagged) this.#raggedHolders += 1;
  }

  #mayHold(operation: Operation): boolean {
    if (operation.isRagged && this.#raggedHolders >= this.#raggedMax) return false;
    const first = operation.firstByte;
    const end = first + operation.gridBytes;
    for (const other of this.#operations) {
      const isEarlierWrite =
        other.isActive &&
        other.sequence < operation.sequence &&
        (other.holdsRange || other.queue === Queue.RANGE);
      if (!isEarlierWrite || !(other.isRagged || operation.isRagged)) continue;
      if (other.firstByte < end && first < other.firstByte + other.gridBytes) return false;
    }
    return true;
  }
}
