/**
 * Reads that are gathered in memory of their own, and the line of those that wait for it. The line
 * is apart from that for pages, so that a read which lacks memory holds up nobody who only needs
 * pages.
 */

import { type Operation, OperationQueue, Queue } from './operation.ts';
import { SpillMemory } from './spill-memory.ts';

export class SpilledReads {
  readonly #memory: SpillMemory;
  /** The operation has its memory, and needs pages next. */
  readonly #begin: (operation: Operation) => void;
  readonly #queue = new OperationQueue(Queue.SPILL);
  #isFreed = false;

  constructor(limitBytes: number, begin: (operation: Operation) => void) {
    this.#memory = new SpillMemory(limitBytes);
    this.#begin = begin;
  }

  /** Whether one waits for memory that others hold. */
  get isShort(): boolean {
    return !this.#queue.isEmpty;
  }

  want(operation: Operation): void {
    if (this.#queue.isEmpty && this.#take(operation)) this.#begin(operation);
    else this.#queue.push(operation);
  }

  remove(operation: Operation): void {
    this.#queue.remove(operation);
  }

  /** Takes the memory of an operation whose reply has left, if it has any. */
  giveBack(operation: Operation): void {
    const { spillAddress, spillBytes } = operation;
    if (spillAddress !== 0) this.freeBlock(spillAddress, spillBytes);
  }

  /** Begins those for whom there is memory now. */
  pump(): void {
    if (!this.#isFreed) return;
    this.#isFreed = false;
    while (this.#queue.head !== undefined && this.#take(this.#queue.head)) {
      this.#begin(this.#queue.shift() as Operation);
    }
  }

  /** A block of the same memory for something else; 0 when there is too little of it now. */
  allocateBlock(lengthBytes: number): number {
    return this.#memory.allocate(lengthBytes);
  }

  /** Gives back what {@link allocateBlock} gave for the same length. */
  freeBlock(address: number, lengthBytes: number): void {
    this.#memory.free(address, lengthBytes);
    this.#isFreed = true;
  }

  #take(operation: Operation): boolean {
    operation.spillAddress = this.#memory.allocate(operation.gridBytes);
    if (operation.spillAddress === 0) return false;
    operation.spillBytes = operation.gridBytes;
    return true;
  }
}
