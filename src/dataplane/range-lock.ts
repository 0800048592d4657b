/**
 * Who may write where. Writes that cover whole sectors need no order among themselves: a client
 * that cares waits for replies, as NBD asks. A *ragged* write reads a sector, patches it and writes
 * it back, and whatever another write put there in between would be lost. So a ragged write waits
 * for every earlier write that overlaps it, and later writes that overlap it wait for it.
 *
 * The lanes of a disk share the table of writes in progress; each lane writes only its own part.
 * While no ragged write is about, taking the lock is one entry in that table and one look at a
 * counter. Whoever has to wait takes a ticket, and waits only for those that hold already or have
 * an earlier ticket: so no circle can form.
 */

import { type Operation, OperationQueue, Queue } from './operation.ts';

/** Words of the shared header. */
const RAGGED_COUNT = 0;
const NEXT_TICKET = 1;
const HEADER_BYTES = 64;

/** What an entry says of its write. */
const FREE = 0;
const HOLDS = 1;
const WAITS = 2;
/** A ragged write, waiting or holding: either way others go by its ticket. */
const RAGGED = 3;

/** The table that the lanes of one disk share. */
export interface SharedRanges {
  readonly buffer: SharedArrayBuffer;
  readonly laneCount: number;
  /** Operations of each lane. */
  readonly operationCount: number;
}

/** A new table, for the lanes of one disk. */
export function createSharedRanges(laneCount: number, operationCount: number): SharedRanges {
  const entries = laneCount * operationCount;
  // Per entry: two words for state and ticket, two doubles for the range.
  return {
    buffer: new SharedArrayBuffer(HEADER_BYTES + entries * 24),
    laneCount,
    operationCount,
  };
}

export class RangeLock {
  readonly #header: Int32Array;
  readonly #states: Int32Array;
  readonly #tickets: Int32Array;
  readonly #firstBytes: Float64Array;
  readonly #endBytes: Float64Array;
  /** Where the entries of this lane begin. */
  readonly #base: number;
  readonly #isShared: boolean;
  /** Ragged writes of this lane at work at once: each may hold two pages while it waits. */
  readonly #raggedMax: number;
  readonly #waiting = new OperationQueue(Queue.RANGE);
  #raggedHolders = 0;

  constructor(shared: SharedRanges, laneIndex: number, raggedMax: number) {
    const { buffer, laneCount, operationCount } = shared;
    const entries = laneCount * operationCount;
    this.#header = new Int32Array(buffer, 0, HEADER_BYTES / 4);
    this.#firstBytes = new Float64Array(buffer, HEADER_BYTES, entries);
    this.#endBytes = new Float64Array(buffer, HEADER_BYTES + entries * 8, entries);
    this.#states = new Int32Array(buffer, HEADER_BYTES + entries * 16, entries);
    this.#tickets = new Int32Array(buffer, HEADER_BYTES + entries * 20, entries);
    this.#base = laneIndex * operationCount;
    this.#isShared = laneCount > 1;
    this.#raggedMax = raggedMax;
  }

  /** Whether `operation` may go on now. Otherwise it waits here until {@link next} returns it. */
  acquire(operation: Operation): boolean {
    const entry = this.#base + operation.index;
    this.#firstBytes[entry] = operation.firstByte;
    this.#endBytes[entry] = operation.firstByte + operation.gridBytes;
    operation.rangeEntered = true;
    if (!operation.isRagged) {
      // Entered before the counter is read, while a ragged write counts itself before it reads the
      // entries: whatever the order, one of the two sees the other.
      Atomics.store(this.#states, entry, HOLDS);
      if (Atomics.load(this.#header, RAGGED_COUNT) === 0 || this.#mayHold(operation)) {
        operation.holdsRange = true;
        return true;
      }
      this.#takeTicket(entry);
      Atomics.store(this.#states, entry, WAITS);
    } else {
      Atomics.add(this.#header, RAGGED_COUNT, 1);
      this.#takeTicket(entry);
      Atomics.store(this.#states, entry, RAGGED);
    }
    // Looked at again as a waiting entry: one that saw us hold, and waits for us, may go on now.
    if (this.#waiting.isEmpty && this.#mayHold(operation)) {
      this.#hold(operation);
      return true;
    }
    this.#waiting.push(operation);
    return false;
  }

  /** Ends the hold, or the wait, of an operation that will write no more. */
  release(operation: Operation): void {
    if (!operation.rangeEntered) return;
    operation.rangeEntered = false;
    if (operation.queue === Queue.RANGE) this.#waiting.remove(operation);
    if (operation.isRagged) {
      if (operation.holdsRange) this.#raggedHolders -= 1;
      Atomics.sub(this.#header, RAGGED_COUNT, 1);
    }
    operation.holdsRange = false;
    Atomics.store(this.#states, this.#base + operation.index, FREE);
  }

  /** The next waiting operation that may go on, now holding its range. */
  next(): Operation | undefined {
    for (let at = this.#waiting.head; at !== undefined; at = at.next) {
      if (!this.#mayHold(at)) continue;
      this.#waiting.remove(at);
      this.#hold(at);
      return at;
    }
    return undefined;
  }

  get hasWaiting(): boolean {
    return !this.#waiting.isEmpty;
  }

  /** Whether one of ours may be waiting for another lane, which does not tell when it is done. */
  get waitsForOtherLanes(): boolean {
    return this.#isShared && !this.#waiting.isEmpty;
  }

  #takeTicket(entry: number): void {
    this.#tickets[entry] = Atomics.add(this.#header, NEXT_TICKET, 1);
  }

  #hold(operation: Operation): void {
    operation.holdsRange = true;
    if (operation.isRagged) this.#raggedHolders += 1;
    else Atomics.store(this.#states, this.#base + operation.index, HOLDS);
  }

  #mayHold(operation: Operation): boolean {
    if (operation.isRagged && this.#raggedHolders >= this.#raggedMax) return false;
    const own = this.#base + operation.index;
    const first = operation.firstByte;
    const end = first + operation.gridBytes;
    const isWaiting = Atomics.load(this.#states, own) !== HOLDS;
    const ticket = this.#tickets[own] as number;
    for (let entry = 0; entry < this.#states.length; entry++) {
      const state = Atomics.load(this.#states, entry);
      if (state === FREE || entry === own) continue;
      if (!operation.isRagged && state !== RAGGED) continue;
      const isLater = isWaiting && (((this.#tickets[entry] as number) - ticket) | 0) > 0;
      if (state !== HOLDS && isLater) continue;
      const overlaps =
        (this.#firstBytes[entry] as number) < end && first < (this.#endBytes[entry] as number);
      if (overlaps) return false;
    }
    return true;
  }
}
