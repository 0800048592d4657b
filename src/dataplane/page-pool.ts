/**
 * The pages that a lane has granted to its backend, and the lists they are kept in.
 *
 * A page is known by its index. Free pages form a stack, so that the page freed last, whose bytes
 * are still in the processor's cache, is used next. A page in use belongs to one list at a time,
 * linked by index; a list is a first page and a count. Nothing here allocates after construction.
 *
 * Every client of a lane may read the whole disk behind it, so a page that is used for one client
 * after another never carries anything that the second was not meant to read.
 */

import assert from 'node:assert/strict';
import { allocateMemory, libc, PAGE_SIZE, unmapMemory, viewMemory } from '../sys/index.ts';

/** No page: the end of a list. */
export const NO_PAGE = -1;

export interface PagePoolConfig {
  /** Address of the first page; the others follow. */
  readonly address: number;
  /** Grant reference of each page. */
  readonly grefs: Uint32Array;
}

export class PagePool {
  readonly pageCount: number;
  #address: number;
  #view: DataView;
  #grefs: Uint32Array;
  /** Of an evacuated pool. */
  #privateAddress = 0;
  readonly #next: Int32Array;
  readonly #freeStack: Int32Array;
  #freeCount: number;
  /** The last page of the list that {@link takeList} returned. */
  lastTaken: number = NO_PAGE;

  constructor(config: PagePoolConfig) {
    this.pageCount = config.grefs.length;
    this.#address = config.address;
    this.#view = new DataView(viewMemory(config.address, this.pageCount * PAGE_SIZE));
    this.#grefs = config.grefs;
    this.#next = new Int32Array(this.pageCount).fill(NO_PAGE);
    this.#freeStack = new Int32Array(this.pageCount);
    for (let i = 0; i < this.pageCount; i++) this.#freeStack[i] = i;
    this.#freeCount = this.pageCount;
  }

  /** All pages as one view, for what is encoded into them. */
  get view(): DataView {
    return this.#view;
  }

  /**
   * Moves to memory that is not granted, until {@link rebase}: the old grants are void. What the
   * pages hold moves along, since writes that were not answered will be sent again from there.
   */
  evacuate(): void {
    const { address } = allocateMemory(this.pageCount * PAGE_SIZE);
    this.rebase({ address, grefs: new Uint32Array(this.pageCount) });
    this.#privateAddress = address;
  }

  /** Moves to other pages, as many as before, with what the pages hold. */
  rebase(config: PagePoolConfig): void {
    assert(config.grefs.length === this.pageCount, 'a pool keeps its number of pages');
    libc.memcpy(config.address, this.#address, this.pageCount * PAGE_SIZE);
    this.#address = config.address;
    this.#view = new DataView(viewMemory(config.address, this.pageCount * PAGE_SIZE));
    this.#grefs = config.grefs;
    if (this.#privateAddress !== 0) {
      unmapMemory(this.#privateAddress, this.pageCount * PAGE_SIZE);
      this.#privateAddress = 0;
    }
  }

  get freeCount(): number {
    return this.#freeCount;
  }

  /** Takes a free page, not linked to any other; {@link NO_PAGE} when there is none. */
  take(): number {
    if (this.#freeCount === 0) return NO_PAGE;
    this.#freeCount -= 1;
    const page = this.#freeStack[this.#freeCount] as number;
    this.#next[page] = NO_PAGE;
    return page;
  }

  /**
   * Takes `count` pages, linked; returns the first, and {@link lastTaken} is the last. The caller
   * has looked at {@link freeCount}.
   *
   * They come in the order in which they lie on the stack, so that pages given back together are
   * taken again in the order they had. Neighbours stay neighbours, and a transfer stays a few long
   * runs of memory instead of many pages.
   */
  takeList(count: number): number {
    const base = this.#freeCount - count;
    this.#freeCount = base;
    const first = this.#freeStack[base] as number;
    let last = first;
    for (let i = 1; i < count; i++) {
      const page = this.#freeStack[base + i] as number;
      this.#next[last] = page;
      last = page;
    }
    this.#next[last] = NO_PAGE;
    this.lastTaken = last;
    return first;
  }

  give(page: number): void {
    this.#freeStack[this.#freeCount] = page;
    this.#freeCount += 1;
  }

  /** Gives back `count` pages of a list that starts at `firstPage`. */
  giveList(firstPage: number, count: number): void {
    let page = firstPage;
    for (let i = 0; i < count; i++) {
      const next = this.#next[page] as number;
      this.give(page);
      page = next;
    }
  }

  next(page: number): number {
    return this.#next[page] as number;
  }

  link(page: number, next: number): void {
    this.#next[page] = next;
  }

  gref(page: number): number {
    return this.#grefs[page] as number;
  }

  addressOf(page: number): number {
    return this.#address + page * PAGE_SIZE;
  }
}
