/**
 * How many pages an operation is given, when it is its turn, and when it has to wait for more.
 * Whoever holds pages while waiting for more holds so few that the others can finish (engine.ts).
 */

import { PAGE_SIZE } from '../sys/index.ts';
import type { FragmentedReads } from './fragmented-read.ts';
import { type Operation, Stage } from './operation.ts';
import { appendPages } from './operation-pages.ts';
import type { PagePool } from './page-pool.ts';
import { allocateEdges } from './ragged-ends.ts';
import type { RingRequests } from './ring-requests.ts';

/** A window of payload starts with this many pages or not at all, while others hold pages. */
const WINDOW_PAGES_MIN = 8;
/** What a window of payload holds at most, unless one ring request takes more. */
const WINDOW_PAGES = 64;

export class PageAllocation {
  readonly #pool: PagePool;
  readonly #ring: RingRequests;
  readonly #fragments: FragmentedReads;
  readonly #readPagesMax: number;
  readonly #windowPages: number;

  constructor(pool: PagePool, ring: RingRequests, fragments: FragmentedReads) {
    this.#pool = pool;
    this.#ring = ring;
    this.#fragments = fragments;
    const quarter = Math.max(1, pool.pageCount >>> 2);
    this.#readPagesMax = quarter * 2;
    this.#windowPages = Math.min(quarter, Math.max(ring.maxSegments, WINDOW_PAGES));
  }

  /** Whether a read is larger than what the pool holds for it at once. */
  isLarge(operation: Operation): boolean {
    return operation.gridBytes > this.#readPagesMax * PAGE_SIZE;
  }

  /** Gives the operation the pages that it needs next; false when there are too few. */
  allocate(operation: Operation, sectorBytes: number): boolean {
    switch (operation.stage) {
      case Stage.READ:
        return operation.spillAddress === 0
          ? this.#allocateRead(operation)
          : this.#allocateSpilled(operation);
      case Stage.EDGES:
        return allocateEdges(this.#pool, operation, sectorBytes);
      default:
        return this.#allocateWindow(operation);
    }
  }

  /** All that the reply is sent from at once: the read, or a piece of it. */
  #allocateRead(operation: Operation): boolean {
    const count = this.#fragments.pagesNow(operation, pagesLeft(operation));
    return this.#append(operation, count);
  }

  /**
   * One piece at a time; its pages come back when it has been copied out. A request on the ring may
   * be larger than the pool.
   */
  #allocateSpilled(operation: Operation): boolean {
    const count = Math.min(pagesLeft(operation), this.#ring.maxSegments, this.#readPagesMax);
    return this.#append(operation, count);
  }

  /** Room for payload: what there is, if that is worth a request. */
  #allocateWindow(operation: Operation): boolean {
    const wanted = Math.min(pagesLeft(operation), this.#windowPages);
    const count = Math.min(wanted, this.#pool.freeCount);
    return count >= Math.min(wanted, WINDOW_PAGES_MIN) && this.#append(operation, count);
  }

  #append(operation: Operation, count: number): boolean {
    if (this.#pool.freeCount < count) return false;
    appendPages(this.#pool, operation, count);
    operation.allocatedBytes = Math.min(
      operation.gridBytes,
      operation.allocatedBytes + count * PAGE_SIZE,
    );
    return true;
  }
}

function pagesLeft(operation: Operation): number {
  return Math.ceil((operation.gridBytes - operation.allocatedBytes) / PAGE_SIZE);
}
