/**
 * The replies of one connection that are ready and have not left: in order, each a header in the
 * lane's header area and perhaps data, which is sent from where the backend has put it.
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
  /** Bytes of the first reply that have left already. */
  #sentBytes = 0;

  get isEmpty(): boolean {
    return this.#queue.isEmpty;
  }

  get head(): Operation | undefined {
    return this.#queue.head;
  }

  /** What of all replies has not left yet. */
  get unsentBytes(): number {
    return this.backlogBytes - this.#sentBytes;
  }

  /** Adds a reply whose header is encoded. */
  push(operation: Operation): void {
    this.#queue.push(operation);
    this.backlogBytes += operation.headerBytes + operation.dataBytes;
  }

  /** Puts as much of the queue into the lane's iovec as it takes. */
  gather({ iovec, headers, pool }: LaneCore): void {
    iovec.clear();
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
    for (;;) {
      const operation = this.#queue.head;
      if (operation === undefined) break;
      const length = operation.headerBytes + operation.dataBytes;
      if (sentBytes < length) break;
      sentBytes -= length;
      this.backlogBytes -= length;
      this.completedCount += 1;
      this.completedBytes += operation.clientBytes;
      this.#queue.shift();
      core.release(operation);
    }
    this.#sentBytes = sentBytes;
  }

  /** Nobody will read them: ends all operations. */
  drop(core: LaneCore): void {
    for (;;) {
      const operation = this.#queue.shift();
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
