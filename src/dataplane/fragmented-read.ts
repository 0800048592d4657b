/**
 * Large reads that are answered piece by piece ("NBD_REPLY_TYPE_OFFSET_DATA" without
 * NBD_REPLY_FLAG_DONE, doc/proto.md), for clients that have agreed on chunks and did not forbid it.
 * Pieces are read while those of other requests are sent, and a disk's bytes are still in the cache
 * of the processor when they leave.
 */

import { PAGE_SIZE } from '../sys/index.ts';
import type { Operation } from './operation.ts';
import { NO_PAGE, type PagePool } from './page-pool.ts';

/** A piece at most. Larger ones leave the cache before they are sent. */
const FRAGMENT_PAGES = 64;

export class FragmentedReads {
  readonly #pool: PagePool;
  readonly #fragmentPages: number;
  readonly #wholePagesMax: number;

  constructor(pool: PagePool) {
    const quarter = Math.max(1, pool.pageCount >>> 2);
    this.#pool = pool;
    this.#fragmentPages = Math.min(quarter, FRAGMENT_PAGES);
    this.#wholePagesMax = quarter * 3;
  }

  /**
   * Whether pieces suit a read better. A client that asks one thing at a time would wait for each
   * of them: it is given all at once where there are pages that nobody else wants.
   */
  suit(operation: Operation, isStarved: boolean): boolean {
    if (!operation.mayFragment) return false;
    const pages = Math.ceil(operation.gridBytes / PAGE_SIZE);
    if (pages <= this.#fragmentPages) return false;
    if (!operation.isAlone || pages > this.#wholePagesMax) return true;
    return isStarved || this.#pool.freeCount < pages;
  }

  /** How many of the `pages` that a read needs it is given now. */
  pagesNow(operation: Operation, pages: number): number {
    return operation.isFragmented ? Math.min(pages, this.#fragmentPages) : pages;
  }

  /**
   * The piece that was asked for has left: from now on the operation is about what comes after it,
   * as if the client had asked for that alone. Its pages must have been given back.
   */
  moveOn(operation: Operation): void {
    const { issuedBytes, skewBytes } = operation;
    operation.offset += issuedBytes - skewBytes;
    operation.lengthBytes -= issuedBytes - skewBytes;
    operation.firstByte += issuedBytes;
    operation.gridBytes -= issuedBytes;
    operation.skewBytes = 0;
    operation.allocatedBytes = 0;
    operation.issuedBytes = 0;
    operation.issuePage = NO_PAGE;
    operation.isMore = false;
  }
}
