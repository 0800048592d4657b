/**
 * The replies of one connection that are ready and have not left: in order, each a header in the
 * lane's header area and perhaps data, which is sent from where the backend has put it.
 *
 * Replies that a client does not take can be parked: their bytes are copied to memory of their own,
 * and the operations and pages are free for others.
 */

import { PAGE_SIZE } from '../sys/index.ts';
import type { Iovec } from './iovec.ts';
import type { LaneCore } from './lane-core.ts';
import { type Operation, OperationQueue, Queue } from './operation.ts';
import type { PagePool } from './page-pool.ts';
import { HEADER_SLOT_BYTES } from './reply-header.ts';

export class ReplyQueue {
  /** What {@link sent} has completed last. */
  completedCount = 0;
  completedBytes = 0;
  /** Of all replies in the queue. */
  backlogBytes = 0;
  readonly #queue = new OperationQueue(Queue.SEND);
  /** Reads of which a piece is parked. They hold no pages, and go on when that has left. */
  readonly #paused = new OperationQueue(Queue.SEND);
  /** Bytes of the first reply that have left already. */
  #sentBytes = 0;
  /** Parked bytes come before the queue; 0 when there are none. */
  #isParking = false;
  #parkingAddress = 0;
  #parkingBytes = 0;
  #parkedStart = 0;
  #parkedEnd = 0;

  get isEmpty(): boolean {
    return this.#queue.isEmpty && !this.isParked;
  }

  /** Whether parked bytes have yet to leave. */
  get isParked(): boolean {
    return this.#parkedStart < this.#parkedEnd;
  }

  /** What of all replies has not left yet. */
  get unsentBytes(): number {
    return this.backlogBytes - this.#sentBytes + this.#parkedEnd - this.#parkedStart;
  }

  /** Adds a reply whose header is encoded. */
  push(operation: Operation): void {
    this.#queue.push(operation);
    this.backlogBytes += operation.headerBytes + operation.dataBytes;
  }

  /** Puts as much of the queue into the lane's iovec as it takes. */
  gather({ iovec, headers, pool }: LaneCore): void {
    iovec.clear();
    if (this.isParked) {
      iovec.add(this.#parkingAddress + this.#parkedStart, this.#parkedEnd - this.#parkedStart);
    }
    this.#gatherQueue(iovec, headers, pool);
  }

  #gatherQueue(iovec: Iovec, headers: LaneCore['headers'], pool: PagePool): void {
    let skip = this.#sentBytes;
    for (let at = this.#queue.head; at !== undefined && !iovec.isFull; at = at.next) {
      const headerAddress = headers.address + at.index * HEADER_SLOT_BYTES;
      if (skip < at.headerBytes) {
        iovec.add(headerAddress + skip, at.headerBytes - skip);
        skip = 0;
      } else {
        skip -= at.headerBytes;
      }
      if (at.dataBytes > 0) gatherData(iovec, pool, at, skip);
      skip = 0;
    }
  }

  /**
   * `count` more bytes have left: ends the operations whose replies are complete. How many those
   * were, and what they counted for, is in `completedCount` and `completedBytes`.
   */
  sent(count: number, core: LaneCore): void {
    this.completedCount = 0;
    this.completedBytes = 0;
    let sentBytes = this.#sentBytes + count;
    if (this.isParked) {
      const parked = Math.min(count, this.#parkedEnd - this.#parkedStart);
      this.#parkedStart += parked;
      sentBytes -= parked;
      if (!this.isParked) {
        this.#freeParking(core);
        if (!this.#isParking) this.#goOn(core);
      }
    }
    for (;;) {
      const operation = this.#queue.head;
      if (operation === undefined) break;
      const length = operation.headerBytes + operation.dataBytes;
      if (sentBytes < length) break;
      sentBytes -= length;
      this.backlogBytes -= length;
      this.#queue.shift();
      if (operation.isMore) {
        this.#pieceLeft(operation, core);
        continue;
      }
      this.completedCount += 1;
      this.completedBytes += operation.clientBytes;
      core.release(operation);
    }
    this.#sentBytes = sentBytes;
  }

  /**
   * Copies what is left of all replies to memory of their own, and ends their operations, as
   * {@link sent} does. Returns false when there is no memory for it.
   */
  park(core: LaneCore): boolean {
    const lengthBytes = this.unsentBytes;
    this.completedCount = 0;
    this.completedBytes = 0;
    if (this.#queue.isEmpty) return true;
    const address = core.engine.allocateParking(lengthBytes);
    if (address === 0) return false;
    let completedCount = 0;
    let completedBytes = 0;
    let parkedBytes = 0;
    this.#isParking = true;
    while (!this.isEmpty) {
      this.gather(core);
      core.iovec.copyTo(address + parkedBytes);
      parkedBytes += core.iovec.lengthBytes;
      this.sent(core.iovec.lengthBytes, core);
      completedCount += this.completedCount;
      completedBytes += this.completedBytes;
    }
    this.#isParking = false;
    this.completedCount = completedCount;
    this.completedBytes = completedBytes;
    this.#parkingAddress = address;
    this.#parkingBytes = lengthBytes;
    this.#parkedStart = 0;
    this.#parkedEnd = lengthBytes;
    return true;
  }

  /** A piece that went to the parked bytes is not taken: nothing more is read until it is. */
  #pieceLeft(operation: Operation, core: LaneCore): void {
    if (this.#isParking) {
      core.engine.giveBack(operation);
      this.#paused.push(operation);
    } else {
      core.engine.readOn(operation);
    }
  }

  #freeParking(core: LaneCore): void {
    if (this.#parkingBytes > 0) core.engine.freeParking(this.#parkingAddress, this.#parkingBytes);
    this.#parkingBytes = 0;
    this.#parkedStart = 0;
    this.#parkedEnd = 0;
  }

  #goOn(core: LaneCore): void {
    for (;;) {
      const operation = this.#paused.shift();
      if (operation === undefined) return;
      core.engine.readOn(operation);
    }
  }

  /** Nobody will read them: ends all operations. */
  drop(core: LaneCore): void {
    this.#freeParking(core);
    for (;;) {
      const operation = this.#queue.shift() ?? this.#paused.shift();
      if (operation === undefined) break;
      core.release(operation);
    }
    this.backlogBytes = 0;
  }
}

/** Adds the data of a read, without its first `skipBytes`. */
function gatherData(iovec: Iovec, pool: PagePool, operation: Operation, skipBytes: number): void {
  let left = operation.dataBytes - skipBytes;
  let at = operation.skewBytes + skipBytes;
  if (operation.spillAddress !== 0) {
    if (!iovec.isFull) iovec.add(operation.spillAddress + at, left);
    return;
  }
  let page = operation.firstPage;
  for (; at >= PAGE_SIZE; at -= PAGE_SIZE) page = pool.next(page);
  while (left > 0 && !iovec.isFull) {
    const count = Math.min(left, PAGE_SIZE - at);
    iovec.add(pool.addressOf(page) + at, count);
    left -= count;
    at = 0;
    page = pool.next(page);
  }
}
