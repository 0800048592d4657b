/** The list of pages that an operation holds: how it grows, and how pages leave it. */

import { libc, PAGE_SIZE } from '../sys/index.ts';
import type { Operation } from './operation.ts';
import { NO_PAGE, type PagePool } from './page-pool.ts';

/** Adds `count` free pages at the end of the list; the caller has looked whether there are any. */
export function appendPages(pool: PagePool, operation: Operation, count: number): void {
  const first = pool.takeList(count);
  if (operation.pageCount === 0) operation.firstPage = first;
  else pool.link(operation.lastPage, first);
  if (operation.issuePage === NO_PAGE) operation.issuePage = first;
  if (operation.fillPage === NO_PAGE) operation.fillPage = first;
  operation.lastPage = pool.lastTaken;
  operation.pageCount += count;
}

/** The first `count` pages, those before `issuePage`, belong to a ring request from now on. */
export function cutPages(operation: Operation, count: number): void {
  operation.pageCount -= count;
  operation.firstPage = operation.issuePage;
  if (operation.pageCount === 0) {
    operation.firstPage = NO_PAGE;
    operation.lastPage = NO_PAGE;
    operation.fillPage = NO_PAGE;
    operation.issuePage = NO_PAGE;
  }
}

/** Gives back the pages of the sectors at the ends of a ragged range. */
export function giveBackEdges(pool: PagePool, operation: Operation): void {
  if (operation.headPage !== NO_PAGE) pool.give(operation.headPage);
  if (operation.tailPage !== NO_PAGE) pool.give(operation.tailPage);
  operation.headPage = NO_PAGE;
  operation.tailPage = NO_PAGE;
}

/** Gives back everything that the operation still holds. */
export function giveBackPages(pool: PagePool, operation: Operation): void {
  giveBackEdges(pool, operation);
  if (operation.pageCount > 0) pool.giveList(operation.firstPage, operation.pageCount);
  forgetPages(operation);
}

/** Lets go of pages that must not be used again, because the backend may still write to them. */
export function forgetPages(operation: Operation): void {
  operation.firstPage = NO_PAGE;
  operation.pageCount = 0;
  operation.headPage = NO_PAGE;
  operation.tailPage = NO_PAGE;
}

/** Copies `lengthBytes` from a list of pages to memory. */
export function copyFromPages(
  pool: PagePool,
  firstPage: number,
  targetAddress: number,
  lengthBytes: number,
): void {
  let page = firstPage;
  for (let at = 0; at < lengthBytes; at += PAGE_SIZE) {
    libc.memcpy(targetAddress + at, pool.addressOf(page), Math.min(PAGE_SIZE, lengthBytes - at));
    page = pool.next(page);
  }
}
