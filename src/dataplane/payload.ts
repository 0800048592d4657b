/**
 * The payload of a write on its way into granted pages, window by window.
 *
 * Lengths here are below 2^31, and `| 0` keeps them small integers, which V8 passes around without
 * making objects of them.
 */

import { libc, PAGE_SIZE } from '../sys/index.ts';
import type { Operation } from './operation.ts';
import { NO_PAGE, type PagePool } from './page-pool.ts';

/** Bytes of payload that have not arrived yet. */
export function missingBytes(operation: Operation): number {
  return (operation.skewBytes + operation.lengthBytes - operation.filledBytes) | 0;
}

/** Bytes of payload that the present window has room for. */
export function roomBytes(operation: Operation): number {
  const room = (operation.allocatedBytes - operation.filledBytes) | 0;
  return Math.max(0, Math.min(room, missingBytes(operation)));
}

/** How much of a write may go to the ring: whole pages, or all of it when it is complete. */
export function issuableBytes(operation: Operation, maxSegments: number): number {
  if (missingBytes(operation) <= 0) {
    return (operation.gridBytes - operation.issuedBytes) | 0;
  }
  const whole = Math.floor(operation.filledBytes / PAGE_SIZE) * PAGE_SIZE;
  const ready = (whole - operation.issuedBytes) | 0;
  // Small pieces wait for company, unless the window has no room left for any.
  const isWindowFull = operation.filledBytes >= operation.allocatedBytes;
  return isWindowFull || ready >= maxSegments * PAGE_SIZE ? ready : 0;
}

/** Copies payload from memory to where the next of it belongs: at most {@link roomBytes}. */
export function copyPayload(
  pool: PagePool,
  operation: Operation,
  sourceAddress: number,
  lengthBytes: number,
): void {
  let done = 0;
  let page = operation.fillPage;
  let at = (operation.filledBytes % PAGE_SIZE) | 0;
  while (done < lengthBytes) {
    const count = Math.min(lengthBytes - done, PAGE_SIZE - at);
    libc.memcpy(pool.addressOf(page) + at, sourceAddress + done, count);
    done += count;
    page = pool.next(page);
    at = 0;
  }
}

/** Notes that `lengthBytes` more are in place. */
export function notePayload(pool: PagePool, operation: Operation, lengthBytes: number): void {
  const pagesBefore = Math.floor(operation.filledBytes / PAGE_SIZE);
  operation.filledBytes += lengthBytes;
  const pagesNow = Math.floor(operation.filledBytes / PAGE_SIZE);
  for (let i = pagesBefore; i < pagesNow; i++) operation.fillPage = pool.next(operation.fillPage);
}

/**
 * Gives back what a window holds beyond its whole pages: free pages, and a page that is filled in
 * part, whose bytes are copied to `parkedAddress`. Returns how many bytes those are; they count as
 * missing again.
 */
export function parkPayload(pool: PagePool, operation: Operation, parkedAddress: number): number {
  const inPage = operation.filledBytes % PAGE_SIZE;
  const wholeEnd = Math.max(operation.issuedBytes, operation.filledBytes - inPage);
  // What lies before the client's first byte was never payload.
  const from = Math.max(wholeEnd, operation.skewBytes);
  const parkedBytes = operation.filledBytes - from;
  if (parkedBytes > 0) {
    const address = pool.addressOf(operation.fillPage) + (from % PAGE_SIZE);
    libc.memcpy(parkedAddress, address, parkedBytes);
  }
  const kept = (wholeEnd - operation.issuedBytes) / PAGE_SIZE;
  let last = NO_PAGE;
  let page = operation.firstPage;
  for (let i = 0; i < kept; i++) {
    last = page;
    page = pool.next(page);
  }
  pool.giveList(page, operation.pageCount - kept);
  operation.pageCount = kept;
  operation.lastPage = last;
  operation.filledBytes = from;
  operation.allocatedBytes = wholeEnd;
  operation.fillPage = NO_PAGE;
  if (kept > 0) {
    pool.link(last, NO_PAGE);
  } else {
    operation.firstPage = NO_PAGE;
    operation.issuePage = NO_PAGE;
  }
  return parkedBytes;
}
